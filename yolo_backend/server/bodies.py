"""The bodies of requests: read piece by piece into memory that is counted, and parsed as a JSON object."""

from __future__ import annotations

import io
from typing import Any

from flask import request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from yolo_backend.protocol import from_json
from yolo_backend.server.errors import BadRequestError
from yolo_backend.serving.held import Share
from yolo_backend.settings import BODY_COSTS

MAX_SMALL_BODY_BYTES = 16_000_000
"""How many bytes a labeling config or an event may have."""
_PIECE_BYTES = 1 << 18
_WAIT_FOR_ROOM_S = 2.0
_FEW_BYTES = 1_000_000
_LONG_TEXT = 1000


class Body:
    """A body that gives the pieces that were read already, and then the rest."""

    def __init__(self, start: bytes) -> None:
        self._start = io.BytesIO(start)

    def read(self, size: int = -1, /) -> bytes:
        """So many bytes at most; b"" at the end."""
        if size == 0:  # ijson asks for 0 bytes to see whether it gets bytes
            return b""
        return self._start.read(size) or request.stream.read(size)


class NoRoomError(Exception):
    """There is no memory for a body now."""

    def __init__(self, body: Body) -> None:
        super().__init__("no room")
        self.body = body


def json_object(content: bytes) -> dict[str, Any]:
    """The JSON object that a body is. Raises BadRequestError."""
    try:
        body = from_json(content)  # it may be large, and stays in memory until the answer
    except Exception:  # brackets nested too deep
        body = None
    if body is None:
        raise BadRequestError("The body is not JSON")
    if not isinstance(body, dict):
        raise BadRequestError("The body should be a JSON object")
    return body


def read_body(share: Share, limit_bytes: int | None = None) -> bytes:
    """The whole body; `share` takes room for it. If it has a limit of its own, it finds room in any case.

    Raises NoRoomError, BadRequestError, and RequestEntityTooLarge. Request.get_data would read small pieces, and for
    each of them gunicorn moves all that it has.
    """
    stream = request.stream  # raises if the length is too large
    always_bytes = limit_bytes or _FEW_BYTES
    body = io.BytesIO()
    try:
        _check_length(request.content_length or 0, limit_bytes)
        while piece := stream.read(_PIECE_BYTES):
            body.write(piece)
            _check_length(body.tell(), limit_bytes)
            cost = BODY_COSTS * len(piece)  # piece by piece, because what is announced may never come
            if body.tell() <= always_bytes:
                share.count(cost)  # a person's click finds room in any case
            elif not share.take(cost, _WAIT_FOR_ROOM_S):
                raise NoRoomError(Body(body.getvalue()))  # noqa: TRY301  its pieces are here
    except (HTTPException, NoRoomError):
        raise
    except Exception:  # chunks that gunicorn can't read
        raise BadRequestError("The body is not JSON") from None
    return body.getvalue()


def _check_length(length: int, limit_bytes: int | None) -> None:
    if limit_bytes and length > limit_bytes:
        raise RequestEntityTooLarge(
            f"{request.path} takes {limit_bytes / 1e6:.0f} MB at most: make the labeling config, or the annotation "
            "that is sent, smaller"
        )


def cost_of(body: dict[str, Any], length: int) -> int:
    """About how many bytes a body of this length takes as Python objects. Long texts, as of `data:`, count once."""
    tasks = body.get("tasks")
    data = [task.get("data") for task in tasks if isinstance(task, dict)] if isinstance(tasks, list) else []
    texts = [text for fields in data if isinstance(fields, dict) for text in fields.values() if isinstance(text, str)]
    long = sum(len(text) for text in texts if len(text) > _LONG_TEXT)
    return BODY_COSTS * (length - long) + long if long <= length else length
