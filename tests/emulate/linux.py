"""Run Python, NumPy and ndquant under Linux on a processor that this machine does not have, emulated by Bochs.

    python tests/emulate/linux.py [--cpu tigerlake] [--timeout 3600] [--env NAME=VALUE] -m pytest -q tests/test_gemm.py

The arguments are those of the Python that runs this file; it goes into the emulated machine with its packages and with
this repository. The exit status is that of the emulated Python; 77 means that a tool is missing.
"""

import argparse
import gzip
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from run import DEBIAN_PACKAGES, HERE, SCREEN, SKIPPED, memory_map, missing_packages, watch

ROOT = HERE.parent.parent
CACHE = ROOT / "build" / "emulate"
BOOT_LOADER = [Path("/usr/lib/ISOLINUX/isolinux.bin"), Path("/usr/lib/syslinux/modules/bios/ldlinux.c32")]
PACKAGES = {**DEBIAN_PACKAGES, "xorriso": "xorriso"}
FILES = {
    SCREEN: "bochs-term",
    BOOT_LOADER[0]: "isolinux",
    BOOT_LOADER[1]: "syslinux-common",
    Path("/usr/share/vgabios/vgabios.bin"): "vgabios",
}
# Folders that no test needs; `site-packages` is the one inside the standard library.
LEFT_OUT = "site-packages test tests idlelib tkinter turtledemo lib2to3 ensurepip pip setuptools distutils pydoc_data"
LEFT_OUT_SUFFIXES = {".a", ".h", ".exe", ".deb"}

# Bochs 2.7 states wrong sizes of the protection-key and compacted XSAVE areas, on which Linux would give up AVX-512
# (pku, ospke, xsavec, xsaves); with the other features it dies while booting. None matters to a program.
NOT_FOR_LINUX = "pku,ospke,xsavec,xsaves,smap,rdpid,fsrm,umip,erms,pcid,invpcid"
KERNEL_ARGUMENTS = (
    f"console=ttyS0 quiet loglevel=3 mitigations=off lsm=capability idle=halt tsc=reliable lpj=1000000 no_timer_check "
    f"clearcpuid={NOT_FOR_LINUX}"
)
BOCHSRC = """\
config_interface: textconfig
display_library: term
romimage: file=/usr/share/bochs/BIOS-bochs-latest, options=fastboot
vgaromimage: file=/usr/share/vgabios/vgabios.bin
memory: guest=1536, host=1536
cpu: model={cpu}, ips=100000000, reset_on_triple_fault=0
clock: sync=none
ata0-master: type=cdrom, path="{iso}", status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=/dev/stdout
panic: action=fatal
error: action=report
info: action=report
log: "{log}"
"""


def find_kernel():
    """Return Debian's kernel for virtual machines, downloaded once into build/."""
    kernels = sorted(CACHE.glob("boot/vmlinuz-*"))
    if not kernels:
        CACHE.mkdir(parents=True, exist_ok=True)
        depends = subprocess.check_output(["apt-cache", "depends", "linux-image-cloud-amd64"], text=True)
        package = re.search(r"Depends: (linux-image-\S+)", depends).group(1)
        subprocess.run(["apt-get", "-q", "download", package], cwd=CACHE, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["dpkg", "-x", *CACHE.glob("*.deb"), CACHE], check=True)
        kernels = sorted(CACHE.glob("boot/vmlinuz-*"))
    return kernels[-1]


def files_below(folder):
    """Yield the files of a folder less what no test needs."""
    for place, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if f not in LEFT_OUT.split() and not f.startswith((".", "config-"))]
        for name in names:
            if Path(name).suffix not in LEFT_OUT_SUFFIXES and "tkinter" not in name:
                yield Path(place, name)


def python_files():
    """Return this Python, its standard library, its packages, this repository, and the shared libraries of all."""
    files = {Path(sys.executable), Path(sys.executable).resolve(), ROOT / "pyproject.toml"}
    if sys.prefix != sys.base_prefix:
        files.add(Path(sys.prefix, "pyvenv.cfg"))
    for name in ["stdlib", "platstdlib", "purelib", "platlib"]:
        files.update(files_below(sysconfig.get_path(name)))
    for name in ["python", "csrc", "tests"]:
        files.update(files_below(ROOT / name))
    binaries = [f for f in files if f.suffix == ".so" or f == Path(sys.executable).resolve()]
    libraries = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False).stdout
    return files | {Path(os.path.normpath(p)) for p in re.findall(r"(/\S+\.so\S*) \(0x", libraries)}


