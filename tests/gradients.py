"""Gradients of a graph by its ops, and by finite differences, both in float64."""

import numpy as np

from ndquant.graph.graph import Run


def in_float64(graph):
    """A copy of a graph whose parameters and constants are float64, so that all of it computes in float64."""
    graph = graph.copy()
    for _, array in graph.named_arrays():
        if array.data.dtype == np.float32:
            array.data = array.data.astype(np.float64)
    return graph


def run(graph, inputs):
    """Run the nodes on arrays as they are; returns the `Run`."""
    result = Run(graph, graph.training, dict(zip(graph.inputs, inputs, strict=True)))
    for node in graph.nodes:
        read = [result.values[name] for name in node.inputs]
        result.values[node.name], result.saved[node.name] = node.op.forward(node, read, result)
    return result


def by_ops(graph, inputs, dy):
    """Gradients of sum(output * dy): {name of input or "node.parameter": array}, by the backward functions."""
    result, edges, found = run(graph, inputs), {graph.output: dy}, {}
    for node in reversed(graph.nodes):
        d = edges.pop(node.name, None)
        if d is None:
            continue
        d_inputs, d_parameters = node.op.backward(node, d, result.saved[node.name], [True] * len(node.inputs))
        for name, d_input in zip(node.inputs, d_inputs, strict=True):
            if d_input is None:  # of integers there is none
                continue
            edges[name] = edges[name] + d_input if name in edges else d_input
        for name, d_parameter in d_parameters.items():
            array = node.module._parameters[name]
            found[id(array)] = found.get(id(array), 0) + d_parameter
    parameters = {name: found[id(array)] for name, array in graph.named_parameters()}
    return {name: d for name, d in edges.items() if name in graph.inputs} | parameters


def _assign(parameter, array):
    if parameter is not None:
        parameter.data = array


def by_differences(graph, inputs, dy, step=1e-5, every=1):
    """The same by central differences, of the first of every so many elements; NaN for the others."""
    arrays = {name: x for name, x in zip(graph.inputs, inputs, strict=True) if x.dtype.kind == "f"}
    parameters = dict(graph.named_parameters())
    arrays |= {name: np.array(parameter.data) for name, parameter in parameters.items()}
    found, is_tuple = {}, isinstance(dy, tuple)
    for name, array in arrays.items():
        found[name] = gradient = np.full_like(array, np.nan)
        for i in list(np.ndindex(array.shape))[::every]:
            kept, sums = array[i], []
            for moved in (kept + step, kept - step):
                array[i] = moved
                _assign(parameters.get(name), array)
                y = run(graph, inputs).values[graph.output]
                sums.append(sum(np.sum(a * b) for a, b in zip(y, dy, strict=True)) if is_tuple else np.sum(y * dy))
            array[i] = kept
            _assign(parameters.get(name), array)
            gradient[i] = (sums[0] - sums[1]) / (2 * step)
    return found


def assert_gradients(graph, *inputs, rtol=1e-6, atol=1e-8, every=1):
    """Hold the backward functions of a graph against finite differences at these inputs."""
    graph = in_float64(graph)
    inputs = [np.array(x, None if np.asarray(x).dtype.kind in "ib" else np.float64) for x in inputs]
    y, rng = run(graph, inputs).values[graph.output], np.random.default_rng(0)
    dy = tuple(rng.standard_normal(a.shape) for a in y) if isinstance(y, tuple) else rng.standard_normal(y.shape)
    found, expected = by_ops(graph, inputs, dy), by_differences(graph, inputs, dy, every=every)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert gradient.shape == expected[name].shape, name
        chosen = ~np.isnan(expected[name])
        assert np.count_nonzero(chosen) == -(-gradient.size // every)
        np.testing.assert_allclose(gradient[chosen], expected[name][chosen], rtol=rtol, atol=atol, err_msg=name)
