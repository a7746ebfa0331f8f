"""What is shipped: a source archive that builds, and one wheel for CPython 3.11 and later."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def build(kind, folder):
    """Build an sdist or wheel of the checkout into `folder` without touching the checkout; returns the archive."""
    copy = folder / "source"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in tracked:
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    code = f"from setuptools import build_meta as b; print(b.build_{kind}({str(folder)!r}))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / done.stdout.split()[-1], done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("setuptools", minversion="77", reason="building needs setuptools 77 or later")
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    pytest.importorskip("setuptools", minversion="77", reason="building needs setuptools 77 or later")
    return build("sdist", tmp_path_factory.mktemp("sdist"))[0]


def test_the_source_archive_has_every_header_and_the_digits(sdist):
    with tarfile.open(sdist) as archive:
        names = {"/".join(n.split("/")[1:]) for n in archive.getnames()}
    wanted = {str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*.[ch]")}
    assert len(wanted) > 15
    assert wanted | {"python/ndquant/data/digits.npz", "LICENSE", "README.md"} <= names


def test_one_wheel_serves_every_python_from_3_11(wheel):
    path, _ = wheel
    assert path.name.startswith("ndquant-") and "-cp311-abi3-" in path.name
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        metadata = archive.read(next(n for n in names if n.endswith(".dist-info/METADATA"))).decode()
    assert "ndquant/_core.abi3.so" in names and "ndquant/data/digits.npz" in names and "ndquant/py.typed" in names
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert required == ["Requires-Dist: numpy>=2"]


def test_compiling_gives_no_warning(wheel):
    _, done = wheel
    text = done.stdout + done.stderr
    assert "csrc/bindings/module.c" in text
    assert not re.findall(r"csrc/.*warning:.*", text)


def test_without_a_compiler_the_user_is_told_what_to_install(tmp_path):
    pytest.importorskip("setuptools", minversion="77", reason="building needs setuptools 77 or later")
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", str(tmp_path), "--build-temp", str(tmp_path)]
    environment = {**os.environ, "CC": "no-such-compiler"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "'no-such-compiler' was not found" in done.stderr
    assert "apt install gcc" in done.stderr


@pytest.mark.skipif("NDQUANT_TEST_ALL" not in os.environ, reason="other Pythons are part of make test-all")
@pytest.mark.parametrize("version", ["3.12", "3.13", "3.14"])
def test_the_wheel_runs_on_other_pythons(wheel, version, tmp_path):
    python = working_python(version)
    if python is None:
        pytest.skip(f"this machine has no Python {version}")
    subprocess.run([python, "-m", "venv", str(tmp_path / "venv")], check=True)
    inside = str(tmp_path / "venv" / "bin" / "python")
    packages = [str(wheel[0]), "pytest", "hypothesis"]
    subprocess.run([inside, "-m", "pip", "install", "--quiet", *packages], check=True, timeout=300)
    names = ("elementwise", "gemm", "workflows", "verify", "files")
    tests = [str(ROOT / "tests" / f"test_{name}.py") for name in names]
    command = [inside, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.skipif("NDQUANT_TEST_ALL" not in os.environ, reason="the oldest NumPy is part of make test-all")
def test_the_wheel_runs_on_the_oldest_numpy(wheel, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    inside = str(tmp_path / "venv" / "bin" / "python")
    install = [inside, "-m", "pip", "install", "--quiet", str(wheel[0]), "numpy==2.0.0"]
    if subprocess.run(install, timeout=300, check=False).returncode:
        pytest.skip("NumPy 2.0.0 cannot be installed for this Python")
    code = "import numpy, ndquant; print(numpy.__version__, bool(ndquant.quantize_static("
    code += "ndquant.nn.Sequential(ndquant.nn.Linear(4, 2)), [numpy.ones((3, 4))]).verify(numpy.ones((3, 4)))))"
    done = subprocess.run([inside, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2.0.0", "True"], done.stderr


def working_python(version):
    """The interpreter of that version, or None."""
    for candidate in (f"python{version}", *Path.home().glob(f".pyenv/versions/{version}.*/bin/python")):
        try:
            if subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
                return str(candidate)
        except OSError:
            continue
    return None