class Archive:
    """A cpio archive in the format that Linux unpacks as its first file system (kernel: initramfs-buffer-format)."""

    def __init__(self, stream):
        self.stream, self.count, self.seen = stream, 0, set()

    def add(self, name, mode, data=b"", mtime=0, device=(0, 0)):
        self.count += 1
        name = name.encode() + b"\0"
        fields = [self.count, mode, 0, 0, 1, mtime, len(data), 0, 0, *device, len(name), 0]
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
        self.stream.write(head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4))

    def add_folders_of(self, path):
        for folder in reversed(path.parents[:-1]):
            if folder not in self.seen:
                self.seen.add(folder)
                self.add(str(folder)[1:], stat.S_IFDIR | 0o755)

    def add_file(self, path):
        """Add a file at its own path. Links become what they point to, except that by which Python finds its place."""
        self.add_folders_of(path)
        if path.is_symlink() and path == Path(sys.executable):
            self.add(str(path)[1:], stat.S_IFLNK | 0o777, os.fsencode(path.resolve()))
        else:
            status = path.stat()
            self.add(str(path)[1:], status.st_mode, path.read_bytes(), int(status.st_mtime))


def write_file_system(stream, init, strings):
    archive = Archive(stream)
    for name in ["proc", "tmp", "dev"]:
        archive.add(name, stat.S_IFDIR | 0o777)
    archive.seen.update([Path("/tmp"), Path("/proc"), Path("/dev")])
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive.add("init", stat.S_IFREG | 0o755, init.read_bytes())
    archive.add("command", stat.S_IFREG | 0o644, strings)
    for path in sorted(python_files()):
        archive.add_file(path)
    archive.add("TRAILER!!!", 0)


def make_disc(folder, kernel, strings):
    """Write the CD from which the emulated machine boots; `strings` is what init.c reads."""
    disc, iso, init = folder / "disc", folder / "iso", folder / "init"
    disc.mkdir()
    subprocess.run(["gcc", "-O2", "-static", HERE / "init.c", "-o", init], check=True)
    with gzip.open(disc / "initrd", "wb", compresslevel=1) as stream:  # reading the CD is slower than unpacking
        write_file_system(stream, init, strings)
    for file in BOOT_LOADER:
        shutil.copy(file, disc)
    shutil.copy(kernel, disc / "vmlinuz")
    menu = ["default linux", "label linux", "kernel /vmlinuz", "initrd /initrd", f"append {KERNEL_ARGUMENTS}", ""]
    (disc / "isolinux.cfg").write_text("\n".join(menu))
    boot = "-b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table".split()
    command = ["xorriso", "-as", "mkisofs", "-quiet", "-o", iso, *boot, disc]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return iso


def command_strings(arguments, environment):
    """Return what init.c reads: directory, environment, command."""
    environment = ["PATH=/usr/bin", "HOME=/tmp", "TERM=dumb", "PYTHONDONTWRITEBYTECODE=1", *environment]
    lists = [[str(ROOT)], environment, [sys.executable, *arguments]]
    return b"".join(b"".join(os.fsencode(text) + b"\0" for text in texts) + b"\0" for texts in lists)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", default="tigerlake", help="a model listed by `bochs -help cpu`")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    options, arguments = parser.parse_known_args()
    missing = missing_packages(PACKAGES, FILES)
    if missing:
        print(f"skipped: emulation needs these Debian packages: {missing}")
        return SKIPPED
    try:
        kernel = find_kernel()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"skipped: the package linux-image-cloud-amd64 cannot be downloaded: {error}")
        return SKIPPED
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        iso = make_disc(folder, kernel, command_strings(arguments, options.env))
        bochsrc = BOCHSRC.format(cpu=options.cpu, iso=iso, log=folder / "log")
        return watch(folder, bochsrc, memory_map(), options.timeout)


if __name__ == "__main__":
    sys.exit(main())
