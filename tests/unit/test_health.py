"""Is the node well? What each check goes by, and when the verdict falls."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edge_day2.adapters.health import HealthChecks
from edge_day2.adapters.health_checks import (
    CommandSucceeds,
    DefaultRoute,
    HealthCheck,
    HttpProbe,
    MaintenanceManagerAnswers,
    SystemdUnitsActive,
)
from edge_day2.adapters.watched_link import WatchedLink
from edge_day2.domain.messages import PlatformUpdateStatusRequest, PlatformUpdateStatusResponse, UpdateStatus
from edge_day2.domain.statuses import FailureReason, UpdateStatusType
from edge_day2.errors import InvalidValue, Unauthenticated, Unavailable
from edge_day2.ports.failures import NodeFailure
from edge_day2.ports.health import HealthPort
from edge_day2.testing.agent_bench import edge

GUID = "12345678-1234-1234-1234-123456789abc"
ANSWER = edge()


class Scripted:
    """A check that does something else each time that it is asked."""

    def __init__(self, name: str, *steps: Callable[[], None]) -> None:
        self.name = name
        self.asked = 0
        self._steps = steps

    def check(self) -> None:
        step = self._steps[min(self.asked, len(self._steps) - 1)]
        self.asked += 1
        step()


def well() -> None:
    """Find nothing."""


def fails(log: str = "found 'inactive'") -> Callable[[], None]:
    """Return a step that fails."""

    def step() -> None:
        raise NodeFailure(FailureReason.CRITICAL_SERVICES, log)

    return step


class TimeIsUp:
    """A clock that stands still, and then is far ahead: time is up as soon as all of `reached` has happened."""

    def __init__(self, *reached: threading.Event) -> None:
        self._reached = reached
        self._begun = False

    def __call__(self) -> float:
        if not self._begun:
            self._begun = True
            return 0.0
        for event in self._reached:
            event.wait()
        return 1e9


def reaches(event: threading.Event) -> Callable[[], None]:
    """Return a step that fails after it has said that it was reached."""

    def step() -> None:
        event.set()
        raise NodeFailure(FailureReason.CRITICAL_SERVICES, "asked again")

    return step


def checks(*those: HealthCheck) -> HealthPort:
    """Return a health port that gives its checks ample time, and asks again at once."""
    return HealthChecks(those, deadline_seconds=600, retry_after_seconds=0)


def test_a_node_is_well_when_everything_holds() -> None:
    one, other = Scripted("one", well), Scripted("other", well)

    checks(one, other).check()

    assert (one.asked, other.asked) == (1, 1)


def test_what_failed_is_asked_again_and_what_held_is_not() -> None:
    slow, quick = Scripted("slow", fails(), fails(), well), Scripted("quick", well, fails())

    checks(slow, quick).check()

    assert (slow.asked, quick.asked) == (3, 1)


def test_the_verdict_names_every_check_that_failed_with_its_last_words() -> None:
    third, fourth = threading.Event(), threading.Event()
    one = Scripted("unit one", fails("it starts"), fails("it crashed"), reaches(third))
    two = Scripted("unit two", fails("no file"), reaches(fourth))
    those = [one, two, Scripted("unit three", well)]

    with pytest.raises(NodeFailure, match=r"unit one: (it crashed|asked again); unit two: ") as caught:
        HealthChecks(those, deadline_seconds=600, retry_after_seconds=0, monotonic=TimeIsUp(third, fourth)).check()

    assert caught.value.reason is FailureReason.CRITICAL_SERVICES
    assert "three" not in caught.value.log


def test_a_check_that_hangs_holds_up_neither_the_others_nor_the_verdict() -> None:
    never, again = threading.Event(), threading.Event()

    def hang() -> None:
        never.wait()

    hanging = Scripted("hanging", hang)
    failing = Scripted("failing", fails(), fails(), reaches(again))
    try:
        with pytest.raises(NodeFailure, match="hanging: no answer; failing: ") as caught:
            HealthChecks(
                [hanging, failing], deadline_seconds=600, retry_after_seconds=0, monotonic=TimeIsUp(again)
            ).check()
    finally:
        never.set()

    assert hanging.asked == 1
    assert "after 600 seconds" in caught.value.log


def test_nothing_is_asked_after_the_verdict() -> None:
    reached = threading.Event()
    failing = Scripted("failing", reaches(reached))

    with pytest.raises(NodeFailure):
        HealthChecks([failing], deadline_seconds=600, retry_after_seconds=600, monotonic=TimeIsUp(reached)).check()

    for thread in threading.enumerate():
        if thread.name == "failing":
            thread.join()
    assert failing.asked == 1


def test_whatever_a_check_raises_is_a_failure_of_that_check() -> None:
    reached = threading.Event()

    def crash() -> None:
        raise ZeroDivisionError("by zero")

    check = Scripted("own check", crash, crash, reaches(reached))
    with pytest.raises(NodeFailure, match=r"own check: (ZeroDivisionError: by zero|asked again)"):
        HealthChecks([check], deadline_seconds=600, retry_after_seconds=0, monotonic=TimeIsUp(reached)).check()


def test_a_command_that_ends_with_status_0_is_content() -> None:
    CommandSucceeds(["true"]).check()
    with pytest.raises(NodeFailure, match="false: status 1"):
        CommandSucceeds(["false"]).check()


SYSTEMCTL = """#!/bin/sh
test "$1 $2" = "is-active --" || exit 9
case "$3" in
  good.service) echo active ;;
  *) echo inactive; exit 3 ;;
