"""The notebooks: what is committed, what executing gives, and that they cover the tutorials and reach their figures."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ndquant as nq

from .skips import skip_unless_all, skip_without

FOLDER = Path(__file__).parents[1] / "notebooks"
SHARED = Path(__file__).parents[2] / "shared"
TUTORIALS = SHARED / "seeds"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))

#: Of the standard library, for times and files.
STANDARD_LIBRARY = {"os", "pathlib", "tempfile", "time"}

#: What the whole suite executes, the second with another seed; both ways for all, if NDQUANT_TEST_ALL is set.
QUICK, QUICK_WITH_SEED = "00_start_here", "01_numpy_from_scratch"


class Notebook:
    """The cells of a notebook file by their ids."""

    def __init__(self, path):
        self.path = path
        cells = json.loads(path.read_text())["cells"]
        self.cells = {cell["id"]: cell for cell in cells}
        assert len(self.cells) == len(cells), "an id occurs twice"
        self.code = {name: cell for name, cell in self.cells.items() if cell["cell_type"] == "code"}

    def outputs(self, name):
        """Texts and pictures of a cell."""
        outputs = self.code[name]["outputs"]
        return ["".join(out["text"]) if "text" in out else json.dumps(out["data"]) for out in outputs]

    def text(self, name):
        """What a cell printed."""
        return "".join("".join(out["text"]) for out in self.code[name]["outputs"] if "text" in out)

    def has_tag(self, name, tag):
        """Whether a cell says that it is "fixed", whatever the seed, or "may-repeat": what it prints are counts."""
        return tag in self.code[name]["metadata"].get("tags", ())


def committed(name):
    return Notebook(FOLDER / f"{name}.ipynb")


def skip_without_data(notebook):
    """Skip what compares outputs of a notebook that takes other data where those of the committed one are missing."""
    sources = "".join(line for cell in notebook.code.values() for line in cell["source"])
    if "NDQUANT_DATA" in sources and "NDQUANT_DATA" not in os.environ and not (SHARED / "data").is_dir():
        pytest.skip("its data sets are not here: no NDQUANT_DATA, and no folder shared/data beside the checkout")


def execute(name, folder, *options):
    """Execute a notebook into a folder, in a process of its own: Jupyter's parts warn, and warnings are errors here."""
    skip_without("notebooks", "nbclient", "nbformat", "ipykernel", "matplotlib")
    path = name if isinstance(name, Path) else FOLDER / f"{name}.ipynb"
    command = [sys.executable, FOLDER / "execute.py", path, "--to", folder, *options]
    data = {"NDQUANT_DATA": str(SHARED / "data")} if (SHARED / "data").is_dir() else {}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=data | os.environ)
    assert done.returncode == 0, done.stderr[-3000:]
    return Notebook(folder / path.name)


@pytest.fixture(params=NAMES)
def notebook(request):
    return committed(request.param)


def test_cells_were_executed_in_order_and_wrote_no_warnings(notebook):
    assert [cell["execution_count"] for cell in notebook.code.values()] == list(range(1, len(notebook.code) + 1))
    kinds = {out.get("name", out["output_type"]) for cell in notebook.code.values() for out in cell["outputs"]}
    assert kinds <= {"stdout", "display_data", "execute_result"}


def test_file_is_small_and_free_of_machine_paths(notebook):
    text = notebook.path.read_text()
    assert len(text) < 450_000
    outputs = json.dumps([cell["outputs"] for cell in notebook.code.values()])
    assert not re.search(r"/(home|tmp|root|usr|work|Users)/|site-packages|[A-Z]:\\\\", outputs)


def test_imports_are_ndquant_numpy_and_matplotlib(notebook):
    for cell in notebook.code.values():
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                assert {name.split(".")[0] for name in names} <= {"ndquant", "numpy", "matplotlib"} | STANDARD_LIBRARY


def test_no_measured_figure_is_typed_into_the_text(notebook):
    for name, cell in notebook.cells.items():
        if cell["cell_type"] == "markdown":
            assert not re.findall(r"\d\.\d\d", "".join(cell["source"])), name


def rows():
    """Rows of the table: (tutorial, number, beginning, notebook, cell)."""
    found, tutorial = [], None
    for line in (FOLDER / "COVERAGE.md").read_text().splitlines():
        if line.startswith("## "):
            tutorial = line.removeprefix("## ")
        elif match := re.fullmatch(r"\| (\d+) \| `(.*)` \| (\S+) \| (\S+) \|", line):
            found.append((tutorial, int(match[1]), *match.groups()[1:]))
    return found


