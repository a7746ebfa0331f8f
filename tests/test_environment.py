"""What environment variables do, each tried in a process of its own."""

import os
import subprocess
import sys

import pytest

from ndquant import _core


def run(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


BACKEND = "from ndquant import _core; print(_core.get_backend())"
THREADS = "import ndquant; print(ndquant.get_num_threads())"


@pytest.mark.parametrize("name", _core.all_backends())
def test_ndquant_backend_caps_the_choice(name):
    best = _core.available_backends()[0]
    assert run(BACKEND, NDQUANT_BACKEND=name) == (name if name in _core.available_backends() else best)


def test_an_unknown_backend_leaves_the_best():
    assert run(BACKEND, NDQUANT_BACKEND="abacus") == _core.available_backends()[0]


def test_ndquant_num_threads():
    assert run(THREADS, NDQUANT_NUM_THREADS="3") == "3"
    assert run(THREADS, NDQUANT_NUM_THREADS="100000") == "256"
    assert int(run(THREADS, NDQUANT_NUM_THREADS="nonsense")) == len(os.sched_getaffinity(0))
    assert int(run(THREADS, NDQUANT_NUM_THREADS="")) == len(os.sched_getaffinity(0))


def test_info_names_the_processor_its_instruction_sets_and_the_backends():
    shown = subprocess.run([sys.executable, "-m", "ndquant", "info"], capture_output=True, text=True, check=True).stdout
    cpu = next(line for line in shown.splitlines() if line.startswith("CPU"))
    listed = [name for name, present in _core.cpu_features().items() if present]
    assert cpu.endswith("; " + (", ".join(listed) or "no instruction set that is asked for"))
    for name in _core.all_backends():
        assert f"{name}: {'available' if name in _core.available_backends() else 'not on this machine'}" in shown
    assert f"threads  {len(os.sched_getaffinity(0))}" in shown or "NDQUANT_NUM_THREADS" in os.environ


@pytest.mark.skipif(not os.path.exists("/proc/cpuinfo"), reason="this system has no /proc/cpuinfo")
@pytest.mark.parametrize(
    "feature, flags",
    (
        ("avx2", {"avx2", "fma", "f16c"}),
        ("avxvnni", {"avx2", "avx_vnni"}),
        ("avx512vnni", {"avx512bw", "avx512_vnni"}),
        ("avx512vpopcntdq", {"avx512_vnni", "avx512_vpopcntdq"}),
        ("amx", {"avx512_vnni", "amx_tile", "amx_int8"}),
        ("neondot", {"asimddp"}),
    ),
)
def test_features_are_those_that_the_system_lists(feature, flags):
    with open("/proc/cpuinfo") as file:
        lines = [line for line in file if line.startswith(("flags", "Features"))]
    assert _core.cpu_features()[feature] == (flags <= set(lines[0].split()))


def test_the_cpus_that_this_process_may_use():
    """The affinity, which counts when threads are first asked for."""
    cpus = sorted(os.sched_getaffinity(0))
    for n in {1, len(cpus)}:
        assert run(f"import os; os.sched_setaffinity(0, {cpus[:n]}); {THREADS}", NDQUANT_NUM_THREADS="") == str(n)
