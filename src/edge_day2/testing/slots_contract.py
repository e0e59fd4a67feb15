"""The contract of the slot port as tests: subclass it, say in fixtures what to test, and let pytest run it.

    class TestMySlots(SlotsContract):
        @pytest.fixture
        def restart(self):
            return lambda: MySlots(...)

Every test begins with a node that runs from slot A, and a slot B that holds anything. `TimedSlotsContract` adds what
holds where an adapter minds the end of the maintenance window. Needs pytest.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime

import pytest

from edge_day2.domain.immutable_events import Image
from edge_day2.domain.observation import Slot
from edge_day2.ports.failures import NodeFailure, OutOfTime
from edge_day2.ports.slots import SlotPort
from edge_day2.testing.model_nodes import Violation

# A model of a node stops everything where an adapter refuses.
_REFUSED = (NodeFailure, Violation)


class SlotsContract:
    """What every adapter of the slot port keeps."""

    @pytest.fixture
    def restart(self) -> Callable[[], SlotPort]:
        """Return what makes the adapter anew on the same node, as a process does that has just begun."""
        raise NotImplementedError("a subclass says which slots are tested")

    @pytest.fixture
    def image(self) -> Image:
        """An image that can be had, and isn't the running one."""
        raise NotImplementedError("a subclass says which image there is")

    @pytest.fixture
    def other_image(self) -> Image:
        """One more."""
        raise NotImplementedError("a subclass says which other image there is")

    @pytest.fixture
    def failing(self) -> Callable[[SlotPort], AbstractContextManager[None]]:
        """Return what makes a write to these slots fail in the middle, for as long as the context lasts."""
        raise NotImplementedError("a subclass says how a write fails")

    @pytest.fixture
    def slots(self, restart: Callable[[], SlotPort]) -> SlotPort:
        """The adapter under test."""
        return restart()

    def test_an_image_that_was_written_verifies(self, slots: SlotPort, image: Image) -> None:
        slots.write(image, Slot.B, None)

        slots.verify(image, Slot.B)

    def test_an_image_that_was_written_verifies_after_a_restart(
        self, slots: SlotPort, restart: Callable[[], SlotPort], image: Image
    ) -> None:
        slots.write(image, Slot.B, None)

        restart().verify(image, Slot.B)

    def test_a_slot_that_nothing_was_written_to_does_not_verify(self, slots: SlotPort, image: Image) -> None:
        with pytest.raises(NodeFailure):
            slots.verify(image, Slot.B)

    def test_a_slot_holds_one_image(self, slots: SlotPort, image: Image, other_image: Image) -> None:
        slots.write(image, Slot.B, None)
        with pytest.raises(NodeFailure):
            slots.verify(other_image, Slot.B)

        slots.write(other_image, Slot.B, None)

        slots.verify(other_image, Slot.B)
        with pytest.raises(NodeFailure):
            slots.verify(image, Slot.B)

    def test_everything_may_be_done_again(self, slots: SlotPort, image: Image) -> None:
        for _ in range(2):
            slots.prefetch(image)
        for _ in range(2):
            slots.write(image, Slot.B, None)
        for _ in range(2):
            slots.verify(image, Slot.B)

    def test_an_image_that_was_downloaded_ahead_is_in_no_slot(self, slots: SlotPort, image: Image) -> None:
        slots.prefetch(image)

        with pytest.raises(NodeFailure):
            slots.verify(image, Slot.B)

    def test_an_image_that_was_downloaded_ahead_is_written_after_a_restart(
        self, slots: SlotPort, restart: Callable[[], SlotPort], image: Image
    ) -> None:
        slots.prefetch(image)
        again = restart()

        again.write(image, Slot.B, None)

        again.verify(image, Slot.B)

    def test_another_image_than_the_one_downloaded_ahead_can_be_written(
        self, slots: SlotPort, image: Image, other_image: Image
    ) -> None:
        slots.prefetch(other_image)

        slots.write(image, Slot.B, None)

        slots.verify(image, Slot.B)

    def test_the_running_slot_is_never_written(self, slots: SlotPort, image: Image) -> None:
        running = slots.running_image()

        with pytest.raises(_REFUSED):
            slots.write(image, Slot.A, None)

        assert slots.running_image() == running
        with pytest.raises(NodeFailure):
            slots.verify(image, Slot.A)

    def test_what_runs_is_not_what_was_just_written(self, slots: SlotPort, image: Image) -> None:
        running = slots.running_image()

        slots.prefetch(image)
        slots.write(image, Slot.B, None)

        assert slots.running_image() == running != image

    def test_a_write_that_fails_leaves_a_slot_of_which_nothing_is_believed(
        self,
        slots: SlotPort,
        restart: Callable[[], SlotPort],
        image: Image,
        other_image: Image,
        failing: Callable[[SlotPort], AbstractContextManager[None]],
    ) -> None:
        slots.write(other_image, Slot.B, None)

        with failing(slots), pytest.raises(NodeFailure):
            slots.write(image, Slot.B, None)

        for one in (slots, restart()):
            for either in (image, other_image):
                with pytest.raises(NodeFailure):
                    one.verify(either, Slot.B)

    def test_a_write_that_failed_can_be_done_again(
        self, slots: SlotPort, image: Image, failing: Callable[[SlotPort], AbstractContextManager[None]]
    ) -> None:
        with failing(slots), pytest.raises(NodeFailure):
            slots.write(image, Slot.B, None)

        slots.write(image, Slot.B, None)

        slots.verify(image, Slot.B)


class TimedSlotsContract(SlotsContract):
    """What holds besides for an adapter that minds when the window closes."""

    def test_nothing_is_written_after_the_window(self, slots: SlotPort, image: Image, other_image: Image) -> None:
        slots.write(other_image, Slot.B, None)

        with pytest.raises(OutOfTime):
            slots.write(image, Slot.B, datetime(2000, 1, 1, tzinfo=UTC))

        slots.verify(other_image, Slot.B)

    def test_a_window_that_closes_later_is_none_that_is_closed(self, slots: SlotPort, image: Image) -> None:
        slots.write(image, Slot.B, datetime.max.replace(tzinfo=UTC))

        slots.verify(image, Slot.B)
