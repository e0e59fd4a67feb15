"""The node's program in the guest: examples/immutable_node.py, which says on the console what it says to systemd.

Where GRUB starts the node the boot loader is another one, and all else the same.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path
from typing import Final

from attrs import evolve

from edge_day2.adapters.boot_files import FileSystemBootFiles
from edge_day2.adapters.bootloader.grub import Grub
from edge_day2.adapters.bootloader.grub_environment import GrubEnvironment
from edge_day2.adapters.bootloader.slot_roots import SlotRoots
from edge_day2.application.immutable_node import ImmutableNode
from edge_day2.domain.observation import Slot
from edge_day2.domain.resources import OSType
from immutable_node import ImmutableNodeSettings, make_node
from node_command import Surroundings, main

ESP: Final = Path("/boot/efi")
SOCKET: Final = "vm-notify"
STATUS: Final = "STATUS="


def make_grub_node(settings: ImmutableNodeSettings, surroundings: Surroundings) -> ImmutableNode:
    """Return the node of `make_node`, started by GRUB."""
    slots, images = {Slot.A: settings.slots.a, Slot.B: settings.slots.b}, settings.images
    grub = Grub(
        FileSystemBootFiles({slot: one.path for slot, one in slots.items()}, initrds=images.initrds),
        SlotRoots({slot: one.root for slot, one in slots.items()}),
        boot=ESP,
        environment=GrubEnvironment(ESP / "grub" / "grubenv"),
        options=settings.boot.options or "",
    )
    return evolve(make_node(settings, surroundings), bootloader=grub)


def show_status(listener: socket.socket) -> None:
    """Print what the service says of itself, each sentence once."""
    said = ""
    while True:
        for line in listener.recv(1 << 16).decode().splitlines():
            if line.startswith(STATUS) and line != said:
                said = line
                print(f"agent: {line.removeprefix(STATUS)}", flush=True)


if __name__ == "__main__":
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(f"\0{SOCKET}")
    os.environ["NOTIFY_SOCKET"] = f"@{SOCKET}"
    threading.Thread(target=show_status, args=(notify,), daemon=True).start()
    make = make_grub_node if (ESP / "grub").is_dir() else make_node
    sys.exit(main(ImmutableNodeSettings, OSType.IMMUTABLE, make, "The agent of a node on trial."))
