"""The two slots of a node: block devices, or plain files. Images go in by way of `edge_day2.adapters.images`."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Final

from attrs import frozen

from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.durable_files import flush_folder, remove_file
from edge_day2.adapters.images.block_devices import BlockDevices, OpenSlot
from edge_day2.adapters.images.disk_image import EFI_SYSTEM_PARTITION, DiskImageSink, PartitionChoice
from edge_day2.adapters.images.download import Download, RetryLimits
from edge_day2.adapters.images.image_file import ImageFile
from edge_day2.adapters.images.pipeline import ImageLimits, Sink, convey
from edge_day2.adapters.images.prefetch import PrefetchFolder
from edge_day2.adapters.images.regions import Content, RegionWriter, failing_as, read_back
from edge_day2.adapters.images.running_system import RunningSystem
from edge_day2.adapters.images.slot_records import SlotRecord, SlotRecords
from edge_day2.adapters.images.watch import Phase, Progress, Watch
from edge_day2.adapters.images.whole_image import WholeImageSink
from edge_day2.domain.immutable_events import Image
from edge_day2.domain.observation import Slot
from edge_day2.domain.statuses import FailureReason
from edge_day2.errors import InvalidValue, shown
from edge_day2.ports.clock import Clock
from edge_day2.ports.failures import ImageCorrupt, NodeFailure
from edge_day2.ports.image_source import ImageSource, SourceChanged

_log: Final = logging.getLogger(__name__)

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
# So often one image is begun at zero within one call.
_STARTS: Final = 3


@frozen(kw_only=True)
class WholeImage:
    """An image whose bytes are the slot's bytes: a file system, for example."""


@frozen(kw_only=True)
class DiskImage:
    """An image of a whole disk with a GPT: its root partition goes into the slot.

    Attributes:
        boot_folder: the bytes of the EFI system partition go into `a.esp` or `b.esp` there.
        root: which partition is the root. The original's images have it at number 2.
        esp: which one is the EFI system partition.
        esp_bytes: no larger EFI system partition is taken.
    """

    boot_folder: Path
    root: PartitionChoice = PartitionChoice(number=2)
    esp: PartitionChoice = PartitionChoice(type_guid=EFI_SYSTEM_PARTITION)
    esp_bytes: int = 1 << 30

    def esp_file(self, slot: Slot) -> Path:
        """Return where the EFI system partition of what is in `slot` lies."""
        return self.boot_folder / f"{slot.value.lower()}.esp"


Layout = WholeImage | DiskImage


