"""Versions of the guest's OS: what a node runs in a slot, and what is published for nodes to download."""

from __future__ import annotations

import enum
import gzip
import hashlib
import os
import shutil
from pathlib import Path
from typing import Final

from attrs import frozen

from vm import disk
from vm.guest_tree import GuestTree, locked

PROFILE: Final = "microvisor-nonrt"
_ROOT_MIB: Final = 112


class Fault(enum.Enum):
    """What is wrong with an image."""

    NONE = "nothing"
    PANICS = "its first program ends, so that the kernel panics"
    UNHEALTHY = "its health check fails"
    BAD_KERNEL = "its kernel is garbage"
    SILENT = "its agent never starts"


@frozen(kw_only=True)
class GuestImage:
    """An image: `raw` is a root file system, `compressed` what is published, `sha256` that of the latter."""

    version: str
    raw: Path
    compressed: Path
    sha256: str


def guest_image(cache: Path, tree: GuestTree, version: str, fault: Fault = Fault.NONE) -> GuestImage:
    """Return an image, made where the cache doesn't hold it yet."""
    stem = f"image-{tree.digest}-{version}-{fault.name.lower()}"
    raw, compressed = cache / f"{stem}.raw", cache / f"{stem}.raw.gz"
    with locked(cache):
        if not compressed.exists():
            for old in cache.glob("image-*"):
                if not old.name.startswith(f"image-{tree.digest}-"):
                    old.unlink()
            _make(cache, tree, version, fault, raw, compressed)
    with compressed.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return GuestImage(version=version, raw=raw, compressed=compressed, sha256=digest)


def _make(cache: Path, tree: GuestTree, version: str, fault: Fault, raw: Path, compressed: Path) -> None:
    folder = cache / "image.new"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tree.root, folder, symlinks=True, copy_function=os.link)
    (folder / "etc" / "image-id").write_text(f"IMAGE_VERSION={version}\n")
    boot = folder / "boot"
    for name, file in (("vmlinuz", tree.kernel), ("initramfs.img", tree.initramfs)):
        os.link(file, boot / name)
    match fault:
        case Fault.PANICS:
            _replace(folder / "sbin" / "init", "#!/bin/busybox sh\necho 'vm: this image panics'\n")
        case Fault.UNHEALTHY:
            _replace(folder / "opt" / "health", "#!/bin/busybox sh\necho 'vm: this image is not well'\nexit 1\n")
        case Fault.BAD_KERNEL:
            _replace(boot / "vmlinuz", "garbage" * 1000)
        case Fault.SILENT:
            _replace(folder / "opt" / "agent", "#!/bin/busybox sh\nexec sleep 100000\n")
        case Fault.NONE:
            pass
    new = raw.with_suffix(".new")
    disk.ext4(new, _ROOT_MIB, folder, journal=False, label="root")
    packing = compressed.with_suffix(".new")
    with new.open("rb") as source, gzip.GzipFile(packing, "wb", compresslevel=1, mtime=0) as packed:
        shutil.copyfileobj(source, packed, 1 << 20)
    new.rename(raw)
    packing.rename(compressed)
    shutil.rmtree(folder)


def _replace(file: Path, text: str) -> None:
    # Everything here is a hard link to the files that all images share.
    file.unlink(missing_ok=True)
    file.write_text(text)
    file.chmod(0o755)
