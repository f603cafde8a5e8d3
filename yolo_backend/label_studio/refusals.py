"""What an unexpected answer means: an error that says what to do."""

from __future__ import annotations

import re

import requests

from yolo_backend.label_studio.endpoint import Answer
from yolo_backend.label_studio.errors import StudioMissingError, StudioRefusedError, StudioRejectedError
from yolo_backend.label_studio.in_between import explain_stranger
from yolo_backend.label_studio.tokens import Token
from yolo_backend.messages import Trouble, api_message, shortened

UNAUTHORIZED = frozenset({401, 403})
_REJECTIONS = frozenset({400, 413})  # 413 comes from a proxy that has a limit of its own


def raise_for_status(answer: Answer, url: str, path: str, token: Token) -> None:
    """Raises the error that the status of an answer means; `path` was asked below Label Studio's address `url`.

    Raises StudioRefusedError, StudioMissingError, StudioRejectedError.
    """
    status = answer.status_code
    stranger = explain_stranger(answer, url, path)
    if status in UNAUTHORIZED:
        is_about_token = status == requests.codes.unauthorized or "legacy" in answer.detail.lower()
        ours = token.refusal(status, answer.detail) if is_about_token else _forbidden(answer.detail, path)
        raise StudioRefusedError(stranger or ours, answer.detail)
    if status == requests.codes.not_found and stranger:
        raise StudioRefusedError(stranger)
    if status == requests.codes.not_found:
        raise StudioMissingError(
            f"Label Studio shows the token's user no {_thing_at(path)}: was it deleted, or is it of another "
            "organization?",
            answer.detail,
        )
    if status in _REJECTIONS:
        reason = "" if stranger else api_message(answer.json)
        raise StudioRejectedError(stranger or f"Label Studio answers {status} at {path}: {reason}", reason)


def explain_strange(answer: Answer, url: str, path: str) -> Trouble:
    """Why this is no answer of Label Studio's, or not the one to our question."""
    if trouble := explain_stranger(answer, url, path):
        return trouble
    status, shown = answer.status_code, shortened(url)
    if status >= requests.codes.internal_server_error:
        return Trouble(f"Label Studio at {shown} fails with {status} at {path}", "see its log")
    return Trouble(
        f"{shown} answers {status} at {path}, and not as Label Studio does", "is LABEL_STUDIO_URL its address?"
    )


def _forbidden(detail: str, path: str) -> Trouble:
    said = f": {shortened(detail)}" if detail else ""
    return Trouble(
        f"Label Studio doesn't let the token's user do that (403 at {path}{said})",
        "give that user the right, or use another user's token",
    )


def _thing_at(path: str) -> str:
    """What an address of the API stands for, in words."""
    found = re.match(r"/api/(project|task|prediction)s/(\d+)", path)
    return f"{found[1]} {found[2]}" if found else path
