"""Images over a real HTTP server that breaks off, lies, stalls and refuses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from attrs import evolve

from edge_day2.adapters.images import (
    HttpImageSource,
    HttpLimits,
    ImageLimits,
    RetryLimits,
    TrustedSource,
    TrustedSources,
)
from edge_day2.adapters.slots import PartitionSlots
from edge_day2.domain.observation import Slot
from edge_day2.domain.statuses import FailureReason
from edge_day2.errors import InvalidValue
from edge_day2.ports.failures import (
    ImageCorrupt,
    ImageTooLarge,
    Interrupted,
    NodeFailure,
    OutOfTime,
    UntrustedSource,
)
from edge_day2.testing.local_authority import LocalAuthority
from image_server import Handler, ImageServer, Misbehaviour, answers, hangs_up, serves, serves_other
from slots_bench import PACKERS, QUICK, SlotsBench, content, image_of

RAW = content(3_000_000)
FILE = PACKERS["gz"](RAW)
PATH = "/images/edge.raw.gz"
IMAGE = image_of(FILE, "edge.raw.gz")
# Long before the first, so that a test that waits for it would seem to hang.
PATIENT = HttpLimits(connect_seconds=60, stall_seconds=60)


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with ImageServer() as server:
        server.files[PATH] = FILE
        yield server


@pytest.fixture
def bench(server: ImageServer, tmp_path: Path) -> SlotsBench:
    return SlotsBench(folder=tmp_path, source=source_of(server))


@pytest.fixture
def authority(tmp_path: Path) -> LocalAuthority:
    return LocalAuthority(tmp_path / "authority")


def source_of(server: ImageServer, limits: HttpLimits = PATIENT) -> HttpImageSource:
    trusted = TrustedSources([f"{server.url}/images"], base_url=f"{server.url}/images")
    return HttpImageSource(trusted, limits=limits, proxies={})


def wait_for_threads() -> None:
    """Return when nobody fetches any more, although the server hasn't let go."""
    deadline = time.monotonic() + 30
    while fetching := [one for one in threading.enumerate() if one.name in {"image fetch", "image prefetch"}]:
        assert time.monotonic() < deadline, fetching
        # A look now and then at what can't be waited for; whatever goes wrong ends the loop.
        time.sleep(0.02)


def fetch(slots: PartitionSlots, ahead: bool) -> None:
    if ahead:
        slots.prefetch(IMAGE)
    else:
        slots.write(IMAGE, Slot.B, None)


def test_an_image_comes_in_one_request_and_is_asked_for_as_it_lies_there(
    server: ImageServer, bench: SlotsBench
) -> None:
    bench.slots().write(IMAGE, Slot.B, None)

    assert bench.holds(RAW)
    assert [one.accept_encoding for one in server.asked] == ["identity"]


