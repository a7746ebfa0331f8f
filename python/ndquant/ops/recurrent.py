"""LSTM and GRU: one layer in one direction is a node, over all steps in time.

Shape letters: T steps, N sequences, F features, H hidden features, G = 4 H or 3 H gates, S states of a whole network.

The value of a node is a tuple: the outputs (N, T, H) and the last states (N, 1, H), or with ``batch_first=False``
(T, N, H) and (1, N, H). With lengths, a sequence ends after as many steps: its outputs behind that are 0, its last
state is that of the end, and in reverse it begins there, as PyTorch has it for packed sequences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .linear import product
from .pointwise import sigmoid
from .record import Indices, array_of, register, whole_number


def lstm_cell(gx, gh, states):
    """One step of Hochreiter and Schmidhuber's cell with forget gates: gates i, f, g, o in this order, as in PyTorch.

    Parameters
    ----------
    gx, gh : ndarray, shape (N, 4 H)
        What input and hidden state give to the gates, biases included.
    states : tuple of ndarray, shape (N, H)
        h and c.

    Returns
    -------
    states : tuple of ndarray
    saved : tuple
        For `lstm_cell_backward`.
    """
    _, c = states
    i, f, g, o = np.split(gx + gh, 4, axis=1)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    new = f * c + i * g
    squashed = np.tanh(new)
    return (o * squashed, new), (i, f, g, o, c, squashed)


def lstm_cell_backward(d_states, saved):
    """Return the gradients of gx, of gh, and of the states before the step but for what goes through gh."""
    (dh, dc), (i, f, g, o, c, squashed) = d_states, saved
    dc = dc + dh * o * (1 - squashed * squashed)
    gates = dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), dh * squashed * o * (1 - o)
    d = np.concatenate(gates, axis=1)
    return d, d, (np.zeros_like(dh), dc * f)


def gru_cell(gx, gh, states):
    """One step of Cho et al.'s cell (2014, https://arxiv.org/abs/1406.1078), gates r, z, n as in PyTorch."""
    (h,) = states
    (rx, zx, nx), (rh, zh, nh) = np.split(gx, 3, axis=1), np.split(gh, 3, axis=1)
    r, z = sigmoid(rx + rh), sigmoid(zx + zh)
    n = np.tanh(nx + r * nh)
    return ((h - n) * z + n,), (r, z, n, nh, h)


def gru_cell_backward(d_states, saved):
    """Return the gradients of gx, of gh, and of the state before the step but for what goes through gh."""
    (dh,), (r, z, n, nh, h) = d_states, saved
    dn = dh * (1 - z) * (1 - n * n)
    dr, dz = dn * nh * r * (1 - r), dh * (h - n) * z * (1 - z)
    return np.concatenate([dr, dz, dn], axis=1), np.concatenate([dr, dz, dn * r], axis=1), (dh * z,)


@dataclass(frozen=True)
class Cell:
    """What LSTM and GRU differ in."""

    forward: object
    backward: object
    gates: int
    states: int


CELLS = {"lstm": Cell(lstm_cell, lstm_cell_backward, 4, 2), "gru": Cell(gru_cell, gru_cell_backward, 3, 1)}


@dataclass(slots=True)
class Saved:
    """What backward needs of a forward pass."""

    x: np.ndarray  # (T, N, F)
    kept: list  # by the order of the steps: what the cell saved, and which sequences had not ended (None: all)
    before: np.ndarray  # h before each of these steps
    given: int | None  # how many initial states were given


def recurrent_attributes(reverse=False, batch_first=False, state=None, lengths=False):
    """Return the attributes of a node, checked: `state` is the number of its initial state among those given."""
    state = None if state is None else whole_number(state, "state")
    return {"reverse": bool(reverse), "batch_first": bool(batch_first), "state": state, "lengths": bool(lengths)}


def time_first(x, attributes):
    """Return an array with its axis of time, or of states, in front; its own inverse."""
    return x.swapaxes(0, 1) if attributes["batch_first"] else x


def initial_states(node, inputs, cell, count, hidden, dtype):
    """Return the states (N, H) before the first step: those that the node reads, or zeros."""
    number = node.attributes["state"]
    if number is None:
        return tuple(np.zeros((count, hidden), dtype) for _ in range(cell.states))
    given = [time_first(x, node.attributes) for x in inputs[1 : 1 + cell.states]]
    for x in given:
        if number >= len(x) or x.shape[1] != count:
            raise ValueError(f"{node.name}: initial states of shape {x.shape} do not fit {count} sequences")
    return tuple(np.ascontiguousarray(x[number]) for x in given)


