"""The id of a request: in every log line that is written for it, in whichever thread, and in its answer."""

from __future__ import annotations

import base64
import logging
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

HEADER = "X-Request-ID"
NONE = "-"
"""What stands in lines that are written for no request."""

# A UUID, or what nginx makes, fits; a line break, a JWT, or the 40 characters of a legacy token don't.
_HARMLESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,35}")
_OWN_BYTES = 5  # 8 characters of base32

_P = ParamSpec("_P")
_R = TypeVar("_R")

_current: ContextVar[str] = ContextVar("request_id", default=NONE)


def current() -> str:
    """The id of the request that this thread works for, or NONE."""
    return _current.get()


def begin(given: str | None) -> str:
    """Let this thread work for a new request, and return its id: the one that the caller gave, if it is harmless."""
    own = base64.b32encode(secrets.token_bytes(_OWN_BYTES)).decode().lower()
    _current.set(given if given and _HARMLESS.fullmatch(given) else own)
    return _current.get()


def end() -> None:
    """Let this thread work for no request any more."""
    _current.set(NONE)


@contextmanager
def working_for(request_id: str) -> Iterator[None]:
    """What this thread does in here is done for the request with this id."""
    before = _current.set(request_id)
    try:
        yield
    finally:
        _current.reset(before)


def carrying(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The same function, done for the request of now, in whichever thread and however often it is called."""
    # Of the context the id alone: a copy would hold Flask's request too, its socket with it, and runs once at a time.
    request_id = _current.get()

    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with working_for(request_id):
            return function(*args, **kwargs)

    return run


class RequestIds(logging.Filter):
    """Gives each log record the id as `request_id`; drops none."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = _current.get()
        return True
