"""When a test skips, and what it says."""

import os
from importlib.util import find_spec

import pytest


def skip_unless_all():
    """Skip what only `make test-all` runs."""
    if "NDQUANT_TEST_ALL" not in os.environ:
        pytest.skip("only with NDQUANT_TEST_ALL, that is in make test-all")


def skip_without(extra, *modules):
    """Skip where modules of an extra are not installed."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (the extra `{extra}`)")
