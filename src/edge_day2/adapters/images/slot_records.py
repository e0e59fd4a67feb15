"""What was written to each slot, in files that outlive the OS. A record is there only while its slot is whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import cattrs
from attrs import frozen

from edge_day2.adapters.durable_files import remove_file, replace_file
from edge_day2.adapters.images.regions import Content
from edge_day2.domain.immutable_events import Image
from edge_day2.domain.observation import Slot

FORMAT: Final = 1


@frozen(kw_only=True)
class SlotRecord:
    """An image that was written to a slot and read back: the image, the slot's bytes, and the EFI system partition's.

    `esp` is None where the image has none.
    """

    image: Image
    content: Content
    esp: Content | None = None

    def is_of(self, image: Image) -> bool:
        """Return whether it is of this image: the same version, profile and digest."""
        mine = (self.image.profile_name, self.image.image_id, self.image.sha256)
        return mine == (image.profile_name, image.image_id, image.sha256.lower())


class SlotRecords:
    """Records in a folder that both slots can write: `slot-a.json` and `slot-b.json`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, slot: Slot) -> SlotRecord | None:
        """Return the slot's record; None where there is none, or none that can be read.

        Raises:
            OSError: the file can't be read.
        """
        try:
            document = json.loads(self._path(slot).read_bytes())
            if document["format"] != FORMAT:
                return None
            return _CONVERTER.structure(document["record"], SlotRecord)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, cattrs.BaseValidationError):
            # Without a record the slot counts as unknown: nothing boots from it, and the next update writes it anew.
            return None

    def store(self, slot: Slot, record: SlotRecord) -> None:
        """Note what the slot holds, durably.

        Raises:
            OSError: it couldn't be stored.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        document = {"format": FORMAT, "record": _CONVERTER.unstructure(record)}
        replace_file(self._path(slot), json.dumps(document, indent=1, sort_keys=True).encode() + b"\n")

    def remove(self, slot: Slot) -> None:
        """Forget what the slot holds, durably.

        Raises:
            OSError: the record couldn't be removed.
        """
        remove_file(self._path(slot))

    def _path(self, slot: Slot) -> Path:
        return self._folder / f"slot-{slot.value.lower()}.json"


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=False)
    for kind in (str, int):
        converter.register_structure_hook(kind, _strict)
    return converter


def _strict(value: Any, kind: type[Any]) -> Any:
    # By default 5 would become "5", and "5" 5.
    if type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


_CONVERTER: Final = _converter()
