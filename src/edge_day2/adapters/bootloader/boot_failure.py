"""The failure that everything about boot loaders raises."""

from __future__ import annotations

from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.failures import NodeFailure


def boot_failure(log: str, *, conclusive: bool = False) -> NodeFailure:
    """Return a failure of the boot loader. `conclusive`: the image itself is to blame, and would fail again."""
    return NodeFailure(FailureReason.BOOTLOADER_FAIL, log, conclusive=conclusive)
