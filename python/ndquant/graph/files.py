"""Model files: an .npz of plain arrays with a JSON header, read without pickle.

Arrays are called "node/array". Codes of fewer than 8 bits are packed, most significant bit first, each as its distance
from the smallest code.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import fields
from math import prod
from pathlib import Path

import numpy as np

from ..bits import pack_codes, unpack_codes
from ..dynamic import RowWeight
from ..errors import QuantizationError
from ..grouped import GroupedWeight
from ..ops import OPS, Indices
from ..ops.dynamic import DynamicLayer
from ..ops.integer_layer import IntegerLayer, StoredGrid, StoredNorm, StoredTable
from ..ops.record import infer_shape
from ..parameter import HalfParameter, from_half, to_half
from ..qparams import QParams, QuantSpec
from .graph import Graph, Node
from .lower import edge_qparams
from .module import Buffer, Module, Parameter

FORMAT, VERSION = "ndquant graph", 1
_SPEC_FIELDS = tuple(field.name for field in fields(QuantSpec))


def save(graph, path):
    """Write `graph` to `path`, whole or not at all."""
    if graph.kind not in ("float", "integer"):
        raise QuantizationError(f"save: a graph of kind {graph.kind!r} has no file form; convert it first")
    arrays = {}
    header = {
        "format": FORMAT,
        "version": VERSION,
        "kind": graph.kind,
        "inputs": {name: _input_header(shape) for name, shape in graph.inputs.items()},
        "free": graph.free,
        "output": graph.output,
        "nodes": [_node_header(node, arrays) for node in graph.nodes],
    }
    text = json.dumps(header, separators=(",", ":"), allow_nan=False)
    arrays["header"] = np.frombuffer(text.encode(), np.uint8)
    _write(Path(path), arrays)


def _input_header(shape):
    return {"integers": list(shape)} if isinstance(shape, Indices) else list(shape)


def _input_shape(header):
    return Indices(_shape(header["integers"])) if isinstance(header, dict) else _shape(header)


def _write(path, arrays):
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _node_header(node, arrays):
    header = {"name": node.name, "op": node.op.name, "inputs": list(node.inputs), "attributes": node.attributes}
    if node.norm is not None:
        header["norm"] = _node_header(node.norm, arrays)
    if isinstance(node.module, StoredGrid):
        header["out_qparams"] = _qparams_header(node.out_qparams)
        if isinstance(node.module, StoredTable):
            _store(arrays, node.name, table=node.table)
        if isinstance(node.module, StoredNorm):
            _store(arrays, node.name, weight=node.weight, bias=node.bias)
    elif isinstance(node.module, DynamicLayer):
        header["weights"] = {name: _row_weight_header(node, name, arrays) for name in node.module.weights}
    elif isinstance(node.module, IntegerLayer):
        layer = node.module
        codes = _pack_codes(layer.weight, layer.w_qparams.spec)
        header["weight"] = {"shape": list(layer.weight.shape), **_qparams_header(layer.w_qparams)}
        _store(arrays, node.name, weight=codes, bias=layer.bias)
        if layer.w_qparams.spec.axis is not None:
            _store(arrays, node.name, weight_scale=header["weight"].pop("scale"))
            if np.any(header["weight"]["zero_point"]):
                _store(arrays, node.name, weight_zero_point=header["weight"].pop("zero_point"))
            else:
                header["weight"]["zero_point"] = 0
        header["out_qparams"] = None if layer.out_qparams is None else _qparams_header(layer.out_qparams)
    elif isinstance(node.module, Module):
        names = (*node.op.parameters, *node.op.buffers)
        _store(arrays, node.name, **{name: _stored_array(node, name) for name in names})
    return header


def _stored_array(node, name):
    parameter = node.module._parameters.get(name)
    if isinstance(parameter, HalfParameter):
        return to_half(parameter.data, parameter.dtype)
    return getattr(node, name)


def _row_weight_header(node, name, arrays):
    weight = node.module.weights[name]
    header = _qparams_header(weight.qparams)
    stored = {name: weight.codes, f"{name}_scale": header.pop("scale"), DynamicLayer.BIASES[name]: weight.bias}
    if isinstance(weight, GroupedWeight):
        stored[name] = pack_codes(weight.codes, weight.qparams.spec)
        stored[f"{name}_zero_point"] = header["zero_point"] if np.any(header["zero_point"]) else None
        return {"inputs": weight.shape[1], **_row_header(header, arrays, node, stored)}
    return _row_header(header, arrays, node, stored)


def _row_header(header, arrays, node, stored):
    _store(arrays, node.name, **stored)
    return {key: header[key] for key in ("spec", "profile", "dtype")}


def _store(arrays, node, **values):
    arrays.update({f"{node}/{name}": np.asarray(value) for name, value in values.items() if value is not None})


def _qparams_header(qparams):
    scale, zero_point = np.asarray(qparams.scale), np.asarray(qparams.zero_point)
    per_tensor = qparams.spec.axis is None
    return {
        "spec": {name: getattr(qparams.spec, name) for name in _SPEC_FIELDS},
        "profile": qparams.profile,
        "dtype": scale.dtype.name,
        "scale": float(scale) if per_tensor else scale,
        "zero_point": zero_point.item() if per_tensor else zero_point,
    }


def _pack_codes(codes, spec):
    return codes if spec.bits == 8 else pack_codes(codes.reshape(-1), spec)


def _unpack_codes(packed, spec, shape):
    if spec.bits < 8:
        return unpack_codes(packed, spec, prod(shape)).reshape(shape)
    if packed.dtype != spec.dtype or packed.shape != shape:
        raise ValueError(f"codes of {packed.dtype} {packed.shape} where {spec.dtype} {shape} belong")
    return packed


def load(path):
    """Read a graph that `Graph.save` or `Module.save` wrote.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    Graph
        Of kind "float" or "integer".

    Raises
    ------
    QuantizationError
        If the file is corrupt, truncated, or no model of this library, or of a version that is not known.
    OSError
        If it cannot be opened.

    Examples
    --------
    >>> import tempfile, os
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import nn
    >>> model, x = nn.Sequential(nn.Linear(4, 2, rng=0)), np.ones((1, 4))
    >>> int8 = nq.quantize_static(model, [x])
    >>> path = os.path.join(tempfile.mkdtemp(), "model.npz")
    >>> int8.save(path)
    >>> bool((nq.load(path)(x) == int8(x)).all())
    True
    """
    with open(path, "rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            return _graph(arrays)
        except Exception as error:  # noqa: BLE001 - whatever bytes make NumPy, zipfile or json raise
            raise QuantizationError(f"{path} is no usable ndquant model: {error or type(error).__name__}") from error


def _graph(arrays):
    header = json.loads(arrays.pop("header").tobytes().decode())
    if header["format"] != FORMAT:
        raise ValueError(f"its format is {header['format']!r}")
    if header["version"] != VERSION:
        raise ValueError(f"its version is {header['version']!r}, this library reads {VERSION}")
    if header["kind"] not in ("float", "integer"):
        raise ValueError(f"its kind is {header['kind']!r}")
    inputs = {str(name): _input_shape(shape) for name, shape in header["inputs"].items()}
    nodes = [_node(node, header["kind"], arrays) for node in header["nodes"]]
    if arrays:
        raise ValueError(f"array {next(iter(arrays))!r} belongs to no node")
    free = _free_axes(header.get("free", ()), inputs)
    graph = Graph(inputs, nodes, header["output"], kind=header["kind"], free=free)
    graph.infer_shapes()
    for node in nodes:
        _check_edges(graph, node)
        if node.norm is not None:
            infer_shape(node.norm, [node.shape])
    return graph


def _shape(values):
    if not isinstance(values, list) or not all(type(n) is int and n >= 0 for n in values):
        raise ValueError(f"{values!r} is no shape")
    return tuple(values)


def _free_axes(groups, inputs):
    """Return groups of axes of the inputs that may have any length."""
    found = tuple(tuple((str(name), axis) for name, axis in group) for group in groups)
    for name, axis in (pair for group in found for pair in group):
        if name not in inputs or type(axis) is not int or not 0 <= axis < len(inputs[name]):
            raise ValueError(f"there is no axis {axis!r} of an input {name!r}")
    if not all(found):
        raise ValueError("a group of free axes is empty")
    return found


def _ops_of_kind(kind):
    """Return the names of the ops that a graph of this kind may hold."""
    trained = {name for name, op in OPS.items() if op.backward is not None and name != "quantizer"}
    stored = {name for name, op in OPS.items() if op.stores is not None}
    return trained | stored | {"dequantize"} if kind == "integer" else trained


def _node(header, kind, arrays):
    name, op = str(header["name"]), header["op"]
    if op not in _ops_of_kind(kind):
        raise ValueError(f"node {name!r} has the unknown op {op!r}")
    inputs = tuple(map(str, header["inputs"]))
    try:
        attributes = OPS[op].attributes(**header["attributes"])
    except TypeError as error:
        raise ValueError(f"{op} has the unknown attributes {header['attributes']}: {error}") from None
    node = Node(name, OPS[op], inputs, attributes, _module(header, name, op, arrays))
    if "norm" in header:
        node.norm = _node(header["norm"], kind, arrays)
        if node.norm.op.name not in node.op.absorbs or node.norm.running_mean is None:
            raise ValueError(f"node {name!r} cannot hold {node.norm!r}")
    return node


def _module(header, name, op, arrays):
    stores = OPS[op].stores
    if stores is IntegerLayer:
        return _integer_layer(header, name, arrays, rank=2 if op == "linear_integer" else 4)
    if stores is DynamicLayer:
        return DynamicLayer(**{key: _row_weight(part, key, name, arrays) for key, part in header["weights"].items()})
    if stores is StoredTable:
        qparams = _byte_grid(header["out_qparams"], name)
        return StoredTable(_checked_table(arrays.pop(f"{name}/table"), qparams, name), qparams)
    if stores is StoredNorm:
        affine = (_floats(arrays.pop(f"{name}/{part}", None), f"{name}/{part}") for part in ("weight", "bias"))
        return StoredNorm(*affine, _byte_grid(header["out_qparams"], name))
    if stores is StoredGrid:
        return StoredGrid((_qparams if op == "quantize" else _byte_grid)(header["out_qparams"], name))
    if not OPS[op].parameters and not OPS[op].buffers:
        return None
    module = Module()
    for names, kind in ((OPS[op].parameters, Parameter), (OPS[op].buffers, Buffer)):
        for array in names:
            setattr(module, array, _array(arrays.pop(f"{name}/{array}", None), f"{name}/{array}", kind))
    return module


def _array(array, name, kind):
    """Return a `Parameter` or `Buffer` of an array of a file, None for one that is not there."""
    if array is None:
        return None
    if kind is Parameter and array.dtype in (np.float16, np.uint16):
        return HalfParameter(from_half(array), "float16" if array.dtype == np.float16 else "bfloat16")
    made = kind(array)
    if made.data.dtype != array.dtype:
        raise ValueError(f"{name} is {array.dtype}, not {made.data.dtype}")
    return made


def _floats(array, name):
    """Return a row of float32 of a file, None for one that is not there."""
    if array is not None and (array.dtype != np.float32 or array.ndim != 1):
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, not a row of float32")
    return array


def _checked_bias(bias, dtype, length):
    if bias.dtype != dtype or bias.shape != (length,):
        raise ValueError(f"a bias is {bias.dtype} {bias.shape}, not {np.dtype(dtype)} ({length},)")
    return bias


def _checked_table(table, qparams, name):
    spec = qparams.spec
    if table.dtype != spec.dtype or table.shape != (256,) or table.min() < spec.qmin or table.max() > spec.qmax:
        raise ValueError(f"{name}: a table of {table.dtype} {table.shape} where 256 codes of {qparams!r} belong")
    return table


def _integer_layer(header, name, arrays, rank):
    weight_header = dict(header["weight"])
    shape = _shape(weight_header.pop("shape"))
    if len(shape) != rank:
        raise ValueError(f"{name}: a weight of shape {shape}")
    for field in ("scale", "zero_point"):
        if f"{name}/weight_{field}" in arrays:
            weight_header[field] = arrays.pop(f"{name}/weight_{field}")
    if np.ndim(weight_header["scale"]) and not np.ndim(weight_header["zero_point"]):
        weight_header["zero_point"] = np.full(shape[0], weight_header["zero_point"], np.int32)
    w_qparams = _qparams(weight_header, name)
    codes = _unpack_codes(arrays.pop(f"{name}/weight"), w_qparams.spec, shape)
    bias = arrays.pop(f"{name}/bias", None)
    if bias is not None:
        bias = _checked_bias(bias, np.float32 if bias.dtype.kind == "f" else np.int32, shape[0])
    out_qparams = None if header["out_qparams"] is None else _byte_grid(header["out_qparams"], name)
    return IntegerLayer(codes, w_qparams, bias, out_qparams)


def _row_weight(header, key, name, arrays):
    if key not in DynamicLayer.BIASES:
        raise ValueError(f"{name}: an unknown weight {key!r}")
    codes, scale = arrays.pop(f"{name}/{key}"), arrays.pop(f"{name}/{key}_scale")
    if "inputs" in header:
        return _grouped_weight(dict(header), key, name, codes, scale, arrays)
    qparams = _qparams({**header, "scale": scale, "zero_point": np.zeros(scale.shape, np.int32)}, name)
    spec = qparams.spec
    if not (spec.is_byte_grid and spec.symmetric and spec.signed and spec.axis == 0):
        raise ValueError(f"{name}: weights of {spec}, which dynamic layers do not take")
    codes = _unpack_codes(codes, spec, codes.shape)
    if codes.ndim != 2 or scale.shape != codes.shape[:1]:
        raise ValueError(f"{name}: {scale.shape} scales of a weight of shape {codes.shape}")
    bias = arrays.pop(f"{name}/{DynamicLayer.BIASES[key]}", None)
    return RowWeight(codes, qparams, None if bias is None else _checked_bias(bias, np.float32, len(codes)))


def _grouped_weight(header, key, name, packed, scale, arrays):
    inputs, zero_point = header.pop("inputs"), arrays.pop(f"{name}/{key}_zero_point", None)
    qparams = _qparams({**header, "scale": scale, "zero_point": 0 if zero_point is None else zero_point}, name)
    codes = unpack_codes(packed, qparams.spec, inputs)
    if key != "weight" or codes.ndim != 2:
        raise ValueError(f"{name}: a {key} in groups of shape {codes.shape}")
    bias = arrays.pop(f"{name}/bias", None)
    return GroupedWeight(codes, qparams, None if bias is None else _checked_bias(bias, np.float32, len(codes)))


def _byte_grid(header, name):
    """Return `QParams` of the codes that an integer op gives: per tensor, of at most 8 bits."""
    qparams = _qparams(header, name)
    if not qparams.spec.is_byte_grid or qparams.spec.axis is not None:
        raise ValueError(f"{name}: gives codes of {qparams!r}, which integer ops cannot")
    return qparams


def _qparams(header, name):
    if header["dtype"] not in ("float32", "float64"):
        raise ValueError(f"{name}: a scale of dtype {header['dtype']!r}")
    spec = QuantSpec(**header["spec"])
    scale = np.asarray(header["scale"], header["dtype"])
    return QParams(scale[()], header["zero_point"], spec, profile=header["profile"])


def _check_edges(graph, node):
    """Integer ops must be fed codes, and their integers must fit the kernel: nothing is left to the first run.

    Ops on floats may read codes, which they take for the real values.
    """
    grids = [edge_qparams(graph, name) for name in node.inputs[: node.op.quantized_inputs]]
    if isinstance(node.module, DynamicLayer):
        for weight in node.module.weights.values():
            weight.packed  # noqa: B018 - packing checks the integers
    if node.op.stores not in (None, DynamicLayer) and node.op.name != "quantize":
        if any(grid is None or not grid.spec.is_byte_grid for grid in grids):
            raise ValueError(f"node {node.name!r} reads floats where it takes codes")
        if isinstance(node.module, IntegerLayer):
            node.module.packed  # noqa: B018 - packing checks the integers
