"""The Inventory's rules: what a resource may hold, and how it may change."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from attrs import evolve, exceptions

from edge_day2.domain.resources import (
    Host,
    Instance,
    OSResource,
    OSType,
    OSUpdatePolicy,
    OSUpdateRun,
    Region,
    ScheduleResource,
    ScheduleTarget,
    Site,
    TargetLevel,
    UpdatePolicyKind,
    check_kernel_command_line,
    check_link,
    check_unused,
    link_desired_os,
    os_resource_id,
    patch_os_resource,
    record_cves,
    record_verified_os,
)
from edge_day2.domain.schedules import SingleSchedule
from edge_day2.domain.statuses import UpdateRecord
from edge_day2.errors import FailedPrecondition, ImmutableLinkError, InvalidResource, InvalidVersion

NOW = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
GUID = "12345678-1234-1234-1234-123456789abc"


def image(version: str = "3.0.1", **changes: Any) -> OSResource:
    fields: dict[str, Any] = {
        "resource_id": f"os-{version}",
        "tenant_id": "tenant",
        "name": f"edge {version}",
        "os_type": OSType.IMMUTABLE,
        "profile_name": "edge",
        "image_id": version,
        "sha256": "1" * 64,
        "image_url": "files/edge.raw.gz",
    }
    return OSResource(**{**fields, **changes})


def ubuntu(**changes: Any) -> OSResource:
    fields = {"os_type": OSType.MUTABLE, "profile_name": "ubuntu", "image_url": "", "resource_id": "os-ubuntu"}
    return image("22.04", **{**fields, **changes})


def instance(current: OSResource, **changes: Any) -> Instance:
    fields: dict[str, Any] = {
        "resource_id": "instance-1",
        "tenant_id": "tenant",
        "host_id": "host-1",
        "os_type": current.os_type,
        "current_os_id": current.resource_id,
        "desired_os_id": current.resource_id,
    }
    return Instance(**{**fields, **changes})


@pytest.mark.parametrize("field", ["resource_id", "tenant_id", "name", "profile_name", "image_id"])
@pytest.mark.parametrize("value", ["", None, 7])
def test_an_os_resource_has_all_its_names(field: str, value: Any) -> None:
    with pytest.raises(InvalidResource, match=f"OSResource.{field}"):
        image(**{field: value})


@pytest.mark.parametrize("sha256", ["", "1" * 63, "1" * 65, "A" * 64, "g" * 64, "1" * 64 + "\n"])
def test_a_digest_is_64_lower_case_hex_digits(sha256: str) -> None:
    with pytest.raises(InvalidResource, match=r"OSResource\.sha256"):
        image(sha256=sha256)


def test_an_image_id_has_a_place_in_the_order_of_versions() -> None:
    assert image("3.0.2").image_version > image("3.0.1").image_version
    with pytest.raises(InvalidVersion):
        image("latest")


def test_an_immutable_os_has_an_image_and_no_packages() -> None:
    with pytest.raises(InvalidResource, match="image_url"):
        image(image_url="")
    with pytest.raises(InvalidResource, match="no apt sources or packages on an image"):
        image(update_sources=("Types: deb",))
    with pytest.raises(InvalidResource, match="no apt sources or packages on an image"):
        image(update_packages=("curl",))


def test_a_mutable_os_has_packages_and_needs_no_image() -> None:
    assert ubuntu(update_sources=("Types: deb",), update_packages=("curl",)).update_packages == ("curl",)


@pytest.mark.parametrize("text", ["", "console=ttyS0,115200n8 quiet", "a-b_c=d.e/f,0", "x" * 500])
def test_a_kernel_command_line_of_the_originals_alphabet_is_taken(text: str) -> None:
    check_kernel_command_line(text, "it")

    assert image(kernel_command_line=text).kernel_command_line == text


@pytest.mark.parametrize(
    "text", ["a;b", "$(x)", "a'b", 'a"b', "a\nb", "quiet\n", "a\tb", "é", "crash:1", "x" * 501, None]
)
def test_any_other_kernel_command_line_is_refused(text: Any) -> None:
    with pytest.raises(InvalidResource, match="it: found"):
        check_kernel_command_line(text, "it")
    with pytest.raises(InvalidResource, match=r"OSResource\.kernel_command_line"):
        image(kernel_command_line=text)


@pytest.mark.parametrize("sources", [("",), (" \n",), ("x" * 10_001,), ("Types: deb",) * 101])
def test_apt_sources_have_limits(sources: tuple[str, ...]) -> None:
    with pytest.raises(InvalidResource, match="update_sources"):
        ubuntu(update_sources=sources)


def test_package_lists_have_a_limit() -> None:
    with pytest.raises(InvalidResource, match="update_packages"):
        ubuntu(update_packages=("x" * 1000,) * 500)


def test_the_identity_of_an_os_resource_is_tenant_profile_and_image() -> None:
    assert image().identity == ("tenant", "edge", "3.0.1")


def test_the_id_of_an_os_resource_is_derived_from_its_identity_alone() -> None:
    assert os_resource_id("tenant", "edge", "3.0.1") == os_resource_id("tenant", "edge", "3.0.1")
    assert len({os_resource_id(*identity) for identity in (("a", "b", "1"), ("ab", "", "1"), ("a", "b1", ""))}) == 3


@pytest.mark.parametrize("guid", ["", "host", GUID + "0", GUID.replace("-", "")])
def test_a_host_is_known_by_a_uuid(guid: str) -> None:
    assert Host(resource_id="host-1", tenant_id="tenant", guid=GUID, name="host").guid == GUID
    with pytest.raises(InvalidResource, match=r"Host\.guid"):
        Host(resource_id="host-1", tenant_id="tenant", guid=guid, name="host")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Region(resource_id="region-1", tenant_id="", name="region"),
        lambda: Site(resource_id="", tenant_id="tenant", name="site"),
        lambda: ScheduleTarget(level=TargetLevel.SITE, resource_id=""),
        lambda: ScheduleResource(resource_id="schedule-1", tenant_id="tenant", name="", schedule=SingleSchedule(NOW)),
    ],
)
def test_names_are_not_empty(make: Any) -> None:
    with pytest.raises(InvalidResource, match="a text that isn't empty"):
        make()


def test_current_and_desired_os_of_a_mutable_instance_are_the_same() -> None:
    with pytest.raises(ImmutableLinkError, match="a mutable OS is patched in place"):
        instance(ubuntu(), desired_os_id="os-other")
    with pytest.raises(ImmutableLinkError):
        evolve(instance(ubuntu()), current_os_id="os-other")


def test_current_and_desired_os_of_an_immutable_instance_may_differ() -> None:
    assert instance(image(), desired_os_id="os-3.0.2").desired_os_id == "os-3.0.2"


def test_times_are_aware() -> None:
    naive = NOW.replace(tzinfo=None)

    with pytest.raises(InvalidResource, match=r"Instance\.last_seen"):
        instance(image(), last_seen=naive)
    with pytest.raises(InvalidResource, match=r"OSUpdateRun\.start_time"):
        run(start_time=naive)
    with pytest.raises(InvalidResource, match=r"OSUpdateRun\.end_time"):
        run(end_time=naive)
    assert run(end_time=NOW).end_time == NOW


def run(**changes: Any) -> OSUpdateRun:
    fields: dict[str, Any] = {
        "resource_id": "run-1",
        "tenant_id": "tenant",
        "instance_id": "instance-1",
        "name": "run",
        "start_time": NOW,
        "update": UpdateRecord(),
    }
    return OSUpdateRun(**{**fields, **changes})


def test_the_desired_os_of_an_immutable_instance_moves_up_and_down() -> None:
    old, new = image("3.0.1"), image("3.0.2")

    upgraded = link_desired_os(instance(old), old, new)
    downgraded = link_desired_os(instance(new), new, old)

    assert (upgraded.current_os_id, upgraded.desired_os_id) == ("os-3.0.1", "os-3.0.2")
    assert (downgraded.current_os_id, downgraded.desired_os_id) == ("os-3.0.2", "os-3.0.1")


@pytest.mark.parametrize(
    ("field", "value"),
    [("tenant_id", "other"), ("profile_name", "edge-rt"), ("architecture", "arm64"), ("os_type", OSType.MUTABLE)],
)
def test_another_tenant_profile_architecture_or_os_type_is_not_linked(field: str, value: Any) -> None:
    old = image("3.0.1")

    with pytest.raises(ImmutableLinkError, match=f"{field} of OS Resource 'os-3.0.2' is"):
        check_link(instance(old), old, image("3.0.2", **{field: value}))


def test_a_mutable_instance_is_linked_to_its_own_os_alone() -> None:
    current = ubuntu()

    assert link_desired_os(instance(current), current, current) == instance(current)
    with pytest.raises(ImmutableLinkError, match="patch OS Resource 'os-ubuntu' instead of linking 'os-other'"):
        link_desired_os(instance(current), current, ubuntu(resource_id="os-other"))


def test_a_verified_update_moves_the_current_os() -> None:
    old, new = image("3.0.1"), image("3.0.2")

    after = record_verified_os(instance(old, desired_os_id="os-3.0.2"), old, new)

    assert (after.current_os_id, after.desired_os_id) == ("os-3.0.2", "os-3.0.2")


def test_an_instance_has_the_cves_of_the_os_that_it_runs_or_keeps_its_own() -> None:
    before = instance(image("3.0.2"), existing_cves="CVE-2025-0001")

    assert record_cves(before, image("3.0.2", existing_cves="CVE-2026-0001")).existing_cves == "CVE-2026-0001"
    assert record_cves(before, image("3.0.2")) == before


def test_a_verified_update_to_another_profile_is_not_recorded() -> None:
    old = image("3.0.1")

    with pytest.raises(ImmutableLinkError):
        record_verified_os(instance(old), old, image("3.0.2", profile_name="edge-rt"))


PATCHES = [
    ("name", "another"),
    ("description", "another"),
    ("metadata", (("key", "value"),)),
    ("platform_bundle", (("key", "value"),)),
    ("package_manifest_url", "another"),
    ("existing_cves_url", "another"),
    ("fixed_cves_url", "another"),
    ("existing_cves", "another"),
    ("fixed_cves", "another"),
    ("tls_ca_cert", "another"),
    ("kernel_command_line", "quiet"),
]


@pytest.mark.parametrize(("field", "value"), PATCHES)
def test_what_describes_an_os_is_patched(field: str, value: Any) -> None:
    for old in (image(), ubuntu()):
        new = evolve(old, **{field: value})

        assert patch_os_resource(old, new) is new


@pytest.mark.parametrize(("field", "value"), [("update_sources", ("Types: deb",)), ("update_packages", ("curl",))])
def test_what_a_mutable_os_applies_is_patched(field: str, value: Any) -> None:
    assert getattr(patch_os_resource(ubuntu(), ubuntu(**{field: value})), field) == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("resource_id", "os-other"),
        ("tenant_id", "other"),
        ("profile_name", "other"),
        ("image_id", "9.9"),
        ("sha256", "9" * 64),
        ("image_url", "files/other.raw.gz"),
        ("profile_version", "9.9"),
        ("architecture", "arm64"),
    ],
)
def test_what_an_os_is_never_changes(field: str, value: Any) -> None:
    for old in (image(), ubuntu()):
        with pytest.raises(InvalidResource, match=f"OSResource.{field}: found .*, which never changes"):
            patch_os_resource(old, evolve(old, **{field: value}))


def test_an_os_never_changes_its_type() -> None:
    with pytest.raises(InvalidResource, match=r"OSResource\.os_type"):
        patch_os_resource(image(), evolve(image(), os_type=OSType.MUTABLE))


def policy(kind: UpdatePolicyKind, **content: Any) -> OSUpdatePolicy:
    return OSUpdatePolicy(resource_id="policy-1", tenant_id="tenant", name="policy", kind=kind, **content)


def test_a_policy_for_the_latest_has_no_content() -> None:
    assert policy(UpdatePolicyKind.LATEST).target_os_id is None
    for content in ({"target_os_id": "os-1"}, {"update_packages": ("curl",)}, {"kernel_command_line": "quiet"}):
        with pytest.raises(InvalidResource, match=r"OSUpdatePolicy\.kind"):
            policy(UpdatePolicyKind.LATEST, **content)


@pytest.mark.parametrize(
    "content",
    [
        {"target_os_id": "os-1"},
        {"target_os_id": "os-1", "kernel_command_line": "quiet"},
        {"update_packages": ("curl",)},
        {"update_sources": ("Types: deb",), "kernel_command_line": "quiet"},
        {"kernel_command_line": "quiet"},
    ],
)
def test_a_policy_for_a_target_has_content(content: dict[str, Any]) -> None:
    assert policy(UpdatePolicyKind.TARGET, **content).kind is UpdatePolicyKind.TARGET


@pytest.mark.parametrize("content", [{}, {"target_os_id": "os-1", "update_packages": ("curl",)}])
def test_a_policy_for_a_target_names_an_os_or_packages(content: dict[str, Any]) -> None:
    with pytest.raises(InvalidResource, match=r"OSUpdatePolicy\.target_os_id"):
        policy(UpdatePolicyKind.TARGET, **content)


def test_what_is_in_use_is_not_deleted() -> None:
    check_unused(image(), ())

    with pytest.raises(FailedPrecondition, match=r"OSResource os-3\.0\.1 is used by instance-1, instance-2$"):
        check_unused(image(), ("instance-1", "instance-2"))
    with pytest.raises(FailedPrecondition, match=r"is used by i1, i2, i3 and 2 more$"):
        check_unused(image(), ("i1", "i2", "i3", "i4", "i5"))


def test_resources_are_frozen() -> None:
    with pytest.raises(exceptions.FrozenInstanceError):
        image().name = "another"  # type: ignore[misc]  # this is what must fail
