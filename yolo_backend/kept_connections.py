"""Connections that are used again: a server may close one at the moment when the next request is on its way."""

from __future__ import annotations

import ssl
import time
from typing import Any

from yolo_backend.messages import causes_of


class ClosedMeanwhileError(ConnectionResetError):
    """The other side closed a kept connection before it answered a request that was sent over it."""


def was_closed_meanwhile(error: Exception) -> bool:
    """Returns True if another connection may help, for what does no harm when it arrives twice."""
    return any(isinstance(cause, ClosedMeanwhileError) for cause in causes_of(error))


class Kept:
    """Goes before a connection of urllib3's, and knows whether it was answered over before, and when."""

    answered_at: float | None = None

    def connect(self) -> None:
        self.answered_at = None
        super().connect()  # type: ignore[misc]  # of the connection beside us

    def getresponse(self) -> Any:
        try:
            response = super().getresponse()  # type: ignore[misc]
        except (ConnectionError, ssl.SSLError) as error:
            if self.answered_at is None:
                raise
            raise ClosedMeanwhileError(*error.args) from error
        self.answered_at = time.monotonic()
        return response
