"""What a person sees of an instance: together with its host and the names of what it refers to."""

from __future__ import annotations

from attrs import frozen

from edge_day2.domain.resources import Host, Instance, OSResource, OSUpdatePolicy, Site


@frozen(kw_only=True)
class OSName:
    """What an OS Resource is called, and which version it is."""

    name: str
    profile_name: str
    image_id: str


@frozen(kw_only=True)
class InstanceView:
    """An instance, without its list of CVEs, and what it refers to. Where there is no site or policy: None."""

    instance: Instance
    host_name: str
    host_guid: str
    site_id: str | None
    site_name: str | None
    current_os: OSName
    desired_os: OSName
    policy_name: str | None


def name_os(system: OSResource) -> OSName:
    """Return the OS Resource's name and version."""
    return OSName(name=system.name, profile_name=system.profile_name, image_id=system.image_id)


def view_instance(
    instance: Instance,
    *,
    host: Host,
    site: Site | None,
    current_os: OSResource,
    desired_os: OSResource,
    policy: OSUpdatePolicy | None,
) -> InstanceView:
    """Return the view of an instance with everything that it refers to."""
    return InstanceView(
        instance=instance,
        host_name=host.name,
        host_guid=host.guid,
        site_id=host.site_id,
        site_name=None if site is None else site.name,
        current_os=name_os(current_os),
        desired_os=name_os(desired_os),
        policy_name=None if policy is None else policy.name,
    )