class PartitionSlots:
    """A `SlotPort`. For one process, and one thread at a time.

    What a slot holds is noted in `slot-a.json` and `slot-b.json`: removed, durably, before the first byte of another
    image is written, and written after the slot was read back. So a record that is there is true of a slot that nobody
    else has written; `verify` and a repeated `write` read the slot back all the same. A `write` of what is there
    already, as a read back shows, fetches and writes nothing.

    Args:
        paths: the slots: block devices, or plain files that have their size. A device may be named by a symbolic link
            of udev's (/dev/disk/by-partuuid/…).
        source: where images come from.
        running_slot: says which slot runs, by the same evidence as the boot loader's adapter. It is asked each time.
        layout: what an image is.
        records: a folder that both slots can write.
        prefetched: where images are kept that are downloaded ahead of the window.
        running_system: says which image runs.
        devices: how devices are found to be in use.
        limits: what an image may take.
        retry: how often and after which waits a broken download goes on.
        clock: what `until` is measured by.
        cancel: when somebody sets it, whatever goes on ends with `Interrupted`, within a second as a rule.
        progress: is told how far it is; it must return soon.

    Raises:
        InvalidValue: both slots are one.
    """

    def __init__(
        self,
        paths: Mapping[Slot, Path],
        *,
        source: ImageSource,
        running_slot: Callable[[], Slot],
        layout: Layout = WholeImage(),  # frozen
        records: Path | str = Path("/var/lib/edge_day2"),
        prefetched: PrefetchFolder | None = None,
        running_system: RunningSystem | None = None,
        devices: BlockDevices = BlockDevices(),  # frozen
        limits: ImageLimits = ImageLimits(),  # frozen
        retry: RetryLimits = RetryLimits(),  # frozen
        clock: Clock | None = None,
        cancel: Event | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        if len({os.path.realpath(path) for path in paths.values()}) < len(paths):
            raise InvalidValue("paths", dict(paths), "another device for each slot")
        self._paths = dict(paths)
        self._source = source
        self._running_slot = running_slot
        self._layout = layout
        self._records = SlotRecords(Path(records))
        self._prefetched = PrefetchFolder() if prefetched is None else prefetched
        self._running_system = RunningSystem() if running_system is None else running_system
        self._devices = devices
        self._limits = limits
        self._retry = retry
        self._clock = SystemClock() if clock is None else clock
        self._cancel = cancel
        self._progress = progress

    def running_image(self) -> Image:
        """See `SlotPort.running_image`.

        Version and slot are the running system's word. Digest and profile it can't know: they are the record's, where
        that is of this version; else they are empty, which means unknown.
        """
        slot, image_id = self._running_slot(), self._running_system.image_id()
        record = self._record(slot)
        if record is not None and record.image.image_id == image_id:
            return record.image
        return Image(profile_name="", image_id=image_id, sha256="")

    def prefetch(self, image: Image) -> None:
        """See `SlotPort.prefetch`. Files of other images are removed first."""
        sha256 = _sha256_of(image)
        self._prefetched.discard_others(sha256)
        watch = self._watch(None)

        download: Download | None = None

        def begin(offset: int, validator: str) -> Download:
            nonlocal download
            download = self._download(image, offset, validator)
            return download

        for attempt in range(1, _STARTS + 1):
            try:
                self._prefetched.fill(sha256, begin, watch)
                return
            except (SourceChanged, ImageCorrupt) as error:
                self._make_way(image, error, attempt, pieced=download is not None and download.resumed)

    def write(self, image: Image, slot: Slot, until: datetime | None) -> None:
        """See `SlotPort.write`.

        Raises:
            ImageCorrupt, ImageUnusable, ImageTooLarge, UntrustedSource: kinds of NodeFailure.
        """
        _sha256_of(image)
        watch = self._watch(until)
        watch.look()
        if slot is self._running_slot():
            raise NodeFailure(FailureReason.INSTALLATION_FAIL, f"slot {slot.value} runs, it isn't written")
        with self._devices.writing(self._path(slot)) as device:
            record = self._record(slot)
            if record is not None and record.is_of(image) and self._holds(device, slot, record, watch):
                _log.info("%s is in slot %s already", image.image_id, slot.value)
                return
            with failing_as(FailureReason.UT_WRITE, f"forgetting what is in slot {slot.value}"):
                self._records.remove(slot)
                if isinstance(self._layout, DiskImage):
                    remove_file(self._layout.esp_file(slot))
            record = self._fill(device, image, slot, watch)
            if not self._holds(device, slot, record, watch):
                raise NodeFailure(FailureReason.UT_WRITE, f"slot {slot.value} doesn't hold what was written to it")
            with failing_as(FailureReason.UT_WRITE, f"noting what is in slot {slot.value}"):
                self._records.store(slot, record)

    def verify(self, image: Image, slot: Slot) -> None:
        """See `SlotPort.verify`. An image file that was downloaded ahead is removed then."""
        record = self._record(slot)
        if record is None or not record.is_of(image):
            found = "nothing that is known" if record is None else record.image.image_id
            log = f"slot {slot.value} holds {found}, {image.image_id} was expected"
            raise NodeFailure(FailureReason.UT_WRITE, log)
        with self._devices.reading(self._path(slot)) as device:
            if not self._holds(device, slot, record, self._watch(None)):
                raise NodeFailure(FailureReason.UT_WRITE, f"slot {slot.value} doesn't hold {image.image_id} any more")
        try:
            self._prefetched.discard(record.image.sha256)
        except NodeFailure as error:
            # The slot is right all the same; the next download removes it.
            _log.warning("%s: %s", image.image_id, error)

    def _fill(self, device: OpenSlot, image: Image, slot: Slot, watch: Watch) -> SlotRecord:
        sha256 = _sha256_of(image)
        for attempt in range(1, _STARTS + 1):
            file = ImageFile(self._prefetched.held(sha256), functools.partial(self._download, image))
            try:
                with self._target(device, slot) as target:
                    convey(file, target.sink, sha256=sha256, limits=self._limits, watch=watch)
                return SlotRecord(
                    image=Image(
                        profile_name=image.profile_name,
                        image_id=image.image_id,
                        sha256=sha256,
                        profile_version=image.profile_version,
                    ),
                    content=target.root.content,
                    esp=None if target.esp is None else target.esp.content,
                )
            except (SourceChanged, ImageCorrupt) as error:
                self._make_way(image, error, attempt, pieced=file.pieced)
        raise AssertionError(_STARTS)

    def _make_way(self, image: Image, error: SourceChanged | ImageCorrupt, attempt: int, *, pieced: bool) -> None:
        """Forget what came of the image file, so that it is begun anew; raise where that wouldn't help."""
        self._prefetched.discard(_sha256_of(image))
        if isinstance(error, SourceChanged) and attempt == _STARTS:
            raise NodeFailure(FailureReason.DOWNLOAD_FAIL, f"{error}; begun {attempt} times") from error
        # Only what was put together from several answers may be right when it comes at once.
        if isinstance(error, ImageCorrupt) and (not pieced or attempt == _STARTS):
            raise error
        _log.info("%s: begun anew: %s", image.image_id, error)

    @contextlib.contextmanager
    def _target(self, device: OpenSlot, slot: Slot) -> Iterator[_Target]:
        """Give what takes the image; where it is left without an error, everything is in its place."""
        root = RegionWriter(device.descriptor, name=f"slot {slot.value}", capacity=device.capacity)
        if isinstance(self._layout, WholeImage):
            yield _Target(sink=WholeImageSink(root), root=root)
            return
        path = self._layout.esp_file(slot)
        beside = path.with_name(f"{path.name}.new")
        keeping = f"keeping the EFI system partition in {path}"
        with failing_as(FailureReason.UT_WRITE, keeping):
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.unlink(missing_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(beside, flags, 0o600)
        try:
            esp = RegionWriter(descriptor, name=str(path), capacity=self._layout.esp_bytes, sparse=True)
            sink = DiskImageSink((self._layout.root, root), (self._layout.esp, esp))
            yield _Target(sink=sink, root=root, esp=esp)
            with failing_as(FailureReason.UT_WRITE, keeping):
                beside.replace(path)
                flush_folder(path.parent)
        finally:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)

    def _holds(self, device: OpenSlot, slot: Slot, record: SlotRecord, watch: Watch) -> bool:
        """Return whether the slot, and the file of the EFI system partition, hold what the record says."""
        if not _region_holds(device, f"slot {slot.value}", record.content, watch):
            return False
        if not isinstance(self._layout, DiskImage):
            return record.esp is None
        path = self._layout.esp_file(slot)
        if record.esp is None or not path.exists():
            return False
        with self._devices.reading(path) as esp:
            return esp.capacity == record.esp.length and _region_holds(esp, str(path), record.esp, watch)

    def _download(self, image: Image, offset: int, validator: str) -> Download:
        return Download(
            self._source,
            image.url,
            most_bytes=self._limits.file_bytes,
            retry=self._retry,
            offset=offset,
            validator=validator,
        )

    def _path(self, slot: Slot) -> Path:
        if slot not in self._paths:
            raise NodeFailure(FailureReason.UT_WRITE, f"there is no slot {slot.value} on this node")
        return self._paths[slot]

    def _record(self, slot: Slot) -> SlotRecord | None:
        with failing_as(FailureReason.UT_WRITE, f"reading what slot {slot.value} holds"):
            return self._records.load(slot)

    def _watch(self, until: datetime | None) -> Watch:
        return Watch(clock=self._clock, until=until, cancel=self._cancel, tell=self._progress)


@frozen(kw_only=True)
class _Target:
    sink: Sink
    root: RegionWriter
    esp: RegionWriter | None = None


def _region_holds(region: OpenSlot, name: str, content: Content, watch: Watch) -> bool:
    if region.capacity < content.length:
        return False
    watch.begin(Phase.READING_BACK, content.length)

    def advance(done: int) -> None:
        watch.advance(done, content.length)

    found = read_back(region.descriptor, content.length, name=name, advance=advance)
    watch.end(found.length)
    return found == content


def _sha256_of(image: Image) -> str:
    """Return the image's digest in lower case.

    Raises:
        NodeFailure: it has none. That doesn't change until another image is wanted.
    """
    if _SHA256.fullmatch(image.sha256.lower()) is None:
        log = f"the SHA-256 of image {image.image_id} is {shown(image.sha256)}, expected 64 hex digits"
        raise NodeFailure(FailureReason.SIGNATURE_CHECK, log, conclusive=True)
    return image.sha256.lower()
