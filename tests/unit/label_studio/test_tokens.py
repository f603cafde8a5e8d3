"""Tokens: their kinds, and why Label Studio refuses one."""

from __future__ import annotations

import jwt
import pytest

from yolo_backend.label_studio.tokens import explain_refusal, kind_of

LEGACY = "0123456789abcdef" * 2 + "01234567"
KEY = "the key of the server, which is nobody's business"
MAKE_ONE = "make one at Account & Settings > Personal Access Token, and set it as LABEL_STUDIO_API_KEY"


def personal(**claims: object) -> str:
    return jwt.encode({"token_type": "refresh", "exp": 2**40, **claims}, KEY, "HS256")


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        (personal(), "a Personal Access Token"),
        (personal(token_type="access"), "an access token"),
        (LEGACY, "a legacy token"),
        (LEGACY[:30], "neither a Personal Access Token nor a legacy one (is it whole?)"),
        (personal()[:-60], "neither a Personal Access Token nor a legacy one (is it whole?)"),
        ("password", "neither a Personal Access Token nor a legacy one (is it whole?)"),
    ],
)
def test_a_tokens_kind(token: str, kind: str) -> None:
    assert kind_of(token) == kind


@pytest.mark.parametrize(
    ("token", "detail", "told"),
    [
        (None, "Authentication credentials were not provided.", "asks for a token (401): set LABEL_STUDIO_API_KEY"),
        (LEGACY, "Invalid token.", "refuses the token (401): check LABEL_STUDIO_API_KEY"),
        (
            LEGACY,
            "Authentication token no longer valid: legacy token authentication has been disabled for this organization",
            "refuses the token: legacy tokens are disabled, use a Personal Access Token",
        ),
        (
            "password",
            "Invalid token.",
            "refuses the token (401), which is neither a Personal Access Token nor a legacy one (is it whole?): "
            "check LABEL_STUDIO_API_KEY",
        ),
        (
            personal(exp=1777000000),
            "Token is invalid or expired",
            f"refuses the token (401), because it expired on 2026-04-24: {MAKE_ONE}",
        ),
        (personal(), "Token is blacklisted", f"refuses the token (401), because it was revoked: {MAKE_ONE}"),
        (
            personal(token_type="access"),
            "Token has wrong type",
            f"refuses the token (401), because it is an access token, which lives for minutes: {MAKE_ONE}",
        ),
        (personal(), "Token is invalid", "refuses the token (401): check LABEL_STUDIO_API_KEY"),
    ],
)
def test_a_refused_token_is_told_by_the_cause(token: str | None, detail: str, told: str) -> None:
    message = str(explain_refusal(token, "LABEL_STUDIO_API_KEY", 401, detail))
    assert message == f"Label Studio {told}"
    assert len(message) <= 240
    assert token is None or token not in message