def lengths_of(node, inputs, steps, count):
    """Return the lengths of the sequences, or None where all have all steps."""
    if not node.attributes["lengths"]:
        return None
    lengths = inputs[-1]
    if lengths.shape != (count,) or (count and not 0 <= lengths.min() <= lengths.max() <= steps):
        raise ValueError(f"{node.name}: lengths must be {count} integers from 0 to {steps}, not {lengths}")
    return lengths


def _affine(x, w, b):
    y = product(x.reshape(-1, x.shape[-1]), w.T).reshape(*x.shape[:-1], len(w))
    return y if b is None else y + b


def parameters_of(node):
    """Return the weights and biases of both products, None for biases that are not there."""
    arrays = node.module._parameters
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return tuple(arrays[name].data if name in arrays else None for name in names)


def _forward(node, inputs, run):
    cell, (w_ih, w_hh, b_ih, b_hh) = CELLS[node.op.name], parameters_of(node)
    x = np.ascontiguousarray(time_first(inputs[0], node.attributes))
    steps, count, _ = x.shape
    states = initial_states(node, inputs, cell, count, w_hh.shape[1], x.dtype)
    lengths = lengths_of(node, inputs, steps, count)
    given = None if node.attributes["state"] is None else len(time_first(inputs[1], node.attributes))
    gx = _affine(x, w_ih, b_ih)
    y, kept, before = np.zeros((steps, count, w_hh.shape[1]), gx.dtype), [], []
    for t in _times(node, steps):
        gh = states[0] @ w_hh.T
        new, saved = cell.forward(gx[t], gh if b_hh is None else gh + b_hh, states)
        alive = None if lengths is None else (t < lengths)[:, None]
        y[t] = new[0] if alive is None else np.where(alive, new[0], 0)
        kept.append((saved, alive))
        before.append(states[0])
        states = new if alive is None else tuple(np.where(alive, a, b) for a, b in zip(new, states, strict=True))
    value = (time_first(a, node.attributes) for a in (y, *(s[None] for s in states)))
    return tuple(value), Saved(x, kept, np.array(before, x.dtype).reshape(steps, *states[0].shape), given)


def _times(node, steps):
    return range(steps)[::-1] if node.attributes["reverse"] else range(steps)


def _backward(node, dy, saved, need_input):
    cell, (w_ih, w_hh, b_ih, _) = CELLS[node.op.name], parameters_of(node)
    steps, count, _ = saved.x.shape
    d_y, d_states = _given_gradients(node, dy, saved, cell)
    d_gx, d_gh = (np.zeros((steps, count, len(w_hh)), d_y.dtype) for _ in range(2))
    for place, t in reversed(list(enumerate(_times(node, steps)))):
        cell_saved, alive = saved.kept[place]
        inside = [_where(alive, d, 0) for d in d_states]
        inside[0] = inside[0] + _where(alive, d_y[t], 0)
        d_gx[t], d_gh[place], passed = cell.backward(inside, cell_saved)
        passed = passed[0] + d_gh[place] @ w_hh, *passed[1:]
        d_states = [_where(alive, d, after) for d, after in zip(passed, d_states, strict=True)]
    gradients = _parameter_gradients(saved, d_gx, d_gh, has_bias=b_ih is not None)
    dx = time_first((d_gx.reshape(-1, len(w_ih)) @ w_ih).reshape(saved.x.shape), node.attributes)
    given = _of_given_states(node, d_states, saved) if node.attributes["state"] is not None else []
    return (dx, *given, *[None] * node.attributes["lengths"]), gradients


def _where(alive, a, b):
    return a if alive is None else np.where(alive, a, b)


def _given_gradients(node, dy, saved, cell):
    """Return the gradients of the outputs, time first, and of the last states; zeros for what nothing reads."""
    outputs = np.zeros(saved.before.shape, saved.x.dtype)
    d_y = time_first(dy[0], node.attributes) if 0 in dy else outputs
    of_state = (dy.get(number + 1) for number in range(cell.states))
    none = np.zeros(outputs.shape[1:], outputs.dtype)
    return d_y, [none if d is None else time_first(d, node.attributes)[0] for d in of_state]


