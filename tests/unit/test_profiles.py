"""OS profile manifests: what is read, what is refused, and what the refusal says."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from edge_day2.domain.profiles import MAX_MANIFEST_CHARACTERS, OSProfile
from edge_day2.domain.resources import OSProvider, OSType, SecurityFeature
from edge_day2.domain.versions import ImageVersion
from edge_day2.errors import InvalidProfile, InvalidResource, MissingExtra

EXAMPLES = Path(__file__).parents[2] / "examples" / "profiles"
DIGEST = "b21f6084202e8f8ec6d704158abe5a1cb08bdbfa17608dff07ee720555c5eea0"


def document(**changes: object) -> dict[str, Any]:
    """A manifest's content; a change of None removes the key."""
    spec: dict[str, object] = {
        "name": "An edge OS",
        "type": "OS_TYPE_IMMUTABLE",
        "provider": "OS_PROVIDER_KIND_INFRA",
        "architecture": "x86_64",
        "profileName": "microvisor-nonrt",
        "osImageUrl": "files/edge.raw.gz",
        "osImageVersion": "3.0.20251204.0140",
        "osImageSha256": DIGEST,
        "securityFeature": "SECURITY_FEATURE_NONE",
        **changes,
    }
    return {"appVersion": "apps/v1", "spec": {key: value for key, value in spec.items() if value is not None}}


def refusal(content: Mapping[str, object], **arguments: Any) -> InvalidProfile:
    with pytest.raises(InvalidProfile) as caught:
        OSProfile.from_mapping(content, **arguments)
    return caught.value


def refused_text(text: str) -> InvalidProfile:
    with pytest.raises(InvalidProfile) as caught:
        OSProfile.from_yaml(text)
    return caught.value


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_manifest_of_the_examples_becomes_an_os_resource(path: Path) -> None:
    profile = OSProfile.from_yaml(path.read_text(), file_name=path.name)

    resource = profile.to_os_resource(tenant_id="tenant")

    assert resource.profile_name == path.stem
    assert resource.identity == ("tenant", path.stem, profile.image_version.text)


def test_every_field_of_a_manifest_arrives_in_the_os_resource() -> None:
    text = f"""
appVersion: apps/v1
metadata: {{release: 1.10, edge: true}}
spec:
  name: Jammy
  type: OS_TYPE_MUTABLE
  provider: OS_PROVIDER_KIND_LENOVO
  architecture: arm64
  profileName: ubuntu
  osImageUrl: >-
    https://images.example/jammy.img
  osImageVersion: 22.10
  osImageSha256: {DIGEST.upper()}
  osPackageManifestURL: packages.json
  osExistingCvesURL: existing.json
  osFixedCvesURL: fixed.json
  securityFeature: SECURITY_FEATURE_SECURE_BOOT_AND_FULL_DISK_ENCRYPTION
  description: "two\\nlines"
  platformBundle: {{installerScript: install:1, cloudInitScript: init:1}}
  tlsCaCertificate: Q0E=
  aKeyOfALaterRelease: [1, {{two: 3}}]
"""

    resource = OSProfile.from_yaml(text, file_name="folder/ubuntu.yml").to_os_resource(tenant_id="tenant")

    assert attrs.asdict(resource, filter=lambda attribute, _: attribute.name != "resource_id") == {
        "tenant_id": "tenant",
        "name": "Jammy",
        "os_type": OSType.MUTABLE,
        "profile_name": "ubuntu",
        "image_id": "22.10",
        "sha256": DIGEST,
        "image_url": "https://images.example/jammy.img",
        "profile_version": "",
        "architecture": "arm64",
        "os_provider": OSProvider.LENOVO,
        "security_feature": SecurityFeature.SECURE_BOOT_AND_FULL_DISK_ENCRYPTION,
        "description": "two\nlines",
        "metadata": (("edge", "true"), ("release", "1.10")),
        "platform_bundle": (("cloudInitScript", "init:1"), ("installerScript", "install:1")),
        "package_manifest_url": "packages.json",
        "existing_cves_url": "existing.json",
        "fixed_cves_url": "fixed.json",
        "existing_cves": "",
        "fixed_cves": "",
        "installed_packages": "",
        "tls_ca_cert": "Q0E=",
        "update_sources": (),
        "update_packages": (),
        "kernel_command_line": "",
    }


def test_the_same_profile_has_another_id_in_another_tenant() -> None:
    profile = OSProfile.from_mapping(document())

    assert profile.to_os_resource(tenant_id="a").resource_id == profile.to_os_resource(tenant_id="a").resource_id
    assert profile.to_os_resource(tenant_id="a").resource_id != profile.to_os_resource(tenant_id="b").resource_id


def test_an_os_resource_belongs_to_a_tenant() -> None:
    with pytest.raises(InvalidResource, match="tenant_id"):
        OSProfile.from_mapping(document()).to_os_resource(tenant_id="")


