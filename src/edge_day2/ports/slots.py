"""Port: the two slots of an A/B node, and the images that go into them."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from edge_day2.domain.immutable_events import Image
from edge_day2.domain.observation import Slot


class SlotPort(Protocol):
    """Images in slots. The running slot is never written, whoever asks."""

    def running_image(self) -> Image:
        """Return the identity of the image that runs. `sha256` and `profile_name` are "" where nobody knows them.

        Raises:
            NodeFailure: it can't be told.
        """
        ...

    def prefetch(self, image: Image) -> None:
        """Download the image to a place that isn't a slot, resuming what is there already.

        Raises:
            NodeFailure: it couldn't be fetched, or its digest is wrong.
        """
        ...

    def write(self, image: Image, slot: Slot, until: datetime | None) -> None:
        """Bring the image into `slot`, checking its digest on the way. Durable when it returns.

        Raises:
            NodeFailure: fetching or writing failed. The slot holds anything.
            OutOfTime: it is `until`, and there is more to write.
        """
        ...

    def verify(self, image: Image, slot: Slot) -> None:
        """Read the slot back and compare it with what was written.

        Raises:
            NodeFailure: it holds something else.
        """
        ...
