"""The limits of one core: gigabytes per second that loops of limits.c reach in each cache and in memory."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from .timing import empty, samples

SOURCE = Path(__file__).with_name("limits.c")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
#: {function of limits.c: (what it is called in tables, bytes that it moves per element)}.
LOOPS = {
    "read_only": ("read", 4),
    "write_only": ("write", 4),
    "copy": ("memcpy", 8),
    "copy_streaming": ("streaming copy", 8),
    "narrow": ("f32 -> s8", 5),
}


def cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown processor"
    facts = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    family = "family {cpu family} model {model}".format_map(facts) if "cpu family" in facts else ""
    return f"{facts.get('model name', 'unknown processor')} {family}".strip()


def cache_bytes():
    """Return {level: bytes} of the data caches of the first core."""
    sizes = {}
    for index in sorted(CACHES.glob("index*")):
        if (index / "type").read_text().strip() != "Instruction":
            kilobytes = (index / "size").read_text().strip().removesuffix("K")
            sizes["L" + (index / "level").read_text().strip()] = int(kilobytes) * 1024
    return sizes


def buffer_elements():
    """Return {level: n}: two buffers of n float32 fill half of that cache, and four times the last one for memory."""
    caches = cache_bytes() or {"L1": 32 << 10, "L2": 512 << 10}
    sizes = {level: size // 4 for level, size in caches.items()}
    sizes["memory"] = max(64 << 20, 2 * max(caches.values()))
    return {level: size // 4 // 64 * 64 for level, size in sizes.items()}


def library():
    """Return limits.c compiled for this machine, or None where there is no compiler."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "limits.so"
        native = ["-march=native"] if os.uname().machine == "x86_64" else []
        subprocess.run([compiler, "-O3", *native, "-shared", "-fPIC", "-o", path, SOURCE], check=True)
        return ctypes.CDLL(os.fspath(path))


def measure(rounds=21, levels=None):
    """Return {level: {loop: GB/s}}, empty where there is no compiler; `levels` is {level: elements of a buffer}."""
    loops, result = library(), {}
    for level, n in (levels or buffer_elements()).items() if loops else ():
        x, y = empty(n, np.int32), empty(n, np.int32)
        repeat = max(1, (1 << 18) // n)
        arguments = [ctypes.c_long(repeat), ctypes.c_long(n), *(ctypes.c_void_p(a.ctypes.data) for a in (x, y))]
        calls = [partial(getattr(loops, name), *arguments) for name in LOOPS]
        seconds = np.median(samples(calls, rounds), axis=0)
        result[level] = {
            name: repeat * n * moved / s * 1e-9 for (name, moved), s in zip(LOOPS.values(), seconds, strict=True)
        }
    return result


def read(count):
    """Return a call that reads `count` bytes, again and again the same; None where there is no compiler."""
    loops = library()
    if not loops:
        return None
    x, y = empty(count // 256 * 64, np.int32), empty(64, np.int32)
    arguments = ctypes.c_long(1), ctypes.c_long(x.size), *(ctypes.c_void_p(a.ctypes.data) for a in (x, y))

    def call(keep=(x, y)):
        loops.read_only(*arguments)

    return call


def multiply_adds(kind):
    """Return a call that does nothing but multiply and add, "f32" or "s8", and how many it does; None if unknown."""
    loops = library()
    passes, per_pass = 4096, getattr(loops, f"{kind}_products")() if loops else 0
    if not per_pass:
        return None
    arguments = ctypes.c_long(1), ctypes.c_long(passes), None, None
    return partial(getattr(loops, f"{kind}_multiply_add"), *arguments), passes * per_pass


def show(limits):
    if not limits:
        print("no C compiler: the limits of this core were not measured")
        return
    print(f"{'limits of one core, GB/s':26}" + "".join(f"{level:>10}" for level in limits))
    for name, _ in LOOPS.values():
        print(f"  {name:24}" + "".join(f"{rates[name]:10.1f}" for rates in limits.values()))
