"""The part of the Inventory's contract that is about hostile text: stored exactly or refused, never half.

The fields come from the attrs classes, so that a new one is covered by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import attrs
import pytest
from attrs import evolve

from edge_day2.application.inventory_service import InventoryService
from edge_day2.application.maintenance_manager import MaintenanceManager, Report
from edge_day2.domain.messages import PlatformUpdateStatusRequest, PlatformUpdateStatusResponse, UpdateStatus
from edge_day2.domain.resources import Instance, Link, OSType, Region, Resource
from edge_day2.domain.statuses import UpdateStatusType
from edge_day2.errors import EdgeDay2Error, InvalidValue, NotFound, RequestError, StorageError
from edge_day2.ports.inventory import Inventory, UnitOfWork
from edge_day2.testing.agent_bench import SetClock
from edge_day2.testing.inventory_contents import GUID, TENANT, Fleet, load, plain_fleet

_MEGABYTE: Final = 1 << 20
# Characters beyond the basic plane that no database can compress.
_ASTRAL: Final = "".join(chr(0x20000 + number * 7919 % 0xA6D0) for number in range(200))

HOSTILE: Final[dict[str, str]] = {
    "a quote that drops a table": "'; DROP TABLE instance; --",
    "a quote that is always true": "' OR '1'='1",
    "a doubled quote and a backslash": "\\'; \"; '' \\x00 $$ E'\\047",
    "a union": "x' UNION SELECT tenant_id, resource_id FROM host --",
    "parameters": ":tenant_id %(tenant_id)s ? $1 {0} %s %",
    "a pattern": "%_*",
    "JSON": '"],["x",{"a":null}',
    "a megabyte": "a" * _MEGABYTE,
    "a megabyte of astral characters": _ASTRAL * (_MEGABYTE // 4 // len(_ASTRAL)),
    "an id as long as they get": "i" * 300,
    "an id that is too long": "i" * 301,
    "an id with as many bytes as they get": _ASTRAL,
    "an id with too many bytes": _ASTRAL + "x",
    "NUL": "before\0after",
    "NUL alone": "\0",
    "a lone high surrogate": "before\ud800after",
    "a lone low surrogate": "\udfff",
    "surrogates in the wrong order": "\udc00\ud800",
    "emoji": "👩🏽‍🚀🇵🇱",
    "right to left": "\u202eevil\u202c \u2066x\u2069",
    "nothing to see": "\u200b\u200d\ufeff\u2060",
    "blanks": " \t\r\n\v\f\x85\u2028\u2029",
    "control characters": "\x01\x1b[2J\x7f\x9f",
    "full width": "\uff54enant-a",
    "composed": "é",
    "decomposed": "e\u0301",
    "a Turkish capital I": "İ\u0131I",
    "a Kelvin sign": "\u212a",
    "a long s": "\u017f",
    "a sharp s": "ßẞ",
    "not a character": "\ufffe\uffff\U0010ffff",
    "another tenant's name": "tenant-b",
    "the tenant in capitals": "TENANT-A",
    "nothing": "",
}


def _fields(resource: Any) -> Iterator[tuple[str, ...]]:
    """Yield the path of every text in a resource: names of fields, and places in tuples."""
    for attribute in attrs.fields(type(resource)):
        if attribute.init:
            value = getattr(resource, attribute.name)
            # An optional text is a text too.
            if value is None and attribute.type == "str | None":
                value = ""
            for path in _texts(value):
                yield attribute.name, *path


def _texts(value: Any) -> Iterator[tuple[str, ...]]:
    if isinstance(value, str):
        yield ()
    elif isinstance(value, tuple):
        for place, item in enumerate(value):
            for path in _texts(item):
                yield str(place), *path
    elif attrs.has(type(value)):
        yield from _fields(value)


def _changed(value: Any, path: tuple[str, ...], text: str) -> Any:
    if not path:
        return text
    first, *rest = path
    if isinstance(value, tuple):
        place = int(first)
        return (*value[:place], _changed(value[place], tuple(rest), text), *value[place + 1 :])
    return evolve(value, **{first: _changed(getattr(value, first), tuple(rest), text)})


def _every_kind(tenant_id: str) -> tuple[Resource, ...]:
    """Return a resource of every kind, with something in every field that may be empty."""
    fleet = plain_fleet(tenant_id)
    ubuntu = evolve(
        fleet.old_os,
        resource_id="os-ubuntu",
        os_type=OSType.MUTABLE,
        profile_name="ubuntu",
        metadata=(("key", "value"),),
        platform_bundle=(("key", "value"),),
        update_sources=("Types: deb",),
        update_packages=("vim",),
    )
    return (*fleet.resources, ubuntu)


_PLACES: Final = sorted(
    {(type(resource).__name__, path) for resource in _every_kind(TENANT) for path in _fields(resource)}
)
_OURS: Final = (RequestError, InvalidValue)


def _storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _check_message(error: BaseException) -> None:
    assert len(str(error)) < 1000
    str(error).encode()


class InventoryTextContract:
    """What becomes of hostile text. Needs the fixtures `inventory` and `fleet` of `InventoryContract`."""

    @pytest.mark.parametrize(("kind", "path"), _PLACES, ids=[".".join((kind, *path)) for kind, path in _PLACES])
    def test_a_field_is_stored_exactly_or_refused(
        self, inventory: Inventory, fleet: Fleet, kind: str, path: tuple[str, ...]
    ) -> None:
        old = next(
            resource
            for resource in _every_kind(TENANT)
            if type(resource).__name__ == kind and path in set(_fields(resource))
        )
        if old.resource_id == "os-ubuntu":
            with inventory.writing() as unit:
                unit.add(old)
        before = _everything(inventory)
        for name, text in HOSTILE.items():
            try:
                new = _changed(old, path, text)
            except EdgeDay2Error as error:
                _check_message(error)
                continue
            for change in (_replaced, _added):
                came = _undone(inventory, change, old, new)
                if not isinstance(came, EdgeDay2Error):
                    assert _storable(text), name
                    assert came == new, name
                    # The text itself, not what a comparison takes for the same.
                    assert repr(came) == repr(new), name
        assert _everything(inventory) == before

    @pytest.mark.parametrize("name", HOSTILE)
    def test_an_argument_finds_nothing_that_has_another_name(
        self, inventory: Inventory, fleet: Fleet, name: str
    ) -> None:
        text, link = HOSTILE[name], Link(OSType.IMMUTABLE, "os-old", "os-new")
        finds_nothing: list[Callable[[UnitOfWork], object]] = [
            lambda unit: list(unit.all(Instance, text)),
            lambda unit: unit.instance_of_host(text, "host-1"),
            lambda unit: unit.instance_of_host(TENANT, text),
            lambda unit: unit.report_contexts(text, [GUID]),
            lambda unit: unit.report_contexts(TENANT, [text]),
            lambda unit: unit.runs_of_instance(text, "instance-1"),
            lambda unit: unit.runs_of_instance(TENANT, text),
            lambda unit: unit.links(text),
            lambda unit: list(unit.unheard_since(text, datetime(2027, 1, 1, tzinfo=UTC))),
        ]
        not_found: list[Callable[[UnitOfWork], object]] = [
            lambda unit: unit.get(Instance, text, "instance-1"),
            lambda unit: unit.get(Instance, TENANT, text),
            lambda unit: unit.host_by_guid(text, GUID),
            lambda unit: unit.host_by_guid(TENANT, text),
            lambda unit: unit.report_context(text, GUID),
            lambda unit: unit.report_context(TENANT, text),
        ]
        changes_nothing: list[Callable[[UnitOfWork], object]] = [
            lambda unit: unit.relink(text, [link], "os-new", at_most=9),
            lambda unit: unit.relink(TENANT, [link], text, at_most=9),
        ]
        with inventory.reading() as reader:
            for call in finds_nothing:
                assert not call(reader)
            for call in not_found:
                with pytest.raises(NotFound) as caught:
                    call(reader)
                _check_message(caught.value)
            assert text not in reader.tenants()
        with inventory.writing() as writer:
            for call in changes_nothing:
                with pytest.raises(NotFound) as caught:
                    call(writer)
                _check_message(caught.value)
            for strange in (Link(OSType.IMMUTABLE, text, "os-new"), Link(OSType.IMMUTABLE, "os-old", text)):
                assert writer.relink(TENANT, [strange], "os-new", at_most=9) == 0
            assert writer.links(TENANT) == {link: 1}

    @pytest.mark.parametrize("field", [a.name for a in attrs.fields(UpdateStatus) if a.name != "status_type"])
    def test_a_report_is_recorded_exactly_or_refused(self, inventory: Inventory, fleet: Fleet, field: str) -> None:
        manager = MaintenanceManager(inventory, clock=SetClock())
        for name, text in HOSTILE.items():
            for kind in (UpdateStatusType.STARTED, UpdateStatusType.FAILED, UpdateStatusType.UPDATED):
                content: dict[str, Any] = {field: text}
                status = evolve(UpdateStatus(status_type=kind), **content)
                request = PlatformUpdateStatusRequest(host_guid=GUID, update_status=status)
                before = _everything(inventory)
                came = _attempt(partial(manager.platform_update_status, request, tenant=TENANT))
                if isinstance(came, EdgeDay2Error):
                    assert _everything(inventory) == before, name
                instance = load(inventory, fleet.instance)
                assert instance.update.detail in ("", text), name
                assert instance.os_update_available in ("", text, fleet.new_os.name), name

    @pytest.mark.parametrize("name", HOSTILE)
    def test_a_report_of_a_tenant_that_has_another_name_is_not_found(
        self, inventory: Inventory, fleet: Fleet, name: str
    ) -> None:
        manager, text = MaintenanceManager(inventory, clock=SetClock()), HOSTILE[name]
        status = UpdateStatus(status_type=UpdateStatusType.STARTED)
        request = PlatformUpdateStatusRequest(host_guid=GUID, update_status=status)
        foreign, ours = Report(tenant=text, request=request), Report(tenant=TENANT, request=request)
        with pytest.raises(NotFound) as caught:
            manager.platform_update_status(request, tenant=text)
        _check_message(caught.value)
        for answers in (manager.answer_each([foreign, ours]), manager.platform_update_statuses([foreign, ours])):
            assert isinstance(answers[0], NotFound)
            assert isinstance(answers[1], PlatformUpdateStatusResponse)
        assert manager.find_lost(text) == ()

    @pytest.mark.parametrize("text", ["i" * 300, _ASTRAL, "'; DROP TABLE host; --"])
    def test_an_instance_with_any_id_that_is_stored_can_be_updated(
        self, inventory: Inventory, fleet: Fleet, text: str
    ) -> None:
        manager, tenant = MaintenanceManager(inventory, clock=SetClock()), text
        longest: list[Resource] = [
            evolve(fleet.old_os, resource_id=text, tenant_id=tenant, profile_name=text),
            evolve(fleet.host, resource_id=text, tenant_id=tenant, site_id=None),
            evolve(
                fleet.instance,
                resource_id=text,
                tenant_id=tenant,
                host_id=text,
                current_os_id=text,
                desired_os_id=text,
                os_update_policy_id=None,
            ),
        ]
        with inventory.writing() as unit:
            unit.add_all(longest)
        status = UpdateStatus(status_type=UpdateStatusType.STARTED)
        report = Report(tenant=tenant, request=PlatformUpdateStatusRequest(host_guid=GUID, update_status=status))
        (answer,) = manager.platform_update_statuses([report])
        assert isinstance(answer, PlatformUpdateStatusResponse)
        with inventory.reading() as unit:
            (run,) = unit.runs_of_instance(tenant, text)
        assert run.end_time is None

    @pytest.mark.parametrize("name", HOSTILE)
    def test_an_admin_stores_exactly_or_is_refused(self, inventory: Inventory, fleet: Fleet, name: str) -> None:
        text, service = HOSTILE[name], InventoryService(inventory, clock=SetClock())
        calls: list[Callable[[], object]] = [
            lambda: service.add_region(text, "region"),
            lambda: service.add_region(TENANT, text),
            lambda: service.add_region(TENANT, "region", parent_id=text),
            lambda: service.add_site(TENANT, "site", region_id=text),
            lambda: service.add_host(TENANT, text, "host"),
            lambda: service.add_instance(TENANT, text, "os-old"),
            lambda: service.add_instance(TENANT, "host-1", text),
            lambda: service.link_desired_os(TENANT, "instance-1", text),
            lambda: service.assign_policy(TENANT, "instance-1", text),
            lambda: service.patch_mutable_os(TENANT, text),
            lambda: service.patch_mutable_os(TENANT, "os-old", kernel_command_line=text),
            lambda: service.explain(TENANT, text),
            lambda: service.history(text, "instance-1"),
            lambda: service.instances(text),
        ]
        for call in calls:
            stored = _attempt(call)
            if isinstance(stored, Region):
                assert repr(load(inventory, stored)) == repr(stored)

    def test_texts_that_look_alike_are_two(self, inventory: Inventory) -> None:
        alike = ["é", "e\u0301", "t", "\uff54", "T", "K", "\u212a", "k", "\u017f", "s", "S", "İ", "i", "I", "\u0131"]
        alike += ["a", "a\u200b", "a "]
        regions = [Region(resource_id=text, tenant_id=TENANT, name=text) for text in alike]
        with inventory.writing() as unit:
            unit.add_all(regions)
        with inventory.reading() as unit:
            assert [unit.get(Region, TENANT, text).name for text in alike] == alike
            assert [region.resource_id for region in unit.all(Region, TENANT)] == sorted(alike)

    def test_a_guid_is_found_in_ascii_letters_alone(self, inventory: Inventory, fleet: Fleet) -> None:
        wide = "".join(chr(ord(letter) + 0xFEE0) if letter != "-" else letter for letter in GUID)
        strange = [wide, GUID.replace("E", "\u0415"), f" {GUID}", f"{GUID}\n", f"{{{GUID}}}", GUID + "\u200b"]
        with inventory.reading() as unit:
            for guid in strange:
                with pytest.raises(NotFound):
                    unit.report_context(TENANT, guid)
            assert unit.report_contexts(TENANT, strange) == {}


class _Undo(Exception):
    pass


def _attempt(call: Callable[[], object]) -> object:
    """Return what a call returns, or the error by which it refuses; a database that failed is no refusal."""
    try:
        return call()
    except _OURS as error:
        refusal = error
    assert not isinstance(refusal, StorageError)
    _check_message(refusal)
    return refusal


def _undone(
    inventory: Inventory, change: Callable[[UnitOfWork, Resource, Resource], Resource], *args: Resource
) -> object:
    """Return what came of a change in a transaction that is undone."""
    came: object = None
    with suppress(_Undo), inventory.writing() as unit:
        came = _attempt(partial(change, unit, *args))
        raise _Undo
    return came


def _replaced(unit: UnitOfWork, old: Resource, new: Resource) -> Resource:
    unit.replace(old, new)
    return unit.get(type(new), new.tenant_id, new.resource_id)


def _added(unit: UnitOfWork, old: Resource, new: Resource) -> Resource:
    """Add `new` in the place of `old`, where nothing refers to that."""
    unit.delete(old)
    unit.add(new)
    return unit.get(type(new), new.tenant_id, new.resource_id)


def _everything(inventory: Inventory) -> list[Resource]:
    kinds = dict.fromkeys(type(resource) for resource in _every_kind(TENANT))
    with inventory.reading() as unit:
        return [resource for tenant in unit.tenants() for kind in kinds for resource in unit.all(kind, tenant)]
