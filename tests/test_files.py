"""Model files: what comes back, how large they are, and what is refused."""

import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ndquant as nq
from ndquant import nn

from .examples import examples
from .networks import PRESETS, inputs, mlp, quantized


def saved(graph, folder, name="model.npz"):
    path = folder / name
    graph.save(path)
    return path


class TestRoundTrip:
    @pytest.mark.parametrize("preset", PRESETS)
    def test_an_integer_graph_gives_the_same_integers_and_outputs(self, preset, tmp_path):
        graph = quantized(preset)
        loaded = nq.load(saved(graph, tmp_path))
        assert repr(loaded) == repr(graph)
        for layer in ("0", "2", "4"):
            ours, theirs = graph.integers(layer), loaded.integers(layer)
            assert ours.keys() == theirs.keys()
            for key in ours:
                assert ours[key].dtype == theirs[key].dtype
                np.testing.assert_array_equal(ours[key], theirs[key])
        np.testing.assert_array_equal(loaded(inputs()), graph(inputs()))

    @pytest.mark.parametrize("bits", range(1, 9))
    @pytest.mark.parametrize("signed", [True, False])
    def test_weights_of_every_width(self, bits, signed, tmp_path):
        spec = nq.QuantSpec(bits, signed=signed, symmetric=False, axis=0)
        activation = nq.Quantize(nq.QuantSpec(8, signed=False, symmetric=False))
        config = nq.QConfig(nq.Quantize(spec), activation)
        graph = quantized(config)
        path = saved(graph, tmp_path)
        np.testing.assert_array_equal(nq.load(path)(inputs()), graph(inputs()))
        with np.load(path) as archive:
            assert archive["0/weight"].nbytes == -(-96 * bits // 8)

    def test_a_float_graph(self, tmp_path):
        model = mlp()
        model(inputs())
        model.save(tmp_path / "float.npz")
        loaded = nq.load(tmp_path / "float.npz")
        np.testing.assert_array_equal(loaded(inputs()), model(inputs()))
        int8 = nq.quantize_static(loaded, [inputs(rng=1)])
        np.testing.assert_array_equal(int8(inputs()), quantized(model=model)(inputs()))

    def test_without_biases_and_with_a_float_layer(self, tmp_path):
        model = nn.Sequential(nn.Flatten(), nn.Linear(6, 4, bias=False, rng=0), nn.ReLU(), nn.Linear(4, 2, rng=1))
        activation = nq.Quantize(nq.QuantSpec(8, signed=False, symmetric=False))
        config = nq.QConfig(nq.Quantize(nq.QuantSpec(8)), activation, overrides={"3": None})
        x = inputs().reshape(-1, 3, 2)
        graph = nq.quantize_static(model, [x], config)
        np.testing.assert_array_equal(nq.load(saved(graph, tmp_path))(x), graph(x))

    def test_float64_scales_keep_their_bits(self, tmp_path):
        graph = quantized()
        node = graph["input.quantizer"]
        node.out_qparams = nq.QParams(0.1, 3, node.out_qparams.spec)
        loaded = nq.load(saved(graph, tmp_path))["input.quantizer"].out_qparams
        assert loaded == node.out_qparams and loaded.scale.dtype == np.float64

    def test_a_file_holds_no_float_weights(self, tmp_path):
        with np.load(saved(quantized("int4"), tmp_path)) as archive:
            floats = {name for name in archive.files if archive[name].dtype.kind == "f"}
        assert floats == {"0/weight_scale", "2/weight_scale", "4/weight_scale"}

    def test_the_int8_file_of_the_tutorial_network_takes_at_most_96_kilobytes(self, tmp_path):
        model, x = mlp((784, 100, 100, 10)), np.random.default_rng(0).standard_normal((50, 784))
        sizes = {p: saved(nq.quantize_static(model, [x], p), tmp_path).stat().st_size for p in ("int8", "int4")}
        assert 90_000 < sizes["int8"] <= 96_000
        assert sizes["int4"] < 0.56 * sizes["int8"]


class TestWriting:
    def test_a_failed_save_leaves_the_old_file(self, tmp_path, monkeypatch):
        graph = quantized()
        path = saved(graph, tmp_path)
        before = path.read_bytes()

        def full(*args, **kwargs):
            args[0].write(b"half")
            raise OSError("no space left")

        monkeypatch.setattr(np, "savez", full)
        with pytest.raises(OSError, match="no space"):
            graph.save(path)
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]

    def test_a_graph_with_observers_has_no_file_form(self, tmp_path):
        with pytest.raises(nq.QuantizationError, match="convert it first"):
            nq.prepare(mlp(), inputs()).save(tmp_path / "x.npz")

    def test_a_module_that_was_never_called_wants_an_example(self, tmp_path):
        with pytest.raises(ValueError, match="example"):
            mlp().save(tmp_path / "x.npz")
        mlp().save(tmp_path / "x.npz", example=inputs())
        assert nq.load(tmp_path / "x.npz").kind == "float"


