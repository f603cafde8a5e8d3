"""What is sent as `Authorization`: a legacy token itself, or for a Personal Access Token its access tokens of 5 min.

The SDK's client does the exchange too, but only for its own requests, and it drops a path prefix while it does.
"""

from __future__ import annotations

import threading
import time

import requests

from yolo_backend.label_studio.endpoint import Call, Endpoint
from yolo_backend.label_studio.errors import StudioError, StudioRefusedError, anew
from yolo_backend.label_studio.in_between import explain_stranger
from yolo_backend.label_studio.refusals import explain_strange
from yolo_backend.label_studio.tokens import Token, claims_of
from yolo_backend.settings import is_sendable

_TIMEOUT_S = 10.0
_RENEW_BEFORE_EXPIRY_S = 30.0
_FAILURE_IS_FRESH_S = 5.0
_REFRESH = "/api/token/refresh/"
_REFUSALS = frozenset({400, 401, 403})


class Access:
    """A token of a Label Studio, ready to be sent there; safe to share between threads."""

    def __init__(self, endpoint: Endpoint, token: Token) -> None:
        self._endpoint = endpoint
        self._token = token
        self._access_token: str | None = None
        self._expires_at = 0.0
        self._exchanging = threading.Lock()
        self._failed_at = float("-inf")
        self._failure: Exception | None = None

    def authorization(self, ends_at: float | None = None, *, renew: bool = False) -> str | None:
        """What to send as `Authorization`; None without a token. With `renew`, None if it can't be renewed.

        Raises StudioError if a Personal Access Token can't be exchanged, requests.Timeout if nobody answers.
        """
        if not self._token.is_personal:
            return f"Token {self._token.value}" if self._token.value and not renew else None
        return self._bearer(time.monotonic() + _TIMEOUT_S if ends_at is None else ends_at, renew=renew)

    def must_ask(self) -> bool:
        """Returns True if `authorization` has to exchange the token first, or to wait for another thread's exchange."""
        return self._token.is_personal and (self._exchanging.locked() or not self._is_fresh())

    def _bearer(self, ends_at: float, *, renew: bool) -> str:
        """The access token; a new one if it ends soon. One thread asks, and the others get its answer."""
        known = self._access_token
        if not self._exchanging.acquire(timeout=max(0.0, ends_at - time.monotonic())):
            raise self._endpoint.timeout()  # of the thread that asks
        try:
            renewed_meanwhile = self._access_token is not known
            if not self._is_fresh() or (renew and not renewed_meanwhile):
                self._exchange(ends_at)
            return f"Bearer {self._access_token}"
        finally:
            self._exchanging.release()

    def _is_fresh(self) -> bool:
        return self._access_token is not None and time.time() + _RENEW_BEFORE_EXPIRY_S <= self._expires_at

    def _exchange(self, ends_at: float) -> None:
        started_at = time.monotonic()
        if self._failure and started_at - self._failed_at < _FAILURE_IS_FRESH_S:
            raise anew(self._failure)
        self._failure = None
        try:
            self._access_token = self._ask(ends_at)
        except (StudioError, requests.Timeout) as error:
            # The threads that wait behind us need not ask one after the other.
            failed_at = time.monotonic()
            if isinstance(error, StudioError) or failed_at - started_at >= _TIMEOUT_S / 2:
                self._failure, self._failed_at = error, failed_at
            raise
        self._expires_at = float(claims_of(self._access_token).get("exp") or time.time() + 240)

    def _ask(self, ends_at: float) -> str:
        answer = self._endpoint.send(Call("POST", _REFRESH, body={"refresh": self._token.value}), ends_at)
        access = answer.body.get("access") if answer.status_code == requests.codes.ok else None
        if not isinstance(access, str) or not is_sendable(access):
            url = self._endpoint.url
            strange = explain_strange(answer, url, _REFRESH)
            if answer.status_code not in _REFUSALS:
                raise StudioError(strange)
            is_ours = explain_stranger(answer, url, _REFRESH) is None
            raise StudioRefusedError(self._token.refusal(answer.status_code, answer.detail) if is_ours else strange)
        return access
