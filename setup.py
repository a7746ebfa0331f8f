"""Builds the extension `ndquant._core`; all metadata is in pyproject.toml.

Switches, from the environment: NDQUANT_DEBUG=1 keeps asserts, NDQUANT_SANITIZE=1 adds the sanitizers of addresses and
undefined behaviour. Build those into another place (`--build-lib`): beside the normal build they would win the import.
"""

import os
import shutil
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from glob import glob

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

DEBUG, SANITIZE = (os.environ.get(f"NDQUANT_{name}") == "1" for name in ("DEBUG", "SANITIZE"))
ABI3 = not (DEBUG or SANITIZE or sysconfig.get_config_var("Py_GIL_DISABLED"))

# -O3: gcc 12 does not vectorise the elementwise loops at -O2. -ffp-contract=off: a fused multiply-add rounds once
# where the definition rounds twice. -fno-trapping-math changes no value: nobody reads the floating-point exception
# flags, and without it a choice between two results stays a branch, which does not vectorise. Nor does -fno-math-errno:
# nobody reads errno either, and without it a square root may become a call.
FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno"]
FLAGS += ["-fvisibility=hidden", "-pthread"]
FLAGS += ["-Wall", "-Wextra", "-Wshadow", "-Wvla", "-Wpointer-arith"]
LINK = ["-pthread"]
if DEBUG or SANITIZE:
    FLAGS += ["-O1", "-g", "-UNDEBUG", "-fno-omit-frame-pointer"]
if SANITIZE:
    FLAGS += ["-fsanitize=address,undefined"]
    LINK += ["-fsanitize=address,undefined"]

MACROS = [("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION")]
if ABI3:
    MACROS += [("Py_LIMITED_API", "0x030B0000")]

INSTALL_HINT = """\
cannot build ndquant: {missing}.
Install a C compiler and the Python headers, then try again:
    Debian, Ubuntu    apt install gcc make python3-dev
    Fedora            dnf install gcc make python3-devel
    Arch              pacman -S gcc make python
    macOS             xcode-select --install"""


def missing_tool(compiler):
    """Say which tool is missing, or return None if the compiler itself had something to complain about."""
    command = getattr(compiler, "compiler_so", ["cc"])[0]
    if shutil.which(command) is None:
        return f"the C compiler {command!r} was not found"
    header = os.path.join(sysconfig.get_path("include"), "Python.h")
    return None if os.path.exists(header) else f"the Python header {header} was not found"


class BuildExt(build_ext):
    """setuptools compiles the files of one extension one after another; this compiles them side by side."""

    def build_extension(self, ext):
        missing = missing_tool(self.compiler)
        if missing:
            raise CompileError(INSTALL_HINT.format(missing=missing))
        compile_all = self.compiler.compile

        def compile_in_parallel(sources, **kwargs):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return sum(pool.map(lambda source: compile_all([source], **kwargs), sources), [])

        self.compiler.compile = compile_in_parallel
        super().build_extension(ext)


setup(
    cmdclass={"build_ext": BuildExt},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if ABI3 else {},
    ext_modules=[
        Extension(
            "ndquant._core",
            sorted(glob("csrc/**/*.c", recursive=True)),
            depends=sorted(glob("csrc/**/*.h", recursive=True)),
            include_dirs=["csrc", numpy.get_include()],
            define_macros=MACROS,
            py_limited_api=ABI3,
            extra_compile_args=FLAGS,
            extra_link_args=LINK,
        )
    ],
)
