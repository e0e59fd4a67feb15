"""Port: the boot loader of an A/B node.

Each call is idempotent and durable when it returns: a power cut right afterwards finds it done. One that raises may
have taken effect all the same; callers restore the default afterwards.
"""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from edge_day2.domain.observation import BootEntry, TrialEvidence


@frozen(kw_only=True)
class BootState:
    """What the boot loader says: see `Observation` for the meaning of each."""

    active: BootEntry
    default: BootEntry
    one_shot: BootEntry | None = None
    trial_evidence: TrialEvidence = TrialEvidence.UNKNOWN


class BootloaderPort(Protocol):
    """Boot entries, the default one, and the one-shot. Every call raises NodeFailure where it can't be carried out."""

    def state(self) -> BootState:
        """Return where the node stands. `active` is found by what really runs."""
        ...

    def kernel_command_line(self) -> str:
        """Return the kernel command line that was asked for in the running entry ("": none of ours)."""
        ...

    def write_entry(self, entry: BootEntry, kernel_command_line: str) -> None:
        """Make `entry` bootable, atomically, with this kernel command line ("": that of the running entry).

        Never the running entry, nor the default one.
        """
        ...

    def remove_entry(self, entry: BootEntry) -> None:
        """Remove `entry`, which is neither running nor default, if it is there."""
        ...

    def arm(self, entry: BootEntry) -> None:
        """Make the next boot, and that one alone, take `entry`."""
        ...

    def disarm(self) -> None:
        """See to it that the next boot takes the default entry."""
        ...

    def set_default(self, entry: BootEntry) -> None:
        """Make `entry` the one that every ordinary boot takes."""
        ...
