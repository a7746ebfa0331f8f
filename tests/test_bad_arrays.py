"""Bad input to the array functions: a clear error each, and nothing is written."""

import numpy as np
import pytest

import ndquant as nq
from ndquant import _core

SPEC = nq.QuantSpec(8)
QP = nq.QParams(np.float32(0.1), 0, SPEC)
QP3 = nq.QParams(np.full(3, 0.1, np.float32), 0, nq.QuantSpec(8, axis=1))
X = np.ones((2, 3), np.float32)
Q = np.ones((2, 3), np.int8)


def unwriteable(array):
    array.flags.writeable = False
    return array


def unaligned(shape, dtype):
    n = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.zeros(n + 1, np.uint8)[1:].view(dtype).reshape(shape)


#: Each function with a good value for the argument under test left open.
CALLS_WITH_X = {
    "quantize": lambda x: nq.quantize(x, QP),
    "fake_quantize": lambda x: nq.fake_quantize(x, QP),
    "fake_quantize_backward": lambda x: nq.fake_quantize_backward(X, x, QP),
    "fake_quantize_with_grad": lambda x: nq.fake_quantize_with_grad(x, X, QP),
    "fake_quantize_learnable_backward": lambda x: nq.fake_quantize_learnable_backward(X, x, QP),
    "choose_qparams": lambda x: nq.choose_qparams(x, SPEC),
}

CALLS_WITH_DY = {
    "fake_quantize_backward": lambda dy: nq.fake_quantize_backward(dy, X, QP),
    "fake_quantize_with_grad": lambda dy: nq.fake_quantize_with_grad(X, dy, QP),
    "fake_quantize_learnable_backward": lambda dy: nq.fake_quantize_learnable_backward(dy, X, QP),
}

CALLS_WITH_QPARAMS = {
    "quantize": lambda x, qp: nq.quantize(x, qp),
    "fake_quantize": lambda x, qp: nq.fake_quantize(x, qp),
    "fake_quantize_backward": lambda x, qp: nq.fake_quantize_backward(x, x, qp),
    "fake_quantize_with_grad": lambda x, qp: nq.fake_quantize_with_grad(x, x, qp),
    "fake_quantize_learnable_backward": lambda x, qp: nq.fake_quantize_learnable_backward(x, x, qp),
    "dequantize": lambda x, qp: nq.dequantize(x.astype(np.int8), qp),
}

#: Each function with `out` left open, and the dtype that it wants.
CALLS_WITH_OUT = {
    "quantize": (np.int8, lambda out: nq.quantize(X, QP, out=out)),
    "dequantize": (np.float32, lambda out: nq.dequantize(Q, QP, out=out)),
    "fake_quantize": (np.float32, lambda out: nq.fake_quantize(X, QP, out=out)),
    "fake_quantize_backward": (np.float32, lambda out: nq.fake_quantize_backward(X, X, QP, out=out)),
    "fake_quantize_with_grad 0": (
        np.float32,
        lambda out: nq.fake_quantize_with_grad(X, X, QP, out=(out, np.empty_like(X))),
    ),
    "fake_quantize_with_grad 1": (
        np.float32,
        lambda out: nq.fake_quantize_with_grad(X, X, QP, out=(np.empty_like(X), out)),
    ),
    "fake_quantize_learnable_backward": (
        np.float32,
        lambda out: nq.fake_quantize_learnable_backward(X, X, QP, out=out),
    ),
}

NO_FLOATS = [
    np.ones((2, 3), np.int64),
    np.ones((2, 3), np.uint8),
    np.ones((2, 3), bool),
    np.ones((2, 3), complex),
    np.ones((2, 3), object),
    np.array([["a"] * 3] * 2),
    np.ones((2, 3), "M8[s]"),
    np.ones((2, 3), [("a", np.float32)]),
    None,
    3,
    "abc",
    [1, 2],
    {},
]


