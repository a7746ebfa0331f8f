"""Run Python, NumPy and ndquant on a 64-bit ARM processor, emulated by qemu-user.

    python tests/emulate/arm64.py [--cpu cortex-a53] [--folder build/arm64] -m pytest -q tests/test_gemm.py

The arguments are those of Python: Debian's for arm64, with NumPy's wheel and this repository, cross-compiled. The
folder keeps what was downloaded (60 MB) and built for the next run; nothing else is touched, nothing is installed. The
exit status is that of the emulated Python; 77 means that a tool, a package or the network is missing.
"""

import argparse
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SKIPPED = 77
TOOLS = {
    "qemu-aarch64": "qemu-user",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "apt-get": "apt",
    "dpkg": "dpkg",
}
DEBIAN_PACKAGES = "python3 libpython3-dev libstdc++6 libgomp1".split()
PYTHON_PACKAGES = ["numpy", "pytest", "hypothesis", "pytest-timeout", "setuptools>=77"]
PLATFORMS = ["manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64"]


def run(command, **options):
    """Run a command; show what it printed only if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout)


def unpack_debian(folder):
    """Unpack Debian's arm64 Python and all that it needs into `folder`/root, as apt finds them from an empty system."""
    state = folder / "apt"
    for name in ["lists/partial", "archives/partial"]:
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    places = {"Dir::State": state, "Dir::State::status": state / "status", "Dir::Cache": state}
    settings = {"APT::Architecture": "arm64", "APT::Architectures": "arm64", "Debug::NoLocking": "1", **places}
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in settings.items())]
    run([*apt, "update"])
    run([*apt, "--yes", "--no-install-recommends", "--download-only", "install", *DEBIAN_PACKAGES])
    for package in state.glob("archives/*.deb"):
        run(["dpkg", "-x", package, folder / "root"])


def unpack_wheels(folder, version):
    """Unpack NumPy and the test tools for that version of Python into `folder`/site."""
    wheels = folder / "wheels"
    platforms = [f"--platform={name}" for name in PLATFORMS]
    pip = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "-d", wheels, *platforms]
    run([*pip, f"--python-version={version}", *PYTHON_PACKAGES])
    for wheel in wheels.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder / "site")


def write_python(folder, interpreter):
    """Write the command that runs the emulated Python, and tell that Python that it is the one to start again."""
    command = folder / "python"
    command.write_text(f'#!/bin/sh\nexec qemu-aarch64 "{interpreter}" "$@"\n')
    command.chmod(0o755)
    (folder / "site" / "sitecustomize.py").write_text(f"import sys\n\nsys.executable = {str(command)!r}\n")
    return command


def prepare(folder):
    """Return the command that runs the emulated Python, after downloading what is not in `folder` yet."""
    command = folder / "python"
    if not command.exists():
        for name in ["root", "site"]:
            shutil.rmtree(folder / name, ignore_errors=True)
        unpack_debian(folder)
        interpreter = (folder / "root/usr/bin/python3").resolve()
        unpack_wheels(folder, interpreter.name.removeprefix("python"))
        write_python(folder, interpreter)
    return command


def build(folder, command, environment):
    """Build ndquant with the emulated Python, whose compiler runs natively."""
    root = folder / "root/usr/include"
    version = (folder / "root/usr/bin/python3").resolve().name
    flags = f"-I{root / version} -isystem {root}"
    where = ["--build-base", folder / "build", "--build-lib", folder / "lib"]
    run([command, "setup.py", "-q", "build", *where], cwd=ROOT, env={**environment, "CFLAGS": flags})


def environment_of(folder, cpu):
    """Return the environment in which qemu and the emulated Python find their files."""
    paths = [folder / "lib", folder / "site", ROOT]
    emulator = {"QEMU_LD_PREFIX": str(folder / "root"), "QEMU_CPU": cpu}
    python = {"PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, **emulator, **python}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", default="max")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "arm64")
    options, arguments = parser.parse_known_args()
    missing = " ".join(sorted(package for tool, package in TOOLS.items() if not shutil.which(tool)))
    if missing:
        print(f"skipped: emulation of arm64 needs these Debian packages: {missing}")
        return SKIPPED
    folder = options.folder.resolve()
    environment = environment_of(folder, options.cpu)
    try:
        command = prepare(folder)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"skipped: Python and NumPy for arm64 cannot be downloaded: {error}\n{getattr(error, 'output', '')}")
        return SKIPPED
    build(folder, command, environment)
    return subprocess.run([command, *arguments], cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
