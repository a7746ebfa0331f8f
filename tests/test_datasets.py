"""The digits that ship, and MNIST from a folder."""

import gzip
import struct

import numpy as np
import pytest

import ndquant as nq


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path):
    """A folder like MNIST's with 3 training and 2 test images; two files are gzipped."""
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 3), ("t10k", 2)):
        images, labels = rng.integers(0, 256, (count, 28, 28)), np.arange(count)
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels))
    return tmp_path


def test_digits_are_split_and_whole():
    data = nq.datasets.digits()
    assert data.train_images.shape == (1437, 8, 8) and data.test_images.shape == (360, 8, 8)
    assert data.train_images.dtype == np.uint8 and data.train_images.max() == 16
    assert data.train_labels.dtype == np.int64
    counts = np.bincount(data.train_labels) + np.bincount(data.test_labels)
    # The class counts that scikit-learn's documentation of the data set gives.
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_mnist_reads_idx_files_gzipped_or_not(folder):
    data = nq.datasets.mnist(folder)
    assert data.train_images.shape == (3, 28, 28) and data.test_images.shape == (2, 28, 28)
    assert data.train_labels.tolist() == [0, 1, 2] and data.train_labels.dtype == np.int64


def test_mnist_is_found_where_the_environment_says(folder, tmp_path, monkeypatch):
    folder.rename(tmp_path.parent / "mnist")
    monkeypatch.setenv("NDQUANT_DATA", str(tmp_path.parent))
    assert len(nq.datasets.mnist().test_labels) == 2


def test_a_missing_file_is_named(folder):
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="neither t10k-labels-idx1-ubyte nor t10k-labels-idx1-ubyte.gz"):
        nq.datasets.mnist(folder)


@pytest.mark.parametrize("content", [b"", b"abc", idx(np.zeros((3, 28, 28)))[:-1], b"\0\0\x0d\1" + bytes(8)])
def test_a_damaged_file_is_named(folder, content):
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match="train-images-idx3-ubyte.gz is no IDX file"):
        nq.datasets.mnist(folder)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(ValueError, match="train-images-idx3-ubyte.gz is no IDX file"):
        nq.datasets.mnist(folder)


def test_images_and_labels_must_go_together(folder):
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(4)))
    with pytest.raises(ValueError, match="do not go with"):
        nq.datasets.mnist(folder)


def test_the_real_mnist(mnist_folder):
    data = nq.datasets.mnist(mnist_folder)
    assert data.train_images.shape == (60000, 28, 28)
    assert np.bincount(data.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
