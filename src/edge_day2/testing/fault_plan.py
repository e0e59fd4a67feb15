"""What goes wrong in a simulated fleet, and how often. The same seed gives the same misfortunes."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Self

from attrs import define, field, frozen

from edge_day2.testing.faults import Calls, Fault


@frozen(kw_only=True)
class FaultPlan:
    """Probabilities, each from 0 (never) to 1 (always).

    Attributes:
        seed: what the misfortunes are drawn from, together with the node's UUID.
        failed_downloads: of a download of an image or of packages.
        broken_packages: of an installation of packages.
        failed_commits: of making a verified trial the default.
        power_cuts: at each change of the machine: before, during or after it.
        bad_images: of an image on a node: it doesn't come up there, ever.
        unhealthy_images: of an image on a node: it comes up, and fails its health check.
        power_cuts_in_trial: of a trial boot of a good image.
        lost_nodes: of a trial boot: neither slot comes up again.
        lost_reports: of a report to the Maintenance Manager: it arrives, or doesn't, and isn't answered.
    """

    seed: int = 0
    failed_downloads: float = 0.0
    broken_packages: float = 0.0
    failed_commits: float = 0.0
    power_cuts: float = 0.0
    bad_images: float = 0.0
    unhealthy_images: float = 0.0
    power_cuts_in_trial: float = 0.0
    lost_nodes: float = 0.0
    lost_reports: float = 0.0

    @classmethod
    def calm(cls, seed: int = 0) -> Self:
        """Nothing goes wrong."""
        return cls(seed=seed)

    @classmethod
    def rough(cls, seed: int = 0) -> Self:
        """Everything goes wrong now and then: the fleet of the demo."""
        return cls(
            seed=seed,
            failed_downloads=0.03,
            broken_packages=0.03,
            failed_commits=0.04,
            power_cuts=0.004,
            bad_images=0.05,
            unhealthy_images=0.04,
            power_cuts_in_trial=0.05,
            lost_nodes=0.025,
            lost_reports=0.004,
        )

    def luck_of(self, guid: str) -> Luck:
        """Return the luck of the node with this UUID, the same for the same seed."""
        return Luck(self, random.Random(f"{self.seed}/{guid}"), guid)  # noqa: S311  # a simulation


class Misfortune(enum.Enum):
    """What can befall a node: one kind for each probability of a `FaultPlan`. The value is what a history calls it."""

    FAILED_DOWNLOAD = "failed download"
    BROKEN_PACKAGE = "broken package"
    FAILED_COMMIT = "failed commit"
    POWER_CUT = "power cut"
    BAD_IMAGE = "bad image"
    UNHEALTHY_IMAGE = "unhealthy image"
    POWER_CUT_IN_TRIAL = "power cut in the trial boot"
    LOST_NODE = "lost node"
    LOST_REPORT = "lost report"


class TrialBoot(enum.Enum):
    """How a trial boot goes."""

    COMES_UP = "comes up"
    FALLS_BACK = "doesn't come up"
    POWER_CUT = "is cut off"
    LOST = "neither slot comes up"


_DOWNLOADS: Final = frozenset({"prefetch", "write slot", "download packages", "replace apt sources"})
_INSTALLATIONS: Final = frozenset({"install packages", "upgrade packages"})
_CUTS: Final = (Fault.CUT_BEFORE, Fault.CUT_DURING, Fault.CUT_AFTER)
COMMIT: Final = "set default"


def misfortune_of(call: str, fault: Fault) -> Misfortune:
    """Return what kind of misfortune it is that `call`, one of the calls that can go wrong, goes wrong as `fault`."""
    if fault in _CUTS:
        return Misfortune.POWER_CUT
    if call == COMMIT:
        return Misfortune.FAILED_COMMIT
    return Misfortune.FAILED_DOWNLOAD if call in _DOWNLOADS else Misfortune.BROKEN_PACKAGE


@define
class Luck:
    """Draws one node's misfortunes, in the order in which they are asked for."""

    plan: FaultPlan
    _random: random.Random
    _guid: str

    def _hits(self, probability: float) -> bool:
        return probability > 0 and self._random.random() < probability

    def _always_hits(self, probability: float, what: str) -> bool:
        drawn = random.Random(f"{self.plan.seed}/{self._guid}/{what}")  # noqa: S311  # a simulation
        return drawn.random() < probability

    def at_call(self, name: str, kinds: Sequence[Fault]) -> Fault | None:
        """Return how the call `name` goes wrong, None where it goes well."""
        plan = self.plan
        if name in _DOWNLOADS and self._hits(plan.failed_downloads):
            return Fault.FAILS
        if name in _INSTALLATIONS and self._hits(plan.broken_packages):
            return Fault.FAILS
        if Fault.CUT_BEFORE in kinds and self._hits(plan.power_cuts):
            return self._random.choice([cut for cut in _CUTS if cut in kinds])
        return None

    def at_commit(self) -> Fault | None:
        """Return how making a trial the default goes wrong, which it may only seem to do."""
        if not self._hits(self.plan.failed_commits):
            return None
        return self._random.choice((Fault.FAILS, Fault.FAILS_AFTER))

    def at_report(self) -> Fault | None:
        """Return how a report goes wrong."""
        if not self._hits(self.plan.lost_reports):
            return None
        return self._random.choice((Fault.FAILS, Fault.FAILS_AFTER))

    def at_trial_boot(self, image: str) -> TrialBoot:
        """Return how a trial boot of this image goes on this node."""
        if self._hits(self.plan.lost_nodes):
            return TrialBoot.LOST
        if self._always_hits(self.plan.bad_images, f"bad {image}"):
            return TrialBoot.FALLS_BACK
        return TrialBoot.POWER_CUT if self._hits(self.plan.power_cuts_in_trial) else TrialBoot.COMES_UP

    def is_healthy(self, image: str) -> bool:
        """Return whether this image is well on this node."""
        return not self._always_hits(self.plan.unhealthy_images, f"unhealthy {image}")


@define
class LuckyCalls(Calls):
    """Lets calls go wrong as luck has it, and tells `on_misfortune` of what kind it is and how the call went wrong."""

    luck: Luck = field(kw_only=True)
    on_misfortune: Callable[[Misfortune, str], None] = field(kw_only=True)
    special: Mapping[str, Callable[[], Fault | None]] = field(factory=dict, kw_only=True)

    def choose(self, name: str, kinds: Sequence[Fault]) -> Fault | None:
        """See `Calls.choose`."""
        special = self.special.get(name)
        fault = special() if special is not None else self.luck.at_call(name, kinds)
        if fault is not None:
            self.on_misfortune(misfortune_of(name, fault), f"{name}: {fault.value}")
        return fault
