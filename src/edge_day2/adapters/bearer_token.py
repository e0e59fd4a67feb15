"""Bearer tokens in files that somebody else renews."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edge_day2.errors import Unauthenticated, shown

_LONGEST_TOKEN: Final = 16_384


def read_token(path: Path) -> str:
    """Return the token in this file, as it is now.

    Raises:
        Unauthenticated: the file can't be read, or doesn't hold a token. The message never shows its content.
    """
    try:
        with path.open("rb") as file:
            token = file.read(_LONGEST_TOKEN).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unauthenticated(f"the token file {path} can't be read: {shown(str(error))}") from error
    if not token or not token.isprintable() or " " in token:
        # The content stays out of the message: it may be most of a token.
        raise Unauthenticated(f"the token file {path} doesn't hold a token")
    return token
