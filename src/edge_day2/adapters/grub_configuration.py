"""GRUB's text: our drop-in for /etc/default/grub.d, and the menu entries of a grub.cfg. Pure.

The drop-in is sourced by a shell, and what it says is written into grub.cfg, which GRUB's own shell reads. So only
characters pass that mean nothing to either, whatever the configured alphabet allows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from attrs import frozen

from edge_day2.domain.resources import KERNEL_COMMAND_LINE, check_kernel_command_line
from edge_day2.errors import InvalidResource

# Given by GRUB's scripts or by the initrd; the kernel takes the last one, and a wrong one doesn't boot.
RESERVED_PARAMETERS: Final = frozenset({"BOOT_IMAGE", "init", "initrd", "rdinit", "root"})

_HARMLESS: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9\-_=.,/:+@%~^!\[\]]*")
_ASSIGNMENT: Final = re.compile(r'^GRUB_CMDLINE_LINUX_DEFAULT="(?:\$GRUB_CMDLINE_LINUX_DEFAULT )?([^"$`\\]*)"$', re.M)
_MENU_ENTRY: Final = re.compile(r"""^\s*menuentry\s+(?:'([^']*)'|"([^"]*)"|(\S+))""")
_LINUX: Final = frozenset({"linux", "linux16", "linuxefi"})
_INITRD: Final = frozenset({"initrd", "initrd16", "initrdefi"})


@frozen
class MenuEntry:
    """An entry of grub.cfg that boots a Linux kernel; paths as GRUB sees them."""

    title: str
    kernel: str
    parameters: tuple[str, ...]
    initrds: tuple[str, ...]


def kernel_parameters(
    kernel_command_line: str,
    *,
    alphabet: re.Pattern[str] = KERNEL_COMMAND_LINE,
    reserved: frozenset[str] = RESERVED_PARAMETERS,
) -> tuple[str, ...]:
    """Return the parameters of a kernel command line that may be given to GRUB.

    Args:
        kernel_command_line: parameters with blanks between them.
        alphabet: what the whole text must match; the default is the original's.
        reserved: names of parameters that may not be given.

    Raises:
        InvalidResource: one of them may not.
    """
    check_kernel_command_line(kernel_command_line, "kernel command line", alphabet)
    parameters = tuple(parameter for parameter in kernel_command_line.split(" ") if parameter)
    for parameter in parameters:
        if not _HARMLESS.fullmatch(parameter):
            raise InvalidResource("kernel parameter", parameter, f"a text that matches {_HARMLESS.pattern}")
        if parameter.partition("=")[0] in reserved:
            raise InvalidResource("kernel parameter", parameter, f"none of {', '.join(sorted(reserved))}")
    return parameters


def drop_in_of(parameters: Sequence[str]) -> str:
    """Return a drop-in that adds `parameters` to those of the distribution."""
    value = " ".join(("$GRUB_CMDLINE_LINUX_DEFAULT", *parameters))
    return f'# Written by edge_day2, which replaces the whole file.\nGRUB_CMDLINE_LINUX_DEFAULT="{value}"\n'


def parameters_of(drop_in: str) -> tuple[str, ...]:
    """Return the parameters that a drop-in of ours, or of the original agent, gives."""
    return tuple(parameter for value in _ASSIGNMENT.findall(drop_in) for parameter in value.split())


def menu_entries(configuration: str) -> Iterator[MenuEntry]:
    """Yield the entries of a grub.cfg that boot a Linux kernel, in their order."""
    title: str | None = None
    kernel: list[str] = []
    initrds: list[str] = []
    for line in configuration.splitlines():
        if match := _MENU_ENTRY.match(line):
            title, kernel, initrds = next(filter(None, match.groups()), ""), [], []
            continue
        words = line.split()
        if title is None or not words:
            continue
        if words[0] in _LINUX:
            kernel = words[1:]
        elif words[0] in _INITRD:
            initrds = words[1:]
        elif words == ["}"]:
            if kernel:
                yield MenuEntry(title, kernel[0], tuple(kernel[1:]), tuple(initrds))
            title = None


def in_order(wanted: Iterable[str], found: Iterable[str]) -> bool:
    """Return whether all of `wanted` are among `found`, in the same order."""
    remaining = iter(found)
    return all(any(parameter == other for other in remaining) for parameter in wanted)