@pytest.mark.parametrize(
    "key",
    [
        "name",
        "type",
        "provider",
        "architecture",
        "profileName",
        "osImageUrl",
        "osImageVersion",
        "osImageSha256",
        "securityFeature",
    ],
)
def test_a_missing_required_field_is_named(key: str) -> None:
    error = refusal(document(**{key: None}))

    assert error.field == f"spec.{key}"
    assert error.value is None
    assert "required" in error.expected


@pytest.mark.parametrize("key", ["name", "type", "osImageSha256", "description", "tlsCaCertificate", "osFixedCvesURL"])
@pytest.mark.parametrize("value", [5, 22.10, True, ["a"], {"a": "b"}])
def test_a_field_of_the_wrong_type_is_named(key: str, value: object) -> None:
    error = refusal(document(**{key: value}))

    assert (error.field, error.value) == (f"spec.{key}", value)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("type", "OS_TYPE_UNSPECIFIED", "OS_TYPE_MUTABLE, OS_TYPE_IMMUTABLE"),
        ("type", "IMMUTABLE", "OS_TYPE_MUTABLE, OS_TYPE_IMMUTABLE"),
        ("provider", "OS_PROVIDER_KIND_ACME", "OS_PROVIDER_KIND_INFRA"),
        ("securityFeature", "SECURITY_FEATURE_UNSPECIFIED", "SECURITY_FEATURE_NONE"),
        ("osImageSha256", DIGEST[:-1], "64 hex digits"),
        ("osImageSha256", DIGEST + "0", "64 hex digits"),
        ("osImageSha256", "g" + DIGEST[1:], "64 hex digits"),
        ("osImageSha256", "", "64 hex digits"),
        ("osImageVersion", "latest", "dotted numbers"),
        ("osImageVersion", "3.0.20251204.0140 ", "dotted numbers"),
        ("osImageUrl", "", "without blanks"),
        ("osImageUrl", "files/edge.raw.gz files/other.raw.gz", "without blanks"),
        ("osPackageManifestURL", "a b", "without blanks"),
        ("osExistingCvesURL", "a\nb", "without blanks"),
        ("osFixedCvesURL", "a\tb", "without blanks"),
        ("profileName", "../microvisor", "letters, digits"),
        ("profileName", "", "letters, digits"),
        ("architecture", "", "one word"),
        ("name", " ", "isn't empty"),
        ("name", "An\x00OS", "without control characters"),
        ("description", "half an emoji \ud83d", "without control characters"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(key: str, value: str, expected: str) -> None:
    error = refusal(document(**{key: value}))

    assert (error.field, error.value) == (f"spec.{key}", value)
    assert expected in error.expected
    assert f"spec.{key}" in str(error)


@pytest.mark.parametrize("spec", [None, "text", ["list"], 5])
def test_a_manifest_without_a_spec_is_refused(spec: object) -> None:
    error = refusal({"spec": spec})

    assert (error.field, error.value) == ("spec", spec)


@pytest.mark.parametrize("value", ["text", ["list"], 5])
@pytest.mark.parametrize("key", ["metadata", "spec.platformBundle"])
def test_what_should_be_a_mapping_is_named(key: str, value: object) -> None:
    content = document(platformBundle=value) if key.startswith("spec.") else {**document(), "metadata": value}

    error = refusal(content)

    assert (error.field, error.value) == (key, value)


def test_a_mapping_holds_texts_only() -> None:
    assert refusal(document(platformBundle={"installerScript": ["a"]})).field == "spec.platformBundle.installerScript"
    assert refusal(document(platformBundle={5: "a"})).field == "spec.platformBundle"


def test_an_empty_mapping_may_be_written_as_nothing() -> None:
    empties: tuple[object, ...] = ("", None, {})
    for empty in empties:
        profile = OSProfile.from_mapping({**document(platformBundle=empty), "metadata": empty})

        assert (profile.metadata, profile.platform_bundle) == ((), ())


@pytest.mark.parametrize("null", ["", "~", "null", "Null", "NULL"])
def test_a_yaml_null_is_a_field_that_is_missing(null: str) -> None:
    text = (EXAMPLES / "0.9.8" / "microvisor-rt.yaml").read_text()
    profile = OSProfile.from_yaml(f"{text}  tlsCaCertificate: {null}\n")

    assert profile.tls_ca_cert == ""
    assert refused_text(text.replace("type: OS_TYPE_IMMUTABLE", f"type: {null}")).value is None


def test_a_quoted_null_is_a_text() -> None:
    text = (EXAMPLES / "0.9.8" / "microvisor-rt.yaml").read_text()

    assert OSProfile.from_yaml(f'{text}  tlsCaCertificate: "null"\n').tls_ca_cert == "null"


@pytest.mark.parametrize("file_name", ["microvisor-nonrt", "microvisor-nonrt.yaml", "0.9.8/microvisor-nonrt.yml"])
def test_a_profile_has_the_name_of_its_file(file_name: str) -> None:
    assert OSProfile.from_mapping(document(), file_name=file_name).profile_name == "microvisor-nonrt"


def test_a_profile_in_a_file_of_another_name_is_refused() -> None:
    error = refusal(document(), file_name="microvisor-rt.yaml")

    assert (error.field, error.value) == ("spec.profileName", "microvisor-nonrt")
    assert "microvisor-rt" in error.expected


@pytest.mark.parametrize(
    "text",
    [
        "spec: {",
        "spec: [}",
        "\tspec: tab",
        "spec: 'open",
        "spec:\n  a: b\n c: d",
        "%YAML 1." + "9" * 5000 + "\n--- {}",
        'spec: "\\UFFFFFFFF"',
        'spec: "\\U00110000"',
        "!unknown!x spec: a",
        "spec\x00: a",
        "\ud800",
    ],
)
def test_what_is_not_yaml_is_refused(text: str) -> None:
    error = refused_text(text)

    assert (error.field, error.value) == ("manifest", text)
    assert error.expected.startswith("YAML, but ")


@pytest.mark.parametrize("text", ["", "# only a comment", "just a text", "- a\n- list", "~"])
def test_what_is_not_a_mapping_is_refused(text: str) -> None:
    error = refused_text(text)

    assert error.field == "manifest"
    assert error.expected.startswith("a mapping")


def test_bytes_are_not_a_manifest() -> None:
    with pytest.raises(InvalidProfile) as caught:
        OSProfile.from_yaml(b"spec: {}")  # type: ignore[arg-type]  # bytes are what is refused
    assert (caught.value.field, caught.value.value) == ("manifest", "bytes")


def test_two_documents_are_refused() -> None:
    assert refused_text("a: b\n---\na: b\n").value == "a second document"


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("a: &bomb [1]", "a", "&bomb"),
        ("a: &bomb text", "a", "&bomb"),
        ("a: b\nc: *bomb", "c", "*bomb"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "a", "&a"),
        ("a: !!python/object/apply:os.system [ls]", "a", "tag:yaml.org,2002:python/object/apply:os.system"),
        ("a: !!str text", "a", "tag:yaml.org,2002:str"),
        ("a: {b: ! text}", "a.b", "!"),
        ("a:\n  b: 1\n  b: 2", "a.b", "the key twice"),
        ("[1]: a", "manifest", ["1"]),
        ("{{a: b}: c}", "manifest", {"a": "b"}),
        ("~: a", "manifest", None),
    ],
)
def test_what_a_manifest_does_not_need_is_refused_where_it_stands(text: str, field: str, value: object) -> None:
    error = refused_text(text)

    assert (error.field, error.value) == (field, value)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_is_refused_before_the_end_is_read(opening: str) -> None:
    error = refused_text(opening * 10_000)

    assert "levels" in error.expected
    assert len(str(error)) < 500


