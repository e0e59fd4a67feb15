"""The Day 2 update engine for edge nodes: names only, loaded when they are first used.

`import edge_day2` loads nothing heavy; python-statemachine comes with the flows, SQLAlchemy with the storage, and so
on. The names below are the public interface.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge_day2.lazy_names import load

if TYPE_CHECKING:
    from edge_day2.application.inventory_service import InventoryService
    from edge_day2.application.maintenance_manager import MaintenanceManager
    from edge_day2.application.os_resource_manager import OSResourceManager
    from edge_day2.application.platform_update_agent import PlatformUpdateAgent
    from edge_day2.domain.flow import FlowState, Transition
    from edge_day2.domain.immutable import IMMUTABLE_FLOW
    from edge_day2.domain.linking import LinkingMode
    from edge_day2.domain.messages import PlatformUpdateStatusRequest, PlatformUpdateStatusResponse, UpdateStatus
    from edge_day2.domain.mutable import MUTABLE_FLOW
    from edge_day2.domain.profiles import OSProfile
    from edge_day2.domain.resources import Instance, OSResource, OSType
    from edge_day2.domain.schedules import RepeatedSchedule, ScheduleKind, SingleSchedule, Window
    from edge_day2.domain.statuses import FailureReason, UpdateStatusType
    from edge_day2.domain.versions import ImageVersion
    from edge_day2.errors import EdgeDay2Error

_HOMES: Final = {
    "EdgeDay2Error": "errors",
    "FailureReason": "domain.statuses",
    "FlowState": "domain.flow",
    "IMMUTABLE_FLOW": "domain.immutable",
    "ImageVersion": "domain.versions",
    "Instance": "domain.resources",
    "InventoryService": "application.inventory_service",
    "LinkingMode": "domain.linking",
    "MUTABLE_FLOW": "domain.mutable",
    "MaintenanceManager": "application.maintenance_manager",
    "OSProfile": "domain.profiles",
    "OSResource": "domain.resources",
    "OSResourceManager": "application.os_resource_manager",
    "OSType": "domain.resources",
    "PlatformUpdateAgent": "application.platform_update_agent",
    "PlatformUpdateStatusRequest": "domain.messages",
    "PlatformUpdateStatusResponse": "domain.messages",
    "RepeatedSchedule": "domain.schedules",
    "ScheduleKind": "domain.schedules",
    "SingleSchedule": "domain.schedules",
    "Transition": "domain.flow",
    "UpdateStatus": "domain.messages",
    "UpdateStatusType": "domain.statuses",
    "Window": "domain.schedules",
}

__all__ = [
    "IMMUTABLE_FLOW",
    "MUTABLE_FLOW",
    "EdgeDay2Error",
    "FailureReason",
    "FlowState",
    "ImageVersion",
    "Instance",
    "InventoryService",
    "LinkingMode",
    "MaintenanceManager",
    "OSProfile",
    "OSResource",
    "OSResourceManager",
    "OSType",
    "PlatformUpdateAgent",
    "PlatformUpdateStatusRequest",
    "PlatformUpdateStatusResponse",
    "RepeatedSchedule",
    "ScheduleKind",
    "SingleSchedule",
    "Transition",
    "UpdateStatus",
    "UpdateStatusType",
    "Window",
]


def __getattr__(name: str) -> object:
    return load(globals(), _HOMES, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
