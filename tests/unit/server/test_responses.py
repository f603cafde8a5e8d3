"""The message of an error as the reason phrase of its answer."""

from __future__ import annotations

import pytest
from flask import Flask

from yolo_backend.server.responses import error_response


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("a" * 240, "a" * 240),
        ("a" * 241, "a" * 237 + "..."),
        ("車" * 4 + " a", "U+8ECA U+8ECA U+8ECA U+8ECA a"),
    ],
)
def test_a_reason_phrase_has_240_characters_at_most(message: str, reason: str) -> None:
    with Flask(__name__).app_context():
        response = error_response(422, message)
    assert (response.status, response.get_json()) == (f"422 {reason}", {"error": message})