esac
"""


def test_every_unit_must_be_active(tmp_path: Path) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(SYSTEMCTL)
    systemctl.chmod(0o755)

    SystemdUnitsActive(["good.service"], systemctl=systemctl).check()
    with pytest.raises(NodeFailure, match=r"expected every unit to be active.*bad\.service: status 3: inactive"):
        SystemdUnitsActive(["good.service", "bad.service"], systemctl=systemctl).check()


class _Server(ThreadingHTTPServer):
    """Answers `/404` with 404, and notes what it is asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(int(self.path.strip("/")))
        if self.path == "/302":
            self.send_header("Location", "/200")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a server, and what it was asked for."""
    with _Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", running.asked
        running.shutdown()
        thread.join()


def test_a_probe_wants_the_status_that_it_expects(server: tuple[str, list[str]]) -> None:
    url, _ = server

    HttpProbe(f"{url}/200").check()
    HttpProbe(f"{url}/404", status=404).check()
    with pytest.raises(NodeFailure, match="expected status 200, found 503"):
        HttpProbe(f"{url}/503").check()


def test_a_probe_follows_no_redirection(server: tuple[str, list[str]]) -> None:
    url, asked = server

    with pytest.raises(NodeFailure, match="expected status 200, found 302"):
        HttpProbe(f"{url}/302").check()

    assert asked == ["/302"]


def test_a_probe_asks_no_proxy(server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    HttpProbe(f"{server[0]}/200").check()


def test_a_probe_of_a_closed_port_says_what_happened() -> None:
    with pytest.raises(NodeFailure, match=r"expected status 200, found .*refused"):
        HttpProbe("http://127.0.0.1:1/").check()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/", "http://", "host/path", ""])
def test_only_http_is_probed(url: str) -> None:
    with pytest.raises(InvalidValue, match="url"):
        HttpProbe(url)


ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t0000FEA9\t00000000\t0001\t0\t0\t1000\t0000FFFF\t0\t0\t0
"""
DEFAULT = "eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
HALF_OF_THE_WORLD = "tun0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000080\t0\t0\t0\n"
REJECTED = "*\t00000000\t00000000\t0201\t0\t0\t0\t00000000\t0\t0\t0\n"
ZERO = "0" * 32
IPV6 = f"fe80{'0' * 28} 40 {ZERO} 00 {ZERO} 00000100 00000001 00000000 00000001     eth0\n"
IPV6_NONE = f"{ZERO} 00 {ZERO} 00 {ZERO} ffffffff 00000001 00000000 00200200       lo\n"
IPV6_DEFAULT = f"{ZERO} 00 {ZERO} 00 fe80{'0' * 27}1 00000400 00000001 00000000 00000003     eth0\n"


