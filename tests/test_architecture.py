"""Imports point one way: between the layers of the package, and between the folders of the C core."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ndquant import _core

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "ndquant"
CORE = ROOT / "csrc"

#: Lowest first. A module may import, when it is itself imported, from lower layers and from its own.
LAYERS = (
    ("_core", "errors", "layout", "parameter", "progress", "reference", "tables"),
    ("profiles",),
    ("qparams",),
    ("functional", "bits", "channels", "convolution", "histogram", "integer", "rows", "runtime", "torch_histogram"),
    ("clip_search", "entropy"),
    ("observers", "metrics", "formats"),
    ("dynamic", "grouped"),
    ("quantizers", "ops"),
    ("graph",),
    ("nn",),
    ("datasets", "workflows", "passes"),
    ("report",),
    ("__init__", "demo", "__main__"),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def module_level(tree):
    """Yield the import statements that run when a module is imported."""
    for node in tree.body:
        if isinstance(node, (ast.If, ast.Try)):
            yield from module_level(node)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node


def imported_layers(path):
    """Yield the names directly under ndquant that a module imports at module level."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    for node in module_level(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[1] for name in node.names if name.name.startswith("ndquant."))
            continue
        module = (node.module or "").split(".") if node.module else []
        if node.level:
            base = ["ndquant", *parts[:-1]]
            module = base[: len(base) - node.level + 1] + module
        if module[:1] == ["ndquant"]:
            names = [module[1]] if len(module) > 1 else [name.name for name in node.names]
            yield from (name if name in LEVEL else "__init__" for name in names)


MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py" or p.parent != PACKAGE)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_python_imports_point_down(path):
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    assert own in LEVEL, f"{own} has no place in the layers"
    for name in imported_layers(path):
        assert LEVEL[name] <= LEVEL[own], f"{own} imports {name}"


def test_the_twins_run_no_c():
    for path in (PACKAGE / "reference").glob("*.py"):
        assert set(imported_layers(path)) <= {"reference"}


def includes(path):
    return re.findall(r'#\s*include\s*[<"]([^>"]+)[>"]', path.read_text())


SOURCES = sorted(CORE.rglob("*.[ch]"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(CORE)))
def test_only_bindings_know_python(path):
    in_bindings = path.parent.name == "bindings"
    for name in includes(path):
        knows = name == "Python.h" or name.startswith("numpy/")
        assert not knows or path == CORE / "bindings" / "pyarray.h"
        assert in_bindings or "bindings/" not in name
    assert in_bindings or not re.search(r"\bPy(?!Torch)[A-Z_]\w+", path.read_text())


def test_an_instruction_set_is_chosen_in_one_file():
    for path in SOURCES:
        if path.name != "cpu.c":
            assert "cpuid" not in path.read_text().replace("CPUID", ""), path
        if path.suffix == ".c" and path.parent.name not in ("backends", "kernels"):
            assert "NDQ_TARGET" not in path.read_text(), path


def test_every_slot_of_the_table_is_filled_by_portable():
    slots = set(re.findall(r"X\((\w+?)_##s,", (CORE / "backend.h").read_text()))
    kernels = "".join(p.read_text() for p in (CORE / "kernels").glob("*.inc.h"))
    assert len(slots) > 9
    for slot in slots:
        assert f"NDQ_FN({slot})" in kernels, slot
    assert ".gemm" in (CORE / "backends" / "portable.c").read_text()


def test_the_stub_has_every_name_and_argument_of_the_core():
    stub = {}
    for node in ast.parse((PACKAGE / "_core.pyi").read_text()).body:
        if isinstance(node, ast.FunctionDef):
            stub[node.name] = [argument.arg for argument in node.args.posonlyargs]
        elif isinstance(node, (ast.ClassDef, ast.AnnAssign)):
            stub[node.name if isinstance(node, ast.ClassDef) else node.target.id] = None
    found = {}
    for name in dir(_core):
        value = getattr(_core, name)
        if not name.startswith("__"):
            found[name] = list(inspect.signature(value).parameters) if inspect.isbuiltin(value) else None
    assert found == stub


def test_the_stub_agrees_with_mypy():
    pytest.importorskip("mypy", reason="mypy is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "ndquant._core"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
