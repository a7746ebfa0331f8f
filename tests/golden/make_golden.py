"""Write the golden files of this folder: inputs, and what PyTorch 2.13 (CPU, x86) computes from them.

Only somebody who regenerates the files runs this, in an environment with PyTorch and NumPy:

    python tests/golden/make_golden.py

Letters: S settings (scale, zero point, bits, signed), V values per setting, C channels.

per_tensor.npz    arrays (S, V): x, dy, and y, dx, q, learnable_* of each setting
per_channel.npz   the same for blocks of channels; keys "<block>/<name>", the channel axis is "<block>/axis"
observers.npz     data, and scale and zero point of each observer that saw them; keys "<observer>/<setting>/<name>"
histograms.npz    batches of growing ranges; HistogramObserver's counts and range after the last, its answers after each

A fifth of the values or more are boundary values: halfway points and range ends, plus and minus one ulp.
"""

from pathlib import Path

import numpy as np
import torch
from histogram_cases import many_values
from torch.ao.quantization import observer as tobs

FOLDER = Path(__file__).parent
SEED = 20261123

TIE_SCALE, TIE_X = np.float32(0.00214854861), np.float32(0.273939937)
"""x/scale is 127, x*(1/scale) rounds to 127.5 and then to 128."""

SCALES = [TIE_SCALE, 0.1, 1.0, 0.0078431377, 37.3, 1e-6]
ZERO_POINTS = {
    (8, False): [0, 1, 17, 128, 255],
    (8, True): [-128, 0, 1, 17, 127],
    (4, False): [0, 1, 8, 15],
    (4, True): [-8, 0, 1, 7],
    (2, False): [0, 1, 2, 3],
    (2, True): [-2, -1, 0, 1],
}
VALUES, BOUNDARY = 200, 60
GRAD_FACTOR = 0.37


def bounds(bits, signed):
    """Smallest and largest code."""
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def settings():
    """Every (scale, zero point, bits, signed): all scales at 8 bits, the first three below."""
    for (bits, signed), zero_points in ZERO_POINTS.items():
        for zero_point in zero_points:
            for scale in SCALES if bits == 8 else SCALES[:3]:
                yield np.float32(scale), zero_point, bits, signed


