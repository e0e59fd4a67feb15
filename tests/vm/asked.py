"""Whether tests in virtual machines are wanted: EDGE_DAY2_VM is `short` or `full`."""

from __future__ import annotations

import os
from typing import Final

import pytest

from vm.boot_loaders import missing_loaders
from vm.disk import missing_tools
from vm.guest_tree import GUEST_PACKAGES
from vm.machine import missing_firmware
from vm.packages import unknown

_WANTED: Final = os.environ.get("EDGE_DAY2_VM", "")
FULL: Final = _WANTED == "full"


def _reason() -> str:
    if _WANTED not in ("short", "full"):
        return "tests in virtual machines take minutes: `make vm-bench` runs them"
    if missing := [*missing_tools(), *missing_firmware(), *missing_loaders()]:
        return f"not installed: {' '.join(missing)}; docs/firmware_bench.md names the packages"
    if missing := unknown(GUEST_PACKAGES):
        return f"apt knows no {' '.join(missing)}: it needs Debian 12's packages, and an `apt-get update`"
    return ""


in_virtual_machines = pytest.mark.skipif(bool(_reason()), reason=_reason())
in_the_full_bench = pytest.mark.skipif(not FULL, reason="EDGE_DAY2_VM=full alone runs this one")
