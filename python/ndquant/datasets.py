"""Data sets: digits that ship with the package, MNIST from a folder or downloaded."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import zlib
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np

_MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
#: Files of MNIST in the order of `Dataset`, with the SHA-256 of their content (not gzipped).
_MNIST_FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


class Dataset(NamedTuple):
    """Images and labels for training and for testing, all uint8; labels int64."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def digits():
    """Return the 8 x 8 handwritten digits that ship with the package.

    The test part of the UCI data set "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, 1998,
    CC BY 4.0), in the form that scikit-learn distributes. Every fifth image is a test image.

    Returns
    -------
    Dataset
        Images uint8 in 0..16: 1,437 of shape (8, 8) for training, 360 for testing; labels int64.

    Examples
    --------
    >>> import ndquant as nq
    >>> nq.datasets.digits().train_images.shape
    (1437, 8, 8)
    """
    with resources.files("ndquant").joinpath("data/digits.npz").open("rb") as file, np.load(file) as archive:
        images, labels = archive["images"], archive["labels"].astype(np.int64)
    is_test = np.arange(len(images)) % 5 == 0
    return Dataset(images[~is_test], labels[~is_test], images[is_test], labels[is_test])


def mnist(path=None):
    """Return the MNIST digits (Y. LeCun and C. Cortes, CC BY-SA 3.0).

    Parameters
    ----------
    path : str or path-like, optional
        Folder with the four IDX files, gzipped or not. By default ``mnist/`` in the folder that the environment
        variable NDQUANT_DATA names; without it they are downloaded once into the cache of the user (needs pooch).

    Returns
    -------
    Dataset
        Images uint8 of shape (28, 28): 60,000 for training, 10,000 for testing; labels int64.

    Raises
    ------
    FileNotFoundError
        If a file is missing in the folder.
    ValueError
        If a file is not what its name says.

    Examples
    --------
    >>> import ndquant as nq
    >>> data = nq.datasets.mnist("path/to/mnist")  # doctest: +SKIP
    >>> data.train_images.shape  # doctest: +SKIP
    (60000, 28, 28)
    """
    if path is None and "NDQUANT_DATA" in os.environ:
        path = Path(os.environ["NDQUANT_DATA"]) / "mnist"
    arrays = [_read_idx(_find(Path(path), name) if path is not None else _download(name)) for name in _MNIST_FILES]
    dataset = Dataset(arrays[0], arrays[1].astype(np.int64), arrays[2], arrays[3].astype(np.int64))
    for images, labels in (dataset[:2], dataset[2:]):
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(f"MNIST: {images.shape} images do not go with {labels.shape} labels")
    return dataset


def _find(folder, name):
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"MNIST: neither {name} nor {name}.gz is in {folder}")


def _download(name):
    try:
        import pooch
    except ImportError:
        raise ImportError(
            "MNIST is neither in a folder given nor in NDQUANT_DATA; to download it, pip install pooch"
        ) from None
    cache = pooch.os_cache("ndquant")
    path = Path(pooch.retrieve(f"{_MNIST_URL}{name}.gz", known_hash=None, fname=f"{name}.gz", path=cache))
    if hashlib.sha256(_content(path)).hexdigest() != _MNIST_FILES[name]:
        path.unlink()
        raise ValueError(f"MNIST: the download of {name} is damaged (its SHA-256 differs); it was removed")
    return path


def _content(path):
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return b""


def _read_idx(path):
    """Read an IDX file of unsigned bytes (http://yann.lecun.com/exdb/mnist describes the format)."""
    data = _content(path)
    try:
        zero, kind, ndim = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{ndim}I", data, 4)
    except struct.error:
        raise ValueError(f"{path} is no IDX file, or it is cut short") from None
    offset = 4 + 4 * ndim
    if zero != 0 or kind != 8 or ndim == 0 or len(data) - offset != int(np.prod(shape, dtype=np.int64)):
        raise ValueError(f"{path} is no IDX file of unsigned bytes, or it is cut short")
    return np.frombuffer(data, np.uint8, offset=offset).reshape(shape)