CUTS: dict[str, Misbehaviour] = {
    "before an answer": hangs_up,
    "before the first byte": serves(most=0),
    "in the middle": serves(most=1_000_000),
    "before the last byte": serves(most=len(FILE) - 1),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("ahead", [False, True], ids=["streamed", "downloaded ahead"])
def test_a_broken_connection_goes_on_where_it_broke(
    server: ImageServer, bench: SlotsBench, cut: Misbehaviour, ahead: bool
) -> None:
    server.script.append(cut)
    slots = bench.slots()

    if ahead:
        slots.prefetch(IMAGE)
    slots.write(IMAGE, Slot.B, None)

    assert bench.holds(RAW)
    assert len(server.asked) == 2


def test_a_connection_that_breaks_again_and_again_goes_on_with_a_range_and_the_validator(
    server: ImageServer, bench: SlotsBench
) -> None:
    server.always = serves(most=len(FILE) // 5)

    bench.slots(retry=evolve(QUICK, attempts=12)).write(IMAGE, Slot.B, None)

    assert bench.holds(RAW)
    step = len(FILE) // 5
    assert [one.range for one in server.asked] == ["", *(f"bytes={n * step}-" for n in range(1, len(server.asked)))]
    assert {one.if_range for one in server.asked[1:]} == {server.etag(PATH, FILE)}


@pytest.mark.parametrize(("etag", "expected"), [("", "modified"), ('W/"weak"', "modified")], ids=["none", "weak"])
def test_without_a_strong_etag_the_date_is_the_validator(
    server: ImageServer, bench: SlotsBench, etag: str, expected: str
) -> None:
    server.script.append(serves(most=1_000_000, etag=etag))

    bench.slots().write(IMAGE, Slot.B, None)

    assert bench.holds(RAW)
    assert server.asked[1].if_range == server.modified


STARTS_OVER: dict[str, Misbehaviour] = {
    "a range that begins elsewhere": serves(shift=1000),
    "the whole file": serves(ranges=False),
    "a range of another file": serves(etag='"another"'),
    "that there is no such range": answers(416),
}


@pytest.mark.parametrize("second", STARTS_OVER.values(), ids=STARTS_OVER)
@pytest.mark.parametrize("ahead", [False, True], ids=["streamed", "downloaded ahead"])
def test_a_range_that_is_not_the_one_that_was_asked_for_lets_everything_begin_anew(
    server: ImageServer, bench: SlotsBench, second: Misbehaviour, ahead: bool
) -> None:
    server.script.extend([serves(most=1_000_000), second])
    slots = bench.slots()

    if ahead:
        slots.prefetch(IMAGE)
    slots.write(IMAGE, Slot.B, None)

    assert bench.holds(RAW)
    assert [one.range for one in server.asked] == ["", "bytes=1000000-", ""]


def test_a_server_that_never_serves_a_range_is_given_up(server: ImageServer, bench: SlotsBench) -> None:
    server.always = serves(most=1_000_000, ranges=False)

    with pytest.raises(NodeFailure, match="begun 3 times") as error:
        bench.slots().write(IMAGE, Slot.B, None)

    assert error.value.reason is FailureReason.DOWNLOAD_FAIL
    assert not error.value.conclusive


def test_a_file_that_is_replaced_in_the_middle_is_taken_whole(server: ImageServer, bench: SlotsBench) -> None:
    server.files[PATH] = PACKERS["gz"](content(3_000_000, seed=7))
    server.script.extend([serves(most=1_000_000), serves_other(FILE)])

    bench.slots().write(IMAGE, Slot.B, None)

    assert bench.holds(RAW)


def test_a_mixture_of_two_files_that_no_validator_tells_apart_is_fetched_once_more(
    server: ImageServer, bench: SlotsBench
) -> None:
    server.modified = ""
    other = bytes(len(FILE))
    server.script.extend([serves(most=1_000_000, etag=""), serves_other(other, etag=""), serves_other(FILE)])

    bench.slots().write(IMAGE, Slot.B, None)

    assert bench.holds(RAW)
    assert server.asked[-1].range == ""


@pytest.mark.parametrize("ahead", [False, True], ids=["streamed", "downloaded ahead"])
def test_another_file_is_corrupt_and_asked_for_once(server: ImageServer, bench: SlotsBench, ahead: bool) -> None:
    other = FILE[:-9] + b"!" + FILE[-8:]
    server.files[PATH] = other
    slots = bench.slots()

    with pytest.raises(ImageCorrupt) as error:
        fetch(slots, ahead)

    assert (error.value.expected, error.value.found) == (IMAGE.sha256, image_of(other, "").sha256)
    assert error.value.reason is FailureReason.SIGNATURE_CHECK
    assert not error.value.conclusive
    assert len(server.asked) == 1
    with pytest.raises(NodeFailure, match="holds nothing that is known"):
        slots.verify(IMAGE, Slot.B)


@pytest.mark.parametrize(
    "content", [FILE + b"trailing garbage", FILE[:-1], FILE[:2000]], ids=["more", "less", "little"]
)
def test_more_or_less_than_the_file_is_corrupt(server: ImageServer, bench: SlotsBench, content: bytes) -> None:
    server.files[PATH] = content

    with pytest.raises(ImageCorrupt):
        bench.slots().write(IMAGE, Slot.B, None)


def test_an_empty_file_with_status_200_is_a_failed_download(server: ImageServer, bench: SlotsBench) -> None:
    server.files[PATH] = b""

    with pytest.raises(NodeFailure, match="empty file") as error:
        bench.slots().write(IMAGE, Slot.B, None)

    assert error.value.reason is FailureReason.DOWNLOAD_FAIL
    assert not error.value.conclusive


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, FailureReason.RS_AUTHENTICATION),
        (403, FailureReason.RS_AUTHENTICATION),
        (404, FailureReason.DOWNLOAD_FAIL),
        (410, FailureReason.DOWNLOAD_FAIL),
        (204, FailureReason.DOWNLOAD_FAIL),
        (206, FailureReason.DOWNLOAD_FAIL),
    ],
)
def test_a_refusal_is_reported_at_once_with_its_status(
    server: ImageServer, bench: SlotsBench, status: int, reason: FailureReason
) -> None:
    server.always = answers(status)

    with pytest.raises(NodeFailure, match=f"answers {status}") as error:
        bench.slots().write(IMAGE, Slot.B, None)

    assert error.value.reason is reason
    assert not error.value.conclusive
    assert len(server.asked) == 1


