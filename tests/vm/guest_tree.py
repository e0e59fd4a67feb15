"""The files that every image of the guest has in common: Debian's kernel and Python, busybox, and this library.

They are made once in a cache folder, under a name that changes with everything that goes into them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from attrs import frozen

from vm import initramfs, packages

REPOSITORY: Final = Path(__file__).parents[2]
GUEST: Final = Path(__file__).with_name("guest")

GUEST_PACKAGES: Final = (
    "busybox-static", "e2fsprogs", "libblkid1", "libbz2-1.0", "libc6", "libcom-err2", "libdevmapper1.02.1",
    "libexpat1", "libext2fs2", "libffi8", "libgcc-s1", "liblzma5", "libpcre2-8-0", "libpython3.11-minimal",
    "libpython3.11-stdlib", "libselinux1", "libss2", "libssl3", "libstdc++6", "libudev1", "libuuid1",
    "python3.11-minimal", "zlib1g",
)  # fmt: skip
# A package of which the guest needs one program.
_GRUB_EDITENV: Final = ("grub-common", "usr/bin/grub-editenv")
# What the agent of an immutable node imports; the guest's Python isn't the one that runs the tests.
_WHEELS: Final = (
    "attrs", "cattrs", "python-statemachine", "grpcio", "grpcio-health-checking", "protobuf", "tenacity", "requests",
    "isal",
)  # fmt: skip
_EXAMPLES: Final = tuple(
    REPOSITORY / "examples" / name for name in ("immutable_node.py", "node_command.py", "node_settings.py")
)
_PLATFORMS: Final = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
_MODULES: Final = ("virtio_pci", "virtio_blk", "virtio_net", "vfat", "nls_cp437", "nls_ascii", "nls_utf8", "efivarfs")
# Left out of the image: what no agent imports, and weighs.
_UNUSED: Final = (
    "boot", "usr/share/doc", "usr/share/man", "usr/share/lintian", "usr/share/locale", "usr/share/binfmts",
    "usr/share/applications", "usr/share/pixmaps", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/modules", "lib/modules",
    "usr/lib/python3.11/idlelib", "usr/lib/python3.11/lib2to3", "usr/lib/python3.11/pydoc_data",
    "usr/lib/python3.11/ensurepip", "usr/lib/python3.11/distutils", "usr/lib/python3.11/curses",
)  # fmt: skip
_UNUSED_WHEEL_FILES: Final = ("**/tests",)
_FOLDERS: Final = ("boot/efi", "data", "dev", "opt", "proc", "root", "run", "sys", "tmp", "sbin", "bin", "etc")


@frozen(kw_only=True)
class GuestTree:
    """A root file system as a folder, and what starts it.

    `digest` names everything that went into it.
    """

    root: Path
    kernel: Path
    initramfs: Path
    digest: str


def guest_tree(cache: Path) -> GuestTree:
    """Return the files of the guest, made where the cache doesn't hold them yet."""
    with locked(cache):
        digest = _digest()
        folder = cache / f"tree-{digest}"
        if not folder.exists():
            for old in cache.glob("tree-*"):
                shutil.rmtree(old)
            new = cache / "tree.new"
            shutil.rmtree(new, ignore_errors=True)
            _make(cache, new)
            new.rename(folder)
    return GuestTree(root=folder / "root", kernel=folder / "vmlinuz", initramfs=folder / "initramfs.img", digest=digest)


