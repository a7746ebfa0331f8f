"""What the core runs on: the processor, the kernels of one instruction set, the threads."""

from __future__ import annotations

import platform
from contextlib import contextmanager

import numpy as np

from . import _core


def set_num_threads(n):
    """Let one call use up to `n` threads, the caller among them.

    Results do not depend on it. The default is the number of CPUs that this process may use, or what the environment
    variable ``NDQUANT_NUM_THREADS`` says. Calls from several Python threads are safe as long as no array is the `out`
    of two of them.

    Parameters
    ----------
    n : int
        1 to 256.

    Examples
    --------
    >>> import ndquant as nq
    >>> before = nq.get_num_threads()
    >>> nq.set_num_threads(1)
    >>> nq.get_num_threads()
    1
    >>> nq.set_num_threads(before)
    """
    _core.set_num_threads(n)


def get_num_threads():
    """Return how many threads one call may use.

    Returns
    -------
    int

    Examples
    --------
    >>> import ndquant as nq
    >>> nq.get_num_threads() >= 1
    True
    """
    return _core.get_num_threads()


@contextmanager
def backend(name):
    """Use the kernels of one instruction set inside a ``with`` block, in the whole process.

    Results do not depend on it. The environment variable ``NDQUANT_BACKEND`` caps the choice made at import.

    Parameters
    ----------
    name : str
        One of the names that `show_config` lists as available.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> qp = nq.QParams(0.5, 0, nq.QuantSpec())
    >>> with nq.backend("portable"):
    ...     print(nq.quantize(np.array([1.0, 2.0]), qp))
    [2 4]
    """
    before = _core.get_backend()
    _core.set_backend(name)
    try:
        yield
    finally:
        _core.set_backend(before)


def _processor():
    """Return the name of the processor, as far as the system tells it."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def show_config():
    """Print the processor, its instruction sets, the backends of this build, and the number of threads.

    Examples
    --------
    >>> import ndquant as nq
    >>> nq.show_config()  # doctest: +ELLIPSIS
    NumPy ...
    """
    features = [name for name, present in _core.cpu_features().items() if present]
    available = _core.available_backends()
    print(f"NumPy    {np.__version__}")
    print(f"CPU      {_processor()}; {', '.join(features) or 'no instruction set that is asked for'}")
    print(f"backend  {_core.get_backend()}")
    for name in _core.all_backends():
        print(f"         {name}: {'available' if name in available else 'not on this machine'}")
    print(f"threads  {_core.get_num_threads()}")