def boundary_values(scale, zero_point, bits, signed, rng):
    """Halfway points between codes and range ends, each as it is or moved by one ulp."""
    qmin, qmax = bounds(bits, signed)
    lo, hi = qmin - zero_point, qmax - zero_point
    ends = np.repeat([lo - 0.5, lo, hi, hi + 0.5], 3)
    halves = rng.integers(lo - 1, hi + 1, BOUNDARY - len(ends), endpoint=True) + 0.5
    exact = (np.concatenate([ends, halves]) * np.float64(scale)).astype(np.float32)
    direction = np.tile(np.float32([-np.inf, 0, np.inf]), BOUNDARY // 3)
    return np.where(direction == 0, exact, np.nextafter(exact, direction))


def values(scale, zero_point, bits, signed, rng):
    """One row of x: boundary values, zeros of both signs, values far outside, and a spread over the range."""
    qmin, qmax = bounds(bits, signed)
    lo, hi = (qmin - zero_point) * scale, (qmax - zero_point) * scale
    special = np.float32([0.0, -0.0, 1e-40, -1e-40, 1e6 * scale, -1e6 * scale])
    if scale == TIE_SCALE:
        special[2] = TIE_X
    width = hi - lo
    spread = rng.uniform(lo - 0.15 * width, hi + 0.15 * width, VALUES - BOUNDARY - len(special)).astype(np.float32)
    row = np.concatenate([boundary_values(scale, zero_point, bits, signed, rng), special, spread])
    return rng.permutation(row).astype(np.float32)


def gradients(shape, rng):
    """Output gradients of both signs, a few of them zero."""
    dy = rng.normal(0.5, 1.0, shape).astype(np.float32)
    dy[rng.random(shape) < 0.02] = 0
    return dy


def array(tensor):
    return tensor.detach().numpy().copy()


def leaf(values):
    return torch.tensor(values, requires_grad=True)


def fake_quantize(x, dy, scale, zero_point, limits, axis=None):
    """Forward and straight-through gradient."""
    x = leaf(x)
    if axis is None:
        y = torch.fake_quantize_per_tensor_affine(x, float(scale), int(zero_point), *limits)
    else:
        zero_point = torch.tensor(zero_point, dtype=torch.int32)
        y = torch.fake_quantize_per_channel_affine(x, torch.tensor(scale), zero_point, axis, *limits)
    y.backward(torch.tensor(dy))
    return array(y), array(x.grad)


def learnable(x, dy, scale, zero_point, limits, axis=None):
    """Forward, and gradients of x, scale and zero point.

    The per-tensor operator rounds its zero point to int(zero_point + 0.5) in its backward, which is one too much when
    it is negative (pytorch#52038); a single channel of the per-channel operator has no such fault.
    """
    if axis is None and zero_point < 0:
        y, dx, dscale, dzp = learnable(x[None], dy[None], scale, zero_point, limits, axis=0)
        return y[0], dx[0], dscale, dzp
    x, scale, zero_point = leaf(x), leaf(np.atleast_1d(scale)), leaf(np.atleast_1d(np.float32(zero_point)))
    if axis is None:
        y = torch._fake_quantize_learnable_per_tensor_affine(x, scale, zero_point, *limits, GRAD_FACTOR)
    else:
        y = torch._fake_quantize_learnable_per_channel_affine(x, scale, zero_point, axis, *limits, GRAD_FACTOR)
    y.backward(torch.tensor(dy))
    return tuple(array(t) for t in (y, x.grad, scale.grad, zero_point.grad))


def learnable_each(x, dy, scale, zero_point, limits, axis=None):
    """Gradients of scale and zero point that each value alone contributes: every value is a channel of its own."""
    shape = [1] * x.ndim
    if axis is not None:
        shape[axis] = -1
    per_value = [np.broadcast_to(np.reshape(v, shape), x.shape).reshape(-1) for v in (scale, zero_point)]
    _, _, dscale, dzp = learnable(x.reshape(-1, 1), dy.reshape(-1, 1), *per_value, limits, axis=0)
    return dscale.reshape(x.shape), dzp.reshape(x.shape)


def backward_agrees_with_forward(x, y, scale, zero_point, limits, axis=None):
    """Where the learnable backward rounds to the code that the forward gave (it rounds by another rule)."""
    ones = np.ones_like(x)
    dscale, dzp = learnable_each(x, ones, scale, zero_point, limits, axis)
    _, mask = fake_quantize(x, ones, scale, zero_point, limits, axis)
    shape = [1] * x.ndim
    if axis is not None:
        shape[axis] = -1
    steps = np.float64(y) - x
    steps /= np.float64(np.reshape(scale, shape))
    same_code = np.abs(dscale / GRAD_FACTOR - steps) < 0.5
    return np.where(mask > 0, (dzp == 0) & same_code, dzp != 0)


def quantize(x, scale, zero_point, signed, axis=None):
    """8-bit codes."""
    dtype = torch.qint8 if signed else torch.quint8
    if axis is None:
        q = torch.quantize_per_tensor(torch.tensor(x), float(scale), int(zero_point), dtype)
    else:
        zero_point = torch.tensor(zero_point, dtype=torch.int64)
        q = torch.quantize_per_channel(torch.tensor(x), torch.tensor(scale), zero_point, axis, dtype)
    return array(q.int_repr()).astype(np.int16)


def golden(x, dy, scale, zero_point, bits, signed, axis=None):
    """Everything PyTorch computes from one array under one setting."""
    limits = bounds(bits, signed)
    y, dx = fake_quantize(x, dy, scale, zero_point, limits, axis)
    learnable_y, learnable_dx, _, _ = learnable(x, dy, scale, zero_point, limits, axis)
    dscale_each, dzp_each = learnable_each(x, dy, scale, zero_point, limits, axis)
    agrees = backward_agrees_with_forward(x, y, scale, zero_point, limits, axis)
    learnable_dy = np.where(agrees, dy, np.float32(0))
    _, _, dscale, dzp = learnable(x, learnable_dy, scale, zero_point, limits, axis)
    q = quantize(x, scale, zero_point, signed, axis) if bits == 8 else np.zeros(x.shape, np.int16)
    return dict(x=x, dy=dy, y=y, dx=dx, q=q, learnable_y=learnable_y, learnable_dx=learnable_dx,
                learnable_agrees=agrees, learnable_dscale_each=dscale_each, learnable_dzp_each=dzp_each,
                learnable_dscale=dscale, learnable_dzp=dzp)


def per_tensor():
    rng = np.random.default_rng(SEED)
    rows = []
    for scale, zero_point, bits, signed in settings():
        x = values(scale, zero_point, bits, signed, rng)
        row = golden(x, gradients(x.shape, rng), scale, zero_point, bits, signed)
        rows.append(row | dict(scale=scale, zero_point=zero_point, bits=bits, signed=signed))
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]} | {"grad_factor": GRAD_FACTOR}


