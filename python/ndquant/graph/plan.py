"""An integer graph as a plan: a flat list of steps over one arena, built for one shape of input, run by one call.

`make_plan` asks the op of each node for its steps: ``Op.step(node, inputs, steps)`` gets the `Value` of each input and
the `Steps` to append to, and returns the `Value` of its output. A step for a convolutional layer, say::

    def _integer_step(node, inputs, steps):
        (x,) = inputs
        if x.qparams is None:
            return None  # no codes: Python runs this graph node by node
        layer = node.module
        return steps.conv2d(x, layer.packed, layer.out_qparams, **node.attributes)

An op sees shapes as the graph has them, (N, C, H, W) for images. In memory the images of a plan have their channels
last, as its steps make them; the flag for that is `Value.channels_last`, which methods of `Steps` read and set, so that
an op need not look at it. A quantized input keeps the layout in which it came, as convolutions read either. Where an
order of elements is asked for, as by a `reshape` that flattens, a step that transposes is appended.
"""

from __future__ import annotations

from itertools import groupby

import numpy as np

from .. import _core
from ..ops.record import StoredIntegers
from .steps import Steps, for_examples

#: An arena larger than this does not stay in the last cache of common processors.
ARENA_BYTES = 8 << 20

#: Arrays of an arena begin at multiples of this many bytes: a cache line.
ALIGNMENT = 64


