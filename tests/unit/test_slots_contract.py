"""The slot contract, kept by slots that are files, of both layouts, and by the model of a node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from disk_images import disk_image
from edge_day2.adapters.slots import DiskImage
from edge_day2.domain.immutable_events import Image
from edge_day2.ports.slots import SlotPort
from edge_day2.testing.faults import Calls, Fault, PlannedFault
from edge_day2.testing.flow_walks import NEW, OLD
from edge_day2.testing.model_nodes import ModelABNode
from edge_day2.testing.slots_contract import SlotsContract, TimedSlotsContract
from slots_bench import PACKERS, SlotsBench, content, folder_bench, image_of


class TestModel(SlotsContract):
    @pytest.fixture
    def model(self) -> ModelABNode:
        return ModelABNode.with_image(OLD)

    @pytest.fixture
    def restart(self, model: ModelABNode) -> Callable[[], SlotPort]:
        return lambda: model

    @pytest.fixture
    def image(self) -> Image:
        return NEW

    @pytest.fixture
    def other_image(self) -> Image:
        return Image(profile_name="edge", image_id="3.0.3", sha256="3" * 64)

    @pytest.fixture
    def failing(self, model: ModelABNode) -> Callable[[SlotPort], AbstractContextManager[None]]:
        @contextmanager
        def fail(slots: SlotPort) -> Iterator[None]:
            model.calls = Calls(planned=PlannedFault(1, Fault.FAILS))
            yield
            model.calls = Calls()

        return fail


class TestFiles(TimedSlotsContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> SlotsBench:
        return folder_bench(tmp_path)

    @pytest.fixture
    def restart(self, bench: SlotsBench) -> Callable[[], SlotPort]:
        return bench.slots

    def raw(self, seed: int) -> bytes:
        """Return what is in the image."""
        return content(2_500_000, seed)

    def published(self, bench: SlotsBench, name: str, seed: int) -> Image:
        """Return an image that can be had."""
        file = PACKERS["gz"](self.raw(seed))
        (bench.folder / "source" / name).write_bytes(file)
        return image_of(file, name, image_id=f"3.0.{seed}")

    @pytest.fixture
    def image(self, bench: SlotsBench) -> Image:
        return self.published(bench, "image.raw.gz", 2)

    @pytest.fixture
    def other_image(self, bench: SlotsBench) -> Image:
        return self.published(bench, "other.raw.gz", 3)

    @pytest.fixture
    def failing(self, bench: SlotsBench, image: Image) -> Callable[[SlotPort], AbstractContextManager[None]]:
        file = bench.folder / "source" / image.url

        @contextmanager
        def fail(slots: SlotPort) -> Iterator[None]:
            whole = file.read_bytes()
            file.write_bytes(whole[:-100_000])
            yield
            file.write_bytes(whole)

        return fail


class TestFilesOfDiskImages(TestFiles):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> SlotsBench:
        return folder_bench(tmp_path, settings={"layout": DiskImage(boot_folder=tmp_path / "boot")})

    def raw(self, seed: int) -> bytes:
        return disk_image(content(900_096, seed), content(1_400_320, seed + 1))
