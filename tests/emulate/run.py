"""Run a static Linux program on a processor that this machine does not have, emulated by Bochs.

    python tests/emulate/run.py [--cpu tigerlake] [--timeout 1800] [--env NAME=VALUE] program [arguments]

The program's output goes to the standard output, and its exit status is ours; 77 means that a tool is missing.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
SKIPPED, FAILED, TIMED_OUT = 77, 1, 124
DEBIAN_PACKAGES = {"bochs": "bochs bochs-term", "gcc": "gcc", "objcopy": "binutils"}
SCREEN = Path("/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so")
ROM_BYTES = 128 << 10
COMPILE = (
    "gcc -std=gnu11 -O2 -Wall -Wextra -ffreestanding -fno-pic -fno-stack-protector -fcf-protection=none "
    "-mgeneral-regs-only -mno-red-zone -nostdlib -static -Wl,--build-id=none"
).split()
# Time is the count of instructions, so that two runs are alike; the processor is reset by nothing.
BOCHSRC = """\
config_interface: textconfig
display_library: term
romimage: file="{rom}", address={rom_start:#x}
optramimage1: file="{program}", address={file_start:#x}
memory: guest=1024, host=1024
cpu: model={cpu}, ips=1000000000, reset_on_triple_fault=0
clock: sync=none
port_e9_hack: enabled=1
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
panic: action=fatal
error: action=report
info: action=report
log: "{log}"
"""


def memory_map():
    """Return the names that memory_map.h defines, as Python values."""
    lines = re.findall(r'^#define (\w+) (0x\w+|"[^"]*")', (HERE / "memory_map.h").read_text(), re.MULTILINE)
    return {name: value[1:-1].replace("\\n", "\n") if value[0] == '"' else int(value, 16) for name, value in lines}


def missing_packages(tools, files):
    """Return the Debian packages of the tools and files that are not here, as one string."""
    packages = {package for tool, package in tools.items() if not shutil.which(tool)}
    packages |= {package for file, package in files.items() if not file.exists()}
    return " ".join(sorted(packages))


def compile_firmware(folder):
    """Return the 64 KB of rom.S and system.c."""
    code = folder / "code"
    subprocess.run([*COMPILE, f"-Wl,-T,{HERE / 'rom.ld'}", HERE / "rom.S", HERE / "system.c", "-o", code], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", "-j", ".reset", code], check=True)
    return code.read_bytes()


def make_rom(folder, strings, where):
    """Write the ROM: the program's arguments and environment, our firmware at the end."""
    rom_file, rom = folder / "rom", bytearray(ROM_BYTES)
    for start, end, data in [
        (where["ROM_ARGUMENTS"], where["ROM_CODE"], strings),
        (where["ROM_CODE"], where["ROM_START"] + ROM_BYTES, compile_firmware(folder)),
    ]:
        if len(data) > end - start:
            sys.exit(f"arguments or firmware: {len(data)} bytes, and the ROM has room for {end - start}")
        offset = start - where["ROM_START"]
        rom[offset : offset + len(data)] = data
    rom_file.write_bytes(rom)
    return rom_file


def strip(folder, program, where):
    """Return the program without symbols."""
    stripped, room = folder / "program", where["FILE_END"] - where["FILE_START"]
    subprocess.run(["objcopy", "--strip-all", program, stripped], check=True)
    if stripped.stat().st_size > room:
        sys.exit(f"program: {stripped.stat().st_size} bytes, and there is room for {room}")
    return stripped


def start_bochs(folder, bochsrc):
    """Start Bochs. Debian builds it with its debugger, which waits for a command: `c`, continue."""
    (folder / "bochsrc").write_text(bochsrc)
    (folder / "commands").write_text("c\n")
    command = ["bochs", "-q", "-f", str(folder / "bochsrc"), "-rc", str(folder / "commands")]
    environment = {**os.environ, "TERM": "vt100"}
    with open(folder / "messages", "wb") as messages:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=messages, env=environment
        )


def relay(output, where):
    """Print what comes between the two marks as it comes; return the number after the second, or None."""
    begin, end = where["MARK_BEGIN"].strip(), where["MARK_END"].strip()
    lines = (line.decode(errors="replace") for line in output)
    if not any(line.strip() == begin for line in lines):
        return None
    held = ""  # the mark brings a line end of its own, which the program did not print
    for line in lines:
        if line.strip() == end:
            sys.stdout.write(held[:-1])
            return int(next(lines), 16)
        sys.stdout.write(held)
        sys.stdout.flush()
        held = line
    sys.stdout.write(held)
    return None


def watch(folder, bochsrc, where, timeout):
    """Start Bochs, relay its output, and return the exit status of the program inside."""
    bochs = start_bochs(folder, bochsrc)
    timer = threading.Timer(timeout, bochs.kill)
    timer.start()
    status = relay(bochs.stdout, where)
    if status is None:
        bochs.wait()
    timer.cancel()
    bochs.kill()
    bochs.wait()
    if status is not None:
        return status
    if bochs.returncode == -signal.SIGKILL:
        print(f"no exit status after {timeout} seconds", file=sys.stderr)
        return TIMED_OUT
    sys.stderr.write((folder / "messages").read_text(errors="replace")[-2000:])
    return FAILED


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", default="tigerlake", help="a model listed by `bochs -help cpu`; needs XSAVE")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("program", help="linked with -static")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if not Path(options.program).is_file():
        parser.error(f"no such program: {options.program}")
    missing = missing_packages(DEBIAN_PACKAGES, {SCREEN: "bochs-term"})
    if missing:
        print(f"skipped: emulation needs these Debian packages: {missing}")
        return SKIPPED
    lists = [[options.program, *options.arguments], options.env]
    strings = b"".join(b"".join(os.fsencode(text) + b"\0" for text in texts) + b"\0" for texts in lists)
    where = memory_map()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bochsrc = BOCHSRC.format(
            rom=make_rom(folder, strings, where),
            rom_start=where["ROM_START"],
            program=strip(folder, options.program, where),
            file_start=where["FILE_START"],
            cpu=options.cpu,
            log=folder / "log",
        )
        return watch(folder, bochsrc, where, options.timeout)


if __name__ == "__main__":
    sys.exit(main())
