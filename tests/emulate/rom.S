/* The firmware of the emulated computer: from the reset vector to a Linux program in 64-bit mode, ring 0.
 * It takes the place of the BIOS: the last 64 KB of the ROM, seen at 0xf0000, entered at 0xffff0
 * (Intel SDM vol. 3, 9.1.4). */

#include "memory_map.h"

#define ROM 0xf0000
#define CODE32 0x18
#define CODE64 0x08
#define DATA 0x10
#define PML4 0x1000 /* page tables: four pages of low memory */
#define PDPT 0x2000
#define PD_LOW 0x3000
#define PD_ROM 0x4000
#define RAM_END 0x90000 /* of the variables: rom.ld */
#define CR0_PE 0x1
#define CR0_FPU 0x22      /* MP and NE: floating point present, errors by exception */
#define CR0_PG 0x80000000
#define CR4_BITS 0x40620  /* PAE, OSFXSR, OSXMMEXCPT, OSXSAVE */
#define EFER 0xc0000080
#define EFER_BITS 0x101   /* SYSCALL, long mode */

        .section .reset, "ax"
        .code16
        ljmp $(ROM >> 4), $(start16 - ROM)

        .text
start16:
        cli
        lgdtl %cs:(gdtr - ROM)
        mov $CR0_PE, %eax
        mov %eax, %cr0
        ljmpl $CODE32, $start32

        .code32
start32:
        mov $DATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov %eax, %fs
        mov %eax, %gs
        mov $2, %al     /* address line 20 on */
        outb %al, $0x92

        /* Bochs 2.7 reads a file straight through its memory, and gives that out in blocks as they are first touched: so
         * the blocks of the program's file are touched before any others, one after another. */
        mov $FILE_START, %esi
        mov $((FILE_END - FILE_START) / BLOCK_BYTES), %ecx
1:      mov (%esi), %eax
        add $BLOCK_BYTES, %esi
        loop 1b

        /* Memory holds anything at reset: clear the page tables and our variables. */
        xor %eax, %eax
        mov $PML4, %edi
        mov $((RAM_END - PML4) / 4), %ecx
        cld
        rep stosl

        /* The first and the fourth GB (memory and ROM) map to themselves in pages of 2 MB: 0x83 is present, writable,
         * large. The two page directories are adjacent, so one loop fills both. */
        movl $(PDPT + 3), PML4
        movl $(PD_LOW + 3), PDPT
        movl $(PD_ROM + 3), PDPT + 3 * 8
        mov $0x83, %eax
        mov $PD_LOW, %edi
1:      mov %eax, (%edi)
        add $0x200000, %eax
        add $8, %edi
        cmp $PD_ROM, %edi
        jne 2f
        mov $0xc0000083, %eax
2:      cmp $(PD_ROM + 4096), %edi
        jb 1b

        mov $CR4_BITS, %eax
        mov %eax, %cr4
        mov $PML4, %eax
        mov %eax, %cr3
        mov $EFER, %ecx
        mov $EFER_BITS, %eax
        xor %edx, %edx
        wrmsr
        mov $(CR0_PG | CR0_FPU | CR0_PE), %eax
        mov %eax, %cr0
        ljmpl $CODE64, $start64

        .code64
start64:
        /* Switch on every vector state that this CPU has, up to AVX-512: x87, SSE, AVX, masks, ZMM. */
        mov $0xd, %eax
        xor %ecx, %ecx
        cpuid
        and $0xe7, %eax
        xor %edx, %edx
        xor %ecx, %ecx
        xsetbv
        fninit
        mov $system_stack_end, %rsp
        call system_main /* gives the program's stack pointer; its entry point is in program_entry */
        mov %rax, %rsp
        xor %edx, %edx   /* no function to register with atexit */
        jmp *program_entry

/* The SYSCALL instruction: number in rax, arguments in rdi, rsi, rdx, r10, r8, r9, return address in rcx, flags in r11.
 * It changes no stack, and the program's red zone lies below its rsp: go to our own stack and save there. */
        .globl system_call_entry
system_call_entry:
        mov %rsp, program_rsp
        mov $system_stack_end, %rsp
        push %rcx
        push %r11
        push %rdi
        push %rsi
        push %rdx
        push %r10
        push %r8
        push %r9
        push %rax       /* the seventh argument of system_call */
        mov %r10, %rcx
        cld
        call system_call
        add $8, %rsp
        pop %r9
        pop %r8
        pop %r10
        pop %rdx
        pop %rsi
        pop %rdi
        popfq           /* SYSRET would go to ring 3; the program stays in ring 0 */
        pop %rcx
        mov program_rsp, %rsp
        jmp *%rcx

/* One entry per CPU exception, 16 bytes apart: exception n calls fault(n, frame). */
        .balign 16
        .globl fault_entries
fault_entries:
        n = 0
        .rept 32
        .balign 16
        mov $n, %edi
        jmp fault_common
        n = n + 1
        .endr
fault_common:
        mov %rsp, %rsi
        mov $system_stack_end, %rsp
        call fault

        .balign 8
gdt:    .quad 0
        .quad 0x00af9a000000ffff /* CODE64 */
        .quad 0x00cf92000000ffff /* DATA */
        .quad 0x00cf9a000000ffff /* CODE32 */
gdtr:   .word . - gdt - 1
        .long gdt

        .bss
        .balign 16
        .globl program_entry
program_entry: .quad 0
program_rsp: .quad 0
        .skip 65536
system_stack_end:
        .section .note.GNU-stack, "", @progbits
