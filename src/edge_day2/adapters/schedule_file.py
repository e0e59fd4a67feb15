"""Regions, sites, hosts and their schedules from a JSON file, as a schedule book.

    {
      "regions":   [{"id": "eu", "name": "EU", "parent": null}],
      "sites":     [{"id": "gdansk", "name": "Gdansk", "region": "eu"}],
      "hosts":     [{"id": "node-1", "name": "node 1", "guid": "…", "site": "gdansk"}],
      "schedules": [
        {"name": "nightly", "target": {"region": "eu"}, "repeated": {"hours": "2", "time_zone": "Europe/Warsaw"}},
        {"name": "freeze", "kind": "BLACKOUT", "target": {"site": "gdansk"},
         "single": {"start": "2026-12-20T00:00:00+01:00", "end": "2027-01-03T00:00:00+01:00"}}
      ]
    }

`repeated` takes the fields of `RepeatedSchedule`, `single` has ISO 8601 instants with an offset; `kind` is OS_UPDATE
where it isn't given. Everything else is refused, so that a misspelt key isn't silently without effect.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from edge_day2.domain.resources import Host, Region, ScheduleResource, ScheduleTarget, Site, TargetLevel
from edge_day2.domain.schedule_book import ScheduleBook
from edge_day2.domain.schedules import RepeatedSchedule, Schedule, ScheduleKind, SingleSchedule
from edge_day2.errors import InvalidSchedule

TENANT: Final = "file"

_Entry = Mapping[str, Any]


def read_schedule_file(path: Path) -> ScheduleBook:
    """Return the schedule book that the JSON file at `path` describes, of a tenant named "file".

    Raises:
        OSError: the file can't be read.
        InvalidSchedule: the text isn't JSON of this form; `field` says where.
        InvalidResource: a name is empty, a GUID isn't one, or a region lies within itself.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidSchedule(path.name, str(error), "JSON in UTF-8") from error
    return schedule_book_of(content)


def schedule_book_of(content: object) -> ScheduleBook:
    """Return the schedule book that decoded JSON describes.

    Raises:
        InvalidSchedule, InvalidResource: as `read_schedule_file`.
    """
    whole = _entry("file", content, {"regions", "sites", "hosts", "schedules"}, set())
    book = ScheduleBook(TENANT)
    for where, entry in _entries(whole, "regions", {"id", "name"}, {"parent"}):
        parent = _text_or_none(where, entry, "parent")
        book.put(
            Region(
                resource_id=_text(where, entry, "id"),
                tenant_id=TENANT,
                name=_text(where, entry, "name"),
                parent_id=parent,
            )
        )
    for where, entry in _entries(whole, "sites", {"id", "name"}, {"region"}):
        region = _text_or_none(where, entry, "region")
        book.put(
            Site(
                resource_id=_text(where, entry, "id"),
                tenant_id=TENANT,
                name=_text(where, entry, "name"),
                region_id=region,
            )
        )
    for where, entry in _entries(whole, "hosts", {"id", "name", "guid"}, {"site"}):
        book.put(
            Host(
                resource_id=_text(where, entry, "id"),
                tenant_id=TENANT,
                guid=_text(where, entry, "guid"),
                name=_text(where, entry, "name"),
                site_id=_text_or_none(where, entry, "site"),
            )
        )
    for where, entry in _entries(whole, "schedules", {"name", "target"}, {"kind", "single", "repeated"}):
        name = _text(where, entry, "name")
        # The name alone may come twice.
        book.put(
            ScheduleResource(
                resource_id=f"{where} {name}",
                tenant_id=TENANT,
                name=name,
                schedule=_schedule(where, entry),
                kind=_kind(where, entry),
                target=_target(where, entry),
            )
        )
    return book


def _schedule(where: str, entry: _Entry) -> Schedule:
    if ("single" in entry) == ("repeated" in entry):
        raise InvalidSchedule(where, sorted(entry), "either single or repeated")
    if "repeated" in entry:
        names = {"minutes", "hours", "day_month", "month", "day_week", "duration_seconds", "time_zone"}
        return RepeatedSchedule(**_entry(f"{where}.repeated", entry["repeated"], set(), names))
    single = _entry(f"{where}.single", entry["single"], {"start"}, {"end"})
    end = single.get("end")
    return SingleSchedule(
        _instant(f"{where}.single.start", single["start"]),
        None if end is None else _instant(f"{where}.single.end", end),
    )


def _instant(where: str, value: object) -> datetime:
    expected = "an ISO 8601 instant with an offset, such as 2026-12-20T00:00:00+01:00"
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError as error:
        raise InvalidSchedule(where, value, expected) from error
    if found is None or found.tzinfo is None:
        raise InvalidSchedule(where, value, expected)
    return found


def _kind(where: str, entry: _Entry) -> ScheduleKind:
    value = entry.get("kind", ScheduleKind.OS_UPDATE.name)
    if not isinstance(value, str) or value not in ScheduleKind.__members__:
        raise InvalidSchedule(f"{where}.kind", value, "one of " + ", ".join(ScheduleKind.__members__))
    return ScheduleKind[value]


def _target(where: str, entry: _Entry) -> ScheduleTarget:
    levels = {level.value for level in TargetLevel}
    target = _entry(f"{where}.target", entry["target"], set(), levels)
    if len(target) != 1:
        raise InvalidSchedule(f"{where}.target", sorted(target), "one of " + ", ".join(sorted(levels)))
    (level,) = target
    return ScheduleTarget(level=TargetLevel(level), resource_id=_text(f"{where}.target", target, level))


def _entries(whole: _Entry, key: str, needed: set[str], allowed: set[str]) -> Iterator[tuple[str, _Entry]]:
    listed = whole[key]
    if not isinstance(listed, list):
        raise InvalidSchedule(key, listed, "a list")
    for place, value in enumerate(listed):
        where = f"{key}[{place}]"
        yield where, _entry(where, value, needed, allowed)


def _entry(where: str, value: object, needed: set[str], allowed: set[str]) -> _Entry:
    if not isinstance(value, dict) or not needed <= value.keys() <= needed | allowed:
        found = sorted(value) if isinstance(value, dict) else value
        expected = f"an object with {', '.join(sorted(needed)) or 'no other keys'}"
        raise InvalidSchedule(
            where, found, expected + (f" and at most {', '.join(sorted(allowed))}" if allowed else "")
        )
    return value


def _text(where: str, entry: _Entry, key: str) -> str:
    value = entry[key]
    if not isinstance(value, str):
        raise InvalidSchedule(f"{where}.{key}", value, "a text")
    return value


def _text_or_none(where: str, entry: _Entry, key: str) -> str | None:
    return None if entry.get(key) is None else _text(where, entry, key)
