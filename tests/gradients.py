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
        d = edges.pop(node.name)
        d_inputs, d_parameters = node.op.backward(node, d, result.saved[node.name], [True] * len(node.inputs))
        for name, d_input in zip(node.inputs, d_inputs, strict=True):
            edges[name] = edges[name] + d_input if name in edges else d_input
        for name, d_parameter in d_parameters.items():
            array = node.module._parameters[name]
            found[id(array)] = found.get(id(array), 0) + d_parameter
    parameters = {name: found[id(array)] for name, array in graph.named_parameters()}
    return {name: d for name, d in edges.items() if name in graph.inputs} | parameters


def by_differences(graph, inputs, dy, step=1e-5):
    """The same by central differences."""
    arrays = dict(zip(graph.inputs, inputs, strict=True)) | {n: p.data for n, p in graph.named_parameters()}
    found = {}
    for name, array in arrays.items():
        found[name] = gradient = np.zeros_like(array)
        for i in np.ndindex(array.shape):
            kept, sums = array[i], []
            for moved in (kept + step, kept - step):
                array[i] = moved
                sums.append(np.sum(run(graph, inputs).values[graph.output] * dy))
            array[i] = kept
            gradient[i] = (sums[0] - sums[1]) / (2 * step)
    return found


def assert_gradients(graph, *inputs, rtol=1e-6, atol=1e-8):
    """Hold the backward functions of a graph against finite differences at these inputs."""
    graph, inputs = in_float64(graph), [np.array(x, np.float64) for x in inputs]
    y = run(graph, inputs).values[graph.output]
    dy = np.random.default_rng(0).standard_normal(y.shape)
    found, expected = by_ops(graph, inputs, dy), by_differences(graph, inputs, dy)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert gradient.shape == expected[name].shape, name
        np.testing.assert_allclose(gradient, expected[name], rtol=rtol, atol=atol, err_msg=name)
