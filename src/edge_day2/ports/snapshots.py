"""Port: snapshots of a mutable node's OS, as btrfs with snapper or LVM make them. A node may have none.

A snapshot covers what an update changes: packages and dpkg's database, configuration (the boot loader's drop-in among
it), and /boot with kernels and the boot loader's configuration. It must not cover the agent's journal, which has to
know of the rollback after it; nor, as a rule, logs and data. An adapter whose file system can't keep this apart isn't
given to a node.
"""

from __future__ import annotations

from typing import Protocol


class SnapshotPort(Protocol):
    """Each call is durable when it returns, may be repeated, and raises NodeFailure where it can't be carried out."""

    def take(self, label: str) -> str:
        """Take a snapshot of what runs and return its identifier.

        The same label again returns the same snapshot, as it was: a crash after taking it makes no second one. A
        rollback that was prepared and hasn't been booted is called off, as a one-shot is before a slot is written: it
        is of an update of which nobody knows any more, and would undo this one.
        """
        ...

    def roll_back(self, snapshot: str) -> None:
        """See to it that the next boot, and those after it, have the state of the snapshot.

        What runs isn't changed before that boot. A call that raises may have taken effect all the same.
        """
        ...

    def discard(self, snapshot: str) -> None:
        """Delete the snapshot if it is there. A system that was rolled back to it keeps its state."""
        ...
