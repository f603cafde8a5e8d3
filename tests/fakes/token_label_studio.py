"""A Label Studio that exchanges the one token that it knows, and tells the bearer who they are."""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

import jwt

from tests.harness.http_server import reply

LEGACY = "0123456789abcdef0123456789abcdef01234567"


def signed(kind: str, lives_s: float) -> str:
    claims = {"token_type": kind, "exp": time.time() + lives_s, "jti": str(time.monotonic_ns())}
    return jwt.encode(claims, "the key of the server, which is nobody's business", "HS256")


PERSONAL = signed("refresh", 24 * 3600)  # longer than any run of the tests


class FakeLabelStudio:
    """Exchanges the one token that it knows, and tells the bearer who they are."""

    def __init__(self, access_lives_s: float = 300, prefix: str = "") -> None:
        self.access_lives_s = access_lives_s
        self.prefix = prefix
        self.valid: set[str] = {f"Token {LEGACY}"}
        self.refusal: dict[str, Any] = {"detail": "Invalid token."}

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        status, body = self._answer(handler)
        reply(json.dumps(body).encode(), status)(handler)

    def _answer(self, handler: BaseHTTPRequestHandler) -> tuple[int, Any]:
        if handler.path == f"{self.prefix}/api/token/refresh/":
            access = signed("access", self.access_lives_s)
            self.valid.add(f"Bearer {access}")
            return 200, {"access": access}
        if handler.path == f"{self.prefix}/health":
            return 200, {"status": "UP"}
        if handler.path == f"{self.prefix}/api/current-user/whoami":
            return (200, {}) if handler.headers["Authorization"] in self.valid else (401, self.refusal)
        return 404, {"detail": "Not found."}
