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
