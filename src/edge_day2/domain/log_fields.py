"""The fields that log records carry beside their text: stable names, the same for all actors.

Handlers that write JSON find them as attributes of the record (`extra` of `logging`). What isn't known isn't there.
docs/metrics_and_logs.md has this table; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

LOG_FIELDS: Final[Mapping[str, str]] = {
    "event": "what happened, in one word: see the table of events",
    "tenant_id": "the tenant",
    "host_guid": "UUID of the node, as it reports itself",
    "host_id": "resource id of the host",
    "instance_id": "resource id of the instance",
    "os_resource_id": "resource id of the OS Resource that it is about: the new current OS, or the wanted one",
    "update_run_id": "resource id of the update run",
    "image_id": "image version that the node named, or is about to run",
    "status_type": "what the node reported",
    "failure_reason": "why an update failed, in the node's own word",
    "code": "kind of an error: the name of a gRPC status code",
    "command": "step of an update that a node carried out",
}
"""Name of each field, and its meaning."""


def log_fields(**known: str | None) -> dict[str, str]:
    """Return `known` without what is None or empty, to be given as `extra`.

    Raises:
        KeyError: a name isn't in `LOG_FIELDS`.
    """
    for name in known:
        LOG_FIELDS[name]
    return {name: value for name, value in known.items() if value}
