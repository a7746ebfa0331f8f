"""What the compiler made of the loops over K: sums stay in registers, and nothing is moved from one to another."""

import re
import shutil
import subprocess

import pytest

from ndquant import _core

#: {names of tiles: what their loops multiply with}.
KERNELS = {
    r"(wide|narrow)(_bytes)?(_code|_real)?_\d": "vpmaddwd",
    r"(codes|quad_code|quad_real|trio_tile)_\d(\.\w+)*": "vpmaddwd",
    r"avxvnni_(wide|narrow)(_code|_real)?_\d": "vpdpbusd",
    r"avx512vnni_((wide|middle|narrow|slid)(_code|_real)?|depthwise_code|depthwise_columns)_\d+": "vpdpbusd",
    r"avx2_f32_(wide|narrow)_\d": "vfmadd231ps",
    r"avx512_f32_(wide|narrow)_\d+": "vfmadd231ps",
}
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(\S.*)$", re.MULTILINE)
JUMP = re.compile(r"j\w+\s+([0-9a-f]+) ")
BAD = re.compile(r"%rsp|v?mov[adpqsu]\w*\s+%[xyz]mm\d+,%[xyz]mm\d+")


@pytest.fixture(scope="module")
def functions():
    """All functions of the core, [(name, [(address, instruction), ...]), ...]."""
    if not shutil.which("objdump"):
        pytest.skip("needs objdump (Debian package binutils)")
    if "avx2" not in _core.all_backends():
        pytest.skip("the loops of other processors than x86 are not looked at")
    command = ["objdump", "-d", "--no-show-raw-insn", _core.__file__]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    parts = re.split(r"^[0-9a-f]+ <(\S+)>:$", text, flags=re.MULTILINE)
    found = list(zip(parts[1::2], parts[2::2], strict=True))
    if len(found) < 100:
        pytest.skip("this build of the core has no symbols")
    return [(name, [(int(at, 16), what) for at, what in INSTRUCTION.findall(body)]) for name, body in found]


def innermost_loop(code, instruction):
    """Return the instructions of the shortest loop that has `instruction`, or None."""
    loops = []
    for at, what in code:
        jump = JUMP.match(what)
        if jump and int(jump[1], 16) < at:
            loop = [text for address, text in code if int(jump[1], 16) <= address <= at]
            if any(instruction in text for text in loop):
                loops.append(loop)
    return min(loops, key=len, default=None)


@pytest.mark.parametrize("pattern, instruction", KERNELS.items())
def test_sums_stay_in_registers(functions, pattern, instruction):
    tiles = [(name, innermost_loop(code, instruction)) for name, code in functions if re.fullmatch(pattern, name)]
    assert len(tiles) >= 12
    for name, loop in tiles:
        assert loop, f"{name} has no loop of {instruction}"
        if any("vpmaddubsw" in text for text in loop):
            continue  # for small weights, gcc 12 moves one sum in tiles of one row
        assert not [text for text in loop if BAD.search(text)], f"{name}:\n" + "\n".join(loop)


def test_moves_and_the_stack_would_be_seen():
    for text in ("vmovdqa %ymm1,%ymm2", "vmovaps %zmm0,%zmm31", "vpaddd 0x20(%rsp),%ymm1,%ymm1", "mov %rax,(%rsp)"):
        assert BAD.search(text)
    for text in ("vmovdqa (%rcx),%ymm4", "vmovups %zmm0,(%rax)", "vpbroadcastd (%rax),%ymm2", "mov %rax,%rcx"):
        assert not BAD.search(text)
