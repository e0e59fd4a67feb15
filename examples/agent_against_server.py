"""A simulated node with the real agent, over a real wire: it asks a Maintenance Manager what to run, and does it.

    python examples/agent_against_server.py --target localhost:50002 --folder maintenance_server/authority --guid GUID

The command with the right values is printed by examples/maintenance_server.py. Time passes quickly for the node: what
takes minutes is over at once. It ends when the node runs what it should and has said so; with status 1 where that
doesn't happen. Needs edge_day2[profiles,grpc].
"""

from __future__ import annotations

import argparse
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edge_day2 import OSProfile
from edge_day2.adapters.grpc import ClientTls, GrpcLink
from edge_day2.domain.agent import in_progress
from edge_day2.domain.immutable_events import Image
from edge_day2.testing import SimulatedNode, VirtualClock
from edge_day2.testing.simulated_node import HistoryEvent

MANIFEST: Final = Path(__file__).parent / "profiles" / "0.9.0" / "microvisor-nonrt.yaml"
MOST_VISITS: Final = 60


def tell(event: HistoryEvent) -> None:
    """Print a line of the node's history."""
    if event.text:
        print(f"{event.at:%H:%M:%S}  {event.kind.value:8} {event.text}", flush=True)


def main() -> int:
    """Run the node; return the exit status."""
    parser = argparse.ArgumentParser(description="A simulated node against a Maintenance Manager.")
    parser.add_argument("--target", required=True, help="host:port of the Maintenance Manager")
    parser.add_argument("--folder", type=Path, required=True, help="holds ca.pem and token")
    parser.add_argument(
        "--guid", type=uuid.UUID, required=True, help="of the node, as the Maintenance Manager knows it"
    )
    options = parser.parse_args()
    profile = OSProfile.from_yaml(MANIFEST.read_text())
    image = Image(
        profile_name=profile.profile_name,
        image_id=str(profile.image_version),
        sha256=profile.sha256,
        url=profile.image_url,
    )
    clock = VirtualClock(datetime.now(UTC))
    tls = ClientTls(ca=options.folder / "ca.pem")
    with GrpcLink(options.target, tls=tls, token_file=options.folder / "token") as link:
        node = SimulatedNode(str(options.guid), link=link, clock=clock, image=image, on_event=tell)
        print(f"the node runs {node.version}", flush=True)
        for _ in range(MOST_VISITS):
            ahead = node.advance()
            record = node.agent.record
            source = record.answer.os_profile_update_source if record.answer is not None else None
            done = not record.outbox and not in_progress(record)
            if done and source is not None and source.os_image_id == node.version:
                print(f"the node runs {node.version}, as it should: {node.agent.explain()}")
                return 0
            if ahead is None or record.answer is None:
                break
            clock.instant = ahead
        problem = node.agent.tick().problem or node.agent.explain()
    print(f"the node runs {node.version}: {problem}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
