"""A process that brings an image into slot B: once for each line that it reads, in a child of its own each time.

Its arguments are those of `writer`. It prints the child's process id when it begins, `done` when the image is verified,
`failed …` where it isn't, and last `ended`; a child that is killed prints nothing more. `memory` instead of a line lets
this process itself do it, and print by how many bytes its resident size grew at most.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

from edge_day2.adapters.images import HttpImageSource, PrefetchFolder, RunningSystem, TrustedSources
from edge_day2.adapters.slots import PartitionSlots
from edge_day2.domain.immutable_events import Image
from edge_day2.domain.observation import Slot


def write(url: str, sha256: str, folder: Path, ahead: bool) -> None:
    """Write the image and verify it."""
    slots = PartitionSlots(
        {slot: folder / f"slot-{slot.value}" for slot in Slot},
        source=HttpImageSource(TrustedSources([url.rpartition("/")[0]]), proxies={}),
        running_slot=lambda: Slot.A,
        records=folder / "records",
        prefetched=PrefetchFolder(folder / "images", reserve_bytes=0),
        running_system=RunningSystem(()),
    )
    image = Image(profile_name="edge", image_id="3.0.2", sha256=sha256, url=url)
    if ahead:
        slots.prefetch(image)
    slots.write(image, Slot.B, None)
    slots.verify(image, Slot.B)


def peak_bytes() -> int:
    """Return the greatest resident size so far of this process alone."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) << 10


def main(url: str, sha256: str, folder: str, ahead: str) -> None:
    """Serve orders until there are no more."""
    for line in sys.stdin:
        if line.strip() == "memory":
            before = peak_bytes()
            write(url, sha256, Path(folder), ahead == "ahead")
            print(peak_bytes() - before, flush=True)
            continue
        child = os.fork()
        if not child:
            print(os.getpid(), flush=True)
            try:
                write(url, sha256, Path(folder), ahead == "ahead")
                print("done", flush=True)
            except BaseException as error:
                print(f"failed {error!r}", flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print("ended", flush=True)


class Writer:
    """The process, seen from a test."""

    def __init__(self, process: Popen[str]) -> None:
        self._process = process

    def order(self, line: str) -> str:
        """Give an order, and return the first line of its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self.hear()

    def hear(self) -> str:
        """Return the next line."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def writer(url: str, sha256: str, folder: Path, *, ahead: bool) -> Iterator[Writer]:
    """Run the process, on slots that are files in `folder`."""
    command = [sys.executable, __file__, url, sha256, str(folder), "ahead" if ahead else "streamed"]
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True) as process:
        yield Writer(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(120)


if __name__ == "__main__":
    main(*sys.argv[1:])