def tutorial_cells(text):
    """Return the code cells of a tutorial: what follows "In [1]:", or its blocks of Python."""
    parts = re.split(r"^In \[(?:\d+|None)\]:\n", text, flags=re.M)[1:]
    return parts or re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)


def tutorial(name):
    if not TUTORIALS.is_dir():
        pytest.skip("the tutorials are not here: no folder shared/seeds beside the checkout")
    return (TUTORIALS / name).read_text()


@pytest.mark.parametrize("name", sorted({row[0] for row in rows()}))
def test_every_cell_of_a_tutorial_has_its_row(name):
    cells = tutorial_cells(tutorial(name))
    beginnings = [(i, cell.strip().splitlines()[0].strip()) for i, cell in enumerate(cells, 1)]
    assert [row[1:3] for row in rows() if row[0] == name] == beginnings


def test_every_row_names_a_cell_that_there_is():
    notebooks = {name: committed(name) for name in NAMES}
    assert rows()
    for tutorial_name, number, _, name, cell in rows():
        assert cell in notebooks[name].code, (tutorial_name, number)


@pytest.mark.parametrize("name", NAMES)
def test_executing_gives_what_is_committed(name, tmp_path):
    if name != QUICK:
        skip_unless_all()
    before = committed(name)
    skip_without_data(before)
    found = execute(name, tmp_path)
    for cell in found.code:
        assert len(found.outputs(cell)) == len(before.outputs(cell)), cell
        if before.has_tag(cell, "fixed"):
            assert found.text(cell) == before.text(cell)


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_changes_every_figure_that_depends_on_data(name, tmp_path):
    if name != QUICK_WITH_SEED:
        skip_unless_all()
    before = committed(name)
    skip_without_data(before)
    found = execute(name, tmp_path, "--seed", "1")
    for cell in found.code:
        has_figures = any(re.search(r"\d", output) for output in found.outputs(cell))
        if has_figures and not before.has_tag(cell, "may-repeat"):
            assert (found.outputs(cell) == before.outputs(cell)) == before.has_tag(cell, "fixed"), cell


def test_the_network_is_off(tmp_path):
    source = "import urllib.request\ntry:\n    urllib.request.urlopen('http://example.com')\nexcept OSError as e:\n"
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": source + "    print(e)", "execution_count": None}
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": [cell | {"outputs": []}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    assert "the network is off" in execute(path, tmp_path).text("a")


def words(text):
    return [line for line in (" ".join(line.split()) for line in text.splitlines()) if line]


@pytest.mark.parametrize("cell", ["tutorial-codes", "tutorial-dequantized", "tutorial-errors", "symmetric-data",
                                  "symmetric-dequantized", "symmetric-error"])
def test_numpy_from_scratch_prints_what_the_tutorial_prints(cell):
    printed = words(tutorial("numpy_from_scratch.txt"))
    found = words(committed("01_numpy_from_scratch").text(cell))
    assert found and [line for line in found if line not in printed] == []


def test_numpy_from_scratch_has_the_codes_of_symmetric_data_and_their_scale():
    printed, found = words(tutorial("numpy_from_scratch.txt")), words(
        committed("01_numpy_from_scratch").text("symmetric-codes"))
    other = [line for line in found if line not in printed]
    scales = [float(line.split()[-1]) for line in printed if line.startswith("Symmetric scale")]
    assert len(other) == 1 and np.isclose(float(other[0].split()[-1]), scales[-1], rtol=1e-9)


def numbers(text):
    return [float(number) for number in re.findall(r"[-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?", text)]


def test_fms_grid_is_the_tutorials():
    """The tutorial prints no outputs; its quantizer, with NumPy in torch's place, is run here on the same values."""
    source = tutorial_cells(tutorial("fms_mo_quantization_tutorial.txt"))[10]
    source = source[: source.index("\n<a")].replace("torch.clamp", "np.clip").replace("torch.", "np.")
    scope = {"np": np}
    exec(source, scope)  # noqa: S102
    x = np.random.default_rng(0).standard_normal(100_000)
    spec = nq.QuantSpec(4, signed=False, symmetric=False, zero_aligned=False)
    theirs = scope["simpleQuantizer"](x, 4, -2.5, 2.5)
    np.testing.assert_array_equal(nq.fake_quantize(x, nq.QParams.from_range(-2.5, 2.5, spec)), theirs)
    shown = numbers(committed("04_fms_4bit_convolution").text("dequantize").split("other")[0])
    np.testing.assert_array_equal(shown, np.round(np.unique(theirs), 4))