def rewritten(path, change):
    """The same file with its arrays and header changed by `change(header, arrays)`."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(arrays.pop("header").tobytes())
    change(header, arrays)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **arrays)
    return path


def put(*path_and_value):
    *path, key, value = path_and_value

    def change(header, arrays):
        for step in path:
            header = header[step]
        header[key] = value

    return change


def put_array(name, value):
    return lambda header, arrays: arrays.update({name: value})


class TestBadFiles:
    def test_a_missing_file_is_a_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            nq.load(tmp_path / "none.npz")

    @pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x93NUMPY\x01\x00", bytes(1000)])
    def test_foreign_content(self, content, tmp_path):
        path = tmp_path / "x.npz"
        path.write_bytes(content)
        with pytest.raises(nq.QuantizationError, match="no usable ndquant model"):
            nq.load(path)

    def test_another_npz(self, tmp_path):
        np.savez(tmp_path / "x.npz", weights=np.zeros(3))
        with pytest.raises(nq.QuantizationError, match="no usable ndquant model.*header"):
            nq.load(tmp_path / "x.npz")

    def test_pickles_are_not_opened(self, tmp_path):
        np.savez(tmp_path / "x.npz", header=np.array([{"a": 1}], object))
        with pytest.raises(nq.QuantizationError, match="allow_pickle=False"):
            nq.load(tmp_path / "x.npz")

    def test_every_truncation_is_refused(self, tmp_path):
        path = saved(quantized(), tmp_path)
        content = path.read_bytes()
        for length in range(0, len(content), 97):
            path.write_bytes(content[:length])
            with pytest.raises(nq.QuantizationError):
                nq.load(path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (put("format", "pickle"), "its format is 'pickle'"),
            (put("version", 2), "its version is 2, this library reads 1"),
            (put("kind", "qat"), "its kind is 'qat'"),
            (put("output", "9"), "output '9'"),
            (put("nodes", 1, "op", "system"), "unknown op 'system'"),
            (put("nodes", 1, "inputs", ["7"]), "reads '7'"),
            (put("nodes", 1, "inputs", []), "takes 1"),
            (put("nodes", 1, "inputs", ["input"]), "reads floats"),
            (lambda header, arrays: arrays.pop("0/weight"), "0/weight"),
            (put("nodes", 1, "attributes", {"activation": "gelu"}), "None, .relu. or .relu6., not .gelu."),
            (put("nodes", 1, "attributes", {"clip": 6}), "unknown attributes"),
            (put("nodes", 1, "weight", "shape", [16, -6]), "no shape"),
            (put("nodes", 1, "weight", "shape", [16, 5]), r"codes of int8 \(16, 6\) where int8 \(16, 5\) belong"),
            (put("nodes", 1, "weight", "shape", [6, 16]), r"shape \(16,\)"),
            (put("nodes", 1, "weight", "spec", "bits", 99), "bits"),
            (put("nodes", 1, "weight", "profile", "none"), "profile"),
            (put("nodes", 1, "out_qparams", "scale", -1.0), "scale"),
            (put("nodes", 1, "out_qparams", "zero_point", 256), "zero_point"),
            (put("nodes", 1, "out_qparams", "dtype", "object"), "dtype"),
            (put("inputs", {"input": [7]}), r"takes \(batch, 6\)"),
            (put("inputs", {"input": "six"}), "no shape"),
            (put_array("0/weight", np.zeros((16, 6), np.float32)), "codes of float32"),
            (put_array("0/bias", np.zeros(16, np.int64)), "a bias is int64"),
            (put_array("0/bias", np.zeros(15, np.int32)), r"a bias is int32 \(15,\)"),
            (put_array("0/bias", np.full(16, 2**31 - 1, np.int32)), "channel 0"),
            (put_array("0/weight_scale", np.full(16, np.nan)), "scale"),
            (put_array("extra", np.zeros(1)), "'extra' belongs to no node"),
        ],
    )
    def test_what_contradicts_itself_is_named(self, change, message, tmp_path):
        path = rewritten(saved(quantized(), tmp_path), change)
        with pytest.raises(nq.QuantizationError, match=message):
            nq.load(path)

    def test_packed_codes_out_of_range(self, tmp_path):
        config = nq.QConfig(
            nq.Quantize(nq.QuantSpec(3, axis=0, narrow_range=True)),
            nq.Quantize(nq.QuantSpec(8, signed=False, symmetric=False)),
        )
        path = saved(quantized(config), tmp_path)
        full = put_array("0/weight", np.full(36, 255, np.uint8))
        with pytest.raises(nq.QuantizationError, match="a code is above 3"):
            nq.load(rewritten(path, full))

    @settings(max_examples=examples(300), deadline=None)
    @given(st.data())
    def test_changed_bytes_never_crash(self, tmp_path_factory, data):
        path = tmp_path_factory.getbasetemp() / "mutant.npz"
        content = bytearray(ORIGINAL(path))
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        try:
            graph = nq.load(path)
        except nq.QuantizationError:
            return
        assert graph(inputs(2)).shape[0] == 2

    def test_a_member_that_claims_to_be_huge(self, tmp_path):
        path = saved(quantized(), tmp_path)
        header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
        header += b"{'descr': '|i1', 'fortran_order': False, 'shape': (1000000000000000,), }".ljust(117) + b"\n"
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("huge.npy", header)
        with pytest.raises(nq.QuantizationError):
            nq.load(path)


def ORIGINAL(path, cache={}):  # noqa: B006 - one file for all examples
    if not cache:
        quantized("int4").save(path)
        cache["bytes"] = path.read_bytes()
    return cache["bytes"]
