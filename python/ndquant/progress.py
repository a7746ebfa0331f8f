"""Progress bars, by tqdm where the caller asks for one."""

from __future__ import annotations


def progress_bar(iterable, show, total=None):
    """Return `iterable`, wrapped in a bar when `show` is true.

    Raises
    ------
    ImportError
        If a bar is wanted and tqdm is not installed.
    """
    if not show:
        return iterable
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ImportError("progress=True needs tqdm: pip install tqdm (or ndquant[notebooks])") from None
    return tqdm(iterable, total=total)
