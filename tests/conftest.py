"""Fixtures that all tests share."""

import os
from pathlib import Path

import numpy as np
import pytest

import ndquant as nq
from ndquant import _core


@pytest.fixture(params=_core.all_backends())
def backend(request):
    """Run a test once on each instruction set of this build; those that the machine lacks are skipped."""
    if request.param not in _core.available_backends():
        pytest.skip(f"this machine has no {request.param}: not run natively")
    with nq.backend(request.param):
        yield request.param


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


@pytest.fixture(scope="session")
def mnist_folder():
    """Folder of the MNIST files: in NDQUANT_DATA, or in shared/data beside the checkout."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("NDQUANT_DATA", beside)) / "mnist"
    if not folder.is_dir():
        pytest.skip("MNIST is not here: NDQUANT_DATA names no folder that holds mnist/")
    return folder
