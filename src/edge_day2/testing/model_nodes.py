"""Small honest models of a node, for exploration and simulation: what they hold is all that a node is.

A model has no opinion on how an update should go; it only knows what a machine does when it is told something, when
the power is cut, and when it boots. What must never be done to a node raises `Violation`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Self

from attrs import define, evolve, field

from edge_day2.domain.immutable_events import Image
from edge_day2.domain.observation import BootEntry, Slot, TrialEvidence
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.bootloader import BootState
from edge_day2.ports.failures import NodeFailure
from edge_day2.testing.faults import CHANGE, LONG_CHANGE, READ, Calls

_TORN = Image(profile_name="", image_id="", sha256="torn")


class Violation(BaseException):
    """Something happened to a node that must never happen. Not an Exception, so that nobody handles it."""


def fails(reason: FailureReason) -> type[Exception]:
    """Return the error of a call that goes wrong for this reason."""

    class _Failure(NodeFailure):
        def __init__(self, name: str) -> None:
            super().__init__(reason, f"{name}: simulated fault")

    return _Failure


DOWNLOAD = fails(FailureReason.DOWNLOAD_FAIL)
_WRITE = fails(FailureReason.UT_WRITE)
BOOT = fails(FailureReason.BOOTLOADER_FAIL)
_COMMIT = fails(FailureReason.OS_COMMIT_FAIL)
_HEALTH = fails(FailureReason.CRITICAL_SERVICES)


def _always_well(image: Image) -> bool:
    return True


@define(kw_only=True)
class ModelNode:
    """What both kinds of node have: a boot id, and whether the machine runs."""

    calls: Calls = field(factory=Calls, eq=False)
    boot: int = 0
    running: bool = True
    disturbance_allowed: bool = True

    def copy(self) -> Self:
        """Return an independent copy with calls of its own."""
        raise NotImplementedError

    def key(self) -> tuple[object, ...]:
        """Return everything that distinguishes this node from another, hashable."""
        raise NotImplementedError

    def boot_id(self) -> str:
        """See `SystemPort`."""
        return f"boot-{self.boot}"

    def kernel_release(self) -> str:
        """See `SystemPort`."""
        return "6.1.0"

    def reboot(self) -> None:
        """See `SystemPort`."""
        self.calls.go("reboot", CHANGE, BOOT, self.power_off)

    def restart_agent(self) -> None:
        """See `SystemPort`. The agent's process is the caller's to end."""
        self.calls.go("restart agent", READ, BOOT)

    def check(self) -> None:
        """See `HealthPort`."""
        self.calls.go("health", READ, _HEALTH)

    def disturb(self, name: str) -> None:
        """Complain where a disruptive call is made outside the window."""
        if not self.disturbance_allowed:
            raise Violation(f"{name} outside the maintenance window")

    def power_off(self) -> None:
        """The machine stands still, whatever it was doing."""
        self.running = False


@define(kw_only=True)
class ModelABNode(ModelNode):
    """Two slots with contents, boot entries, the default one and the one-shot."""

    contents: dict[Slot, Image] = field(factory=dict)
    entries: dict[BootEntry, str] = field(factory=dict)
    active: BootEntry = BootEntry(Slot.A)
    default: BootEntry = BootEntry(Slot.A)
    one_shot: BootEntry | None = None
    proven: frozenset[BootEntry] = frozenset({BootEntry(Slot.A)})
    verified: frozenset[BootEntry] = frozenset()
    prefetched: Image | None = None
    evidence: TrialEvidence = TrialEvidence.UNKNOWN
    is_well: Callable[[Image], bool] = field(default=_always_well, eq=False)

    @classmethod
    def with_image(cls, image: Image) -> ModelABNode:
        """Return a node that runs `image` from slot A."""
        return cls(contents={Slot.A: image}, entries={BootEntry(Slot.A): ""})

    def copy(self) -> Self:
        """Return an independent copy with calls of its own."""
        return evolve(self, calls=Calls(), contents=dict(self.contents), entries=dict(self.entries))

    def key(self) -> tuple[object, ...]:
        """Return everything that distinguishes this node from another, hashable."""
        return (
            self.boot, self.running, frozenset(self.contents.items()), frozenset(self.entries.items()), self.active,
            self.default, self.one_shot, self.proven, self.verified, self.prefetched, self.evidence,
        )  # fmt: skip

    def bootable(self, entry: BootEntry) -> bool:
        """Return whether the entry is there, and its slot holds a whole image."""
        return entry in self.entries and self.contents.get(entry.slot, _TORN) != _TORN

    def next_entry(self) -> BootEntry:
        """Return what the next boot takes, and consume the one-shot, as firmware and boot loader do."""
        entry = self.one_shot or self.default
        self.one_shot = None
        return entry

    def boot_into(self, entry: BootEntry, boot: int) -> None:
        """Come up in `entry`."""
        self.active, self.boot, self.running = entry, boot, True

    def reboot(self) -> None:
        """See `SystemPort`. The way back is allowed at any time."""
        if self.one_shot is not None:
            self.disturb("reboot into the trial")
        super().reboot()

    def state(self) -> BootState:
        """See `BootloaderPort`."""
        self.calls.go("read boot state", READ, BOOT)
        return BootState(active=self.active, default=self.default, one_shot=self.one_shot, trial_evidence=self.evidence)

    def kernel_command_line(self) -> str:
        """See `BootloaderPort`."""
        return self.entries[self.active]

    def write_entry(self, entry: BootEntry, kernel_command_line: str) -> None:
        """See `BootloaderPort`."""
        self.disturb("write boot entry")
        if entry in (self.active, self.default):
            raise Violation(f"boot entry {entry} was written while it was running or default")
        text = kernel_command_line or self.entries[self.active]
        self.verified -= {entry}
        self.proven -= {entry}
        self.calls.go("write boot entry", CHANGE, BOOT, lambda: self.entries.update({entry: text}))

    def remove_entry(self, entry: BootEntry) -> None:
        """See `BootloaderPort`."""
        if entry in (self.active, self.default):
            raise Violation(f"boot entry {entry} was removed while it was running or default")
        self.calls.go("remove boot entry", CHANGE, BOOT, lambda: self._drop_entry(entry))

    def _drop_entry(self, entry: BootEntry) -> None:
        self.entries.pop(entry, None)

    def arm(self, entry: BootEntry) -> None:
        """See `BootloaderPort`."""
        self.disturb("arm")
        if not self.bootable(entry):
            raise Violation(f"boot entry {entry} was armed although it can't boot")
        self.calls.go("arm", CHANGE, BOOT, lambda: self._set_one_shot(entry))

    def disarm(self) -> None:
        """See `BootloaderPort`."""
        self.calls.go("disarm", CHANGE, BOOT, lambda: self._set_one_shot(None))

    def _set_one_shot(self, entry: BootEntry | None) -> None:
        self.one_shot = entry

    def set_default(self, entry: BootEntry) -> None:
        """See `BootloaderPort`."""
        if entry not in self.proven and not (entry == self.active and entry in self.verified):
            raise Violation(f"boot entry {entry} became the default before it was verified")
        failure = BOOT if entry in self.proven else _COMMIT
        self.calls.go("set default", CHANGE, failure, lambda: self._set_default(entry))

    def _set_default(self, entry: BootEntry) -> None:
        self.default = entry
        self.proven |= {entry}

    def check(self) -> None:
        """See `HealthPort`."""
        super().check()
        image = self.contents[self.active.slot]
        if not self.is_well(image):
            raise NodeFailure(FailureReason.CRITICAL_SERVICES, f"{image.image_id}: a critical service doesn't start")
        self.verified |= {self.active}

    def running_image(self) -> Image:
        """See `SlotPort`."""
        self.calls.go("read running image", READ, _WRITE)
        return self.contents[self.active.slot]

    def prefetch(self, image: Image) -> None:
        """See `SlotPort`."""
        self.calls.go("prefetch", LONG_CHANGE, DOWNLOAD, lambda: self._set_prefetched(image))

    def _set_prefetched(self, image: Image) -> None:
        self.prefetched = image

    def write(self, image: Image, slot: Slot, until: datetime | None) -> None:
        """See `SlotPort`."""
        self.disturb("write slot")
        if slot is self.active.slot or slot is self.default.slot:
            raise Violation(f"slot {slot.value} was written while it was running or default")
        if self.one_shot is not None:
            raise Violation(f"slot {slot.value} was written while a one-shot was armed")
        # The old image is gone with the first byte; boot entries of the slot lead to garbage from then on.
        self.contents[slot] = _TORN
        self.proven = frozenset(entry for entry in self.proven if entry.slot is not slot)
        self.verified = frozenset(entry for entry in self.verified if entry.slot is not slot)
        self.calls.go("write slot", LONG_CHANGE, DOWNLOAD, lambda: self.contents.update({slot: image}))

    def verify(self, image: Image, slot: Slot) -> None:
        """See `SlotPort`."""
        self.calls.go("read slot back", READ, _WRITE)
        if self.contents.get(slot) != image:
            raise NodeFailure(FailureReason.UT_WRITE, f"slot {slot.value} doesn't hold {image.image_id}")