@pytest.mark.parametrize("name", CALLS_WITH_X)
@pytest.mark.parametrize("x", NO_FLOATS, ids=lambda x: str(getattr(x, "dtype", x)))
def test_x_must_be_floats(name, x):
    with pytest.raises(TypeError, match="x: expected floating-point data .* got dtype"):
        CALLS_WITH_X[name](x)


@pytest.mark.parametrize("name", CALLS_WITH_DY)
@pytest.mark.parametrize("dy", NO_FLOATS, ids=lambda x: str(getattr(x, "dtype", x)))
def test_dy_must_be_floats(name, dy):
    with pytest.raises(TypeError, match="dy: expected floating-point data .* got dtype"):
        CALLS_WITH_DY[name](dy)


@pytest.mark.parametrize("name", CALLS_WITH_X)
def test_masks_are_not_dropped(name):
    with pytest.raises(TypeError, match="x: masked arrays are not supported"):
        CALLS_WITH_X[name](np.ma.masked_array(X, mask=X > 0))


@pytest.mark.parametrize("name", CALLS_WITH_X)
def test_ragged_lists(name):
    with pytest.raises(ValueError, match="inhomogeneous"):
        CALLS_WITH_X[name]([[1.0], [1.0, 2.0]])


def test_other_subclasses_are_arrays():
    class Subclass(np.ndarray):
        pass

    codes = nq.quantize(np.array([[1.0, 2.0]]).view(Subclass), QP)
    assert type(codes) is np.ndarray
    np.testing.assert_array_equal(codes, [[10, 20]])


@pytest.mark.parametrize("q", [X, X.astype(bool), X.astype(complex), X.astype(object), None, "a", 1.0], ids=str)
def test_codes_must_be_integers(q):
    with pytest.raises(TypeError, match="q: expected integers, got dtype"):
        nq.dequantize(q, QP)


@pytest.mark.parametrize("q", [[0, 256], [-129], [-1, 128], [2**63 - 1], [-(2**63)]], ids=str)
def test_codes_must_fit_a_byte(q):
    with pytest.raises(ValueError, match="q: codes must fit int8 or uint8, got values from"):
        nq.dequantize(np.array(q), QP)