def per_channel():
    """One block per (bits, signed); its channels are the settings, spread over axis 0, 1 or the last."""
    rng = np.random.default_rng(SEED + 1)
    files = {"grad_factor": GRAD_FACTOR}
    for number, (bits, signed) in enumerate(ZERO_POINTS):
        chosen = [s for s in settings() if s[2:] == (bits, signed)]
        scale, zero_point = np.float32([s[0] for s in chosen]), np.int32([s[1] for s in chosen])
        rows = np.stack([values(*s, rng) for s in chosen])
        axis = number % 3
        x = [rows, rows.reshape(len(chosen), 8, -1).swapaxes(0, 1), rows.reshape(len(chosen), 4, -1).transpose(1, 2, 0)]
        x = np.ascontiguousarray(x[axis])
        found = golden(x, gradients(x.shape, rng), scale, zero_point, bits, signed, axis)
        found |= dict(scale=scale, zero_point=zero_point, bits=bits, signed=signed, axis=axis)
        files |= {f"{'s' if signed else 'u'}{bits}/{name}": value for name, value in found.items()}
    return files


OBSERVERS = {
    "u8_affine": dict(dtype=torch.quint8, qscheme=torch.per_tensor_affine),
    "u7_affine": dict(dtype=torch.quint8, qscheme=torch.per_tensor_affine, reduce_range=True),
    "u4_affine": dict(dtype=torch.quint8, qscheme=torch.per_tensor_affine, quant_min=0, quant_max=15),
    "u8_symmetric": dict(dtype=torch.quint8, qscheme=torch.per_tensor_symmetric),
    "s8_affine": dict(dtype=torch.qint8, qscheme=torch.per_tensor_affine),
    "s8_symmetric": dict(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric),
    "s7_symmetric": dict(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric, reduce_range=True),
    "s4_symmetric": dict(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric, quant_min=-8, quant_max=7),
}
PER_CHANNEL = {
    torch.per_tensor_affine: torch.per_channel_affine,
    torch.per_tensor_symmetric: torch.per_channel_symmetric,
}


def observed_data(rng):
    """Arrays (12, 5, 4) whose ranges lie on either side of zero, straddle it, are tiny, huge constant or zero."""
    normal = rng.normal(size=(12, 5, 4)).astype(np.float32)
    data = {f"normal{k}": normal * np.float32(10.0 ** k) for k in (-5, -1, 0, 1, 6)}
    data |= {"positive": np.abs(normal) + np.float32(3), "negative": -np.abs(normal) - np.float32(0.2)}
    data |= {"relu": np.maximum(normal, 0), "shifted": normal * np.float32(0.3) + np.float32(2)}
    data |= {"below_eps": normal * np.float32(1e-9), "constant": np.full_like(normal, 2.5), "zero": 0 * normal}
    return data | {f"random{k}": normal[rng.permutation(12)] * rng.lognormal(0, 3, (12, 5, 4)).astype(np.float32)
                   for k in range(20)}


def run(observer, batches):
    """Scale and zero point after each batch."""
    found = []
    for batch in batches:
        observer(torch.tensor(batch))
        found.append([array(t).reshape(-1) for t in observer.calculate_qparams()])
    return [np.stack(column) for column in zip(*found, strict=True)]


def made(kind, options):
    """An observer of this kind."""
    channels = options | {"qscheme": PER_CHANNEL[options["qscheme"]]}
    return {
        "minmax": lambda: tobs.MinMaxObserver(**options),
        "minmax_axis1": lambda: tobs.PerChannelMinMaxObserver(ch_axis=1, **channels),
        "average": lambda: tobs.MovingAverageMinMaxObserver(**options),
        "average_axis0": lambda: tobs.MovingAveragePerChannelMinMaxObserver(ch_axis=0, **channels),
    }[kind]()


