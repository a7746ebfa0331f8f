"""Stubs that mark by hand which part of a network is quantized."""

from __future__ import annotations

from ..graph.module import Module
from ..graph.tracing import apply


class QuantStub(Module):
    """Where the quantized region of a network begins; gives the input back.

    A network with such a stub is quantized between its stubs only, one without is quantized whole.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import nn
    >>> layers = nn.Linear(2, 2, rng=0), nn.QuantStub(), nn.Linear(2, 2, rng=1), nn.DeQuantStub()
    >>> int8 = nq.quantize_static(nn.Sequential(*layers), [np.ones((4, 2))])
    >>> [node.op.name for node in int8.nodes]
    ['linear', 'quantize', 'linear_integer', 'dequant_stub']
    """

    def forward(self, x):
        """Record the stub."""
        return apply("quant_stub", x, module=self)


class DeQuantStub(Module):
    """Where the quantized region of a network ends; gives the input back. See `QuantStub`.

    What it reads is quantized if the configuration quantizes the output.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.DeQuantStub()(np.ones((1, 2)))
    array([[1., 1.]], dtype=float32)
    """

    def forward(self, x):
        """Record the stub."""
        return apply("dequant_stub", x, module=self)