def _of_given_states(node, d_states, saved):
    """Return the gradients of all states that were given, of which this node read one."""
    whole = np.zeros((saved.given, *d_states[0].shape), d_states[0].dtype)
    gradients = [whole.copy() for _ in d_states]
    for gradient, d in zip(gradients, d_states, strict=True):
        gradient[node.attributes["state"]] = d
    return [time_first(gradient, node.attributes) for gradient in gradients]


def _parameter_gradients(saved, d_gx, d_gh, has_bias):
    of_x, of_h = d_gx.reshape(-1, d_gx.shape[-1]), d_gh.reshape(-1, d_gh.shape[-1])
    h, x = (a.reshape(len(of_x), a.shape[-1]) for a in (saved.before, saved.x))
    gradients = {"weight_ih": of_x.T @ x, "weight_hh": of_h.T @ h}
    return gradients | ({"bias_ih": of_x.sum(axis=0), "bias_hh": of_h.sum(axis=0)} if has_bias else {})


def _shape(node, shapes):
    w_ih, w_hh = array_of(node, "weight_ih", 2), array_of(node, "weight_hh", 2)
    for name in ("bias_ih", "bias_hh"):
        bias = getattr(node, name)
        if bias is not None and bias.shape != (len(w_hh),):
            raise ValueError(f"{node.name}: {name} must have shape {(len(w_hh),)}, not {bias.shape}")
    return recurrent_shape(node, shapes, CELLS[node.op.name], w_ih, w_hh)


def recurrent_shape(node, shapes, cell, w_ih, w_hh):
    """Return the shapes of the parts of a node's value; raise where weights or inputs do not fit."""
    attributes, (gates, hidden), shape = node.attributes, w_hh.shape, shapes[0]
    if gates != cell.gates * hidden or len(w_ih) != gates:
        raise ValueError(f"{node.name}: weights of shape {w_ih.shape} and {w_hh.shape} are none of {node.op.name}")
    if len(shape) != 2 or shape[1] != w_ih.shape[1]:
        raise ValueError(f"{node.name}: takes 3 axes, the last of {w_ih.shape[1]}, not (batch, {str(shape)[1:-1]})")
    wanted = 1 + (0 if attributes["state"] is None else cell.states) + attributes["lengths"]
    if len(shapes) != wanted:
        raise ValueError(f"{node.name}: reads {len(shapes)} values where its attributes say {wanted}")
    floats = shapes[:-1] if attributes["lengths"] else shapes
    if any(isinstance(s, Indices) for s in floats) or (attributes["lengths"] and shapes[-1] != Indices(())):
        raise TypeError(f"{node.name}: takes floats, and lengths as integers of shape (N,)")
    for given in floats[1:]:
        if len(given) != 2 or given[1] != hidden:
            raise ValueError(f"{node.name}: initial states must have 3 axes, the last of {hidden}, not {given}")
    state = (1, hidden) if attributes["batch_first"] else (shape[0], hidden)
    return ((shape[0], hidden), *[state] * cell.states)


for _name in CELLS:
    register(
        name=_name,
        forward=_forward,
        backward=_backward,
        shape=_shape,
        attributes=recurrent_attributes,
        arity=None,
        parameters=("weight_ih", "weight_hh", "bias_ih", "bias_hh"),
        takes_indices=True,
        keeps_output=True,
    )


def _stack_attributes(batch_first=False):
    return {"batch_first": bool(batch_first)}


def _stack_forward(node, inputs, run):
    return np.concatenate(inputs, axis=int(node.attributes["batch_first"])), len(inputs)


def _stack_backward(node, dy, saved, need_input):
    return tuple(np.split(dy, saved, axis=int(node.attributes["batch_first"]))), {}


def _stack_shape(node, shapes):
    if any(shape != shapes[0] for shape in shapes) or len(shapes[0]) != 2:
        raise ValueError(f"{node.name}: states of the shapes {shapes} do not fit each other")
    return (len(shapes), shapes[0][1]) if node.attributes["batch_first"] else shapes[0]


#: The last states of several layers and directions as one array, (N, S, H) or with ``batch_first=False`` (S, N, H).
STACK_STATES = register(
    name="stack_states",
    forward=_stack_forward,
    backward=_stack_backward,
    shape=_stack_shape,
    attributes=_stack_attributes,
    arity=None,
)