def observers():
    """Scale and zero point of each observer; arrays (data, batches seen, channels)."""
    data = observed_data(np.random.default_rng(SEED + 2))
    files = {"names": np.array(list(data)), "data": np.stack(list(data.values()))}
    for kind in ("minmax", "minmax_axis1", "average", "average_axis0"):
        for setting, options in OBSERVERS.items():
            found = [run(made(kind, options), x if "average" in kind else [x]) for x in data.values()]
            scale, zero_point = (np.stack(column) for column in zip(*found, strict=True))
            files[f"{kind}/{setting}/scale"] = scale.astype(np.float32)
            files[f"{kind}/{setting}/zero_point"] = zero_point.astype(np.int32)
    return files


def histogram_batches(rng):
    """Sequences of batches (4, 250): ranges that grow, stay and are points; outliers, zeros, values of one sign."""
    normal = rng.normal(size=(4, 250)).astype(np.float32)
    growth = np.float32([0.5, 1, 2, 40])[:, None]
    point = np.full((1, 250), 1.5, np.float32)
    batches = {
        "normal": normal,
        "growing": normal * growth,
        "shrinking": normal * growth[::-1],
        "relu": np.maximum(normal, 0),
        "negative": -np.abs(normal) - np.float32(1),
        "tiny": normal * growth * 1e-9,
        "heavy": rng.standard_t(2, (4, 250)),
        "laplace": rng.laplace(size=(4, 250)) * growth[::-1] * 100,
        "point": np.concatenate([point, point, normal[:2]]),
        "points": point * np.float32([[1], [1], [-2], [0]]),
        "zero": 0 * normal,
        "codes": rng.integers(0, 7, (4, 250)) / 6 - 0.4242,
    }
    return {name: batch.astype(np.float32) for name, batch in batches.items()}


def histograms():
    """Arrays (sequence), and for each setting (sequence, batch); on one thread, as sums of floats depend on it."""
    torch.set_num_threads(1)
    sequences = histogram_batches(np.random.default_rng(SEED + 3))
    files = {"names": np.array(list(sequences)), "data": np.stack(list(sequences.values()))}
    for name, data in (("data", files["data"]), ("large", many_values())):
        for setting, options in OBSERVERS.items():
            made = [tobs.HistogramObserver(**options) for _ in data]
            found = [run(observer, batches) for observer, batches in zip(made, data, strict=True)]
            scale, zero_point = (np.stack(column)[..., 0] for column in zip(*found, strict=True))
            files[f"{name}/{setting}/scale"] = scale.astype(np.float32)
            files[f"{name}/{setting}/zero_point"] = zero_point.astype(np.int32)
        files[f"{name}/counts"] = np.stack([array(observer.histogram) for observer in made])
        files[f"{name}/range"] = np.stack([[float(end) for end in o._non_linear_param_search()] for o in made])
    return files


def print_differences(name, files):
    """The two counts whose sums over the files tests/test_golden.py states."""
    blocks = [key.removesuffix("learnable_agrees") for key in files if key.endswith("learnable_agrees")]
    learnable_differs = sum(np.sum(~files[block + "learnable_agrees"]) for block in blocks)
    codes_differ = sum(np.sum(differs_from_fake_quantize(files, block)) for block in blocks)
    print(name, "codes that differ:", codes_differ, "learnable that differ:", learnable_differs)


def differs_from_fake_quantize(files, block):
    """Where the code of quantize_per_* is not that of fake_quantize_per_*."""
    x, scale, zero_point, bits, axis = (files.get(block + n, 0) for n in ("x", "scale", "zero_point", "bits", "axis"))
    shape = [-1 if k == axis else 1 for k in range(x.ndim)]
    codes = np.rint(files[block + "y"] / np.float64(scale.reshape(shape))) + zero_point.reshape(shape)
    eight = np.broadcast_to(bits == 8, len(scale)).reshape(shape)
    return (codes != files[block + "q"]) & eight


def main():
    if not torch.__version__.startswith("2.13."):
        raise SystemExit(f"the golden files are those of PyTorch 2.13; this is {torch.__version__}")
    for make in (per_tensor, per_channel, observers, histograms):
        path, files = FOLDER / f"{make.__name__}.npz", make()
        np.savez_compressed(path, **files)
        print(path.name, path.stat().st_size, "bytes")
        if make in (per_tensor, per_channel):
            print_differences(path.name, files)


if __name__ == "__main__":
    main()