def in_seconds(seconds: int) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("after", [lambda: "1", lambda: in_seconds(2)], ids=["seconds", "date"])
def test_retry_after_is_waited_for(
    server: ImageServer, bench: SlotsBench, status: int, after: Callable[[], str]
) -> None:
    server.script.append(answers(status, Retry_After=after()))
    began = time.monotonic()

    bench.slots(retry=RetryLimits(first_wait_seconds=0, longest_wait_seconds=60)).write(IMAGE, Slot.B, None)

    assert bench.holds(RAW)
    # A date counts whole seconds, of which one may be nearly over.
    assert time.monotonic() - began > 0.9


@pytest.mark.parametrize(
    "after", [lambda: "86400", lambda: in_seconds(86400), lambda: "soon"], ids=["s", "date", "odd"]
)
def test_nobody_makes_a_node_wait_for_longer_than_its_own_limit(
    server: ImageServer, bench: SlotsBench, after: Callable[[], str]
) -> None:
    server.script.append(answers(503, Retry_After=after()))

    bench.slots().write(IMAGE, Slot.B, None)

    assert bench.holds(RAW)


def test_a_server_that_has_no_time_is_given_up_after_some_attempts(server: ImageServer, bench: SlotsBench) -> None:
    server.always = answers(503)

    with pytest.raises(NodeFailure, match="given up after 4 attempts"):
        bench.slots().write(IMAGE, Slot.B, None)

    assert len(server.asked) == 4


def test_a_server_that_is_not_there_is_a_failed_download(tmp_path: Path) -> None:
    with ImageServer() as server:
        bench = SlotsBench(folder=tmp_path, source=source_of(server))

    with pytest.raises(NodeFailure, match="can't be reached") as error:
        bench.slots().write(IMAGE, Slot.B, None)

    assert error.value.reason is FailureReason.DOWNLOAD_FAIL


@pytest.mark.parametrize("most", [0, 1_000_000])
def test_a_stalled_connection_is_given_up_and_opened_again(server: ImageServer, tmp_path: Path, most: int) -> None:
    release = threading.Event()
    server.script.append(serves(most=most, release=release))
    bench = SlotsBench(folder=tmp_path, source=source_of(server, HttpLimits(stall_seconds=0.3)))

    bench.slots(retry=evolve(QUICK, attempts=50)).write(IMAGE, Slot.B, None)
    release.set()

    assert bench.holds(RAW)


def test_a_connection_that_only_trickles_counts_as_broken(server: ImageServer, tmp_path: Path) -> None:
    server.script.append(serves(rate=1000))
    limits = HttpLimits(stall_seconds=0.5, slowest_bytes_per_second=100_000)
    bench = SlotsBench(folder=tmp_path, source=source_of(server, limits))

    bench.slots(retry=evolve(QUICK, attempts=50)).write(IMAGE, Slot.B, None)

    assert bench.holds(RAW)
    assert len(server.asked) > 1