class Plan:
    """The steps of a graph for one shape of each input; made by `make_plan`.

    Where they treat each example of a batch alone, which `Steps.examples` finds out, and the arena would pass
    `ARENA_BYTES`, the batch is cut: a call runs all steps on the first part, then on the next, and the arena has room
    for one. Where the batch does not divide evenly, parts of two sizes have an arena each.

    Attributes
    ----------
    values : dict of str to Value
        What each input and node gives, by name; a tuple for a node that gives several outputs.
    steps : list of tuple
        (kind, numbers of the inputs, number of the output, constants of the kind...), for the whole batch; numbers of
        the arrays of a call come first.
    parts : list of int
        How many examples each part has; [1] where some step may mix them, so that the batch counts as one.
    """

    def __init__(self, steps, values, inputs, output):
        self.values, self.output = values, output
        self._outputs = output if isinstance(output, tuple) else (output,)
        brought = [*range(inputs), *(value.number for value in self._outputs)]
        inside = [value for value in steps.values if value.number not in brought]
        numbers = {number: i for i, number in enumerate([*brought, *(value.number for value in inside)])}
        self.steps = [
            (kind, tuple(numbers[x] for x in inputs), numbers[y], *constants)
            for kind, inputs, y, *constants in steps.steps
        ]
        self._given_by_steps = [steps.values[y] for _, _, y, *_ in steps.steps]
        self._sizes = [[steps.values[number].nbytes for number in brought], [value.nbytes for value in inside]]
        self._lifetimes = self._find_lifetimes(len(brought), len(inside))
        examples = steps.examples(inputs, self._outputs)
        self.parts = part_sizes(examples, lay_out(self._sizes[1], self._lifetimes)[1])
        self._cores, first = [], 0
        for count, equal in groupby(self.parts):
            number = len(list(equal))
            self._cores.append((self._make_core(count, examples, number), slice(first, first + number * count)))
            first += number * count

    def _make_core(self, count, examples, parts):
        """Return the plan of the core for parts of `count` of the examples, so many after each other."""
        brought, inside = ([size * count // examples for size in sizes] for sizes in self._sizes)
        offsets, total = lay_out(inside, self._lifetimes)
        steps = tuple(for_examples(step, count, examples) for step in self.steps)
        return _core.make_plan(tuple(brought), tuple(zip(offsets, inside, strict=True)), total, steps, parts)

    def _find_lifetimes(self, first, count):
        """Return for each value of the arena the steps that make it and that read it last."""
        lifetimes = [[len(self.steps), 0] for _ in range(count)]
        for s, (_, inputs, output, *_) in enumerate(self.steps):
            for number in (*inputs, output):
                if number >= first:
                    lifetime = lifetimes[number - first]
                    lifetime[:] = min(lifetime[0], s), max(lifetime[1], s)
        return lifetimes

    @property
    def nbytes(self):
        """Size of the arena, or of both."""
        return sum(core.nbytes for core, _ in self._cores)

    def _in_parts(self, arrays):
        """Return pairs of a plan of the core and what it takes of the arrays."""
        if len(self._cores) == 1:
            return [(self._cores[0][0], arrays)]
        return [(core, tuple(array[examples] for array in arrays)) for core, examples in self._cores]

    def run(self, arrays, out=None):
        """Return the output for inputs of the plan's shapes, or a tuple of several.

        `out`, for a plan with one output, has the layout in memory of that.
        """
        outputs = [value.new_array() for value in self._outputs] if out is None else [out]
        for core, part in self._in_parts((*arrays, *outputs)):
            core.run(*part)
        found = tuple(value.seen_as_shape(y) for value, y in zip(self._outputs, outputs, strict=True))
        return found if isinstance(self.output, tuple) else found[0]

    def trace(self, arrays):
        """Run step by step and return what every input and node gives, by name, as `Graph.run` does."""
        copies = [value.new_array() for value in self._given_by_steps]
        brought = (*arrays, *(value.new_array() for value in self._outputs))
        for core, part in self._in_parts((*brought, *copies)):
            core.trace(part[: len(brought)], part[len(brought) :])
        memory = dict(enumerate(arrays))
        memory |= {value.number: copy for value, copy in zip(self._given_by_steps, copies, strict=True)}

        def wrap(value):
            if isinstance(value, tuple):
                return tuple(map(wrap, value))
            return value if isinstance(value, np.ndarray) else value.wrap(memory[value.number])

        return {name: wrap(value) for name, value in self.values.items()}


def make_plan(graph, shapes):
    """Return the `Plan` of an integer graph for inputs of these shapes, or None if some node has no step."""
    steps = Steps()
    values = {name: steps.new(shape) for name, shape in zip(graph.inputs, shapes, strict=True)}
    for node in graph.nodes:
        step = node.op.step
        read = [values[name] for name in node.inputs]
        has_arrays = any(isinstance(value, np.ndarray) for value in read)
        if step is None or has_arrays and not node.op.step_takes_arrays:
            return None
        value = step(node, read, steps)
        if value is None:
            return None
        values[node.name] = value
    output = values[graph.output]
    parts = output if isinstance(output, tuple) else (output,)
    numbers = [-1 if isinstance(value, np.ndarray) else value.number for value in parts]
    if min(numbers) < len(shapes) or len(set(numbers)) < len(numbers):
        return None  # an output is memory of the caller already
    return Plan(steps, values, len(shapes), output)


def part_sizes(examples, nbytes):
    """Return how many of the examples, whose arena would have `nbytes`, each part of a plan has.

    As few parts as keep an arena within about `ARENA_BYTES`, or fewer than twice as many if these are equal.

    Examples
    --------
    >>> from ndquant.graph.plan import ARENA_BYTES, part_sizes
    >>> part_sizes(9, ARENA_BYTES), part_sizes(9, 2 * ARENA_BYTES), part_sizes(7, 2 * ARENA_BYTES)
    ([9], [3, 3, 3], [4, 3])
    """
    least = min(examples, max(1, -(-nbytes // ARENA_BYTES)))
    parts = next((count for count in range(least, 2 * least) if examples % count == 0), least)
    length, longer = divmod(examples, parts)
    return [length + 1] * longer + [length] * (parts - longer)


def lay_out(sizes, lifetimes):
    """Place arrays in an arena so that none overlaps another that is alive at the same time.

    The largest first, each at the lowest place where it fits (Pisarchyk and Lee, 2020,
    https://arxiv.org/abs/2001.03288, "greedy by size").

    Parameters
    ----------
    sizes : list of int
        In bytes.
    lifetimes : list of (int, int)
        First and last step of each.

    Returns
    -------
    offsets : list of int
        Multiples of `ALIGNMENT`.
    total : int
        Size of the arena.

    Examples
    --------
    >>> lay_out([100, 30, 64], [(0, 1), (1, 2), (2, 3)])
    ([0, 128, 0], 192)
    """
    offsets, placed = [0] * len(sizes), []
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        (first, last), size = lifetimes[i], _aligned(sizes[i])
        alive = sorted((o, o + s) for o, s, f, to in placed if f <= last and first <= to)
        for start, end in alive:
            if offsets[i] + size <= start:
                break
            offsets[i] = max(offsets[i], end)
        placed.append((offsets[i], size, first, last))
    return offsets, max((offset + size for offset, size, *_ in placed), default=0)


def _aligned(size):
    return -(-size // ALIGNMENT) * ALIGNMENT


class Plans:
    """The plans of one graph for the shapes that were used last; a change of any stored integers ends them all."""

    LIMIT = 8

    def __init__(self):
        self._plans, self._version = {}, None

    def find(self, graph, arrays):
        """Return the plan for inputs of these shapes, made if need be; None if some node has no step."""
        if self._version != StoredIntegers.version:
            self._plans, self._version = {}, StoredIntegers.version
        shapes = tuple(array.shape for array in arrays)
        if shapes not in self._plans:
            if len(self._plans) == self.LIMIT:
                del self._plans[next(iter(self._plans))]
            self._plans[shapes] = make_plan(graph, shapes)
        return self._plans[shapes]
