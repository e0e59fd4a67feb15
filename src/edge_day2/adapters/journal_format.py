"""How an agent's record becomes bytes and comes back: JSON with a format number and a checksum.

A record is written in the oldest format that can hold it: after a rollback an A/B node's older agent has to go on with
what the newer one wrote. Each earlier format is read.

Nothing is coerced on the way back: what isn't exactly what this version writes is unreadable, and what a newer version
wrote is told apart from damage by its format number.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from cattrs import Converter

from edge_day2.adapters.strict_json import strict_converter
from edge_day2.domain.agent import AgentRecord, Update
from edge_day2.domain.flow import FlowState
from edge_day2.domain.immutable import IMMUTABLE_FLOW
from edge_day2.domain.immutable_effects import ImmutableUpdate
from edge_day2.domain.mutable import MUTABLE_FLOW
from edge_day2.domain.mutable_effects import MutableUpdate
from edge_day2.errors import NewerFormat, UnreadableState

# 2: an apt update holds its plan, its snapshot, and what was repaired. All else is as in format 1.
FORMAT: Final = 2


def encode(record: AgentRecord) -> bytes:
    """Return the bytes that stand for `record`."""
    document = _CONVERTER.unstructure(record)
    number = 2 if record.flow is not None and record.flow.flow == MUTABLE_FLOW.name else 1
    return _dump({"format": number, "sha256": _digest(document), "record": document}) + b"\n"


def decode(content: bytes) -> AgentRecord:
    """Return the record that `content` stands for.

    Raises:
        NewerFormat: a newer version wrote it.
        UnreadableState: it is torn, was changed, or isn't a journal.
    """
    try:
        envelope = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UnreadableState(f"journal: not JSON: {error}") from error
    number = envelope.get("format") if isinstance(envelope, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise UnreadableState(f"journal: format {number!r}, expected a number up to {FORMAT}")
    if number > FORMAT:
        raise NewerFormat(f"journal: format {number}, this version reads formats up to {FORMAT}")
    document = envelope.get("record")
    if envelope.get("sha256") != _digest(document):
        raise UnreadableState("journal: the checksum doesn't fit the content")
    try:
        record = _CONVERTER.structure(_from_format_1(document) if number == 1 else document, AgentRecord)
    except Exception as error:  # there is no end to what foreign content makes a converter raise
        raise UnreadableState(f"journal: not a record of an agent: {error}") from error
    if record.flow is not None:
        _check_state(record.flow)
    return record


# What format 1 downloaded wasn't planned: it is downloaded once more, so that there is a plan to install.
_DOWNLOADED_AGAIN: Final = {"installing_packages": "downloading_packages", "installing_upgrade": "downloading_upgrade"}


def _from_format_1(document: Any) -> object:
    state = document["flow"]
    if state is None or state["flow"] != MUTABLE_FLOW.name:
        return document
    data = {**state["data"], "opened": state["data"]["begun"]}
    return {**document, "flow": {**state, "name": _DOWNLOADED_AGAIN.get(state["name"], state["name"]), "data": data}}


def _check_state(state: Update) -> None:
    flow = IMMUTABLE_FLOW if state.flow == IMMUTABLE_FLOW.name else MUTABLE_FLOW
    if state.name not in flow.states:
        raise UnreadableState(f"journal: {state.name!r} is no state of the {flow.name} flow")


def _dump(document: object) -> bytes:
    # A lone surrogate, from a file name in a failure's log say, must not keep the record from being stored.
    return json.dumps(document, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode(errors="replace")


def _digest(document: object) -> str:
    return hashlib.sha256(_dump(document)).hexdigest()


def _make_converter() -> Converter:
    converter = strict_converter()

    def flow_state(value: Any, _: object) -> Update | None:
        if value is None:
            return None
        if not isinstance(value, dict):
            raise TypeError(f"found {value!r}, expected a flow state")
        match value.get("flow"):
            case IMMUTABLE_FLOW.name:
                return converter.structure(value, FlowState[ImmutableUpdate])
            case MUTABLE_FLOW.name:
                return converter.structure(value, FlowState[MutableUpdate])
            case name:
                raise ValueError(f"found flow {name!r}, expected {IMMUTABLE_FLOW.name} or {MUTABLE_FLOW.name}")

    converter.register_structure_hook(Update | None, flow_state)
    return converter


_CONVERTER: Final = _make_converter()
