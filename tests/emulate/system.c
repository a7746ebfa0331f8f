/* The system that a static Linux program finds on the emulated CPU: it loads the ELF file that lies in the ROM,
 * and answers the few system calls which glibc makes for a program that computes, allocates and prints.
 * There is one thread: clone() answers EAGAIN. A call that is not known answers ENOSYS, and says so. */
#include <elf.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "memory_map.h"

enum { PORT_OUTPUT = 0xe9, PORT_SHUTDOWN = 0x8900, PAGE = 4096, FAULT_STATUS = 139 };

#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_FMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u

void system_call_entry(void);
extern const char fault_entries[];
extern uint64_t program_entry;

static uint64_t brk_now, mmap_now;

/* The compiler calls these two by name. */
void *memcpy(void *to, const void *from, size_t n)
{
    void *result = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    return result;
}

void *memset(void *to, int byte, size_t n)
{
    void *result = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(byte) : "memory");
    return result;
}

static void out(uint16_t port, char byte)
{
    __asm__ volatile("outb %0, %1" : : "a"(byte), "Nd"(port));
}

static void print(const char *text)
{
    while (*text)
        out(PORT_OUTPUT, *text++);
}

static void print_number(const char *before, uint64_t value, const char *after)
{
    print(before);
    print("0x");
    for (int shift = 60; shift >= 0; shift -= 4)
        out(PORT_OUTPUT, "0123456789abcdef"[value >> shift & 15]);
    print(after);
}

/* run.py reads the line after the END mark as the exit status. */
static _Noreturn void stop(int status)
{
    print_number(MARK_END, (unsigned)status, "\n");
    for (const char *c = "Shutdown"; *c; c++)
        out(PORT_SHUTDOWN, *c);
    for (;;)
        __asm__ volatile("hlt");
}

/* Exceptions 8, 10..14, 17, 21 push an error code before the instruction pointer (Intel SDM vol. 3, table 6-1). */
_Noreturn void fault(uint64_t number, const uint64_t *frame)
{
    const uint64_t has_error_code = 0x227d00;
    print_number("\nCPU exception ", number, " (6: unknown instruction, 13: general protection, 14: page fault)");
    print_number(" at address ", frame[has_error_code >> number & 1], "\n");
    stop(FAULT_STATUS);
}

static void write_msr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}

static int64_t do_write(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out(PORT_OUTPUT, text[i]);
    return (int64_t)n;
}

struct piece { /* struct iovec */
    const char *base;
    size_t length;
};

static int64_t do_writev(const struct piece *pieces, size_t count)
{
    int64_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += do_write(pieces[i].base, pieces[i].length);
    return total;
}

static int64_t do_brk(uint64_t wanted)
{
    if (wanted > brk_now && wanted <= HEAP_END)
        memset((void *)brk_now, 0, wanted - brk_now);
    if (wanted >= HEAP_START && wanted <= HEAP_END)
        brk_now = wanted;
    return (int64_t)brk_now;
}

/* Memory only: munmap() gives back nothing but the newest piece, which is what malloc and free of a large block do. */
static int64_t do_mmap(uint64_t bytes, int64_t file)
{
    bytes = (bytes + PAGE - 1) & -(uint64_t)PAGE;
    if (file >= 0)
        return -ENODEV;
    if (bytes > MMAP_END - mmap_now)
        return -ENOMEM;
    uint64_t start = mmap_now;
    mmap_now += bytes;
    memset((void *)start, 0, bytes);
    return (int64_t)start;
}

static int64_t do_munmap(uint64_t start, uint64_t bytes)
{
    bytes = (bytes + PAGE - 1) & -(uint64_t)PAGE;
    if (start + bytes == mmap_now)
        mmap_now = start;
    return 0;
}

/* Emulated time: one tick is one instruction, and run.py sets 1000 of them to a microsecond. */
static int64_t do_clock(uint64_t *seconds_nanoseconds)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    uint64_t ticks = (uint64_t)high << 32 | low;
    seconds_nanoseconds[0] = ticks / 1000000000;
    seconds_nanoseconds[1] = ticks % 1000000000;
    return 0;
}

/* Every file is a terminal: glibc then writes line by line, and a crash loses none. */
static int64_t do_stat(struct stat *status)
{
    memset(status, 0, sizeof *status);
    status->st_mode = S_IFCHR;
    status->st_rdev = 136 << 8; /* the device number of a pseudo-terminal */
    return 0;
}

static int64_t do_affinity(uint64_t bytes, uint64_t *mask)
{
    if (bytes < sizeof *mask)
        return -EINVAL;
    *mask = 1;
    return sizeof *mask;
}

static int64_t do_arch_prctl(uint64_t code, uint64_t address)
{
    const uint64_t set_fs = 0x1002; /* ARCH_SET_FS */
    if (code != set_fs)
        return -EINVAL;
    write_msr(MSR_FS_BASE, address);
    return 0;
}

static int64_t do_random(uint8_t *to, size_t n)
{
    memset(to, 42, n); /* every run is alike */
    return (int64_t)n;
}

