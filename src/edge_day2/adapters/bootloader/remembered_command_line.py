"""The kernel command line that was asked for, in a comment of an entry file, which boot loaders skip."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

_MARK: Final = "# edge_day2 "


def remembered(kernel_command_line: str) -> str:
    """Return the comment. As JSON it is one line, whatever the text is."""
    return _MARK + json.dumps({"kernel_command_line": kernel_command_line})


def asked_for(lines: Iterable[str]) -> str:
    """Return what the comment among these lines says, "" where there is none of ours."""
    for line in lines:
        if line.startswith(_MARK):
            try:
                found = json.loads(line.removeprefix(_MARK))
            except ValueError:
                continue
            text = found.get("kernel_command_line") if isinstance(found, dict) else None
            if isinstance(text, str):
                return text
    return ""
