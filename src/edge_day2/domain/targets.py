"""What the Maintenance Manager's answer wants a node to run: checked, before anything of it reaches a tool."""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from edge_day2.domain.agent_policy import AgentPolicy
from edge_day2.domain.immutable_events import Image, ImmutableTarget
from edge_day2.domain.messages import PlatformUpdateStatusResponse
from edge_day2.domain.mutable_events import PackageTarget
from edge_day2.domain.resources import SHA256, OSType, check_kernel_command_line, check_update_sources
from edge_day2.domain.versions import ImageVersion
from edge_day2.errors import EdgeDay2Error, InvalidMessage, InvalidResource

# Debian policy 5.6.7, as the original's helper checks it; but apt takes a name that ends in "-" for a removal.
PACKAGE_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.+-]*[a-z0-9.+])?")
# More than any list that somebody wrote: what goes beyond is a mistake, and must not reach the tools' command lines.
MAX_PACKAGES: Final = 2_000
MAX_PACKAGE_NAME: Final = 128

Target: TypeAlias = ImmutableTarget | PackageTarget


def target_of(answer: PlatformUpdateStatusResponse, os_type: OSType, policy: AgentPolicy) -> Target | None:
    """Return what `answer` wants a node of this type to run, None where it wants nothing.

    Package names come one a line; blank lines and repetitions are nothing. Blank apt sources and repeated ones neither.

    Raises:
        InvalidMessage: the answer is for another OS type, or holds something that must never reach the node's tools.
    """
    if answer.os_type is not os_type:
        named = None if answer.os_type is None else answer.os_type.name
        raise InvalidMessage("os_type", named, f"{os_type.name}, the type of this node's OS")
    kernel_command_line = answer.update_source.kernel_command
    sources = tuple(dict.fromkeys(source for source in answer.update_source.custom_repos if source.strip()))
    try:
        check_kernel_command_line(kernel_command_line, "kernel_command", policy.kernel_command_line)
        check_update_sources(sources, "custom_repos")
    except InvalidResource as error:
        raise InvalidMessage(error.field, error.value, error.expected) from error
    if os_type is OSType.MUTABLE:
        return PackageTarget(
            update_sources=sources,
            update_packages=_packages_of(answer.installed_packages),
            kernel_command_line=kernel_command_line,
        )
    image = _image_of(answer)
    if image is None and not kernel_command_line:
        return None
    return ImmutableTarget(image=image, kernel_command_line=kernel_command_line)


def _packages_of(text: str) -> tuple[str, ...]:
    packages = tuple(dict.fromkeys(line.strip() for line in text.split("\n") if line.strip()))
    if len(packages) > MAX_PACKAGES:
        raise InvalidMessage("installed_packages", len(packages), f"at most {MAX_PACKAGES} names")
    for package in packages:
        if len(package) > MAX_PACKAGE_NAME or PACKAGE_NAME.fullmatch(package) is None:
            expected = f"names of at most {MAX_PACKAGE_NAME} characters that match {PACKAGE_NAME.pattern}"
            raise InvalidMessage("installed_packages", package, expected)
    return packages


def _image_of(answer: PlatformUpdateStatusResponse) -> Image | None:
    source = answer.os_profile_update_source
    if source is None or not (source.os_image_id or source.os_image_url or source.os_image_sha):
        return None
    if SHA256.fullmatch(source.os_image_sha) is None:
        raise InvalidMessage("os_image_sha", source.os_image_sha, "64 lower-case hex digits")
    if not source.os_image_url:
        raise InvalidMessage("os_image_url", source.os_image_url, "the address of the image")
    try:
        ImageVersion.parse(source.os_image_id)
    except EdgeDay2Error as error:
        raise InvalidMessage("os_image_id", source.os_image_id, "an image version") from error
    return Image(
        profile_name=source.profile_name,
        profile_version=source.profile_version,
        image_id=source.os_image_id,
        sha256=source.os_image_sha,
        url=source.os_image_url,
    )
