"""Fixtures that all tests share."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

import ndquant as nq
from ndquant import _core

# A time limit would test the machine: sanitizers and emulators are ten times slower.
settings.register_profile("no time limit", deadline=None)
settings.register_profile("emulated", deadline=None, max_examples=10)
settings.load_profile("no time limit")

collect_ignore = ["bench", "emulate", "golden"]


@pytest.fixture(params=_core.available_backends())
def backend(request):
    """Run a test once on each instruction set that this machine has."""
    with nq.backend(request.param):
        yield request.param


def pytest_terminal_summary(terminalreporter):
    """Say which instruction sets of this build were not run, for want of the hardware."""
    missing = [name for name in _core.all_backends() if name not in _core.available_backends()]
    terminalreporter.write_line(f"backends run natively: {', '.join(_core.available_backends())}")
    if missing:
        terminalreporter.write_line(f"not on this machine, so only emulated (make emulate): {', '.join(missing)}")


@pytest.fixture
def rng(request):
    """Random numbers that are the same on each backend and in each run."""
    name = request.node.originalname or request.node.name
    return np.random.default_rng(list(name.encode()))


@pytest.fixture
def threads():
    """Set the number of threads, and put the old one back."""
    before = nq.get_num_threads()
    yield nq.set_num_threads
    nq.set_num_threads(before)


def _data(name):
    """Return the folder that NDQUANT_DATA names, or shared/data beside the checkout, if it holds `name`."""
    folder = Path(os.environ.get("NDQUANT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / name).exists():
        pytest.skip(f"{name} is not here: NDQUANT_DATA names no folder that holds it")
    return folder


@pytest.fixture(scope="session")
def mnist_folder():
    """Folder of the MNIST files."""
    return _data("mnist") / "mnist"


@pytest.fixture(scope="session")
def data_folder():
    """Folder of ResNet-20's weights and of CIFAR-10 images."""
    _data("cifar10.npz")
    return _data("resnet20.npz")
