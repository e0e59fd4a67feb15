"""How an interrupted package database is made sound again."""

from __future__ import annotations

from datetime import datetime

from attrs import frozen

from edge_day2.adapters.apt_commands import AptCommands, Finished, asked
from edge_day2.adapters.apt_locks import AptLocks
from edge_day2.adapters.apt_settings import AptSettings
from edge_day2.adapters.apt_tool import CONFFILES, AptTool
from edge_day2.adapters.dpkg import DatabaseContent, DpkgDatabase
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.failures import NodeFailure


@frozen(kw_only=True)
class PackageRepair:
    """See `AptPort.repair`.

    Another process that still works on the database is waited for. Then, as long as something is unfinished: finish
    what was unpacked, let apt mend dependencies, install again what was half installed, and at last look for newer
    versions of the packages that can't be finished.
    """

    settings: AptSettings
    commands: AptCommands
    locks: AptLocks
    dpkg: DpkgDatabase
    tool: AptTool

    def run(self, until: datetime | None) -> str:
        """Repair, and return what was done.

        Raises:
            OutOfTime: the window closed between two steps; a step isn't cut off.
            NodeFailure: the database is still interrupted after `repair_tries` rounds.
        """
        done: list[str] = []
        last: Finished | None = None
        steps = (self._configure, self._fix_broken, self._reinstall, self._upgrade_unfinished)
        for step in (*steps * self.settings.repair_tries, None):
            self.locks.wait(until)
            content = self.dpkg.content()
            interruption = content.interruption()
            if not interruption:
                return "; ".join(done) or "nothing to repair: whoever was at it has finished"
            if step is None:
                break
            # As long as dpkg's journal isn't empty, apt refuses everything.
            finished = self._configure(content, until) if content.journal else step(content, until)
            if finished is not None:
                last = finished
                done.append(f"{interruption}: {asked(finished.command)}: exit code {finished.code}")
        audit = self.commands.ask("dpkg", *self.settings.dpkg_options, "--audit").words
        tried = f"Tried: {'; '.join(done)}. {audit}\n{last or ''}"
        log = f"the package database is still interrupted: {interruption}. {tried}"
        raise NodeFailure(FailureReason.UPDATE_TOOL, log)

    def _configure(self, content: DatabaseContent, until: datetime | None) -> Finished | None:
        return self.commands.change("dpkg", *self.settings.dpkg_options, *CONFFILES, "--configure", "-a")

    def _fix_broken(self, content: DatabaseContent, until: datetime | None) -> Finished | None:
        return self.commands.change(*self.tool.changing("--fix-broken", "install", until=until))

    def _reinstall(self, content: DatabaseContent, until: datetime | None) -> Finished | None:
        names = tuple(package.name for package in content.packages if package.needs_reinstallation)
        if not names:
            return None
        command = self.tool.changing("--reinstall", "install", *names, until=until)
        return self.tool.changed(*command, keep_marks_of=names)

    def _upgrade_unfinished(self, content: DatabaseContent, until: datetime | None) -> Finished | None:
        names = tuple(package.name for package in content.packages if package.unfinished)
        if not names:
            return None
        # The way out of a maintainer script that always fails is a newer version, which the lists may not know yet.
        self.commands.fetch(*self.tool.get("update", until=until), until=until)
        command = self.tool.changing("--only-upgrade", "install", *names, until=until)
        return self.tool.changed(*command, keep_marks_of=names)