@pytest.mark.parametrize("ahead", [False, True], ids=["streamed", "downloaded ahead"])
@pytest.mark.parametrize("most", [None, 0, 1_000_000], ids=["no answer", "no bytes", "some bytes"])
def test_a_stalled_download_can_be_cancelled(
    server: ImageServer, bench: SlotsBench, most: int | None, ahead: bool
) -> None:
    release, stalled, cancel = threading.Event(), threading.Event(), threading.Event()

    def stall(handler: Handler) -> None:
        stalled.set()
        if most is None:
            release.wait(60)
        else:
            serves(most=most, release=release)(handler)

    server.always = stall
    slots = bench.slots(cancel=cancel)
    began = time.monotonic()

    def cancel_then() -> None:
        stalled.wait(60)
        cancel.set()

    threading.Thread(target=cancel_then).start()

    with pytest.raises(Interrupted):
        fetch(slots, ahead)
    if most is not None:
        wait_for_threads()
    release.set()

    # The server is waited for a minute: it wasn't the time-out.
    assert time.monotonic() - began < 30


def test_a_stalled_download_over_tls_can_be_cancelled(authority: LocalAuthority, tmp_path: Path) -> None:
    release, cancel = threading.Event(), threading.Event()

    def stall(handler: Handler) -> None:
        handler.serve(most=500_000)
        cancel.set()
        release.wait(60)

    began = time.monotonic()
    with ImageServer(tls=authority.server()) as server:
        server.files[PATH] = FILE
        server.always = stall
        trusted = TrustedSources([f"{server.url}/images"], base_url=f"{server.url}/images")
        bench = SlotsBench(folder=tmp_path, source=HttpImageSource(trusted, ca=authority.ca, limits=PATIENT))
        with pytest.raises(Interrupted):
            bench.slots(cancel=cancel).write(IMAGE, Slot.B, None)
        wait_for_threads()
        release.set()

    assert time.monotonic() - began < 30


def test_waiting_for_the_next_attempt_can_be_cancelled(server: ImageServer, bench: SlotsBench) -> None:
    cancel = threading.Event()

    def refuse(handler: Handler) -> None:
        cancel.set()
        answers(503, Retry_After="3600")(handler)

    server.always = refuse

    with pytest.raises(Interrupted):
        bench.slots(cancel=cancel, retry=RetryLimits(longest_wait_seconds=3600)).write(IMAGE, Slot.B, None)


def test_the_window_closes_while_the_server_stalls(server: ImageServer, bench: SlotsBench) -> None:
    release = threading.Event()
    server.always = serves(most=1_000_000, release=release)

    with pytest.raises(OutOfTime, match="window closed"):
        bench.slots().write(IMAGE, Slot.B, datetime.now(UTC) + timedelta(seconds=0.5))
    release.set()

    with pytest.raises(NodeFailure, match="holds nothing that is known"):
        bench.slots().verify(IMAGE, Slot.B)


def test_a_file_that_is_too_long_is_refused_before_it_is_fetched(server: ImageServer, bench: SlotsBench) -> None:
    with pytest.raises(ImageTooLarge, match=str(len(FILE))):
        bench.slots(limits=ImageLimits(file_bytes=len(FILE) - 1)).write(IMAGE, Slot.B, None)


def test_a_redirect_within_what_is_trusted_is_followed(server: ImageServer, bench: SlotsBench) -> None:
    server.script.append(answers(302, Location="/images/there/edge.raw.gz?signature=1"))
    server.files["/images/there/edge.raw.gz"] = FILE

    bench.slots().write(IMAGE, Slot.B, None)

    assert bench.holds(RAW)
    assert server.asked[1].path == "/images/there/edge.raw.gz?signature=1"


@pytest.mark.parametrize(
    "location", ["/elsewhere/edge.raw.gz", "/images/../edge.raw.gz", "http://127.0.0.2/images/a", ""]
)
def test_a_redirect_to_somewhere_else_is_refused(server: ImageServer, bench: SlotsBench, location: str) -> None:
    server.script.append(answers(302, Location=location))

    with pytest.raises(UntrustedSource):
        bench.slots().write(IMAGE, Slot.B, None)

    assert len(server.asked) == 1


def test_redirects_without_an_end_are_given_up(server: ImageServer, bench: SlotsBench) -> None:
    server.always = answers(302, Location=PATH)

    with pytest.raises(NodeFailure, match="redirects"):
        bench.slots().write(IMAGE, Slot.B, None)


