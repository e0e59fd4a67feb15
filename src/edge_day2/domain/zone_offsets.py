"""Time zones as pieces of constant UTC offset.

`zoneinfo` answers for one instant; window arithmetic needs to know how long the answer holds. A zone is looked at in
chunks of about 388 days, when somebody asks about one, and each chunk is kept as a sorted list of pieces.

Instants are whole seconds since 0001-01-01T00:00:00Z.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from edge_day2.domain.calendar_days import FOREVER, LAST_DAY
from edge_day2.errors import InvalidSchedule

DAY: Final = 86_400
ORIGIN: Final = datetime.min.replace(tzinfo=UTC)
LAST_SECOND: Final = (LAST_DAY + 1) * DAY - 1

CHUNK_BITS: Final = 25
# No zone of the tz database changes twice within less than 3.9 days and ends where it began (Africa/Freetown 1939), so
# three days between samples miss nothing.
_SAMPLE: Final = 3 * DAY


def _chunk_of(year: int) -> int:
    return int((datetime(year, 1, 1, tzinfo=UTC) - ORIGIN).total_seconds()) >> CHUNK_BITS


# The tz database begins in the 1830s with local mean time before. The last change that it lists one by one is of 2087
# (Africa/Casablanca); from then on a zone follows the one yearly rule at the end of its file, or has none (RFC 9636
# section 3.3).
_FIRST_CHUNK: Final = _chunk_of(1800)
_LAST_CHUNK: Final = _chunk_of(2100)
SETTLED: Final = _LAST_CHUNK << CHUNK_BITS
_EARLY: Final = 2 * DAY
_LATE: Final = LAST_SECOND - 2 * DAY
_NOT_IANA: Final = ("right/", "posix/", "posixrules", "localtime", "Factory")


class Piece(NamedTuple):
    """Instants from `start` up to `stop`, at which local time is UTC plus `offset` seconds.

    `before` is the offset right before `start`; it equals `offset` where the piece begins without a change. From
    `fresh` on the clock shows nothing that it showed before `start` already.
    """

    start: int
    stop: int
    offset: int
    before: int
    fresh: int


def _piece(start: int, stop: int, offset: int, before: int) -> Piece:
    return Piece(start, stop, offset, before, start + max(0, before - offset))


class Chunks(dict[int, tuple[list[int], list[Piece]]]):
    """Number of the chunk (instant >> `CHUNK_BITS`) → where its pieces start, and the pieces."""

    __slots__ = ("_settled", "_zone")

    def __init__(self, key: str) -> None:
        super().__init__()
        self._zone = None if key == "UTC" else ZoneInfo(key)
        self._settled: bool | None = None

    def _offset(self, instant: int) -> int:
        if self._zone is None:
            return 0
        # Near the ends of the calendar the local time may not exist; no zone changes there.
        within = instant if _EARLY < instant < _LATE else min(max(instant, _EARLY), _LATE)
        offset = (ORIGIN + timedelta(0, within)).astimezone(self._zone).utcoffset()
        assert offset is not None
        return offset.days * DAY + offset.seconds

    def _changes(self, start: int, stop: int) -> list[Piece]:
        pieces = [_piece(start, stop, self._offset(start), self._offset(start - 1))]
        sample = start
        while sample < stop:
            following = min(sample + _SAMPLE, stop)
            while self._offset(following - 1) != (offset := pieces[-1].offset):
                same, other = max(sample, pieces[-1].start), following - 1
                while other - same > 1:
                    middle = (same + other) // 2
                    same, other = (middle, other) if self._offset(middle) == offset else (same, middle)
                pieces[-1] = pieces[-1]._replace(stop=other)
                pieces.append(_piece(other, stop, self._offset(other), offset))
            sample = following
        return pieces

    def __missing__(self, chunk: int) -> tuple[list[int], list[Piece]]:
        start, stop = chunk << CHUNK_BITS, chunk + 1 << CHUNK_BITS
        offset = self._offset(start)
        if self._zone is None:
            pieces = [_piece(-FOREVER, FOREVER, 0, 0)]
        elif chunk < _FIRST_CHUNK:
            pieces = [_piece(-FOREVER, _FIRST_CHUNK << CHUNK_BITS, offset, offset)]
        elif chunk >= _LAST_CHUNK and self._is_settled():
            pieces = [_piece(SETTLED, FOREVER, offset, offset)]
        else:
            pieces = self._changes(start, stop)
        found = self[chunk] = [piece.start for piece in pieces], pieces
        return found

    def _is_settled(self) -> bool:
        """Return whether the zone's last rule has no changes: none within two chunks, over two years, of 2100."""
        if self._settled is None:
            self._settled = len(self._changes(SETTLED, SETTLED + (2 << CHUNK_BITS))) == 1
        return self._settled


class Zone:
    """The pieces of one IANA time zone. Made by `zone`, which shares them.

    Attributes:
        key: the zone's name.
        only: UTC's only piece, None in other zones.
        chunks: for hot paths: chunk number → starts of its pieces, and the pieces.
    """

    __slots__ = ("chunks", "key", "only")

    def __init__(self, key: str) -> None:
        self.key = key
        self.chunks = Chunks(key)
        self.only = self.piece(0) if key == "UTC" else None

    def piece(self, instant: int) -> Piece:
        """Return the piece that holds `instant`, which may lie outside the calendar."""
        starts, pieces = self.chunks[instant >> CHUNK_BITS]
        return pieces[bisect_right(starts, instant) - 1]


@functools.lru_cache(maxsize=1024)
def zone(key: str) -> Zone:
    """Return the zone that the tz database knows as `key`.

    Raises:
        InvalidSchedule: there is no such zone, or the name means something else on each machine.
    """
    expected = "a time zone name of the IANA database, such as Europe/Warsaw"
    if not key or key.startswith(_NOT_IANA):
        raise InvalidSchedule("time_zone", key, expected)
    try:
        return Zone(key)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidSchedule("time_zone", key, expected) from error
