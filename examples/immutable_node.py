"""The agent of an A/B node: images over HTTP into two slots, started by systemd-boot.

    python examples/immutable_node.py --config FILE [--check-config | --status | --forget-failure]

examples/immutable_node.toml shows the settings, examples/systemd/edge-day2-immutable.service runs it as a service.
"""

from __future__ import annotations

import enum
import sys
from pathlib import Path

from attrs import Factory, frozen

from edge_day2.adapters.boot_files import EspImageBootFiles, FileSystemBootFiles
from edge_day2.adapters.bootloader.efi_variables import EfiVariables
from edge_day2.adapters.bootloader.slot_roots import SlotRoots
from edge_day2.adapters.bootloader.systemd_boot import SystemdBoot
from edge_day2.adapters.images import HttpImageSource, PrefetchFolder, RunningSystem, TrustedSource, TrustedSources
from edge_day2.adapters.slots import DiskImage, PartitionSlots, WholeImage
from edge_day2.application.immutable_node import ImmutableNode
from edge_day2.domain.observation import BootEntry, Slot
from edge_day2.domain.resources import OSType
from node_command import Surroundings, main
from node_settings import NodeSettings


class Layout(enum.Enum):
    """What an image is: the bytes of a slot, or a disk with a partition table."""

    WHOLE = enum.auto()
    DISK = enum.auto()


@frozen(kw_only=True)
class SlotSettings:
    """`[slots.a]` and `[slots.b]`: a partition, and the kernel parameters that make it the root."""

    path: Path
    root: str
    adopted: str = ""


@frozen(kw_only=True)
class Slots:
    """`[slots]`."""

    a: SlotSettings
    b: SlotSettings


@frozen(kw_only=True)
class SourceSettings:
    """`[[images.sources]]`: where images may come from."""

    url: str
    token_file: Path | None = None


@frozen(kw_only=True)
class ImageSettings:
    """`[images]`: what an image is, where it comes from, and what is noted of it."""

    sources: tuple[SourceSettings, ...]
    base_url: str = ""
    ca: Path | None = None
    layout: Layout = Layout.WHOLE
    kernel: str = "/boot/vmlinuz"
    initrds: tuple[str, ...] = ("/boot/initrd.img",)
    records: Path = Path("/var/lib/edge_day2")
    prefetched: Path = Path("/var/lib/edge_day2/images")
    reserve_mib: int = 64
    version_files: tuple[Path, ...] = (Path("/etc/image-id"), Path("/etc/os-release"), Path("/usr/lib/os-release"))


@frozen(kw_only=True)
class BootSettings:
    """`[boot]`: systemd-boot."""

    esp: Path = Path("/boot/efi")
    efi_variables: Path = Path("/sys/firmware/efi/efivars")
    command_line: Path = Path("/proc/cmdline")
    devices: Path = Path("/dev")
    options: str | None = None
    panic_seconds: int | None = 10
    tries: int | None = None


@frozen(kw_only=True)
class ImmutableNodeSettings(NodeSettings):
    """The whole file."""

    slots: Slots
    images: ImageSettings
    boot: BootSettings = Factory(BootSettings)


def make_node(settings: ImmutableNodeSettings, surroundings: Surroundings) -> ImmutableNode:
    """Return the node that these settings describe."""
    slots, images, boot = {Slot.A: settings.slots.a, Slot.B: settings.slots.b}, settings.images, settings.boot
    paths = {slot: one.path for slot, one in slots.items()}
    roots = SlotRoots(
        {slot: one.root for slot, one in slots.items()}, command_line=boot.command_line, devices=boot.devices
    )
    esp_images = images.records / "boot"
    whole = images.layout is Layout.WHOLE
    return ImmutableNode(
        slots=PartitionSlots(
            paths,
            source=HttpImageSource(
                TrustedSources(
                    [TrustedSource(one.url, one.token_file) for one in images.sources], base_url=images.base_url
                ),
                ca=images.ca,
            ),
            running_slot=roots.running,
            layout=WholeImage() if whole else DiskImage(boot_folder=esp_images),
            records=images.records,
            prefetched=PrefetchFolder(images.prefetched, reserve_bytes=images.reserve_mib << 20),
            running_system=RunningSystem(images.version_files),
            cancel=surroundings.stop,
            progress=lambda _: surroundings.progress(),
        ),
        bootloader=SystemdBoot(
            FileSystemBootFiles(paths, kernel=images.kernel, initrds=images.initrds)
            if whole
            else EspImageBootFiles(esp_images),
            roots,
            esp=boot.esp,
            variables=EfiVariables(boot.efi_variables),
            adopted={BootEntry(slot): one.adopted for slot, one in slots.items() if one.adopted},
            options=boot.options,
            panic_seconds=boot.panic_seconds,
            tries=boot.tries,
        ),
        health=surroundings.health,
        system=settings.system(),
    )


if __name__ == "__main__":
    sys.exit(main(ImmutableNodeSettings, OSType.IMMUTABLE, make_node, "The agent of an A/B node."))
