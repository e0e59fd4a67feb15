"""What an integrator's tests import: simulated nodes and fleets, fault plans, strategies and port contracts.

Names are loaded when they are first used; `strategies` and `contracts` need `edge_day2[testing]`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from edge_day2.errors import MissingExtra
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
_PACKAGES: Final = ("hypothesis", "pytest")

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
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name not in _PACKAGES:
                raise
            raise MissingExtra(error.name, "testing") from error
    return load(globals(), _HOMES, name)
