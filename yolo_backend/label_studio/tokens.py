"""A token of Label Studio's: which kind it is, and why it may be refused."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import jwt

from yolo_backend.messages import Trouble

_LEGACY = re.compile("[0-9a-f]{40}")
_SETTING = "LABEL_STUDIO_API_KEY"


def claims_of(token: str) -> dict[str, Any]:
    """What a JWT says of itself, unverified; empty if it is no JWT."""
    try:
        return dict(jwt.decode(token, options={"verify_signature": False}))
    except jwt.InvalidTokenError:
        return {}


def kind_of(token: str) -> str:
    """What the token looks like, in words."""
    if claims := claims_of(token):
        return "an access token" if claims.get("token_type") == "access" else "a Personal Access Token"
    is_legacy = _LEGACY.fullmatch(token)
    return "a legacy token" if is_legacy else "neither a Personal Access Token nor a legacy one (is it whole?)"


@dataclass(frozen=True)
class Token:
    """A token, or None if there is none; `set_by` says where it comes from."""

    value: str | None = field(repr=False)
    set_by: str = _SETTING

    @cached_property
    def is_personal(self) -> bool:
        """Returns True if it is a Personal Access Token."""
        return bool(self.value and claims_of(self.value))

    def refusal(self, status: int, detail: str) -> Trouble:
        """Why Label Studio refuses the token with this status."""
        return explain_refusal(self.value, self.set_by, status, detail)


def explain_refusal(token: str | None, set_by: str, status: int, detail: str) -> Trouble:
    """Why Label Studio refuses the token with this status; `set_by` says where the token comes from."""
    if token is None:
        return Trouble(f"Label Studio asks for a token ({status})", f"set {_SETTING}")
    if "legacy" in detail.lower():
        as_setting = "" if set_by == _SETTING else f" as {_SETTING}"
        return Trouble(
            "Label Studio refuses the token", f"legacy tokens are disabled, use a Personal Access Token{as_setting}"
        )
    claims = claims_of(token)
    if claims and (fault := _fault_of_personal(claims, detail)):
        return Trouble(
            f"Label Studio refuses the token ({status}), because {fault}",
            f"make one at Account & Settings > Personal Access Token, and set it as {_SETTING}",
        )
    if not claims and not _LEGACY.fullmatch(token):
        return Trouble(f"Label Studio refuses the token ({status}), which is {kind_of(token)}", f"check {set_by}")
    return Trouble(f"Label Studio refuses the token ({status})", f"check {set_by}")


def _fault_of_personal(claims: dict[str, Any], detail: str) -> str | None:
    if claims.get("token_type") == "access":
        return "it is an access token, which lives for minutes"
    ends_at = claims.get("exp")
    if isinstance(ends_at, int | float) and 0 < ends_at < time.time():
        return f"it expired on {datetime.fromtimestamp(ends_at, UTC):%Y-%m-%d}"
    return "it was revoked" if "blacklist" in detail.lower() else None
