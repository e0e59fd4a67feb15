"""One hierarchy of errors: a class per thing that a caller can do something about.

A message names the thing, the value that was found and what was expected instead. Values that come from outside are
shortened by `shown`, so that an error about ten megabytes of text isn't ten megabytes long.
"""

from __future__ import annotations

_SHOWN_CHARACTERS = 80


def shown(value: object) -> str:
    """Return `value` as it should appear in an error message: its repr, cut after 80 characters."""
    text = repr(value[: 2 * _SHOWN_CHARACTERS]) if isinstance(value, str | bytes) else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


class EdgeDay2Error(Exception):
    """Everything that this library raises on purpose."""


class InvalidValue(EdgeDay2Error, ValueError):
    """A value breaks a rule. `field`, `value` and `expected` say which, what was found, and what is allowed."""

    def __init__(self, field: str, value: object, expected: str) -> None:
        super().__init__(f"{field}: found {shown(value)}, expected {expected}")
        self.field = field
        self.value = value
        self.expected = expected


class InvalidProfile(InvalidValue):
    """An OS profile manifest that can't be used."""


class InvalidSchedule(InvalidValue):
    """A schedule that is malformed, can never fire, or is asked with a naive datetime."""


class InvalidVersion(InvalidValue):
    """An image version that has no place in the order of versions."""


class InvalidResource(InvalidValue):
    """An Inventory resource that breaks one of the Inventory's rules."""


class InvalidMessage(InvalidValue):
    """A maintmgr.v1 message that breaks the protocol's validation rules."""


class ImmutableLinkError(EdgeDay2Error):
    """The current or desired OS of an instance may not be changed in this way."""


class InvalidTransition(EdgeDay2Error):
    """A flow was given an event that its state doesn't accept."""

    def __init__(self, flow: str, state: str, event: object, accepts: tuple[str, ...]) -> None:
        listed = ", ".join(accepts) or "nothing, it is final"
        super().__init__(f"{flow}: state {state!r} doesn't accept {shown(event)}; it accepts: {listed}")
        self.flow = flow
        self.state = state
        self.event = event
        self.accepts = accepts


class UnreadableState(EdgeDay2Error):
    """A stored flow state or journal that this version can't read: torn, foreign, or of a newer format."""


class NewerFormat(UnreadableState):
    """A stored flow state or journal that a newer version wrote. It is never guessed at."""


class MissingExtra(EdgeDay2Error, ImportError):
    """An optional dependency isn't installed; the message names the extra to install."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"{module} isn't installed; install edge_day2[{extra}]", name=module)
        self.extra = extra


class RequestError(EdgeDay2Error):
    """A request that an actor refuses. `code` is the name of the original system's gRPC status code."""

    code = "UNKNOWN"


class InvalidArgument(RequestError):
    """The request breaks a validation rule."""

    code = "INVALID_ARGUMENT"


class NotFound(RequestError):
    """The thing that the request names doesn't exist in this tenant."""

    code = "NOT_FOUND"


class AlreadyExists(RequestError):
    """A thing with this identity exists already."""

    code = "ALREADY_EXISTS"


class Unauthenticated(RequestError):
    """The caller may not be believed, an untrusted host for example."""

    code = "UNAUTHENTICATED"


class PermissionDenied(RequestError):
    """The caller is known, or claims to be somebody, and may not do this."""

    code = "PERMISSION_DENIED"


class FailedPrecondition(RequestError):
    """The thing isn't in the condition that the request needs: not provisioned, still in use."""

    code = "FAILED_PRECONDITION"


class Conflict(RequestError):
    """Somebody else changed the thing in the meantime; load it again and repeat."""

    code = "ABORTED"


class Unavailable(RequestError):
    """The other side can't be reached or can't answer now; trying later may work."""

    code = "UNAVAILABLE"


class ResourceExhausted(Unavailable):
    """The other side has too much to do, or the message is larger than it takes."""

    code = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(Unavailable):
    """The other side took too long; what was asked for may have been done."""

    code = "DEADLINE_EXCEEDED"


class Internal(RequestError):
    """The other side failed, or said something that breaks the protocol; its operator has to look."""

    code = "INTERNAL"


class EventsForgotten(RequestError):
    """A reader of the change feed missed events that aren't kept any more: what it knows must be read anew."""

    code = "OUT_OF_RANGE"


class StorageError(Unavailable):
    """The database failed: disk full, locked for too long, connection lost. Nothing was half written."""


class AgentRunning(EdgeDay2Error):
    """Another agent runs on this node. `process` is the id that it wrote down, "" where it hasn't yet."""

    def __init__(self, lock: str, process: str) -> None:
        super().__init__(f"an agent runs already: process {process or 'unknown'} holds {lock}; stop it first")
        self.process = process