int64_t system_call(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t number)
{
    (void)d, (void)f;
    switch (number) {
    case SYS_write: return do_write((const char *)b, c);
    case SYS_writev: return do_writev((const struct piece *)b, c);
    case SYS_brk: return do_brk(a);
    case SYS_mmap: return do_mmap(b, (int32_t)e);
    case SYS_munmap: return do_munmap(a, b);
    case SYS_clock_gettime: return do_clock((uint64_t *)b);
    case SYS_sched_getaffinity: return do_affinity(b, (uint64_t *)c);
    case SYS_arch_prctl: return do_arch_prctl(a, b);
    case SYS_getrandom: return do_random((uint8_t *)a, b);
    case SYS_exit:
    case SYS_exit_group: stop((int)(a & 255));
    case SYS_tgkill: stop(128 + (int)c); /* abort(), a failed assert */
    case SYS_getpid:
    case SYS_gettid:
    case SYS_set_tid_address: return 1;
    case SYS_clone:
    case SYS_clone3: return -EAGAIN;
    case SYS_readlink:
    case SYS_readlinkat:
    case SYS_open:
    case SYS_openat: return -ENOENT;
    case SYS_fstat: return do_stat((struct stat *)b);
    case SYS_newfstatat: return do_stat((struct stat *)c);
    case SYS_mprotect:
    case SYS_madvise:
    case SYS_rt_sigaction:
    case SYS_rt_sigprocmask:
    case SYS_futex:
    case SYS_sched_yield:
    case SYS_set_robust_list: return 0;
    case SYS_mremap: return -ENOMEM; /* realloc() then copies */
    case SYS_rseq:
    case SYS_prlimit64: return -ENOSYS;
    default:
        print_number("emulated system: system call ", number, " is not known\n");
        return -ENOSYS;
    }
}

struct gate { /* an entry of the 64-bit interrupt table */
    uint16_t offset_low, selector, type, offset_middle;
    uint32_t offset_high, reserved;
};

static void catch_faults(void)
{
    static struct gate table[32];
    for (size_t i = 0; i < 32; i++) {
        uint64_t entry = (uint64_t)fault_entries + 16 * i;
        table[i] = (struct gate){(uint16_t)entry, 8, 0x8e00, (uint16_t)(entry >> 16), (uint32_t)(entry >> 32), 0};
    }
    struct __attribute__((packed)) {
        uint16_t limit;
        uint64_t base;
    } idtr = {sizeof table - 1, (uint64_t)table};
    __asm__ volatile("lidt %0" : : "m"(idtr));
}

static void catch_system_calls(void)
{
    write_msr(MSR_STAR, (uint64_t)8 << 32); /* SYSCALL loads selectors 8 (code) and 16 (data) */
    write_msr(MSR_LSTAR, (uint64_t)system_call_entry);
    write_msr(MSR_FMASK, 0);
}

static void load_segments(const Elf64_Ehdr *elf)
{
    const Elf64_Phdr *segment = (const void *)(FILE_START + elf->e_phoff);
    for (int i = 0; i < elf->e_phnum; i++, segment++) {
        if (segment->p_type != PT_LOAD)
            continue;
        if (segment->p_vaddr < PROGRAM_START || segment->p_vaddr + segment->p_memsz > HEAP_START) {
            print("emulated system: the program must be linked with -static (and not -static-pie), below 64 MB\n");
            stop(1);
        }
        memcpy((void *)segment->p_vaddr, (const void *)(FILE_START + segment->p_offset), segment->p_filesz);
        memset((void *)(segment->p_vaddr + segment->p_filesz), 0, segment->p_memsz - segment->p_filesz);
    }
}

/* The stack as the x86-64 ABI wants it: argc, argv, NULL, environment, NULL, auxiliary vector.
 * ROM_ARGUMENTS holds argv and the environment as strings, an empty string after each list. */
static uint64_t *build_stack(const Elf64_Ehdr *elf)
{
    static const uint8_t random[16] = "sixteen bytes !";
    uint64_t *stack = (uint64_t *)STACK_POINTER, *top = stack + 1;
    const char *text = (const char *)ROM_ARGUMENTS;
    for (int list = 0; list < 2; list++) {
        for (; *text; top++) {
            *top = (uint64_t)text;
            while (*text++) {}
        }
        if (list == 0)
            stack[0] = (uint64_t)(top - stack - 1);
        *top++ = 0;
        text++;
    }
    const uint64_t vector[] = {AT_PHDR, FILE_START + elf->e_phoff, AT_PHENT, elf->e_phentsize, AT_PHNUM, elf->e_phnum,
                               AT_PAGESZ, PAGE, AT_RANDOM, (uint64_t)random, AT_SECURE, 0, AT_NULL, 0};
    memcpy(top, vector, sizeof vector);
    return stack;
}

uint64_t *system_main(void)
{
    const Elf64_Ehdr *elf = (const void *)FILE_START;
    print(MARK_BEGIN);
    catch_faults();
    catch_system_calls();
    load_segments(elf);
    brk_now = HEAP_START;
    mmap_now = MMAP_START;
    program_entry = elf->e_entry;
    return build_stack(elf);
}
