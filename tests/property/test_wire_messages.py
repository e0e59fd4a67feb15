"""Messages go over the wire without loss; what a newer, older or broken peer sends is an answer or a named mistake."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_day2.adapters.grpc.conversion import decode_request, decode_response, encode_request, encode_response
from edge_day2.domain.messages import PlatformUpdateStatusRequest, PlatformUpdateStatusResponse, UpdateSchedule
from edge_day2.domain.resources import OSType
from edge_day2.domain.schedules import SingleSchedule
from edge_day2.domain.statuses import UpdateStatusType
from edge_day2.errors import InvalidMessage
from edge_day2.testing.strategies import (
    platform_update_status_requests,
    platform_update_status_responses,
    single_schedules,
)

# Protobuf: field 1000, of each wire type.
UNKNOWN_FIELDS = (b"\xc0\x3e\x05", b"\xc1\x3e12345678", b"\xc2\x3e\x03abc", b"\xc5\x3e1234")


def texts_of(response: PlatformUpdateStatusResponse) -> list[tuple[str, ...]]:
    """Return the cron fields as they are written, of which equality sees only the meaning."""
    return [
        (one.minutes, one.hours, one.day_month, one.month, one.day_week)
        for one in response.update_schedule.repeated_schedules
    ]


@given(platform_update_status_requests())
def test_every_report_comes_back_as_it_was(request: PlatformUpdateStatusRequest) -> None:
    assert decode_request(encode_request(request)) == request


@given(platform_update_status_responses())
def test_every_answer_comes_back_as_it_was(response: PlatformUpdateStatusResponse) -> None:
    back = decode_response(encode_response(response))

    assert back == response
    assert texts_of(back) == texts_of(response)


@given(platform_update_status_requests(), st.lists(st.sampled_from(UNKNOWN_FIELDS), min_size=1))
def test_fields_of_a_newer_agent_are_ignored(request: PlatformUpdateStatusRequest, extra: list[bytes]) -> None:
    assert decode_request(encode_request(request) + b"".join(extra)) == request


@given(platform_update_status_responses(), st.lists(st.sampled_from(UNKNOWN_FIELDS), min_size=1))
def test_fields_of_a_newer_server_are_ignored(response: PlatformUpdateStatusResponse, extra: list[bytes]) -> None:
    assert decode_response(encode_response(response) + b"".join(extra)) == response


@given(platform_update_status_requests(), st.integers(7, 2**31 - 1) | st.integers(-(2**31), -1))
def test_a_status_of_a_newer_agent_is_unspecified(request: PlatformUpdateStatusRequest, number: int) -> None:
    # The last value of a field that is there twice counts, and messages that are there twice are merged.
    status_type = b"\x08" + varint(number)
    content = encode_request(request) + b"\x12" + varint(len(status_type)) + status_type

    found = decode_request(content)

    assert found.update_status.status_type is UpdateStatusType.UNSPECIFIED
    assert found.update_status.status_detail == request.update_status.status_detail


@given(platform_update_status_responses(), st.integers(3, 2**31 - 1) | st.integers(-(2**31), -1))
def test_an_os_type_of_a_newer_server_is_none(response: PlatformUpdateStatusResponse, number: int) -> None:
    assert decode_response(encode_response(response) + b"\x20" + varint(number)).os_type is None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_report_or_a_named_mistake(content: bytes) -> None:
    try:
        request = decode_request(content)
    except InvalidMessage:
        return
    assert decode_request(encode_request(request)) == request


@given(st.data())
def test_any_change_of_an_answers_bytes_is_an_answer_or_a_named_mistake(data: st.DataObject) -> None:
    content = bytearray(encode_response(data.draw(platform_update_status_responses())))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        response = decode_response(bytes(content))
    except InvalidMessage:
        return
    assert decode_response(encode_response(response)) == response


@given(single_schedules(), st.integers(0, 999_999), st.integers(0, 999_999))
def test_a_schedule_between_two_seconds_never_opens_too_early_or_closes_too_late(
    whole: SingleSchedule, start: int, end: int
) -> None:
    closes = None if whole.end is None else whole.end.replace(microsecond=end)
    exact = SingleSchedule(whole.start.replace(microsecond=start), closes)
    answer = PlatformUpdateStatusResponse(os_type=OSType.MUTABLE, update_schedule=UpdateSchedule(single_schedule=exact))

    said = decode_response(encode_response(answer)).update_schedule.single_schedule

    assert said is not None
    assert 0 <= (said.start - exact.start).total_seconds() < 1
    assert (said.end is None) == (exact.end is None)
    if said.end is not None and exact.end is not None:
        assert 0 <= (exact.end - said.end).total_seconds() < 1


def varint(number: int) -> bytes:
    """Return the protobuf encoding of an int32."""
    number &= 2**64 - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
