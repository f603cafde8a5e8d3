"""Label Studio's address, and one call of its API there: sent with limits of time and size, read as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests
import urllib3

from yolo_backend.label_studio.connections import REPEATABLE, Connections
from yolo_backend.label_studio.errors import StudioError, StudioTimeout, StudioUnreachedError
from yolo_backend.label_studio.in_between import IN_TIME, explain_silence, is_unsent, reason_of
from yolo_backend.messages import Trouble, shortened

_MAX_ANSWER_BYTES = 64_000_000
_PIECE_BYTES = 1 << 16
_HEAD_BYTES = 4096


@dataclass(frozen=True)
class Call:
    """What the API is asked, and what is sent with it."""

    method: str
    path: str
    query: Mapping[str, str] | None = None
    body: Any = None
    files: Sequence[tuple[str, tuple[str, bytes]]] | None = None

    @property
    def is_repeatable(self) -> bool:
        """Returns True if the call does no harm if it arrives twice."""
        return self.method in REPEATABLE


@dataclass(frozen=True)
class Answer:
    """The answer of Label Studio, or of something in its place; a body that is no JSON is None."""

    status_code: int
    headers: Mapping[str, str]
    json: Any
    head: bytes

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object that was answered; an empty one if it is none."""
        return self.json if isinstance(self.json, dict) else {}

    @property
    def detail(self) -> str:
        """What Label Studio says is wrong; empty if it says nothing."""
        return str(self.body.get("detail", ""))


class Endpoint:
    """An address where a Label Studio answers; safe to share between threads."""

    def __init__(self, url: str, connections: Connections) -> None:
        self.url = url.rstrip("/")
        self._connections = connections

    def send(self, call: Call, ends_at: float, authorization: str | None = None) -> Answer:
        """Send a call and read its answer until `ends_at` (of `time.monotonic`), whatever its status is.

        Raises StudioUnreachedError, StudioError, StudioTimeout.
        """

        def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
            if authorization:
                request.headers["Authorization"] = authorization
            return request

        request = {"params": call.query, "json": call.body, "files": call.files, "auth": authorize}
        try:
            with self._connections.ask(call.method, self.url + call.path, ends_at, **request) as response:
                content = _read(response, ends_at)
            return Answer(response.status_code, response.headers, _json_of(content), content[:_HEAD_BYTES])
        except _TooLongError:
            what = f"{shortened(self.url)} answers more than {_MAX_ANSWER_BYTES // 1_000_000} MB at {call.path}"
            raise StudioError(Trouble(what, "are there tasks with very much in them?", lasts=True)) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            if reason_of(error) == IN_TIME:
                raise self.timeout() from None
            kind = StudioUnreachedError if is_unsent(error) else StudioError
            raise kind(explain_silence(error, self.url)) from None

    def timeout(self) -> StudioTimeout:
        """The error that there was no answer in time."""
        return StudioTimeout(
            f"Label Studio doesn't answer in time at {shortened(self.url)}: see that it isn't too busy, and that no "
            "firewall keeps the backend from it"
        )


class _TooLongError(Exception):
    """The answer has more bytes than we read."""


def _read(response: requests.Response, ends_at: float) -> bytes:
    """The answer's body, up to a size and until `ends_at`, because the time-out of requests is for each piece."""
    body = bytearray()
    while piece := response.raw.read1(_PIECE_BYTES, decode_content=True):
        body += piece
        if len(body) > _MAX_ANSWER_BYTES:
            raise _TooLongError
        if time.monotonic() > ends_at:
            raise requests.Timeout
    return bytes(body)


def _json_of(content: bytes) -> Any:
    try:
        return json.loads(content.removeprefix(b"<pre>").removesuffix(b"</pre>"))  # its flags are shown as a page
    except (ValueError, RecursionError):
        return None
