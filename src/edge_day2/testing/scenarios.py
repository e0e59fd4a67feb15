"""What is explored: an A/B node, its kernel command line alone, and an apt node."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from edge_day2.application.immutable_node import ImmutableNode
from edge_day2.application.mutable_node import MutableNode
from edge_day2.domain.agent import AgentRecord, Update
from edge_day2.domain.agent_policy import AgentPolicy
from edge_day2.domain.immutable_effects import ImmutableUpdate
from edge_day2.domain.immutable_events import Image
from edge_day2.domain.messages import (
    OSProfileUpdateSource,
    PlatformUpdateStatusResponse,
    UpdateSchedule,
    UpdateSource,
)
from edge_day2.domain.mutable_effects import MutableUpdate, fingerprint
from edge_day2.domain.observation import TrialEvidence
from edge_day2.domain.resources import OSType
from edge_day2.ports.node import NodePort
from edge_day2.testing.model_apt_node import ModelAptNode
from edge_day2.testing.model_nodes import ModelABNode, Violation
from edge_day2.testing.worlds import Scenario

# No distance between tries, and few of them: everything that a retry can meet is met soon.
IMPATIENT: Final = AgentPolicy(retry_after=timedelta(0), retries=2, interruptions=2)


def _image(number: int) -> Image:
    return Image(
        profile_name="microvisor-nonrt",
        image_id=f"3.0.2026030{number}",
        sha256=f"{number}" * 64,
        url=f"files/edge-3.0.2026030{number}.raw.gz",
    )


# Where the next boot may take another entry than the default one; it is meant to, or the flow is about to prevent it.
_MAY_BE_ARMED: Final = frozenset({"arming", "rebooting", "standing_down", "disarming"})


class Firmware(enum.Enum):
    """Whether the firmware boots what it is told to."""

    OBEYS = "obeys"
    STUBBORN = "may boot any entry that can boot, whatever is the default"


class ABScenario(Scenario[ModelABNode]):
    """An A/B node whose orchestrator wants one of several images and kernel command lines.

    Args:
        targets: (number of the image, kernel command line) of each thing that may be wanted. The node runs image 1.
        policy: the agent's.
        firmware: the node's.
    """

    def __init__(
        self,
        *targets: tuple[int, str],
        policy: AgentPolicy = IMPATIENT,
        firmware: Firmware = Firmware.OBEYS,
    ) -> None:
        self.name = "A/B"
        self.policy = policy
        self._targets = targets
        self._firmware = firmware

    def begin(self) -> ModelABNode:
        """See `Scenario`."""
        return ModelABNode.with_image(_image(1))

    def wrap(self, node: ModelABNode) -> NodePort:
        """See `Scenario`."""
        return ImmutableNode(slots=node, bootloader=node, health=node, system=node)

    def answer(self, target: int | None, schedule: UpdateSchedule) -> PlatformUpdateStatusResponse:
        """See `Scenario`."""
        if target is None:
            return PlatformUpdateStatusResponse(os_type=OSType.IMMUTABLE, update_schedule=schedule)
        number, kernel_command_line = self._targets[target]
        image = _image(number)
        return PlatformUpdateStatusResponse(
            os_type=OSType.IMMUTABLE,
            update_schedule=schedule,
            update_source=UpdateSource(kernel_command=kernel_command_line),
            os_profile_update_source=OSProfileUpdateSource(
                os_image_url=image.url,
                os_image_id=image.image_id,
                os_image_sha=image.sha256,
                profile_name=image.profile_name,
            ),
        )

    def boot(self, node: ModelABNode, boot: int) -> Iterator[tuple[ModelABNode, int, str]]:
        """See `Scenario`."""
        entry = node.next_entry()
        if entry in node.proven:
            obeyed = node.copy()
            obeyed.boot_into(entry, boot)
            yield obeyed, 0, f"boots {entry}"
            if self._firmware is Firmware.STUBBORN:
                for other in node.entries:
                    if other != entry and node.bootable(other):
                        strayed = node.copy()
                        strayed.boot_into(other, boot)
                        yield strayed, 0, f"boots {other} instead of {entry}"
            return
        if not node.bootable(entry):
            node.boot_into(node.default, boot)
            yield node, 0, f"{entry} can't boot, falls back to {node.default}"
            return
        trial = node.copy()
        trial.boot_into(entry, boot)
        yield trial, 0, f"boots {entry} on trial"
        for evidence in (TrialEvidence.UNKNOWN, TrialEvidence.BAD_IMAGE, TrialEvidence.POWER_CUT):
            fallen = node.copy()
            fallen.boot_into(node.default, boot)
            fallen.evidence = evidence
            yield fallen, 1, f"trial {entry} doesn't come up ({evidence.value}), falls back to {node.default}"

    def check(self, node: ModelABNode, record: AgentRecord) -> None:
        """See `Scenario`."""
        if node.default not in node.proven or not node.bootable(node.default):
            raise Violation(f"the default boot entry {node.default} can't boot: a power cut loses the node")
        if not node.bootable(node.active):
            raise Violation(f"the running boot entry {node.active} was damaged")
        name = record.flow.name if record.flow is not None else "scheduled"
        if node.one_shot is not None and name not in _MAY_BE_ARMED:
            raise Violation(f"{node.one_shot} is armed while the update is {name}: a power cut boots it")

    def check_end(self, node: ModelABNode, record: AgentRecord) -> None:
        """See `Scenario`."""
        if self._firmware is Firmware.STUBBORN:
            return
        if node.active != node.default:
            raise Violation(f"the update has ended, but {node.active} runs and {node.default} is the default")
        state = record.flow
        if state is None or not isinstance(state.data, ImmutableUpdate):
            return
        data = state.data
        if state.name in ("updated", "up_to_date") and data.target.image is not None:
            if node.contents[node.active.slot] != data.target.image:
                raise Violation("the update has ended well, but another image runs")
            if data.target.kernel_command_line not in ("", node.kernel_command_line()):
                raise Violation("the update has ended well, but with another kernel command line")
        if state.name in ("rolled_back", "failed") and data.origin not in (None, node.active):
            raise Violation(f"the update has {state.name}, but {node.active} runs instead of {data.origin}")


class Snapshots(enum.Enum):
    """Whether an apt node has a way back."""

    NONE = "no snapshots"
    TAKEN = "snapshots"
    IGNORED = "snapshots, and a boot loader that doesn't go back to them"


class AptScenario(Scenario[ModelAptNode]):
    """An apt node whose orchestrator wants one of several sets of packages and kernel command lines.

    Args:
        targets: (packages, kernel command line) of each thing that may be wanted.
        policy: the agent's.
        snapshots: whether the node can go back.
    """

    def __init__(
        self,
        *targets: tuple[tuple[str, ...], str],
        policy: AgentPolicy = IMPATIENT,
        snapshots: Snapshots = Snapshots.NONE,
    ) -> None:
        self.name = "apt"
        self.policy = policy
        self._targets = targets
        self._snapshots = snapshots

    def begin(self) -> ModelAptNode:
        """See `Scenario`."""
        return ModelAptNode(
            packages={"agent": "1", "helper": "1", "linux": "1", "linux-image-1": "1"},
            available={"agent": "2", "helper": "2", "linux": "2", "linux-image-2": "1", "curl": "7", "vim": "9"},
            depends={"linux": ("linux-image-2",)},
        )

    def wrap(self, node: ModelAptNode) -> NodePort:
        """See `Scenario`."""
        snapshots = node if self._snapshots is not Snapshots.NONE else None
        return MutableNode(apt=node, apt_sources=node, grub=node, health=node, system=node, snapshots=snapshots)

    def answer(self, target: int | None, schedule: UpdateSchedule) -> PlatformUpdateStatusResponse:
        """See `Scenario`."""
        # A mutable node's target never vanishes: its OS Resource is patched, not replaced.
        packages, kernel_command_line = self._targets[target or 0]
        return PlatformUpdateStatusResponse(
            os_type=OSType.MUTABLE,
            update_schedule=schedule,
            update_source=UpdateSource(kernel_command=kernel_command_line, custom_repos=("Types: deb",)),
            installed_packages="\n".join(packages),
        )

    def boot(self, node: ModelAptNode, boot: int) -> Iterator[tuple[ModelAptNode, int, str]]:
        """See `Scenario`."""
        if self._snapshots is Snapshots.IGNORED:
            node.next_root = None
        booted = node.copy()
        booted.come_up(boot)
        yield booted, 0, "boots"
        if node.kernel_running != booted.kernel_running and node.next_root is None:
            older = node.copy()
            older.come_up(boot, node.kernel_running)
            yield older, 1, "boots the older kernel"

    def disturbances(self, node: ModelAptNode) -> Iterator[tuple[ModelAptNode, str]]:
        """See `Scenario`."""
        if not node.locked:
            locked = node.copy()
            locked.locked = True
            yield locked, "somebody else's apt holds the lock"
        if not node.half:
            interrupted = node.copy()
            interrupted.half = (("linux", node.packages["linux"]),)
            yield interrupted, "somebody else's dpkg is interrupted"

    def check(self, node: ModelAptNode, record: AgentRecord) -> None:
        """See `Scenario`."""
        if self._snapshots is Snapshots.NONE and node.snapshots:
            raise Violation("a snapshot was taken of a node that has none")

    def check_end(self, node: ModelAptNode, record: AgentRecord) -> None:
        """See `Scenario`."""
        state = record.flow
        if state is None or not isinstance(state.data, MutableUpdate):
            return
        data = state.data
        if state.name in ("updated", "up_to_date"):
            # What somebody else's dpkg left reinstalls what is there; ours would change something.
            if any(node.packages.get(name) != version for name, version in node.half):
                raise Violation("the update has ended well, but the package database is interrupted")
            missing = [name for name in data.target.update_packages if name not in node.packages]
            if missing or node.upgrade_plan():
                raise Violation(f"the update has ended well, but without {missing or node.upgrade_plan()}")
            if data.target.kernel_command_line not in ("", node.kernel_started_with):
                raise Violation("the update has ended well, but the kernel runs with another command line")
        if state.name == "updated" and node.kernel_running != node.newest_kernel():
            raise Violation(f"the update has ended well, but kernel {node.kernel_running} runs")
        if state.name == "rolled_back":
            assert data.snapshot is not None
            if fingerprint(tuple(sorted(node.packages.items()))) != data.snapshot.packages:
                raise Violation("the update was rolled back, but other packages are installed than before")

    def check_told(self, node: ModelAptNode, ended: Update, told: frozenset[tuple[str, str]]) -> None:
        """See `Scenario`."""
        assert isinstance(ended.data, MutableUpdate)
        began = dict(ended.data.before or ()) if ended.data.untold else None
        for name, version in sorted(node.packages.items() - self.begin().packages.items() - told):
            if began is None or began.get(name) == version:
                raise Violation(f"nobody was told that {name} {version} is installed, and nobody will be")
