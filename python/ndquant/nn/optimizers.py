"""Optimizers over `Parameter` objects."""

from __future__ import annotations

import numpy as np

from ..functional import adam_step, sgd_step
from ..graph.module import Parameter


class Optimizer:
    """Base: checks the parameters and updates each one that has a gradient.

    `parameters` are all of one learning rate, or groups, ``{"params": parameters, "lr": rate}``, as in PyTorch; a group
    without "lr" has that of the optimizer, which may be changed at any time.
    """

    def __init__(self, parameters, lr):
        pairs = _with_rates(parameters)
        self.parameters, self._rates = [p for p, _ in pairs], [rate for _, rate in pairs]
        wrong = [type(p).__name__ for p in self.parameters if not isinstance(p, Parameter)]
        if wrong or not self.parameters:
            raise TypeError(f"parameters: expected model.parameters(), not {wrong[0] if wrong else 'an empty list'}")
        self.parameters = [p.storage for p in self.parameters]
        for rate in {lr, *self._rates} - {None}:
            if not rate > 0 or rate == np.inf:
                raise ValueError(f"lr must be positive and finite, not {rate}")
        self.lr = lr
        self.state = [{} for _ in self.parameters]

    def step(self):
        """Update all parameters by their gradients, in place; one without gradient stays as it is."""
        for parameter, rate, state in zip(self.parameters, self._rates, self.state, strict=True):
            if parameter.grad is not None:
                self._update(parameter.data, parameter.grad, state, self.lr if rate is None else rate)

    def _update(self, data, grad, state, lr):
        raise TypeError(f"{type(self).__name__} has no update rule")


def _with_rates(parameters):
    """Return [(parameter, learning rate of its group or None)]."""
    pairs = []
    for item in parameters:
        if not isinstance(item, dict):
            pairs.append((item, None))
        elif item.keys() - {"lr"} != {"params"}:
            raise ValueError(f'parameters: a group has "params" and may have "lr", not {", ".join(map(repr, item))}')
        else:
            pairs += [(parameter, item.get("lr")) for parameter in item["params"]]
    return pairs


class SGD(Optimizer):
    """Stochastic gradient descent with momentum: ``v = momentum * v + g; w -= lr * v`` (PyTorch's form).

    Parameters
    ----------
    parameters : iterable of Parameter
        Or groups, as `Graph.parameter_groups` gives them.
    lr : float
        Learning rate.
    momentum : float, default 0
        In [0, 1).

    Examples
    --------
    >>> from ndquant import nn
    >>> opt = nn.SGD(nn.Linear(4, 2).parameters(), lr=0.1, momentum=0.9)
    >>> opt.step()
    """

    def __init__(self, parameters, lr, *, momentum=0.0):
        super().__init__(parameters, lr)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {momentum}")
        self.momentum = momentum

    def _update(self, data, grad, state, lr):
        if self.momentum and not state:
            state["velocity"] = np.zeros_like(data)
        velocity = state["velocity"] if self.momentum else None
        sgd_step(data, grad, lr, velocity, self.momentum)


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015, https://arxiv.org/abs/1412.6980), with bias correction as in the paper.

    Parameters
    ----------
    parameters : iterable of Parameter
        Or groups, as `Graph.parameter_groups` gives them.
    lr : float, default 1e-3
        Learning rate.
    betas : tuple of float, default (0.9, 0.999)
        Decay of the first and the second moment, each in [0, 1).
    eps : float, default 1e-8
        Added to the root of the second moment.

    Examples
    --------
    >>> from ndquant import nn
    >>> opt = nn.Adam(nn.Linear(4, 2).parameters(), lr=1e-3)
    >>> opt.step()
    """

    def __init__(self, parameters, lr=1e-3, *, betas=(0.9, 0.999), eps=1e-8):
        super().__init__(parameters, lr)
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be in [0, 1), not {betas}")
        if not eps > 0:
            raise ValueError(f"eps must be positive, not {eps}")
        self.betas, self.eps = betas, eps

    def _update(self, data, grad, state, lr):
        if not state:
            state.update(step=0, m=np.zeros_like(data), v=np.zeros_like(data))
        state["step"] += 1
        adam_step(data, grad, state["m"], state["v"], state["step"], lr, self.betas, self.eps)
