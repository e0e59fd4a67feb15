"""The way from an agent to a Maintenance Manager in the same process."""

from __future__ import annotations

from attrs import frozen

from edge_day2.application.maintenance_manager import MaintenanceManager
from edge_day2.domain.messages import PlatformUpdateStatusRequest, PlatformUpdateStatusResponse


@frozen
class InProcessLink:
    """Calls `manager` directly, as a node of `tenant`."""

    manager: MaintenanceManager
    tenant: str

    def platform_update_status(self, request: PlatformUpdateStatusRequest) -> PlatformUpdateStatusResponse:
        """See `MaintenanceLink.platform_update_status`."""
        return self.manager.platform_update_status(request, tenant=self.tenant)
