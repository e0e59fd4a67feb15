"""OS profile manifest → `OSProfile` → `OSResource`.

What lives here: the manifest's schema, what makes a manifest wrong, and the reading of its YAML. What never will: where
manifests come from (ports/release_service.py) and what becomes of them in the Inventory (linking.py).

A manifest comes from outside, so it is read with suspicion: every scalar is text (`22.10` stays `22.10`), and anchors,
aliases, tags, repeated keys, deep nesting and long texts are refused, because a manifest needs none of them and a YAML
bomb needs at least one. Keys that this version doesn't know are ignored, so that manifests of later releases are
readable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from attrs import field, frozen

from edge_day2.domain.resources import OSProvider, OSResource, OSType, SecurityFeature, os_resource_id
from edge_day2.domain.versions import ImageVersion
from edge_day2.errors import InvalidProfile, InvalidVersion, MissingExtra

if TYPE_CHECKING:
    import yaml

# The longest of 452 published manifests has 1,131 characters and 3 levels.
MAX_MANIFEST_CHARACTERS: Final = 65_536
_MAX_DEPTH: Final = 8

_OS_TYPES: Final = {f"OS_TYPE_{kind.name}": kind for kind in OSType}
_PROVIDERS: Final = {f"OS_PROVIDER_KIND_{kind.name}": kind for kind in OSProvider}
_SECURITY_FEATURES: Final = {f"SECURITY_FEATURE_{kind.name}": kind for kind in SecurityFeature}

# A profile name is a file name and the last part of a registry's repository name.
_PROFILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")
_TEXT: Final = re.compile(r".*\S.*", re.DOTALL)
_WORD: Final = re.compile(r"\S+")
_MAYBE_WORD: Final = re.compile(r"\S*")
# No database stores a lone surrogate, and PostgreSQL no NUL; the other control characters have no place in a manifest.
_UNSTORABLE: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
# What the core schema of YAML 1.2 section 10.3.2 reads as null.
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})

_Pairs = tuple[tuple[str, str], ...]
_Kind = TypeVar("_Kind")


def _matches(key: str, pattern: re.Pattern[str], expected: str) -> Any:
    def validate(_: object, __: object, value: str) -> None:
        if pattern.fullmatch(value) is None:
            raise InvalidProfile(key, value, expected)

    return validate


def _lower_case(digits: str) -> str:
    return digits.lower()


@frozen(kw_only=True)
class OSProfile:
    """What an OS profile manifest says. Field names are the Inventory's; `image_url` may be relative.

    `metadata` and `platform_bundle` are pairs in the order of their keys.

    Raises:
        InvalidProfile: a field breaks a rule; the error names it as the manifest does, such as `spec.osImageSha256`.
    """

    profile_name: str = field(validator=_matches("spec.profileName", _PROFILE_NAME, "letters, digits, `.`, `_`, `-`"))
    name: str = field(validator=_matches("spec.name", _TEXT, "a text that isn't empty"))
    os_type: OSType
    os_provider: OSProvider
    security_feature: SecurityFeature
    architecture: str = field(validator=_matches("spec.architecture", _WORD, "one word, such as x86_64"))
    image_version: ImageVersion
    sha256: str = field(
        converter=_lower_case,
        validator=_matches("spec.osImageSha256", _SHA256, "64 hex digits: the image's SHA-256"),
    )
    image_url: str = field(validator=_matches("spec.osImageUrl", _WORD, "the image's address, without blanks"))
    package_manifest_url: str = field(
        default="", validator=_matches("spec.osPackageManifestURL", _MAYBE_WORD, "an address without blanks")
    )
    existing_cves_url: str = field(
        default="", validator=_matches("spec.osExistingCvesURL", _MAYBE_WORD, "an address without blanks")
    )
    fixed_cves_url: str = field(
        default="", validator=_matches("spec.osFixedCvesURL", _MAYBE_WORD, "an address without blanks")
    )
    description: str = ""
    tls_ca_cert: str = ""
    platform_bundle: _Pairs = ()
    metadata: _Pairs = ()
    app_version: str = ""

    @classmethod
    def from_yaml(cls, text: str, *, file_name: str | None = None) -> OSProfile:
        """Return the profile that a manifest's text holds.

        `file_name`, where it is known, must be the profile's name with or without `.yaml` or `.yml`, as the publisher
        of the manifests requires.

        Raises:
            InvalidProfile: `text` isn't one plain YAML document of at most 65,536 characters, or as `from_mapping`.
            MissingExtra: PyYAML isn't installed (extra `profiles`).
        """
        document = _read(text)
        if not isinstance(document, dict):
            raise InvalidProfile("manifest", document, "a mapping with `metadata` and `spec`")
        return cls.from_mapping(document, file_name=file_name)

    @classmethod
    def from_mapping(cls, document: Mapping[str, object], *, file_name: str | None = None) -> OSProfile:
        """Return the profile that a manifest's content holds. Every scalar is a text.

        Raises:
            InvalidProfile: a required field is missing, a field has the wrong type or an unknown value, or the profile
                has another name than its file.
        """
        spec = _Section("spec.", _mapping("spec", document.get("spec"), "a mapping that describes the OS"))
        top = _Section("", document)
        profile_name = spec.text("profileName")
        if file_name is not None and profile_name != (expected := _stem(file_name)):
            raise InvalidProfile("spec.profileName", profile_name, f"{expected!r}, the name of its file")
        return cls(
            profile_name=profile_name,
            name=spec.text("name"),
            os_type=spec.one_of("type", _OS_TYPES),
            os_provider=spec.one_of("provider", _PROVIDERS),
            security_feature=spec.one_of("securityFeature", _SECURITY_FEATURES),
            architecture=spec.text("architecture"),
            image_version=spec.version("osImageVersion"),
            sha256=spec.text("osImageSha256"),
            image_url=spec.text("osImageUrl"),
            package_manifest_url=spec.optional_text("osPackageManifestURL"),
            existing_cves_url=spec.optional_text("osExistingCvesURL"),
            fixed_cves_url=spec.optional_text("osFixedCvesURL"),
            description=spec.optional_text("description"),
            tls_ca_cert=spec.optional_text("tlsCaCertificate"),
            platform_bundle=spec.pairs("platformBundle"),
            metadata=top.pairs("metadata"),
            app_version=top.optional_text("appVersion"),
        )

    def to_os_resource(self, *, tenant_id: str) -> OSResource:
        """Return the OS Resource that the tenant's Inventory holds for this profile.

        Its id is derived from its identity. What an admin decides (apt sources, packages, kernel command line) and
        what is downloaded later (the CVE texts) is empty.
        """
        image_id = self.image_version.text
        return OSResource(
            resource_id=os_resource_id(tenant_id, self.profile_name, image_id),
            tenant_id=tenant_id,
            name=self.name,
            os_type=self.os_type,
            profile_name=self.profile_name,
            image_id=image_id,
            sha256=self.sha256,
            image_url=self.image_url,
            architecture=self.architecture,
            os_provider=self.os_provider,
            security_feature=self.security_feature,
            description=self.description,
            metadata=self.metadata,
            platform_bundle=self.platform_bundle,
            package_manifest_url=self.package_manifest_url,
            existing_cves_url=self.existing_cves_url,
            fixed_cves_url=self.fixed_cves_url,
            tls_ca_cert=self.tls_ca_cert,
        )


def _stem(file_name: str) -> str:
    return file_name.rpartition("/")[2].removesuffix(".yaml").removesuffix(".yml")


def _mapping(name: str, value: object, expected: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise InvalidProfile(name, value, expected)
    return value


def _storable(name: str, value: object, expected: str) -> str:
    if not isinstance(value, str):
        raise InvalidProfile(name, value, expected)
    if _UNSTORABLE.search(value) is not None:
        raise InvalidProfile(name, value, "a text without control characters")
    return value


@frozen
class _Section:
    """A mapping inside the manifest, with the prefix that its keys have in error messages."""

    prefix: str
    content: Mapping[str, object]

    def text(self, key: str) -> str:
        return _storable(self.prefix + key, self.content.get(key), "a text; the field is required")

    def optional_text(self, key: str) -> str:
        value = self.content.get(key)
        return "" if value is None else _storable(self.prefix + key, value, "a text")

    def one_of(self, key: str, allowed: Mapping[str, _Kind]) -> _Kind:
        value = self.text(key)
        if value not in allowed:
            raise InvalidProfile(self.prefix + key, value, "one of " + ", ".join(allowed))
        return allowed[value]

    def version(self, key: str) -> ImageVersion:
        value = self.text(key)
        try:
            return ImageVersion.parse(value)
        except InvalidVersion as error:
            raise InvalidProfile(self.prefix + key, value, error.expected) from error

    def pairs(self, key: str) -> _Pairs:
        value = self.content.get(key)
        if value is None or value == "":
            return ()
        name = self.prefix + key
        pairs = _mapping(name, value, "a mapping of texts").items()
        return tuple(
            sorted((_storable(name, k, "texts as keys"), _storable(f"{name}.{k}", v, "a text")) for k, v in pairs)
        )


def _read(text: str) -> object:
    """Return the content of a YAML text: dicts, lists, texts and None."""
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("PyYAML", "profiles") from error
    if not isinstance(text, str):
        raise InvalidProfile("manifest", type(text).__name__, "a text")
    if len(text) > MAX_MANIFEST_CHARACTERS:
        raise InvalidProfile("manifest", f"{len(text)} characters", f"at most {MAX_MANIFEST_CHARACTERS} characters")
    try:
        # Events come one by one, so that a refusal comes before the rest of the text is read.
        events = yaml.parse(text, Loader=yaml.BaseLoader)
        return _document(events)
    except yaml.YAMLError as error:
        raise InvalidProfile("manifest", text, f"YAML, but {' '.join(str(error).split())}") from error
    except (ValueError, OverflowError) as error:
        if isinstance(error, InvalidProfile):
            raise
        # PyYAML hands on what chr() and int() say about escapes and directives.
        raise InvalidProfile("manifest", text, f"YAML, but {error}") from error


def _document(events: Iterator[yaml.Event]) -> object:
    import yaml

    content: object = None
    documents = 0
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise InvalidProfile("manifest", "a second document", "one YAML document")
        elif isinstance(event, yaml.NodeEvent):
            content = _node(event, events, ())
    return content


def _node(event: yaml.Event, events: Iterator[yaml.Event], path: tuple[str, ...]) -> object:
    import yaml

    name = ".".join(path) or "manifest"
    if isinstance(event, yaml.AliasEvent):
        raise InvalidProfile(name, f"*{event.anchor}", "no alias")
    assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
    if event.anchor is not None:
        raise InvalidProfile(name, f"&{event.anchor}", "no anchor")
    if event.tag is not None:
        raise InvalidProfile(name, event.tag, "no tag")
    if isinstance(event, yaml.ScalarEvent):
        return None if event.style is None and event.value in _NULLS else event.value
    if len(path) >= _MAX_DEPTH:
        raise InvalidProfile(name, f"nesting deeper than {_MAX_DEPTH}", f"at most {_MAX_DEPTH} levels")
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[object] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(_node(event, events, (*path, str(len(items)))))
        return items
    mapping: dict[str, object] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        key = _node(event, events, (*path, "key"))
        if not isinstance(key, str):
            raise InvalidProfile(name, key, "texts as keys")
        if key in mapping:
            raise InvalidProfile(".".join((*path, key)), "the key twice", "every key once")
        mapping[key] = _node(next(events), events, (*path, key))
    return mapping