@pytest.mark.parametrize("bits, size", [(9, 16), (16, 16), (17, 32), (32, 32)])
def test_codes_must_fit_the_size_of_the_spec(bits, size):
    qp = nq.QParams(0.5, 0, nq.QuantSpec(bits))
    limit = 2**size
    for q in ([0, limit], [-limit // 2 - 1], [-1, limit // 2]):
        with pytest.raises(ValueError, match=f"q: codes must fit int{size} or uint{size}, got values from"):
            nq.dequantize(np.array(q), qp)
    np.testing.assert_array_equal(nq.dequantize(np.int8([-3, 4]), qp), [-1.5, 2])
    np.testing.assert_array_equal(nq.dequantize(np.array([0, limit - 1]), qp), [0, (limit - 1) / 2])


@pytest.mark.parametrize("bits, signed", [(9, True), (16, False), (24, True), (32, False)])
def test_outputs_of_wide_codes(bits, signed):
    qp = nq.QParams(np.float32(0.1), 0, nq.QuantSpec(bits, signed=signed))
    wanted, other = qp.spec.dtype, np.dtype(f"{'u' if signed else ''}int{8 * qp.spec.dtype.itemsize}")
    for out in (np.zeros((2, 3), other), np.zeros((2, 3), np.int8), np.zeros((2, 3), wanted.newbyteorder())):
        with pytest.raises(ValueError, match=f"out: dtype must be {wanted}, got"):
            nq.quantize(X, qp, out=out)
    with pytest.raises(ValueError, match="out: must be writeable"):
        nq.quantize(X, qp, out=unwriteable(np.zeros((2, 3), wanted)))
    with pytest.raises(ValueError, match="out: must be aligned"):
        nq.quantize(X, qp, out=unaligned((2, 3), wanted))
    out = np.zeros((2, 3), wanted)
    assert nq.quantize(X, qp, out=out) is out
    assert (out == 10).all()


def test_codes_may_replace_floats_of_their_size():
    x = np.arange(6, dtype=np.float32)
    qp = nq.QParams(np.float32(0.5), 0, nq.QuantSpec(32))
    codes = nq.quantize(x, qp, out=x.view(np.int32))
    np.testing.assert_array_equal(codes, [0, 2, 4, 6, 8, 10])
    back = nq.dequantize(codes, qp, out=codes.view(np.float32))
    np.testing.assert_array_equal(back, np.arange(6))
    with pytest.raises(ValueError, match="out overlaps q"):
        nq.dequantize(codes[:2], qp, out=codes.view(np.float32)[1:3])


def test_codes_of_uint64_that_pass_int64():
    with pytest.raises(ValueError, match="q: codes must fit int8 or uint8, got values from 0 to 18446744073709551615"):
        nq.dequantize(np.array([2**64 - 1], np.uint64), QP)


@pytest.mark.parametrize("dtype", [np.int8, bool, complex, object, "U3", "M8[s]"])
def test_dequantize_gives_floats_only(dtype):
    with pytest.raises(TypeError, match="dtype: expected a floating-point dtype, got"):
        nq.dequantize(Q, QP, dtype=dtype)
    with pytest.raises(TypeError):
        nq.dequantize(Q, QP, dtype="no dtype")


@pytest.mark.parametrize("name", CALLS_WITH_QPARAMS)
@pytest.mark.parametrize("qparams", [None, 0.1, (0.1, 0), SPEC, ...], ids=str)
def test_qparams_must_be_qparams(name, qparams):
    with pytest.raises(TypeError, match="qparams: expected a QParams, got"):
        CALLS_WITH_QPARAMS[name](X, qparams)


@pytest.mark.parametrize("name", CALLS_WITH_QPARAMS)
def test_axes_must_fit(name):
    call, argument = CALLS_WITH_QPARAMS[name], "q" if name == "dequantize" else "x"
    with pytest.raises(ValueError, match=f"{argument}: has 1 dimensions, so axis 1 does not exist"):
        call(np.ones(3), QP3)
    with pytest.raises(ValueError, match=f"{argument}: has 0 dimensions, so axis 1"):
        call(np.ones(()), QP3)
    with pytest.raises(ValueError, match=f"{argument}: axis 1 must have 3 elements, .* got 2"):
        call(np.ones((3, 2)), QP3)
    with pytest.raises(ValueError, match=f"{argument}: has 1 dimensions, so axis -2"):
        call(np.ones(3), nq.QParams(np.ones(3), 0, nq.QuantSpec(axis=-2)))


GROUPS = nq.QParams(np.full((2, 3), 0.1, np.float32), 0, nq.QuantSpec(8, group_size=4))


@pytest.mark.parametrize("name", CALLS_WITH_QPARAMS)
def test_groups_must_fit(name):
    call, argument = CALLS_WITH_QPARAMS[name], "q" if name == "dequantize" else "x"
    with pytest.raises(ValueError, match=f"group_size: 4 does not divide the 13 elements of axis -1 of {argument}"):
        call(np.ones((2, 13)), GROUPS)
    for shape in ((2, 8), (2, 16), (3, 12), (12,), (2, 12, 12), (1, 2, 12), (0, 12)):
        with pytest.raises(ValueError, match=rf"{argument}: shape must be \(2, 12\), got"):
            call(np.ones(shape), GROUPS)
    with pytest.raises(ValueError, match=f"{argument}: has 0 dimensions, so axis -1 does not exist"):
        call(np.ones(()), GROUPS)
    first = nq.QParams(np.full((1, 3), 0.1), 0, nq.QuantSpec(8, axis=0, group_size=4))
    with pytest.raises(ValueError, match=rf"{argument}: shape must be \(4, 3\), got \(4, 2\)"):
        call(np.ones((4, 2)), first)


@pytest.mark.parametrize("name", CALLS_WITH_DY)
@pytest.mark.parametrize("shape", [(), (3,), (3, 2), (2, 3, 1), (1, 3), (0, 3)], ids=str)
def test_dy_must_have_the_shape_of_x(name, shape):
    with pytest.raises(ValueError, match=r"dy: shape must be \(2, 3\), got"):
        CALLS_WITH_DY[name](np.ones(shape, np.float32))


@pytest.mark.parametrize("factor", ["1", None.__class__, [1.0]], ids=str)
def test_grad_factor_must_be_a_number(factor):
    with pytest.raises(TypeError):
        nq.fake_quantize_learnable_backward(X, X, QP, grad_factor=factor)


def bad_outputs(dtype):
    other = np.float64 if dtype == np.float32 else np.uint8
    swapped = np.dtype(np.float32).newbyteorder()
    cases = {
        "list": ([[0] * 3] * 2, TypeError, "expected an ndarray, got <class 'list'>"),
        "masked": (np.ma.zeros((2, 3), dtype), TypeError, "expected an ndarray"),
        "other dtype": (np.zeros((2, 3), other), ValueError, f"dtype must be {np.dtype(dtype)}, got {np.dtype(other)}"),
        "shape": (np.zeros((3, 2), dtype), ValueError, r"shape must be \(2, 3\), got \(3, 2\)"),
        "dimensions": (np.zeros(6, dtype), ValueError, r"shape must be \(2, 3\), got \(6,\)"),
        "broadcast": (np.zeros((1, 2, 3), dtype), ValueError, r"shape must be \(2, 3\), got \(1, 2, 3\)"),
        "read-only": (unwriteable(np.zeros((2, 3), dtype)), ValueError, "must be writeable"),
        "Fortran": (np.zeros((3, 2), dtype).T, ValueError, "must be C-contiguous"),
        "strided": (np.zeros((2, 6), dtype)[:, ::2], ValueError, "must be C-contiguous"),
        "reversed": (np.zeros((2, 3), dtype)[::-1], ValueError, "must be C-contiguous"),
    }
    if dtype == np.float32:
        cases["swapped"] = (np.zeros((2, 3), swapped), ValueError, "dtype must be float32, got >f4")
        cases["unaligned"] = (unaligned((2, 3), dtype), ValueError, "must be aligned")
    return cases


@pytest.mark.parametrize("name", CALLS_WITH_OUT)
def test_bad_outputs(name):
    dtype, call = CALLS_WITH_OUT[name]
    for out, error, message in bad_outputs(dtype).values():
        before = np.array(out)
        with pytest.raises(error, match=r"out(\[[01]\])?: " + message):
            call(out)
        np.testing.assert_array_equal(out, before)


@pytest.mark.parametrize("out", [X, [X, X], (X,), (X, X, X), 3], ids=str)
def test_several_outputs_are_a_tuple(out):
    with pytest.raises(TypeError, match="out: expected a tuple of 2 arrays, got"):
        nq.fake_quantize_with_grad(X, X, QP, out=out)


def test_one_of_several_outputs_may_be_left_to_the_function():
    y = np.empty_like(X)
    found = nq.fake_quantize_with_grad(X, X, QP, out=(y, None))
    assert found[0] is y and isinstance(found[1], np.ndarray)


def overlapping(shift):
    """Return two float32 arrays of 8 elements, the second `shift` bytes after the first in one buffer."""
    raw = np.zeros(100, np.uint8)
    return raw[:32].view(np.float32), raw[shift : shift + 32].view(np.float32)


@pytest.mark.parametrize("shift", [4, 8, 28])
def test_an_output_must_not_overlap_partly(shift):
    for x, out in (overlapping(shift), overlapping(shift)[::-1]):
        before = x.copy()
        for call in (
            lambda x=x, out=out: nq.fake_quantize(x, QP, out=out),
            lambda x=x, out=out: nq.fake_quantize_backward(np.ones_like(x), x, QP, out=out),
            lambda x=x, out=out: nq.fake_quantize_backward(x, np.ones_like(x), QP, out=out),
            lambda x=x, out=out: nq.fake_quantize_with_grad(x, np.ones_like(x), QP, out=(out, np.empty_like(x))),
            lambda x=x, out=out: nq.fake_quantize_learnable_backward(x, np.ones_like(x), QP, out=out),
        ):
            with pytest.raises(ValueError, match=r"out(\[0\])? overlaps (x|dy): it may be (x|dy) itself if"):
                call()
        np.testing.assert_array_equal(x, before)
    x, out = overlapping(32)
    nq.fake_quantize(x, QP, out=out)


def test_an_output_of_another_itemsize_must_not_overlap():
    raw = np.zeros(64, np.uint8)
    x = raw.view(np.float32)
    for start in (0, 1, 48):
        with pytest.raises(ValueError, match="out overlaps x"):
            nq.quantize(x, QP, out=raw[start : start + 16].view(np.int8))
    with pytest.raises(ValueError, match="out overlaps q"):
        nq.dequantize(raw[:16].view(np.int8), QP, out=x)


def test_an_output_must_not_overlap_a_strided_input():
    x = np.zeros((4, 4), np.float32)
    for view in (x.T, x[::-1], x[:, ::-1]):
        with pytest.raises(ValueError, match="out overlaps x"):
            nq.fake_quantize(view, QP, out=x)
    with pytest.raises(ValueError, match="out overlaps x"):
        nq.fake_quantize(x[::2, ::2], QP, out=x[1:2].reshape(2, 2))
    nq.fake_quantize(x[:2], QP, out=x[2:])


def test_outputs_must_not_overlap_each_other():
    a, b = overlapping(16)
    for out in ((a, b), (b, a), (a, a)):
        with pytest.raises(ValueError, match=r"out\[0\] overlaps out\[1\]"):
            nq.fake_quantize_with_grad(np.ones(8, np.float32), np.ones(8, np.float32), QP, out=out)


def test_empty_arrays_overlap_nothing():
    x = np.zeros((0, 3), np.float32)
    assert nq.fake_quantize(x, QP, out=x) is x
    assert nq.quantize(x, QP).shape == (0, 3)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (0.1, 0, -128, 127, None, 0),
        (0.1, 0, -128, 127, None, 0, 0, 0),
        (0.1, 0, -128, 2**31, None, 0, 0),
        (0.1, 0, 5, 5, None, 0, 0),
        (0.1, 0, -(2**31) - 1, 127, None, 0, 0),
        (0.1, 0, 0, 2**32, None, 0, 0),
        (0.1, 0, -128, 127, None, 0, 7),
        (0.1, 128, -128, 127, None, 0, 0),
        (0.1, np.nan, -128, 127, None, 0, 0),
        (0.1, 1e300, -128, 127, None, 0, _core.TEXTBOOK),
        (0.1, np.inf, -128, 127, None, 0, _core.OFFSET),
        ([0.1], [0], -128, 127, None, 0, 0),
        (0.1, 0, -128, 127, 0, 0),
        ([0.1, 0.2], [0], -128, 127, 0, 0, 0),
        ([[0.1]], [[0]], -128, 127, 0, 0, 0),
        ([[0.1]], [[0]], -128, 127, 0, -1, 0),
        ([[0.1]], [[0]], -128, 127, 2, 1, 0),
        ([[0.1]], [[0]], -128, 127, None, 1, 0),
        ([0.1], [0], -128, 127, "0", 0, 0),
        (..., 0, -128, 127, None, 0, 0),
    ],
    ids=str,
)
def test_the_core_checks_what_could_harm_it(arguments):
    with pytest.raises((TypeError, ValueError)):
        _core.Params(*arguments)
    with pytest.raises(TypeError):
        _core.Params(scale=0.1)


@pytest.mark.parametrize("name", ["quantize", "dequantize", "fake_quantize", "fake_quantize_backward", "minmax"])
def test_the_core_counts_its_arguments(name):
    for n in (0, 1, 9):
        with pytest.raises(TypeError, match=f"{name} takes . positional arguments, got {n}"):
            getattr(_core, name)(*[X] * n)
    with pytest.raises(TypeError):
        _core.minmax(X, "0")
    with pytest.raises(TypeError):
        _core.histogram(Q, None)
