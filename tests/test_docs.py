"""The pages of docs/: what they name exists, and building them warns of nothing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import ndquant as nq
from ndquant import nn, passes, quantizers

from .skips import skip_unless_all, skip_without
from .test_notebooks import NAMES, committed

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("page", ["numerics", "tutorials", "from_pytorch"])
def test_names_on_the_pages_exist(page):
    text = (DOCS / f"{page}.md").read_text()
    right = "\n".join(line.split("|")[2] if line.startswith("| ") else line for line in text.splitlines())
    for module, alias in ((nq, "nq"), (nn, "nn")):
        assert [name for name in re.findall(rf"\b{alias}\.(\w+)", right) if not hasattr(module, name)] == []


def test_cells_that_show_a_mistake_exist():
    text, found = " ".join((DOCS / "tutorials.md").read_text().split()), 0
    for name, cells in re.findall(r"Notebook `(\w+)`, cells? ((?:`[\w-]+`(?:, )?)+)", text):
        assert name in NAMES
        for cell in re.findall(r"`([\w-]+)`", cells):
            assert cell in committed(name).code, (name, cell)
            found += 1
    assert found >= 15


def test_every_quantizer_is_there_with_its_paper():
    text = (DOCS / "quantizers.rst").read_text()
    kinds = [kind for name in quantizers.__all__ if hasattr(kind := getattr(quantizers, name), "gradient")]
    assert len(kinds) == 9
    for kind in kinds:
        assert f".. automodule:: {kind.__module__}\n.. autoclass:: ndquant.quantizers.{kind.__name__}()" in text
        assert "https://arxiv.org/abs/" in sys.modules[kind.__module__].__doc__
    assert ".. automodule:: ndquant.passes\n" in text
    for change in (getattr(passes, name) for name in passes.__all__):
        assert "https://" in sys.modules[change.__module__].__doc__ + change.__doc__


def test_building_warns_of_nothing(tmp_path):
    skip_unless_all()
    skip_without("docs", "sphinx", "numpydoc", "myst_parser")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", DOCS, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ndquant.quantize_static" in (tmp_path / "api.html").read_text()
    page = (tmp_path / "quantizers.html").read_text()
    assert [name for name in passes.__all__ if f"ndquant.passes.{name}" not in page] == []
