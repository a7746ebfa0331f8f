/* Codes of 8 bits and fewer side by side in bytes, for one backend. Plain C: the compiler vectorises it for NDQ_TARGET.
 * Parameters as in elementwise.inc.h. */

/* The whole bytes of codes whose width divides 8; the number of these codes. */
static inline __attribute__((always_inline)) NDQ_TARGET size_t
NDQ_FN(pack_bytes)(const int bits, uint8_t lowest, size_t n, const uint8_t *codes, uint8_t *packed, uint8_t *largest)
{
    const size_t each = 8 / (size_t)bits, bytes = n / each;
    uint8_t most = *largest;
    for (size_t i = 0; i < bytes; i++) {
        uint8_t byte = 0;
        for (size_t j = 0; j < each; j++) {
            const uint8_t distance = (uint8_t)(codes[i * each + j] - lowest);
            most = distance > most ? distance : most;
            byte |= (uint8_t)(distance << (8 - bits * (int)(j + 1)));
        }
        packed[i] = byte;
    }
    *largest = most;
    return bytes * each;
}

NDQ_TARGET static void NDQ_FN(pack)(int bits, uint8_t lowest, size_t n, const uint8_t *codes, uint8_t *packed,
                                    uint8_t *largest)
{
    const size_t done = bits == 1   ? NDQ_FN(pack_bytes)(1, lowest, n, codes, packed, largest)
                        : bits == 2 ? NDQ_FN(pack_bytes)(2, lowest, n, codes, packed, largest)
                        : bits == 4 ? NDQ_FN(pack_bytes)(4, lowest, n, codes, packed, largest)
                        : bits == 8 ? NDQ_FN(pack_bytes)(8, lowest, n, codes, packed, largest)
                                    : 0;
    uint32_t waiting = 0;
    int count = 0; /* of bits that wait for their byte to be full */
    packed += done * (size_t)bits / 8;
    for (size_t i = done; i < n; i++) {
        const uint8_t distance = (uint8_t)(codes[i] - lowest);
        *largest = distance > *largest ? distance : *largest;
        waiting = waiting << bits | distance;
        count += bits;
        if (count >= 8) {
            count -= 8;
            *packed++ = (uint8_t)(waiting >> count);
        }
    }
    if (count)
        *packed = (uint8_t)(waiting << (8 - count));
}

static inline __attribute__((always_inline)) NDQ_TARGET size_t
NDQ_FN(unpack_bytes)(const int bits, uint8_t lowest, size_t n, const uint8_t *packed, uint8_t *codes, uint8_t *largest)
{
    const size_t each = 8 / (size_t)bits, bytes = n / each;
    const uint8_t mask = (uint8_t)(0xff >> (8 - bits));
    uint8_t most = *largest;
    for (size_t i = 0; i < bytes; i++)
        for (size_t j = 0; j < each; j++) {
            const uint8_t distance = (uint8_t)(packed[i] >> (8 - bits * (int)(j + 1))) & mask;
            most = distance > most ? distance : most;
            codes[i * each + j] = (uint8_t)(distance + lowest);
        }
    *largest = most;
    return bytes * each;
}

NDQ_TARGET static void NDQ_FN(unpack)(int bits, uint8_t lowest, size_t n, const uint8_t *packed, uint8_t *codes,
                                      uint8_t *largest)
{
    const size_t done = bits == 1   ? NDQ_FN(unpack_bytes)(1, lowest, n, packed, codes, largest)
                        : bits == 2 ? NDQ_FN(unpack_bytes)(2, lowest, n, packed, codes, largest)
                        : bits == 4 ? NDQ_FN(unpack_bytes)(4, lowest, n, packed, codes, largest)
                        : bits == 8 ? NDQ_FN(unpack_bytes)(8, lowest, n, packed, codes, largest)
                                    : 0;
    uint32_t waiting = 0;
    int count = 0;
    packed += done * (size_t)bits / 8;
    for (size_t i = done; i < n; i++) {
        if (count < bits) {
            waiting = waiting << 8 | *packed++;
            count += 8;
        }
        count -= bits;
        const uint8_t distance = (uint8_t)(waiting >> count) & (uint8_t)(0xff >> (8 - bits));
        *largest = distance > *largest ? distance : *largest;
        codes[i] = (uint8_t)(distance + lowest);
    }
}
