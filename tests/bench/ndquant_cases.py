"""ndquant as a candidate of a comparison with other libraries: NDQUANT maps each kind of case to a builder.

A builder gets the data of one case, a namespace of arrays and parameters, and returns the call to be timed. Outputs
that the case does not bring are allocated once, as those of the other libraries are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import ndquant as nq
from ndquant import nn
from ndquant.functional import PackedWeight

if not __package__:  # a comparison imports this file by its name alone, from its folder
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench import networks
from tests.networks import ResNet

_U8 = nq.QuantSpec(signed=False, symmetric=False)


def _codes_qparams(scale, zero_point, dtype):
    """Return the QParams of codes of that dtype, per tensor."""
    signed = np.dtype(dtype) == np.int8
    return nq.QParams(np.float32(scale), zero_point, nq.QuantSpec(signed=signed, symmetric=signed and not zero_point))


def _elementwise_qparams(d):
    per_channel = np.ndim(d.scale) > 0
    spec = nq.QuantSpec(8, symmetric=False, axis=d.axis if per_channel else None)
    return nq.QParams(d.scale, np.int64(d.zp), spec)


def quantize(d):
    qp = _elementwise_qparams(d)
    return lambda: nq.quantize(d.x, qp, out=d.q)


def dequantize(d):
    qp = _elementwise_qparams(d)
    return lambda: nq.dequantize(d.q, qp, out=d.out)


def fake_quantize(d):
    qp = _elementwise_qparams(d)
    return lambda: nq.fake_quantize(d.x, qp, out=d.out)


def fake_quantize_with_grad(d):
    qp, out = _elementwise_qparams(d), (d.out, d.gx)
    return lambda: nq.fake_quantize_with_grad(d.x, d.g, qp, out=out)


def gemm(d):
    rows, columns = d.a.shape[0], d.b.shape[1]
    x_qp = _codes_qparams(d.scale_a, d.zp_a, d.a.dtype)
    out_qp = _codes_qparams(d.scale_out, d.zp_out, d.a.dtype)
    w_qp = nq.QParams(np.full(columns, d.scale_b, np.float32), 0, nq.QuantSpec(axis=0))
    packed, out = PackedWeight(np.ascontiguousarray(d.b.T), w_qp), np.empty((rows, columns), d.a.dtype)
    return lambda: nq.linear_integer(d.a, x_qp, packed, out_qp, out=out)


def conv(d):
    """Images lie with their channels last, as inside networks."""
    outputs, window = len(d.w), d.w.shape[2:]
    x_qp = _codes_qparams(d.scale_x, d.zp_x, d.x.dtype)
    out_qp = _codes_qparams(d.scale_out, d.zp_out, d.x.dtype)
    packed = PackedWeight(d.w, nq.QParams(np.full(outputs, d.scale_w, np.float32), 0, nq.QuantSpec(axis=0)))
    x = d.x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    rows, columns = ((n + 2 * d.pad - k) // d.stride + 1 for n, k in zip(x.shape[2:], window, strict=True))
    out = np.empty((len(x), rows, columns, outputs), x.dtype).transpose(0, 3, 1, 2)
    return lambda: nq.conv2d_requantized(
        x, x_qp, packed, out_qp, stride=d.stride, padding=d.pad, groups=d.groups, out=out
    )


def model(d):
    network = networks.Network(networks.from_torch(d.net), d.x)
    plan = network.plan(d.x.shape)
    out = np.empty(plan.output.shape, np.float32)
    return lambda: plan.run([d.x], out)


def qat_step(d):
    rng = np.random.default_rng(0)
    sizes = (784, 100, 100, 10)
    linear = [nn.Linear(k, o, rng=rng) for k, o in zip(sizes[:-1], sizes[1:], strict=True)]
    model = nn.Sequential(linear[0], nn.ReLU(), linear[1], nn.ReLU(), linear[2]) if d.x.ndim == 2 else ResNet()
    network = nq.prepare_qat(model, d.x, "int8")
    optimizer = nn.SGD(network.parameters(), lr=1e-3)

    def step():
        _, dlogits = nn.cross_entropy(network(d.x), d.y)
        network.backward(dlogits)
        optimizer.step()

    return step


NDQUANT = {
    "quantize": quantize,
    "dequantize": dequantize,
    "fakequant": fake_quantize,
    "fakequant_fwd_bwd": fake_quantize_with_grad,
    "gemm": gemm,
    "conv": conv,
    "model": model,
    "qat_step": qat_step,
}
