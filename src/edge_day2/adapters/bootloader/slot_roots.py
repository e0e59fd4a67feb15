"""Which slot runs: the kernel parameters that chose the root, compared with those of the two slots."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edge_day2.adapters.bootloader.boot_failure import boot_failure
from edge_day2.adapters.bootloader.kernel_parameters import split
from edge_day2.domain.observation import Slot
from edge_day2.errors import InvalidValue, shown

# `root=UUID=` isn't resolved: two slots with the same image have file systems with the same UUID.
_LINKS: Final[Mapping[str, str]] = {"PARTUUID": "disk/by-partuuid", "PARTLABEL": "disk/by-partlabel"}
_UNIQUE: Final = re.compile(r"(root=(?:PARTUUID|UUID)=)(.*)", re.IGNORECASE | re.DOTALL)


class SlotRoots:
    """The kernel parameters that choose each slot's root.

    A slot runs where all its parameters are in the running kernel's command line. A root may be written in another way
    there, as long as it is the same device.

    Args:
        parameters: for each slot, for example `root=PARTUUID=…`, or `root=/dev/mapper/root boot_uuid=…`.
        command_line: the running kernel's command line.
        devices: where device nodes are.
    """

    def __init__(
        self,
        parameters: Mapping[Slot, str],
        *,
        command_line: Path | str = "/proc/cmdline",
        devices: Path | str = "/dev",
    ) -> None:
        self._parameters = {slot: parameters.get(slot, "") for slot in Slot}
        self._command_line = Path(command_line)
        self._devices = Path(devices)
        for slot, text in self._parameters.items():
            if not text.strip() or '"' in text or not (text.isascii() and text.isprintable()):
                raise InvalidValue(f"root of slot {slot.value}", text, "kernel parameters such as root=PARTUUID=…")
        if len({_comparable(text) for text in self._parameters.values()}) < len(Slot):
            raise InvalidValue("roots", dict(self._parameters), "another root for each slot")

    def parameters(self, slot: Slot) -> str:
        """Return the parameters that choose the root of `slot`."""
        return self._parameters[slot]

    def running_parameters(self) -> tuple[str, ...]:
        """Return the parameters of the running kernel.

        Raises:
            NodeFailure: they can't be read.
        """
        try:
            text = self._command_line.read_text("utf-8", errors="replace")
        except OSError as error:
            raise boot_failure(f"{self._command_line} can't be read: {error.strerror}") from error
        # The kernel was started with it, so that it is taken as it is.
        return tuple(re.findall(r'(?:[^\s"]|"[^"]*"?)+', text))

    def running(self) -> Slot:
        """Return the slot that the running kernel took its root from.

        Raises:
            NodeFailure: it is neither, or could be both.
        """
        found = self.running_parameters()
        slots = [slot for slot in Slot if all(self._given(word, found) for word in split(self._parameters[slot]))]
        if len(slots) == 1:
            return slots[0]
        expected = " or ".join(f"{shown(self._parameters[slot])} (slot {slot.value})" for slot in Slot)
        verdict = "both slots" if slots else "neither slot"
        log = f"{self._command_line} fits {verdict}: found {shown(' '.join(found))}, expected {expected}"
        raise boot_failure(log)

    def _given(self, word: str, found: tuple[str, ...]) -> bool:
        if _comparable(word) in map(_comparable, found):
            return True
        wanted = self._device(word)
        return wanted is not None and wanted in map(self._device, found)

    def _device(self, word: str) -> Path | None:
        """Return the device node that a `root=` leads to, None where it doesn't lead to one."""
        name, _, value = word.replace('"', "").partition("=")
        if name != "root":
            return None
        kind, _, rest = value.partition("=")
        if kind in _LINKS:
            path = self._devices / _LINKS[kind] / (rest.lower() if kind == "PARTUUID" else rest)
        elif value.startswith("/dev/"):
            path = self._devices / value.removeprefix("/dev/")
        else:
            return None
        return path.resolve() if path.exists() else None


def _comparable(text: str) -> str:
    return _UNIQUE.sub(lambda match: match[1] + match[2].lower(), text.replace('"', ""))
