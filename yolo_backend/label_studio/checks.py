"""Whether Label Studio can be reached, and accepts our token. Answers are reused for a while."""

from __future__ import annotations

import logging
import threading
import time

import requests

from yolo_backend.label_studio.access import Access
from yolo_backend.label_studio.endpoint import Answer, Call, Endpoint
from yolo_backend.label_studio.errors import StudioError, StudioRefusedError, anew
from yolo_backend.label_studio.in_between import explain_stranger
from yolo_backend.label_studio.refusals import UNAUTHORIZED, explain_strange
from yolo_backend.label_studio.tokens import Token

log = logging.getLogger(__name__)

_TIMEOUT_S = 2.0
_ACCEPTED_IS_FRESH_S = 60.0
_REACHED_IS_FRESH_S = 2.0
_WHO_AM_I = "/api/current-user/whoami"
_HEALTH = "/health"


class TokenCheck:
    """Whether Label Studio accepts our token; a result younger than a minute is reused."""

    def __init__(self, endpoint: Endpoint, token: Token, access: Access) -> None:
        self._endpoint = endpoint
        self._token = token
        self._access = access
        self._checking = threading.Lock()
        self._checked_at = float("-inf")
        self._failure: StudioError | None = None

    def check(self) -> None:
        """Ask Label Studio, unless the result is known. Raises StudioError.

        No answer within two seconds is no failure, because a Label Studio with one worker is busy with the request that
        made us ask.
        """
        ends_at = time.monotonic() + _TIMEOUT_S
        if not self._checking.acquire(timeout=_TIMEOUT_S):
            return
        try:
            if time.monotonic() - self._checked_at > _ACCEPTED_IS_FRESH_S:
                self._failure = None
                try:
                    self._ask(ends_at)
                except StudioError as error:
                    self._failure = error
                except requests.Timeout:
                    url = self._endpoint.url
                    log.info("Label Studio at %s didn't answer our question in time; going on without", url)
                    return
                self._checked_at = time.monotonic()
            if self._failure:
                raise anew(self._failure)
        finally:
            self._checking.release()

    def _ask(self, ends_at: float) -> None:
        url = self._endpoint.url
        if self._token.value is None:
            answer = self._endpoint.send(Call("GET", _HEALTH), ends_at)
            if trouble := explain_stranger(answer, url, _HEALTH):
                raise StudioError(trouble)
            return
        answer = self._who_am_i(ends_at)
        if answer.status_code == requests.codes.unauthorized and self._token.is_personal:
            answer = self._who_am_i(ends_at, renew=True)
        if answer.status_code in UNAUTHORIZED and explain_stranger(answer, url, _WHO_AM_I) is None:
            raise StudioRefusedError(self._token.refusal(answer.status_code, answer.detail))
        if answer.status_code != requests.codes.ok or answer.json is None:
            raise StudioError(explain_strange(answer, url, _WHO_AM_I))

    def _who_am_i(self, ends_at: float, *, renew: bool = False) -> Answer:
        authorization = self._access.authorization(ends_at, renew=renew)
        return self._endpoint.send(Call("GET", _WHO_AM_I), ends_at, authorization)


class ReachabilityCheck:
    """Whether Label Studio can be reached; a result younger than two seconds is reused."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._asking = threading.Lock()
        self._asked_at = float("-inf")
        self._is_unreachable = False

    def is_unreachable(self) -> bool:
        """Returns True if Label Studio is unreachable, or a proxy answers 5xx for it."""
        with self._asking:
            if time.monotonic() - self._asked_at > _REACHED_IS_FRESH_S:
                try:
                    answer = self._endpoint.send(Call("GET", _HEALTH), time.monotonic() + _TIMEOUT_S)
                    self._is_unreachable = answer.status_code >= requests.codes.internal_server_error
                except (StudioError, requests.Timeout):
                    self._is_unreachable = True
                self._asked_at = time.monotonic()
            return self._is_unreachable
