"""An initial file system for the guest's kernel: busybox, a script, and the modules that the kernel needs, in order."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


def modules_in_order(tree: Path, names: Iterable[str]) -> list[Path]:
    """Return the files of kernel modules, each after what it depends on. `tree` is lib/modules/VERSION.

    depmod would tell the same, but runs when the package is installed, which it never is.
    """
    files = {file.stem.replace("-", "_"): file for file in tree.rglob("*.ko")}
    ordered: dict[str, Path] = {}

    def add(name: str) -> None:
        if name in ordered or name not in files:
            return
        found = _DEPENDS.search(files[name].read_bytes())
        for other in found[1].decode().split(",") if found else ():
            add(other.replace("-", "_"))
        ordered[name] = files[name]

    for name in names:
        if name not in files:
            raise RuntimeError(f"the kernel's package has no module {name}")
        add(name)
    return list(ordered.values())


def archive(busybox: Path, init: Path, modules: list[Path]) -> bytes:
    """Return the file system as a cpio archive; `init` insmods what /modules lists, in this order."""
    parts = [_entry(name, stat.S_IFDIR | 0o755) for name in ("bin", "dev", "proc", "sys", "root", "lib", "lib/modules")]
    parts.append(_entry("init", stat.S_IFREG | 0o755, init.read_bytes()))
    parts.append(_entry("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes()))
    names = [f"/lib/modules/{number:02}-{module.name}" for number, module in enumerate(modules)]
    parts += [
        _entry(name[1:], stat.S_IFREG | 0o644, module.read_bytes()) for name, module in zip(names, modules, strict=True)
    ]
    parts.append(_entry("modules", stat.S_IFREG | 0o644, "\n".join(names).encode() + b"\n"))
    # The kernel opens it before anything is mounted on /dev.
    parts.append(_entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)))
    return b"".join([*parts, _entry("TRAILER!!!", 0)])


def _entry(name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    # The "newc" format: cpio(5).
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + os.fsencode(name) + b"\0"
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
