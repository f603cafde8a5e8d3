"""What others' errors say, fit for one line of ours."""

from __future__ import annotations

from typing import Any


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def api_message(body: Any) -> str:
    """What Label Studio's API says is wrong, in one line; `body` is the JSON that it answers."""
    if isinstance(body, dict):
        details = body.get("validation_errors") or body.get("non_field_errors") or body.get("detail") or body
        body = next(iter(details.values())) if isinstance(details, dict) and details else details
    if isinstance(body, list):
        body = " ".join(str(part) for part in body)
    return " ".join(str(body).split())
