/* Where things lie in the emulated computer: 1 GB of memory, 128 KB of ROM. run.py fills the ROM and reads this file. */
#define PROGRAM_START 0x00400000 /* where ld puts a static program */
#define HEAP_START 0x04000000
#define HEAP_END 0x20000000
#define MMAP_START 0x20000000
#define MMAP_END 0x3e000000
#define FILE_START 0x3e000000 /* here Bochs puts the program's ELF file */
#define FILE_END 0x3e800000
#define BLOCK_BYTES 0x20000 /* of memory as Bochs gives it out, or a part of that */
#define STACK_POINTER 0x3ff00000 /* 15 MB of stack below */

#define ROM_START 0xfffe0000
#define ROM_ARGUMENTS 0xfffef000 /* 4 KB */
#define ROM_CODE 0xffff0000 /* rom.S and system.c: 64 KB, which are seen at 0xf0000 too */

/* What surrounds the program's output. */
#define MARK_BEGIN "\n----- emulated program -----\n"
#define MARK_END "\n----- exit status -----\n"