@pytest.mark.parametrize(
    ("routes", "ipv6_routes", "found"),
    [
        (ROUTES + DEFAULT, None, True),
        (ROUTES + DEFAULT, IPV6 + IPV6_NONE, True),
        (ROUTES, IPV6 + IPV6_DEFAULT, True),
        (None, IPV6_DEFAULT, True),
        (ROUTES, IPV6 + IPV6_NONE, False),
        (ROUTES + HALF_OF_THE_WORLD, None, False),
        (ROUTES + REJECTED, None, False),
        ("", "", False),
        (None, None, False),
    ],
)
def test_a_default_route_leads_everywhere(
    tmp_path: Path, routes: str | None, ipv6_routes: str | None, found: bool
) -> None:
    for name, table in (("route", routes), ("ipv6_route", ipv6_routes)):
        if table is not None:
            (tmp_path / name).write_text(table)
    check = DefaultRoute(routes=tmp_path / "route", ipv6_routes=tmp_path / "ipv6_route")

    if found:
        check.check()
    else:
        with pytest.raises(NodeFailure, match="expected a default route, found none"):
            check.check()


def test_the_tables_of_the_running_kernel_can_be_read() -> None:
    assert os.access("/proc/net/route", os.R_OK)
    try:
        DefaultRoute().check()
    except NodeFailure as error:
        assert "found none" in error.log  # noqa: PT017  # a machine without a way out is one that tests run on too


def report(kind: UpdateStatusType) -> PlatformUpdateStatusRequest:
    """Return a report of this kind."""
    return PlatformUpdateStatusRequest(host_guid=GUID, update_status=UpdateStatus(status_type=kind))


class Manager:
    """A way to a Maintenance Manager that notes what it hears."""

    def __init__(self, error: Exception | None = None) -> None:
        self.heard: list[PlatformUpdateStatusRequest] = []
        self.error = error

    def platform_update_status(self, request: PlatformUpdateStatusRequest) -> PlatformUpdateStatusResponse:
        self.heard.append(request)
        if self.error is not None:
            raise self.error
        return ANSWER


def test_an_answer_to_a_report_is_enough() -> None:
    manager = Manager()
    link = WatchedLink(manager)
    assert link.platform_update_status(report(UpdateStatusType.STARTED)) == ANSWER

    MaintenanceManagerAnswers(link).check()

    assert manager.heard == [report(UpdateStatusType.STARTED)], "asked once more without need"


def test_a_report_without_an_answer_is_sent_again_and_nothing_else() -> None:
    manager = Manager(Unavailable("no route to host"))
    link = WatchedLink(manager)
    for kind in (UpdateStatusType.STARTED, UpdateStatusType.FAILED):
        with pytest.raises(Unavailable):
            link.platform_update_status(report(kind))
    check = MaintenanceManagerAnswers(link)

    with pytest.raises(NodeFailure, match="expected an answer, found UNAVAILABLE: no route to host"):
        check.check()
    manager.error = None
    check.check()
    check.check()

    assert manager.heard == [report(UpdateStatusType.STARTED)] + 3 * [report(UpdateStatusType.FAILED)]


def test_a_refusal_is_no_answer() -> None:
    link = WatchedLink(Manager(Unauthenticated("unknown key")))
    with pytest.raises(Unauthenticated):
        link.platform_update_status(report(UpdateStatusType.STARTED))

    with pytest.raises(NodeFailure, match="found UNAUTHENTICATED: unknown key"):
        MaintenanceManagerAnswers(link).check()


def test_nothing_is_invented_where_nothing_was_reported() -> None:
    manager = Manager()

    with pytest.raises(NodeFailure, match="no report has been sent since the start"):
        MaintenanceManagerAnswers(WatchedLink(manager)).check()

    assert manager.heard == []


def test_a_second_report_never_overtakes_one_that_hangs() -> None:
    inside, leave = threading.Event(), threading.Event()

    class Slow(Manager):
        def platform_update_status(self, request: PlatformUpdateStatusRequest) -> PlatformUpdateStatusResponse:
            inside.set()
            leave.wait()
            return super().platform_update_status(request)

    manager = Slow()
    link = WatchedLink(manager, longest_call_seconds=0.05)
    thread = threading.Thread(target=link.platform_update_status, args=(report(UpdateStatusType.STARTED),))
    thread.start()
    inside.wait()
    try:
        with pytest.raises(Unavailable, match="an earlier report"):
            link.platform_update_status(report(UpdateStatusType.FAILED))
    finally:
        leave.set()
        thread.join()

    assert manager.heard == [report(UpdateStatusType.STARTED)]