def test_each_source_gets_its_own_token_or_none_and_a_renewed_one_is_read(
    server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    token = tmp_path / "token"
    token.write_text("first\n")
    with ImageServer() as other:
        other.files[PATH] = FILE
        trusted = TrustedSources(
            [TrustedSource(f"{server.url}/images", token_file=token), TrustedSource(f"{other.url}/images")],
            base_url=f"{server.url}/images",
        )
        bench = SlotsBench(folder=tmp_path, source=HttpImageSource(trusted))
        server.script.extend(
            [
                serves(most=1_000_000),
                answers(307, Location=f"{other.url}{PATH}"),
                answers(307, Location=f"{other.url}{PATH}"),
            ]
        )

        def renew(handler: Handler) -> None:
            token.write_text("second")
            hangs_up(handler)

        other.script.append(renew)

        bench.slots().write(IMAGE, Slot.B, None)

        assert bench.holds(RAW)
        assert [one.authorization for one in server.asked] == ["Bearer first", "Bearer first", "Bearer second"]
        assert [one.authorization for one in other.asked] == ["", ""]


def test_a_token_that_is_not_there_is_an_authentication_that_failed(server: ImageServer, tmp_path: Path) -> None:
    source = TrustedSource(f"{server.url}/images", token_file=tmp_path / "token")
    bench = SlotsBench(folder=tmp_path, source=HttpImageSource(TrustedSources([source], base_url=source.url)))

    with pytest.raises(NodeFailure, match="token file") as error:
        bench.slots().write(IMAGE, Slot.B, None)

    assert error.value.reason is FailureReason.RS_AUTHENTICATION
    assert server.asked == []


def test_a_token_never_goes_unencrypted_to_another_machine(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="https"):
        TrustedSource("http://files.example.org/images", token_file=tmp_path / "token")


def test_a_server_is_believed_by_the_authorities_file_alone(authority: LocalAuthority, tmp_path: Path) -> None:
    with ImageServer(tls=authority.server()) as server:
        server.files[PATH] = FILE
        trusted = TrustedSources([f"{server.url}/images"], base_url=f"{server.url}/images")
        believing = SlotsBench(folder=tmp_path, source=HttpImageSource(trusted, ca=authority.ca))
        believing.slots().write(IMAGE, Slot.B, None)
        assert believing.holds(RAW)

        for source in (HttpImageSource(trusted), HttpImageSource(trusted, ca=tmp_path / "nothing")):
            bench = SlotsBench(folder=tmp_path, source=source)
            with pytest.raises(NodeFailure) as error:
                bench.slots().write(evolve(IMAGE, image_id="3.0.3"), Slot.B, None)
            assert error.value.reason is FailureReason.RS_AUTHENTICATION


def test_a_server_of_another_name_is_not_believed(authority: LocalAuthority, tmp_path: Path) -> None:
    with ImageServer(tls=authority.server(names=("files.example.org",))) as server:
        server.files[PATH] = FILE
        trusted = TrustedSources([f"{server.url}/images"], base_url=f"{server.url}/images")
        bench = SlotsBench(folder=tmp_path, source=HttpImageSource(trusted, ca=authority.ca))

        with pytest.raises(NodeFailure, match="certificate") as error:
            bench.slots().write(IMAGE, Slot.B, None)

    assert error.value.reason is FailureReason.RS_AUTHENTICATION


@pytest.mark.parametrize("explicit", [True, False], ids=["explicit", "environment"])
def test_a_proxy_is_used(server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, explicit: bool) -> None:
    # A plain server will do: what a proxy is asked for is the whole address.
    server.files["http://files.example.org/images/edge.raw.gz"] = FILE
    if not explicit:
        monkeypatch.setenv("http_proxy", server.url)
        monkeypatch.setenv("no_proxy", "")
    trusted = TrustedSources(["http://files.example.org/images"], base_url="http://files.example.org/images")
    source = HttpImageSource(trusted, proxies={"http": server.url} if explicit else None)
    bench = SlotsBench(folder=tmp_path, source=source)

    bench.slots().write(IMAGE, Slot.B, None)

    assert bench.holds(RAW)
