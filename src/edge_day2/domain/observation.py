"""What a node can see of itself after any restart: the only thing that `resume` believes.

Boot entries are identified by slot and kernel variant, so that a change of the kernel command line alone is tried and
committed like an image: it lives in the other entry of the same slot.
"""

from __future__ import annotations

import enum
from datetime import datetime

from attrs import evolve, frozen


class Slot(enum.Enum):
    """One of the two partitions that can hold an immutable OS."""

    A = "A"
    B = "B"

    @property
    def other(self) -> Slot:
        """The slot that isn't this one."""
        return Slot.B if self is Slot.A else Slot.A


@frozen
class BootEntry:
    """What the boot loader can be told to start: the OS in `slot` with kernel command line variant 0 or 1."""

    slot: Slot
    variant: int = 0

    def beside(self) -> BootEntry:
        """Return the entry of the same slot with the other kernel command line."""
        return evolve(self, variant=1 - self.variant)

    def opposite(self) -> BootEntry:
        """Return the entry of the other slot, with its first kernel command line."""
        return BootEntry(self.slot.other)

    def __str__(self) -> str:
        return self.slot.value + "'" * self.variant


class PackageDatabase(enum.Enum):
    """State of dpkg's database."""

    SOUND = "sound"
    INTERRUPTED = "interrupted"


class TrialEvidence(enum.Enum):
    """What the machine can tell of a trial boot that didn't reach the agent.

    Few machines can: a reset reason register, a BMC, boot counting. UNKNOWN is the honest default.
    """

    UNKNOWN = "unknown"
    BAD_IMAGE = "bad image"
    POWER_CUT = "power cut"


@frozen(kw_only=True)
class Observation:
    """What is true on the node now.

    Attributes:
        at: when this was observed, aware.
        boot_id: changes with every boot (Linux: /proc/sys/kernel/random/boot_id).
        active: the entry that really runs, found on the machine, never taken from notes.
        default: the entry that the next ordinary boot takes.
        one_shot: the entry that the next boot alone takes, None where none is armed.
        packages: state of the package database, of a mutable node.
        trial_evidence: why the last trial boot didn't come up, where the machine can tell.
    """

    at: datetime
    boot_id: str
    active: BootEntry = BootEntry(Slot.A)
    default: BootEntry = BootEntry(Slot.A)
    one_shot: BootEntry | None = None
    packages: PackageDatabase = PackageDatabase.SOUND
    trial_evidence: TrialEvidence = TrialEvidence.UNKNOWN
