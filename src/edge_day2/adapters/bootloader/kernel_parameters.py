"""The kernel command line of a boot entry: put together, and checked so that it can't undo what the entry is for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from edge_day2.domain.statuses import FailureReason
from edge_day2.errors import shown
from edge_day2.ports.failures import NodeFailure

# COMMAND_LINE_SIZE of x86, arm64 and riscv in the kernel is 2048 or less by configuration, NUL included.
_LONGEST: Final = 2047
_PRINTABLE: Final = re.compile(r"[ -~]*")
_WORD: Final = re.compile(r'(?:[^ "]|"[^"]*")+')


def split(text: str) -> tuple[str, ...]:
    """Return the parameters of a kernel command line: separated by spaces, except between double quotes.

    Raises:
        NodeFailure: a character isn't printable ASCII, or a quote isn't closed.
    """
    if not _PRINTABLE.fullmatch(text):
        raise refused(text, "printable ASCII in one line")
    if text.count('"') % 2:
        raise refused(text, "each double quote closed")
    return tuple(_WORD.findall(text))


def key(parameter: str) -> str:
    """Return the name of a parameter as the kernel compares it: without quotes, `-` and `_` being the same."""
    return parameter.replace('"', "").partition("=")[0].replace("-", "_")


def compose(*, root: str, own: Iterable[str], base: str, wanted: str, panic_seconds: int | None) -> str:
    """Return the command line of an entry.

    Args:
        root: the parameters that choose the slot's root.
        own: parameters that the boot loader's adapter adds.
        base: parameters that every entry of the node has.
        wanted: the kernel command line that was asked for. It may not touch what chooses the root.
        panic_seconds: after how many seconds a kernel that panics reboots, where nobody said it; None: never.

    Raises:
        NodeFailure: a part of it can't be used, or all together are too long. Conclusive: the same is refused again.
    """
    fixed = (*split(root), *own)
    reserved = {key(parameter) for parameter in fixed}
    others = (*split(base), *split(wanted))
    for parameter in others:
        if key(parameter) in reserved:
            raise refused(parameter, "nothing that chooses the root, which is the boot entry's to say")
        if parameter == "--":
            raise refused(parameter, "no `--`: what follows would go to init")
    words = [*fixed, *others]
    if panic_seconds is not None and "panic" not in map(key, words):
        words.append(f"panic={panic_seconds}")
    text = " ".join(words)
    if len(text) > _LONGEST:
        raise refused(text, f"at most {_LONGEST} characters, found {len(text)}")
    return text


def refused(found: str, expected: str) -> NodeFailure:
    """Return the failure of a kernel command line that can't be used, now or later."""
    log = f"kernel command line: found {shown(found)}, expected {expected}"
    return NodeFailure(FailureReason.UT_BOOT_CONFIGURATION, log, conclusive=True)
