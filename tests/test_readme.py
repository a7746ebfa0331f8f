"""The README's example runs and prints what the README shows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import low_bits_mnist, low_bits_resnet
from tests.bench.results import Results

README = (Path(__file__).parents[1] / "README.md").read_text()


def block(before):
    """The fenced block behind these words."""
    return re.search(rf"{before}\s+```\w*\n(.*?)```", README, re.S).group(1)


def without_digits(text):
    """Text as words: trained weights differ in their last bits between machines, and columns with them."""
    return re.sub(r"[-\d.\[\] ]+", " ", text).split()


def test_the_example_prints_what_is_shown():
    example, shown = block("## A short example"), block("prints")
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=True)
    assert "simulation, integers and NumPy agree: 0 of 50000 values of 2 layers differ" in done.stdout
    assert without_digits(done.stdout) == without_digits(shown)


def test_every_folder_of_the_map_exists():
    folders = re.findall(r"^    (?:  )?(\S+/)", README[README.index("## Map of the folders") :], re.M)
    root = Path(__file__).parents[1]
    assert "csrc/" in folders and "tests/" in folders
    for folder in folders:
        assert any((root / base / folder).is_dir() for base in ("", "csrc", "python/ndquant")), folder


def test_both_commands_are_targets_of_the_makefile():
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    for target in re.findall(r"make ([a-z-]+)", README.replace("make\ntest-all", "make test-all")):
        assert re.search(rf"^{target}\b.*:", makefile, re.M), target


@pytest.mark.parametrize("benchmark", [low_bits_mnist, low_bits_resnet], ids=lambda module: module.__name__[12:])
def test_tables_below_8_bits_are_printed_from_what_was_measured(benchmark):
    for part in benchmark.tables(Results(benchmark.RESULTS)).split("\n\n"):
        assert part in README
