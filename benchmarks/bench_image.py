"""How fast an image comes into a slot, against the shell's pipe, from the same server on this machine.

Run: python benchmarks/bench_image.py [--compressible 1000] [--incompressible 500] [--rounds 3] [--folder FOLDER]

Sizes are MB of the unpacked image (0: leave it out). The peer is

    curl | tee >(sha256sum) | gzip -dc | dd of=SLOT bs=4M conv=fsync,notrunc

which neither compares the digest nor reads anything back. Ours does both; the rate without the read-back ends when the
slot is flushed. The compressible image is made of this Python's own files with as many zeros between them, the other
one of random bytes. Both ways take turns, and the best of the rounds counts. Memory is the peak of a process of our own
over what it took after its imports.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_day2.adapters.images import HttpImageSource, Phase, PrefetchFolder, Progress, RunningSystem, TrustedSources
from edge_day2.adapters.slots import PartitionSlots
from edge_day2.domain.immutable_events import Image
from edge_day2.domain.observation import Slot

MB = 1_000_000
PIECE = 4 << 20


def compressible(size: int) -> Iterator[bytes]:
    """Yield the files of the standard library and of the installed packages, each followed by as many zeros."""
    left = size
    while left > 0:
        for path in sorted(Path(os.__file__).parent.rglob("*")) + sorted(Path(sys.prefix).rglob("*.so")):
            if not path.is_file():
                continue
            piece = path.read_bytes()[:PIECE]
            piece = (piece + bytes(len(piece)))[:left]
            left -= len(piece)
            yield piece
            if not left:
                return


def incompressible(size: int) -> Iterator[bytes]:
    """Yield random bytes, the same ones each time."""
    chance = random.Random(size)
    for start in range(0, size, PIECE):
        yield chance.randbytes(min(PIECE, size - start))


def make(path: Path, pieces: Iterator[bytes]) -> tuple[str, str]:
    """Write the packed image, and return the digests of the file and of what is in it."""
    raw = hashlib.sha256()
    with path.open("wb") as packed, subprocess.Popen(["gzip", "-6"], stdin=subprocess.PIPE, stdout=packed) as gzip:
        assert gzip.stdin is not None
        for piece in pieces:
            raw.update(piece)
            gzip.stdin.write(piece)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), raw.hexdigest()


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Serve the folder in a process of its own."""
    command = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(folder), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        port = process.stdout.readline().split(" port ")[1].split(" ")[0]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def shell(url: str, slot: Path, folder: Path) -> dict[str, float]:
    """Return the seconds that the shell takes, and those of CPU time."""
    said = folder / "sha256"
    script = 'curl -sf "$1" | tee >(sha256sum > "$3") | gzip -dc | dd of="$2" bs=4M conv=fsync,notrunc status=none'
    begun, before = time.perf_counter(), cpu_seconds(resource.RUSAGE_CHILDREN)
    subprocess.run(["bash", "-o", "pipefail", "-c", script, "-", url, str(slot), str(said)], check=True)
    return {
        "shell": time.perf_counter() - begun,
        "shell CPU": cpu_seconds(resource.RUSAGE_CHILDREN) - before,
    }


def cpu_seconds(who: int) -> float:
    """Return the CPU time of this process, or of its children."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def peak_bytes() -> int:
    """Return this process's greatest resident size so far. getrusage would count what the parent had at the fork."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def ours(url: str, slot: Path, folder: Path, sha256: str) -> None:
    """Write the image, in a process of our own, and print seconds without and with read-back, CPU time and memory."""
    flushed = 0.0

    def note(progress: Progress) -> None:
        nonlocal flushed
        if progress.phase is Phase.READING_BACK and not flushed:
            flushed = time.perf_counter()

    base = url.rpartition("/")[0]
    slots = PartitionSlots(
        {Slot.B: slot},
        source=HttpImageSource(TrustedSources([base]), proxies={}),
        running_slot=lambda: Slot.A,
        records=folder / "records",
        prefetched=PrefetchFolder(folder / "prefetched"),
        running_system=RunningSystem(()),
        progress=note,
    )
    before, cpu = peak_bytes(), cpu_seconds(resource.RUSAGE_SELF)
    begun = time.perf_counter()
    slots.write(Image(profile_name="bench", image_id="1.0", sha256=sha256, url=url), Slot.B, None)
    ended = time.perf_counter()
    said = {
        "flushed": flushed - begun,
        "read back": ended - begun,
        "CPU": cpu_seconds(resource.RUSAGE_SELF) - cpu,
        "memory": peak_bytes() - before,
    }
    print(json.dumps(said))


def in_process(url: str, slot: Path, folder: Path, sha256: str) -> dict[str, float]:
    """Return what `ours` printed."""
    shutil.rmtree(folder / "records", ignore_errors=True)
    command = [sys.executable, __file__, "--ours", url, str(slot), str(folder), sha256]
    said: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return said


def holds(slot: Path, size: int, raw: str) -> bool:
    """Return whether the slot holds the image."""
    digest = hashlib.sha256()
    with slot.open("rb") as file:
        while size > 0 and (piece := file.read(min(PIECE, size))):
            digest.update(piece)
            size -= len(piece)
    return digest.hexdigest() == raw


def compare(name: str, size: int, rounds: int, folder: Path) -> None:
    """Print the rates of both ways for one image."""
    file, slot = folder / "files" / f"{name}.gz", folder / "slot"
    pieces = compressible(size) if name == "compressible" else incompressible(size)
    sha256, raw = make(file, pieces)
    slot.write_bytes(b"")
    with slot.open("wb") as empty:
        os.posix_fallocate(empty.fileno(), 0, size)
    best: dict[str, float] = {}
    with server(file.parent) as base:
        url = f"{base}/{file.name}"
        for _ in range(rounds):
            for key, value in {**shell(url, slot, folder), **in_process(url, slot, folder, sha256)}.items():
                best[key] = min(best.get(key, value), value)
            assert holds(slot, size, raw)
    print(f"{name}: {size / MB:.0f} MB, packed {file.stat().st_size / MB:.0f} MB")
    for key, words in (("shell", "shell"), ("flushed", "ours, flushed"), ("read back", "ours, read back as well")):
        print(f"  {words:26} {size / MB / best[key]:6.0f} MB/s   {best['shell'] / best[key]:5.2f} x shell")
    print(f"  CPU time, shell            {best['shell CPU']:6.2f} s")
    print(f"  CPU time, ours, all of it  {best['CPU']:6.2f} s      {best['shell CPU'] / best['CPU']:5.2f} x shell")
    print(f"  memory                     {best['memory'] / MB:6.0f} MB")
    file.unlink()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compressible", type=int, default=1000)
    parser.add_argument("--incompressible", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for images and slot; where a slot would be, rather than a tmpfs")
    parser.add_argument("--ours", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        url, slot, folder, sha256 = options.ours
        ours(url, Path(slot), Path(folder), sha256)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        (folder / "files").mkdir()
        for kind, size in (("compressible", options.compressible), ("incompressible", options.incompressible)):
            if size:
                compare(kind, size * MB, options.rounds, folder)


if __name__ == "__main__":
    main()
