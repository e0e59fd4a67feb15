"""What an integrator's tests import: simulated nodes and fleets, fault plans, strategies and port contracts.

Names are loaded when they are first used; `strategies` and `contracts` need hypothesis and pytest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from edge_day2.lazy_names import load

if TYPE_CHECKING:
    from edge_day2.testing import contracts, strategies
    from edge_day2.testing.exploration import Budget, Exploration
    from edge_day2.testing.fault_plan import FaultPlan
    from edge_day2.testing.simulated_fleet import SimulatedFleet
    from edge_day2.testing.simulated_node import SimulatedNode, VirtualClock

_HOMES: Final = {
    "Budget": "exploration",
    "Exploration": "exploration",
    "FaultPlan": "fault_plan",
    "SimulatedFleet": "simulated_fleet",
    "SimulatedNode": "simulated_node",
    "VirtualClock": "simulated_node",
}
_MODULES: Final = ("contracts", "strategies")

__all__ = [
    "Budget",
    "Exploration",
    "FaultPlan",
    "SimulatedFleet",
    "SimulatedNode",
    "VirtualClock",
    "contracts",
    "strategies",
]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    return load(globals(), _HOMES, name)