def test_a_manifest_may_nest_as_deep_as_the_limit() -> None:
    text = (EXAMPLES / "0.9.8" / "microvisor-rt.yaml").read_text()

    assert OSProfile.from_yaml(f"{text}  later: [[[[[[deep]]]]]]\n").profile_name == "microvisor-rt"
    assert refused_text(f"{text}  later: [[[[[[[deep]]]]]]]\n").field == "spec.later.0.0.0.0.0.0"


def test_ten_megabytes_are_refused_in_a_short_message() -> None:
    error = refused_text("a: " + "x" * 10_000_000)

    assert error.value == "10000003 characters"
    assert len(str(error)) < 200


def test_a_manifest_may_be_as_long_as_the_limit() -> None:
    text = (EXAMPLES / "0.9.8" / "microvisor-rt.yaml").read_text()
    longest = text + "#" * (MAX_MANIFEST_CHARACTERS - len(text))

    assert OSProfile.from_yaml(longest).profile_name == "microvisor-rt"
    assert refused_text(longest + "#").field == "manifest"


def test_without_a_yaml_parser_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without_yaml(name: str, *arguments: Any) -> Any:
        if name == "yaml":
            raise ImportError(name)
        return original(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_yaml)

    with pytest.raises(MissingExtra, match=r"edge_day2\[profiles\]"):
        OSProfile.from_yaml("a: b")


def test_a_profile_made_by_hand_keeps_the_same_rules() -> None:
    profile = OSProfile.from_mapping(document())

    with pytest.raises(InvalidProfile, match=r"spec\.osImageSha256"):
        attrs.evolve(profile, sha256="short")
    assert attrs.evolve(profile, image_version=ImageVersion.parse("3.1")).image_version.text == "3.1"