@contextmanager
def locked(cache: Path) -> Iterator[None]:
    """Keep other processes out of the cache while the block runs."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _digest() -> str:
    found = hashlib.sha256(repr((GUEST_PACKAGES, _WHEELS, _MODULES, _UNUSED)).encode())
    for name in ("guest_tree.py", "initramfs.py"):
        found.update(Path(__file__).with_name(name).read_bytes())
    for folder in (GUEST, REPOSITORY / "src"):
        for file in sorted(folder.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                found.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes())
    for file in (REPOSITORY / "constraints.txt", *_EXAMPLES):
        found.update(file.read_bytes())
    return found.hexdigest()[:16]


def _make(cache: Path, new: Path) -> None:
    root = new / "root"
    debian = cache / "debian"
    kernel_package = packages.kernel_package()
    fetched = packages.download((kernel_package, _GRUB_EDITENV[0], *GUEST_PACKAGES), debian)
    kernel, grub = new / "kernel", new / "grub"
    packages.unpack(fetched[:1], kernel)
    packages.unpack(fetched[1:2], grub)
    packages.unpack(fetched[2:], root)
    site = root / "opt" / "site"
    shutil.copytree(_wheels(cache), site)
    shutil.copytree(REPOSITORY / "src" / "edge_day2", site / "edge_day2", ignore=shutil.ignore_patterns("__pycache__"))
    _drop_what_is_unused(root)
    for name in _FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    busybox = root / "bin" / "busybox"
    for applet in subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split():
        folder = root / ("sbin" if applet == "init" else "bin")
        if not (folder / applet).exists():
            (folder / applet).symlink_to("/bin/busybox")
    shutil.copy(grub / _GRUB_EDITENV[1], root / _GRUB_EDITENV[1])
    for name in ("rc", "inittab"):
        shutil.copy(GUEST / name, root / "etc" / name)
    for file in (GUEST / "agent", GUEST / "health", GUEST / "node.py", *_EXAMPLES):
        shutil.copy(file, root / "opt" / file.name)
    _compile(root)
    shutil.copy(next((kernel / "boot").glob("vmlinuz-*")), new / "vmlinuz")
    modules = initramfs.modules_in_order(next((kernel / "lib" / "modules").iterdir()), _MODULES)
    (new / "initramfs.img").write_bytes(initramfs.archive(busybox, GUEST / "initramfs-init", modules))
    shutil.rmtree(kernel)
    shutil.rmtree(grub)


def _wheels(cache: Path) -> Path:
    """Install what the library needs, for the guest's Python, in a folder of its own."""
    constraints = REPOSITORY / "constraints.txt"
    key = hashlib.sha256(repr((_WHEELS, _PLATFORMS)).encode() + constraints.read_bytes()).hexdigest()[:16]
    folder = cache / f"wheels-{key}"
    if not folder.exists():
        new = cache / "wheels.new"
        shutil.rmtree(new, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        command += ["--target", str(new), "-c", str(constraints), "--only-binary=:all:", "--python-version", "3.11"]
        command += [f"--platform={platform}" for platform in _PLATFORMS]
        subprocess.run([*command, *_WHEELS], check=True)
        for pattern in _UNUSED_WHEEL_FILES:
            for found in new.glob(pattern):
                shutil.rmtree(found) if found.is_dir() else found.unlink()
        new.rename(folder)
    return folder


def _drop_what_is_unused(root: Path) -> None:
    for name in _UNUSED:
        shutil.rmtree(root / name, ignore_errors=True)


def _compile(root: Path) -> None:
    """Compile everything with the guest's own Python, so that the guest, where time is dear, never does.

    Hashes that nobody checks: times of files don't survive into the image.
    """
    libraries = root / "lib" / "x86_64-linux-gnu", root / "usr" / "lib" / "x86_64-linux-gnu"
    loader = [str(root / "lib64" / "ld-linux-x86-64.so.2"), "--library-path", ":".join(map(str, libraries))]
    python = [*loader, str(root / "usr" / "bin" / "python3.11"), "-S", "-m", "compileall", "-q", "-j", "2"]
    folders = [root / "usr" / "lib" / "python3.11", root / "opt"]
    command = [*python, "--invalidation-mode", "unchecked-hash", "-s", str(root), *map(str, folders)]
    env = {**os.environ, "PYTHONHOME": str(root / "usr")}
    env.pop("PYTHONPATH", None)
    subprocess.run(command, check=True, env=env)
