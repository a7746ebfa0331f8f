/* Tiles of AMX (Intel SDM vol. 1, chapter 18; vol. 2, LDTILECFG and after it) as statements: tile numbers are literals.
 * As asm, so that compilers need not know the instructions, and what gcc 12 does not say of its own is said: that loading
 * a configuration reads 64 bytes, and that tiles read and write memory.
 *
 * A build with NDQ_EMULATE has a register file in plain C instead, so that kernels run on processors without tiles. */
#ifndef NDQ_AMX_TILES_H
#define NDQ_AMX_TILES_H

#include "../common.h"

enum { NDQ_TILES = 8, NDQ_TILE_ROWS = 16, NDQ_TILE_ROW_BYTES = 64, NDQ_TILE_BYTES = NDQ_TILE_ROWS * NDQ_TILE_ROW_BYTES };

/* What LDTILECFG reads: rows of each tile, and bytes of a row. A tile that has none of both is not used. */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} ndq_tile_config;
_Static_assert(sizeof(ndq_tile_config) == 64, "as LDTILECFG reads it");

#ifndef NDQ_EMULATE
#define NDQ_TILE_CONFIGURE(config) __asm__ volatile("ldtilecfg %0" ::"m"(*(config)))
#define NDQ_TILE_RELEASE() __asm__ volatile("tilerelease" ::)
#define NDQ_TILE_ZERO(t) __asm__ volatile("tilezero %%tmm" #t ::)
#define NDQ_TILE_LOAD(t, base, stride) NDQ_TILE_MOVE("tileloadd (%0,%1,1), %%tmm" #t, base, stride)
#define NDQ_TILE_LOAD_ONCE(t, base, stride) NDQ_TILE_MOVE("tileloaddt1 (%0,%1,1), %%tmm" #t, base, stride)
#define NDQ_TILE_STORE(t, base, stride) NDQ_TILE_MOVE("tilestored %%tmm" #t ", (%0,%1,1)", base, stride)
#define NDQ_TILE_MOVE(text, base, stride) __asm__ volatile(text ::"r"(base), "r"((size_t)(stride)) : "memory")
/* c += a b; signs are the letters of the instruction, u or s for a, then for b. */
#define NDQ_TILE_DOT(signs, c, a, b) __asm__ volatile("tdpb" #signs "d %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::)
#else

typedef struct {
    ndq_tile_config config; /* of zeros: not configured */
    uint8_t tile[NDQ_TILES][NDQ_TILE_ROWS][NDQ_TILE_ROW_BYTES];
} ndq_tile_file;

static _Thread_local ndq_tile_file ndq_tiles;

/* What would be an exception of the processor ends the process. */
static inline void ndq_tile_require(bool condition)
{
    if (!condition)
        abort();
}

static inline void ndq_tile_configure(const ndq_tile_config *c)
{
    ndq_tile_require(c->palette == 1 && c->start_row == 0);
    for (int t = 0; t < 16; t++) {
        ndq_tile_require(c->rows[t] <= NDQ_TILE_ROWS && c->row_bytes[t] <= NDQ_TILE_ROW_BYTES);
        ndq_tile_require((c->rows[t] == 0) == (c->row_bytes[t] == 0) && (t < NDQ_TILES || c->rows[t] == 0));
    }
    for (int i = 0; i < 14; i++)
        ndq_tile_require(c->reserved[i] == 0);
    memset(&ndq_tiles, 0, sizeof(ndq_tiles));
    ndq_tiles.config = *c;
}

static inline void ndq_tile_check(int t)
{
    ndq_tile_require(ndq_tiles.config.palette == 1 && t < NDQ_TILES && ndq_tiles.config.rows[t] > 0);
}

static inline void ndq_tile_zero(int t)
{
    ndq_tile_check(t);
    memset(ndq_tiles.tile[t], 0, sizeof(ndq_tiles.tile[t]));
}

static inline void ndq_tile_load(int t, const void *base, size_t stride)
{
    ndq_tile_zero(t);
    for (size_t row = 0; row < ndq_tiles.config.rows[t]; row++)
        memcpy(ndq_tiles.tile[t][row], (const uint8_t *)base + row * stride, ndq_tiles.config.row_bytes[t]);
}

static inline void ndq_tile_store(int t, void *base, size_t stride)
{
    ndq_tile_check(t);
    for (size_t row = 0; row < ndq_tiles.config.rows[t]; row++)
        memcpy((uint8_t *)base + row * stride, ndq_tiles.tile[t][row], ndq_tiles.config.row_bytes[t]);
}

/* Sums wrap. What lies outside the shape of c becomes zero, which it is already. */
static inline void ndq_tile_dot(bool a_signed, bool b_signed, int c, int a, int b)
{
    const ndq_tile_config *s = &ndq_tiles.config;
    ndq_tile_check(a);
    ndq_tile_check(b);
    ndq_tile_check(c);
    ndq_tile_require(a != b && a != c && b != c);
    ndq_tile_require(s->row_bytes[a] % 4 == 0 && s->row_bytes[b] % 4 == 0 && s->row_bytes[c] % 4 == 0);
    ndq_tile_require(s->rows[a] == s->rows[c] && s->row_bytes[b] == s->row_bytes[c]);
    ndq_tile_require(s->rows[b] == s->row_bytes[a] / 4);
    for (size_t m = 0; m < s->rows[c]; m++) {
        uint32_t sums[NDQ_TILE_ROW_BYTES / 4];
        memcpy(sums, ndq_tiles.tile[c][m], sizeof(sums));
        for (size_t k = 0; k < s->row_bytes[a]; k++) {
            const uint8_t byte = ndq_tiles.tile[a][m][k], *row = ndq_tiles.tile[b][k / 4] + k % 4;
            const int32_t x = a_signed ? (int8_t)byte : byte;
            for (size_t n = 0; n < s->row_bytes[c] / 4u; n++)
                sums[n] += (uint32_t)(x * (b_signed ? (int8_t)row[4 * n] : row[4 * n]));
        }
        memcpy(ndq_tiles.tile[c][m], sums, s->row_bytes[c]);
    }
}

#define NDQ_TILE_CONFIGURE(config) ndq_tile_configure(config)
#define NDQ_TILE_RELEASE() memset(&ndq_tiles, 0, sizeof(ndq_tiles))
#define NDQ_TILE_ZERO(t) ndq_tile_zero(t)
#define NDQ_TILE_LOAD(t, base, stride) ndq_tile_load(t, base, stride)
#define NDQ_TILE_LOAD_ONCE(t, base, stride) ndq_tile_load(t, base, stride)
#define NDQ_TILE_STORE(t, base, stride) ndq_tile_store(t, base, stride)
#define NDQ_TILE_DOT(signs, c, a, b) ndq_tile_dot(#signs[0] == 's', #signs[1] == 's', c, a, b)
#endif

#endif
