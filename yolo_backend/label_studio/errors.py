"""What may go wrong between us and Label Studio."""

from __future__ import annotations

import requests

from yolo_backend.errors import UserError
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.messages import Trouble


class StudioError(UserError):
    """Label Studio isn't there or refuses our token; the message says what to do, `kind` is its name in metrics.

    `reason` is what Label Studio itself says of it, if it says anything; `trouble` is the message in two parts, if it
    has them.
    """

    kind = FailureKind.LABEL_STUDIO

    def __init__(self, message: str | Trouble, reason: str = "") -> None:
        super().__init__(str(message))
        self.trouble = message if isinstance(message, Trouble) else None
        self.reason = reason


class StudioUnreachedError(StudioError):
    """There was no connection to Label Studio, so nothing was sent."""


class StudioRefusedError(StudioError):
    """Label Studio doesn't let this token do that, or has no such project."""


class StudioMissingError(StudioRefusedError):
    """Label Studio has no such thing, or doesn't show it to our token's user."""


class StudioRejectedError(StudioError):
    """Label Studio rejects what it was sent."""


class StudioTimeout(requests.Timeout):
    """Label Studio doesn't answer in time. The message doesn't hold the address that was asked."""


def explain(error: StudioError | requests.Timeout) -> str:
    """The error in words. The text of a requests.Timeout isn't used, because it holds the whole address."""
    return str(error) if isinstance(error, StudioError | StudioTimeout) else "Label Studio doesn't answer in time"


def anew(error: Exception) -> Exception:
    """The same error as a new object, because a traceback grows with each raise and keeps the frames' variables."""
    if isinstance(error, StudioError):
        return type(error)(error.trouble or str(error), error.reason)
    return type(error)(str(error))
