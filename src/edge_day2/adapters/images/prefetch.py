"""Image files that are downloaded ahead of the window, in a folder: `<sha256>`, and `<sha256>.part` on the way there.

All that is known of a download is in the folder, so that it goes on after a restart of whatever kind. Nothing in it is
believed before its digest was computed anew.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from attrs import frozen

from edge_day2.adapters.durable_files import flush_folder, remove_file, replace_file
from edge_day2.adapters.images.download import Download
from edge_day2.adapters.images.file_source import open_file
from edge_day2.adapters.images.read_ahead import ReadAhead
from edge_day2.adapters.images.regions import failing_as
from edge_day2.adapters.images.watch import Phase, Watch
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.failures import ImageCorrupt, ImageTooLarge, NodeFailure

_OURS: Final = re.compile(r"([0-9a-f]{64})(\.part|\.validator|\.validator\.new)?")
_FETCHED_BYTES: Final = 4 << 20
# So much is lost by a power cut at most.
_FLUSH_BYTES: Final = 16 << 20
_LONGEST_VALIDATOR: Final = 1024
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@frozen(kw_only=True)
class Held:
    """What is there of an image file: the first `length` bytes of it, in `path`. `whole`: it was complete once."""

    path: Path
    length: int
    validator: str
    whole: bool


class PrefetchFolder:
    """The folder, for one process at a time.

    Args:
        folder: made where it is missing. On a file system that both slots can see it outlives an update.
        reserve_bytes: are left free on its file system.
        most_bytes: no image file is kept that is longer.
    """

    def __init__(
        self,
        folder: Path | str = Path("/var/lib/edge_day2/images"),
        *,
        reserve_bytes: int = 64 << 20,
        most_bytes: int = 16 << 30,
    ) -> None:
        self._folder = Path(folder)
        self._reserve_bytes = reserve_bytes
        self._most_bytes = most_bytes

    def held(self, sha256: str) -> Held | None:
        """Return what is there of the image file with this digest, None where there is nothing.

        Raises:
            NodeFailure: the folder can't be read.
        """
        with failing_as(FailureReason.DOWNLOAD_FAIL, "looking for a downloaded image"):
            for path, whole in ((self._folder / sha256, True), (self._folder / f"{sha256}.part", False)):
                try:
                    found = path.lstat()
                except (FileNotFoundError, NotADirectoryError):
                    continue
                if stat.S_ISREG(found.st_mode) and found.st_size:
                    return Held(path=path, length=found.st_size, validator=self._validator(sha256), whole=whole)
        return None

    def discard(self, sha256: str) -> None:
        """Remove everything of the image file with this digest.

        Raises:
            NodeFailure: it can't be removed.
        """
        with failing_as(FailureReason.DOWNLOAD_FAIL, "removing a downloaded image"):
            for suffix in ("", ".part", ".validator"):
                remove_file(self._folder / f"{sha256}{suffix}")

    def discard_others(self, sha256: str) -> None:
        """Remove all image files but the one with this digest. Files of other names are left alone.

        Raises:
            NodeFailure: one can't be removed.
        """
        with failing_as(FailureReason.DOWNLOAD_FAIL, "removing downloaded images"):
            if not self._folder.is_dir():
                return
            for path in sorted(self._folder.iterdir()):
                match = _OURS.fullmatch(path.name)
                if match is not None and match.group(1) != sha256:
                    remove_file(path)

    def fill(self, sha256: str, begin: Callable[[int, str], Download], watch: Watch) -> None:
        """See to it that the whole image file with this digest is there, and was just read or written.

        Args:
            begin: returns the download from an offset on, with the validator of what is there before it.

        Raises:
            ImageCorrupt: the digest is another one. Nothing is kept.
            ImageTooLarge: there is no room for it. Nothing is kept.
            SourceChanged, NodeFailure: as the download raises; what is there is kept for the next attempt.
            Interrupted: see `Watch.look`. The same.
        """
        digest, length, validator = hashlib.sha256(), 0, ""
        if (held := self.held(sha256)) is not None:
            watch.begin(Phase.DOWNLOADING, held.length)
            for piece in pieces_of(held):
                digest.update(piece)
                length += len(piece)
                watch.advance(length, held.length)
            if digest.hexdigest() == sha256:
                self._complete(sha256, held.path)
                return
            validator = held.validator
            if held.whole:
                self.discard(sha256)
                digest, length, validator = hashlib.sha256(), 0, ""
        part = self._folder / f"{sha256}.part"
        with self._failing():
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            self._append(descriptor, begin(length, validator), digest.update, sha256, length, watch)
        except ImageTooLarge:
            # A disk that is full harms the node.
            self.discard(sha256)
            raise
        finally:
            os.close(descriptor)
        if (found := digest.hexdigest()) != sha256:
            self.discard(sha256)
            raise ImageCorrupt("the image file isn't the one that was asked for", expected=sha256, found=found)
        self._complete(sha256, part)

    def _append(
        self,
        descriptor: int,
        download: Download,
        update: Callable[[bytes], None],
        sha256: str,
        length: int,
        watch: Watch,
    ) -> None:
        watch.begin(Phase.DOWNLOADING, done_bytes=length)
        flushed, noted = length, False
        with ReadAhead(
            download, most_bytes=_FETCHED_BYTES, name="image prefetch", look=watch.look, stop=download.stop
        ) as fetched:
            for piece in fetched:
                if not noted:
                    self._mind_room(length, download.total)
                    self._note(sha256, download.validator)
                    noted = True
                self._write(descriptor, piece, length)
                update(piece)
                length += len(piece)
                if length - flushed >= _FLUSH_BYTES:
                    self._mind_room(length, download.total)
                    self._flush(descriptor)
                    flushed = length
                watch.advance(length, download.total)
        self._flush(descriptor)
        watch.end(length)

    def _write(self, descriptor: int, piece: bytes, offset: int) -> None:
        view = memoryview(piece)
        try:
            while view:
                done = os.pwrite(descriptor, view, offset)
                view, offset = view[done:], offset + done
        except OSError as error:
            log = f"keeping an image in {self._folder}: {error}"
            if error.errno in _FULL:
                raise ImageTooLarge(log) from error
            raise NodeFailure(FailureReason.DOWNLOAD_FAIL, log) from error

    def _flush(self, descriptor: int) -> None:
        with self._failing():
            os.fdatasync(descriptor)

    def _mind_room(self, length: int, total: int | None) -> None:
        with failing_as(FailureReason.DOWNLOAD_FAIL, f"looking for room in {self._folder}"):
            found = os.statvfs(self._folder)
        free = found.f_bavail * found.f_frsize
        needed = (max(total - length, 0) if total is not None else 0) + self._reserve_bytes
        if max(total or 0, length) > self._most_bytes or free < needed:
            log = f"an image file of {total or length} bytes has no room in {self._folder}: {free} bytes are free"
            raise ImageTooLarge(f"{log}, {self._reserve_bytes} stay free, and at most {self._most_bytes} are kept")

    def _failing(self) -> AbstractContextManager[None]:
        return failing_as(FailureReason.DOWNLOAD_FAIL, f"keeping an image in {self._folder}")

    def _validator(self, sha256: str) -> str:
        try:
            with (self._folder / f"{sha256}.validator").open("rb") as file:
                return file.read(_LONGEST_VALIDATOR).decode("ascii", "replace")
        except FileNotFoundError:
            return ""

    def _note(self, sha256: str, validator: str) -> None:
        with self._failing():
            replace_file(self._folder / f"{sha256}.validator", validator.encode("ascii", "replace"), mode=0o600)

    def _complete(self, sha256: str, path: Path) -> None:
        with self._failing():
            path.replace(self._folder / sha256)
            flush_folder(self._folder)
            remove_file(self._folder / f"{sha256}.validator")


def pieces_of(held: Held) -> Iterator[bytes]:
    """Yield the bytes that are held.

    Raises:
        NodeFailure: they can't be read.
    """
    stream = open_file(held.path)
    try:
        while piece := stream.read():
            yield piece
    finally:
        stream.close()