def test_fms_counts_are_those_that_the_tutorial_expects():
    notebook = committed("04_fms_4bit_convolution")
    assert "unique quantized input values: 16" in notebook.text("input-quantized")
    assert "values that differ: 0 of 900" in notebook.text("identical")
    levels = [int(used) for used in re.findall(r"(\d+) of 16 levels", notebook.text("lion-levels"))]
    assert levels == [3, 4, 16]


def test_mnist_arrays_are_printed_as_the_tutorial_prints_them():
    printed = words(tutorial("quantization_from_scratch_mnist.txt"))
    notebook = committed("02_mnist_ptq_and_qat")
    found = words(notebook.text("array") + notebook.text("array-results"))
    assert found and [line for line in found if line not in printed] == []


def test_mnist_scales_are_those_that_the_tutorial_prints():
    printed = re.findall(r"scale=([\d.]+), zero_point=(\d+), qscheme", tutorial("quantization_from_scratch_mnist.txt"))
    found = re.findall(r"linear.*scale=([\d.]+), zero_point=(\d+)", committed("02_mnist_ptq_and_qat").text("scales"))
    assert len(printed) == 6
    assert [(np.float32(s), z) for s, z in found] == [(np.float32(s), z) for s, z in printed]


def test_mnist_sizes_and_accuracies_are_near_the_tutorials():
    text, notebook = tutorial("quantization_from_scratch_mnist.txt"), committed("02_mnist_ptq_and_qat")
    float_size, int8_size = (float(kb) for kb in re.findall(r"Size \(KB\): ([\d.]+)", text))
    ratio = float(re.search(r"([\d.]+) times", notebook.text("size-after"))[1])
    assert ratio == pytest.approx(float_size / int8_size, rel=0.05)
    float_accuracy, _, int8_accuracy, qat_accuracy = (float(a) for a in re.findall(r"Accuracy: ([\d.]+)", text))
    ours = [float(a) for a in re.findall(r"0\.\d+", notebook.text("accuracy-int8") + notebook.text("qat-accuracy"))]
    assert ours[:2] == pytest.approx([int8_accuracy, float_accuracy], abs=0.015)
    assert ours[4] == pytest.approx(qat_accuracy, abs=0.015)


def test_tinynn_scales_are_those_that_the_tutorial_prints():
    text, found = tutorial("tinynn_quantization.txt"), committed("03_tinynn_fake_quant_and_graphs").text("printed")
    weight = re.search(r"per_tensor_symmetric.*?scale=tensor\(\[(0\.0045)\]\)", text, re.S)[1]
    conv = re.search(r"\(conv\): QuantizedConvReLU2d\(.*scale=([\d.]+), zero_point=0\)", text)[1]
    assert f"weight scale {weight}, zero point 0" in found
    assert float(re.search(r"conv scale ([\d.]+)", found)[1]) == pytest.approx(float(conv), abs=1e-9)


def test_tinynn_by_hand_and_in_one_line_are_the_same_bits():
    found = committed("03_tinynn_fake_quant_and_graphs").text("beside")
    assert found.count("True") == 3 and "False" not in found
    assert "weight codes that differ: 0 of 9" in found and "outputs that differ: 0 of 150,528" in found


def test_start_here_gets_the_same_bits_with_and_without_classes():
    found = committed("00_start_here").text("same")
    assert "weights that differ: 0\n" in found and "outputs that differ: 0\n" in found


def test_guide_bits_of_e_stand_for_what_the_notebook_says():
    text, notebook = tutorial("quantization_guide.txt"), committed("05_quantization_guide")
    printed = re.findall(r"converted to (\w+) precision:? (?:<br> )?((?:`[01]+` ?){3})", text)
    bits = {name: groups.replace("`", "").split() for name, groups in printed}
    half = nq.formats.decode(np.uint16(int("".join(bits["half"]), 2)), "float16")
    assert f"the guide's bits   {' '.join(bits['half'])} stand for {half:.3f}" in notebook.text("half")
    assert half == pytest.approx(6.797, abs=5e-4) and nq.formats.explain(np.e, "float16").bits in notebook.text("half")
    assert bits["single"] == nq.formats.explain(np.e, "float32").bits.split()
    assert "".join(bits["double"]) == nq.formats.explain(np.e, "float64").bits.replace(" ", "")
    lengths = [len(part) for part in bits["double"]]
    assert "the guide  sign {}, exponent {}, mantissa {}".format(*lengths) in notebook.text("double")


def test_guide_sizes_come_near_a_fourth():
    smaller = re.search(r"MLP, batch 1 .*KB +([\d.]+) x", committed("05_quantization_guide").text("speed"))[1]
    assert float(smaller) == pytest.approx(4, rel=0.1)
