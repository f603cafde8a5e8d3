"""Label Studio's own API: its address, its token, and the calls that the backend makes."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests
import urllib3

from yolo_backend.errors import UserError
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.label_studio.connections import Connections
from yolo_backend.label_studio.filters import holds
from yolo_backend.label_studio.in_between import IN_TIME, explain_silence, explain_stranger, is_unsent, reason_of
from yolo_backend.label_studio.tokens import claims_of, explain_refusal
from yolo_backend.messages import Trouble, api_message, shortened
from yolo_backend.settings import Settings, is_sendable, studio_address

log = logging.getLogger(__name__)

_TIMEOUT_S = 10.0
# Storing a chunk of predictions makes Label Studio count the whole project anew.
_IMPORT_TIMEOUT_S = 300.0
_READ_TIMEOUT_S = 60.0
_IDS_PER_QUESTION = 500  # they stand in the address, which proxies limit to 8 kB
_CHECK_TIMEOUT_S = 2.0
_CHECK_IS_FRESH_S = 60.0
_LOOK_IS_FRESH_S = 2.0
_OUTSIDE_IS_FRESH_S = 60.0
_OUTSIDE_TIMEOUT_S = 5.0
# What `/setup` brings from a Label Studio that doesn't know its own address.
_UNKNOWN_HOSTNAME = "http://localhost:8080"
_RENEW_BEFORE_EXPIRY_S = 30.0
_FAILURE_IS_FRESH_S = 5.0
_WHO_AM_I = "/api/current-user/whoami"
_HEALTH = "/health"
_REFRESH = "/api/token/refresh/"
_MAX_CONNECTIONS = 1000
_MAX_ANSWER_BYTES = 64_000_000
_PIECE_BYTES = 1 << 16
_HEAD_BYTES = 4096
_REFUSALS = frozenset({400, 401, 403})
_UNAUTHORIZED = frozenset({401, 403})
_SUCCESSES = frozenset({200, 201, 204})
_REJECTIONS = frozenset({400, 413})  # 413: a proxy in between has a limit of its own


class StudioError(UserError):
    """Label Studio isn't there or refuses our token; the message says what to do, `kind` is its name in metrics.

    `reason` is what Label Studio itself says of it, where it says anything; `trouble` is the message in its two parts,
    where it has them.
    """

    kind = FailureKind.LABEL_STUDIO

    def __init__(self, message: str | Trouble, reason: str = "") -> None:
        super().__init__(str(message))
        self.trouble = message if isinstance(message, Trouble) else None
        self.reason = reason


class StudioUnreachedError(StudioError):
    """No connection to Label Studio came about, so that nothing of what was to be sent arrived."""


class StudioRefusedError(StudioError):
    """Label Studio doesn't let this token do that, or has no such project."""


class StudioMissingError(StudioRefusedError):
    """Label Studio has no such thing, or shows it to others only."""


class StudioRejectedError(StudioError):
    """Label Studio finds fault with what it was sent."""


class StudioTimeout(requests.Timeout):
    """Label Studio doesn't answer in time; the message says so without what was asked."""


@dataclass(frozen=True)
class _Answer:
    """What Label Studio, or whoever is there, answers; a body that is no JSON is None."""

    status_code: int
    headers: Mapping[str, str]
    json: Any
    head: bytes

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object that was answered, an empty one where it is none."""
        return self.json if isinstance(self.json, dict) else {}


class Studio:
    """One Label Studio and one token; safe to share between threads.

    A Personal Access Token is exchanged for access tokens of five minutes, a legacy token goes as it is. The SDK's
    client does the exchange too, but only for its own requests, and it drops a path prefix while it does.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        set_by: str = "LABEL_STUDIO_API_KEY",
        outside_url: str | None = None,
        introduced_as: str | None = None,
        connections: Connections | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._connections = connections or Connections()
        self._outside_url = outside_url
        self._introduced_as = introduced_as
        self._asking_outside = threading.Lock()
        self._asked_outside_at = float("-inf")
        self._set_by = set_by
        self._token = token
        self._is_personal = bool(token and claims_of(token))
        self._access_token: str | None = None
        self._access_expires_at = 0.0
        self._exchanging = threading.Lock()
        self._exchange_failed_at = float("-inf")
        self._exchange_failure: Exception | None = None
        self._checking = threading.Lock()
        self._checked_at = float("-inf")
        self._check_failure: StudioError | None = None
        self._looking = threading.Lock()
        self._looked_at = float("-inf")
        self._is_away = False

    def __repr__(self) -> str:
        return f"Studio({self.url!r})"

    @property
    def token(self) -> str | None:
        """The token as it was configured."""
        return self._token

    @property
    def has_personal_token(self) -> bool:
        """Is the token a Personal Access Token?"""
        return self._is_personal

    @property
    def known_outside_url(self) -> str | None:
        """Its address in a browser, as far as that is known without asking."""
        return self._outside_url or self._introduced_as

    def outside_url(self) -> str | None:
        """Its address in a browser, None where nobody knows: as it was set, as Label Studio says, or as `/setup` said.

        It is a name only: nothing is asked of that address, and no token goes there.
        """
        if not self._asking_outside.acquire(blocking=self._asked_outside_at == float("-inf")):
            return self.known_outside_url  # another thread is asking anew
        try:
            is_fresh = time.monotonic() - self._asked_outside_at < _OUTSIDE_IS_FRESH_S
            if self._outside_url is None and self._token and not is_fresh:
                try:
                    self._outside_url = self._ask_outside_url()
                    self._introduced_as = None  # Label Studio itself knows better
                except (StudioError, requests.Timeout) as error:
                    log.info("Label Studio at %s doesn't tell its address in a browser: %s", self.url, error)
                self._asked_outside_at = time.monotonic()
            return self.known_outside_url
        finally:
            self._asking_outside.release()

    def authorization(self, *, renew: bool = False) -> str | None:
        """What to send as `Authorization`, None without a token.

        Raises StudioError where a Personal Access Token can't be exchanged, requests.Timeout where nobody answers.
        """
        if self._token is None or not self._is_personal:
            return f"Token {self._token}" if self._token and not renew else None
        return self._bearer(time.monotonic() + _TIMEOUT_S, renew=renew)

    def must_ask(self) -> bool:
        """Returns True if `authorization` has to exchange the token first, or to wait for another thread's exchange."""
        return self._is_personal and (self._exchanging.locked() or not self._is_access_fresh())

    def check(self) -> None:
        """Ask Label Studio whether it accepts our token; a result younger than a minute is reused.

        No answer within two seconds is no failure: a Label Studio with one worker is busy with the request that made
        us ask. Raises StudioError.
        """
        ends_at = time.monotonic() + _CHECK_TIMEOUT_S
        if not self._checking.acquire(timeout=_CHECK_TIMEOUT_S):
            return
        try:
            if time.monotonic() - self._checked_at > _CHECK_IS_FRESH_S:
                self._check_failure = None
                try:
                    self._ask_who_we_are(ends_at)
                except StudioError as error:
                    self._check_failure = error
                except requests.Timeout:
                    log.info("Label Studio at %s didn't answer our question in time; going on without", self.url)
                    return
                self._checked_at = time.monotonic()
            if self._check_failure:
                raise _anew(self._check_failure)
        finally:
            self._checking.release()

    def label_config(self, project: int) -> str:
        """The project's labeling config as it is now. Raises StudioError, requests.Timeout."""
        query = {"include": "label_config"}
        return str(self.call("GET", f"/api/projects/{project}/", "label_config", _READ_TIMEOUT_S, query=query))

    def tasks_holding(
        self, project: int, model_version: str, task_ids: Sequence[int], timeout_s: float | None = None
    ) -> set[int]:
        """Which of these tasks hold a prediction of this version. Raises StudioError, requests.Timeout."""
        holding: set[int] = set()
        for start in range(0, len(task_ids), _IDS_PER_QUESTION):
            ids = list(task_ids[start : start + _IDS_PER_QUESTION])
            selection = {
                "filters": {"conjunction": "and", "items": [holds(model_version)]},
                "selectedItems": {"all": False, "included": ids},
            }
            query = {
                "project": str(project),
                "page_size": str(len(ids)),
                "include": "id",
                "resolve_uri": "false",
                "query": json.dumps(selection, separators=(",", ":")),
            }
            tasks = self.call("GET", "/api/tasks/", "tasks", timeout_s or _READ_TIMEOUT_S, query=query)
            holding.update(int(task["id"]) for task in tasks)
        return holding

    def import_predictions(self, project: int, predictions: Sequence[Mapping[str, Any]]) -> int:
        """Store predictions, each with its `task`; the number that Label Studio took.

        Raises StudioRejectedError where one of them spoils all, StudioRefusedError where the token may not do it, and
        StudioError or requests.Timeout where it isn't known whether they were stored.
        """
        path = f"/api/projects/{project}/import/predictions"
        return int(self.call("POST", path, "created", _IMPORT_TIMEOUT_S, body=predictions))

    def call(
        self,
        method: str,
        path: str,
        wanted: str | None,
        timeout_s: float,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        files: Sequence[tuple[str, tuple[str, bytes]]] | None = None,
    ) -> Any:
        """What a call of the API answers under the key `wanted`, or all of it; an ended token is renewed once.

        Raises StudioRejectedError with Label Studio's reason, StudioRefusedError, StudioError and requests.Timeout.
        """
        authorization = self.authorization()
        for renewed in (False, True):
            ends_at = time.monotonic() + timeout_s
            response = self._request(
                method, path, ends_at, authorization=authorization, query=query, body=body, files=files
            )
            if response.status_code != requests.codes.unauthorized or renewed or not self._is_personal:
                break
            authorization = self.authorization(renew=True)
        self._raise_for(response, path)
        # A login or a maintenance page in between may be a redirect, or even a 200.
        is_emptied = wanted is None and response.status_code == requests.codes.no_content
        is_as_wanted = response.json is not None if wanted is None else wanted in response.body
        if response.status_code not in _SUCCESSES or not (is_as_wanted or is_emptied):
            raise StudioError(self._strange(response, path), _detail(response))
        return response.json if wanted is None else response.body[wanted]

    def is_away(self) -> bool:
        """Does nobody answer there, or a proxy in its stead? A result younger than two seconds is reused."""
        with self._looking:
            if time.monotonic() - self._looked_at > _LOOK_IS_FRESH_S:
                try:
                    answer = self._request("GET", _HEALTH, time.monotonic() + _CHECK_TIMEOUT_S)
                    self._is_away = answer.status_code >= requests.codes.internal_server_error
                except (StudioError, requests.Timeout):
                    self._is_away = True
                self._looked_at = time.monotonic()
            return self._is_away

    def _ask_outside_url(self) -> str | None:
        """Its LABEL_STUDIO_HOST, which stands before the pictures of its templates; None where it has none."""
        templates = self.call("GET", "/api/templates", "templates", _OUTSIDE_TIMEOUT_S)
        known = templates if isinstance(templates, list) else []
        pictures = [str(template.get("image")) for template in known if isinstance(template, dict)]
        addresses = [picture.partition("/static/")[0] for picture in pictures if "/static/" in picture]
        if not addresses:
            raise StudioError("its templates have no pictures")
        return as_address(addresses[0])

    def _ask_who_we_are(self, ends_at: float) -> None:
        if self._token is None:
            response = self._request("GET", _HEALTH, ends_at)
            if trouble := explain_stranger(response, self.url, _HEALTH):
                raise StudioError(trouble)
            return
        authorization = self._bearer(ends_at) if self._is_personal else f"Token {self._token}"
        response = self._request("GET", _WHO_AM_I, ends_at, authorization=authorization)
        if response.status_code == requests.codes.unauthorized and self._is_personal:
            authorization = self._bearer(ends_at, renew=True)
            response = self._request("GET", _WHO_AM_I, ends_at, authorization=authorization)
        if response.status_code in _UNAUTHORIZED and explain_stranger(response, self.url, _WHO_AM_I) is None:
            raise StudioRefusedError(self._refusal(response))
        if response.status_code != requests.codes.ok or response.json is None:
            raise StudioError(self._strange(response, _WHO_AM_I))

    def _bearer(self, ends_at: float, *, renew: bool = False) -> str:
        """The access token, exchanged anew where it ends soon; one thread asks, and the others have its answer."""
        known = self._access_token
        if not self._exchanging.acquire(timeout=max(0.0, ends_at - time.monotonic())):
            raise self._timeout()  # of the thread that asks
        try:
            renewed_meanwhile = self._access_token is not known
            if not self._is_access_fresh() or (renew and not renewed_meanwhile):
                self._exchange(ends_at)
            return f"Bearer {self._access_token}"
        finally:
            self._exchanging.release()

    def _is_access_fresh(self) -> bool:
        return self._access_token is not None and time.time() + _RENEW_BEFORE_EXPIRY_S <= self._access_expires_at

    def _exchange(self, ends_at: float) -> None:
        started_at = time.monotonic()
        if self._exchange_failure and started_at - self._exchange_failed_at < _FAILURE_IS_FRESH_S:
            raise _anew(self._exchange_failure)
        self._exchange_failure = None
        try:
            self._access_token = self._ask_for_access(ends_at)
        except (StudioError, requests.Timeout) as error:
            # Those who wait behind us need not find out for themselves, one after the other.
            failed_at = time.monotonic()
            if isinstance(error, StudioError) or failed_at - started_at >= _TIMEOUT_S / 2:
                self._exchange_failure, self._exchange_failed_at = error, failed_at
            raise
        self._access_expires_at = float(claims_of(self._access_token).get("exp") or time.time() + 240)

    def _ask_for_access(self, ends_at: float) -> str:
        response = self._request("POST", _REFRESH, ends_at, body={"refresh": self._token})
        access = response.body.get("access") if response.status_code == requests.codes.ok else None
        if not isinstance(access, str) or not is_sendable(access):
            if response.status_code not in _REFUSALS:
                raise StudioError(self._strange(response, _REFRESH))
            is_ours = explain_stranger(response, self.url, _REFRESH) is None
            raise StudioRefusedError(self._refusal(response) if is_ours else self._strange(response, _REFRESH))
        return access

    def _request(
        self,
        method: str,
        path: str,
        ends_at: float,
        *,
        authorization: str | None = None,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        files: Sequence[tuple[str, tuple[str, bytes]]] | None = None,
    ) -> _Answer:
        def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
            if authorization:
                request.headers["Authorization"] = authorization
            return request

        request = {"params": query, "json": body, "files": files, "auth": authorize}
        try:
            with self._connections.ask(method, self.url + path, ends_at, **request) as response:
                content = _read(response, ends_at)
            return _Answer(response.status_code, response.headers, _json_of(content), content[:_HEAD_BYTES])
        except _TooLongError:
            what = f"{shortened(self.url)} answers more than {_MAX_ANSWER_BYTES // 1_000_000} MB at {path}"
            raise StudioError(Trouble(what, "are there tasks with very much in them?", lasts=True)) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            if reason_of(error) == IN_TIME:
                raise self._timeout() from None
            kind = StudioUnreachedError if is_unsent(error) else StudioError
            raise kind(explain_silence(error, self.url)) from None

    def _timeout(self) -> StudioTimeout:
        return StudioTimeout(
            f"Label Studio doesn't answer in time at {shortened(self.url)}: see that it isn't too busy, and that no "
            "firewall keeps the backend from it"
        )

    def _raise_for(self, response: _Answer, path: str) -> None:
        """Raises what an answer means that isn't what was asked for, as far as its status tells."""
        status, detail = response.status_code, _detail(response)
        stranger = explain_stranger(response, self.url, path)
        if status in _UNAUTHORIZED:
            is_about_token = status == requests.codes.unauthorized or "legacy" in detail.lower()
            ours = self._refusal(response) if is_about_token else _forbidden(detail, path)
            raise StudioRefusedError(stranger or ours, detail)
        if status == requests.codes.not_found and stranger:
            raise StudioRefusedError(stranger)
        if status == requests.codes.not_found:
            raise StudioMissingError(
                f"Label Studio shows the token's user no {_thing_at(path)}: was it deleted, or is it of another "
                "organization?",
                detail,
            )
        if status in _REJECTIONS:
            reason = "" if stranger else api_message(response.json)
            raise StudioRejectedError(stranger or f"Label Studio answers {status} at {path}: {reason}", reason)

    def _strange(self, response: _Answer, path: str) -> Trouble:
        """An answer that isn't Label Studio's, or not to what was asked."""
        if trouble := explain_stranger(response, self.url, path):
            return trouble
        status, shown = response.status_code, shortened(self.url)
        if status >= requests.codes.internal_server_error:
            return Trouble(f"Label Studio at {shown} fails with {status} at {path}", "see its log")
        return Trouble(
            f"{shown} answers {status} at {path}, and not as Label Studio does", "is LABEL_STUDIO_URL its address?"
        )

    def _refusal(self, response: _Answer) -> Trouble:
        """Why Label Studio itself refuses the token."""
        return explain_refusal(self._token, self._set_by, response.status_code, _detail(response))


@dataclass(frozen=True)
class _Introduction:
    url: str
    token: str
    hostname: str | None  # a name for Label Studio itself, which nothing is sent to


class Studios:
    """Which Label Studio a project's images come from.

    A configured key goes to the configured address only. The token that comes with `/setup` may go to the configured
    address; the hostname that comes with it is used only where no address is configured, and else as a name: a task's
    address that begins with it means Label Studio itself. These introductions are kept in memory: Label Studio repeats
    them before every Retrieve Predictions.
    """

    def __init__(self, settings: Settings) -> None:
        key = settings.label_studio_api_key
        self._url = settings.label_studio_url
        self._key = key.get_secret_value() if key else None
        self._outside_url = settings.outside_url
        self._connections = Connections()  # of all, so that there is a limit to those that are kept
        self._configured = self._studio(self._url, self._key) if self._url and key else None
        self._anonymous = self._studio(self._url, None) if self._url else None
        self._introduced: OrderedDict[str, tuple[_Introduction, Studio]] = OrderedDict()
        self._lock = threading.Lock()

    def introduce(self, project: str, hostname: str, token: str) -> None:
        """Remember what `/setup` says of a project's Label Studio."""
        token = self._key or token
        if not is_sendable(token) or not (self._url or hostname):
            return
        name = as_address(hostname) if hostname.rstrip("/") != _UNKNOWN_HOSTNAME else None
        introduction = _Introduction(self._url or hostname, token, name)
        with self._lock:
            known = self._introduced.get(project)
            if known is None or known[0] != introduction:
                self._introduced[project] = (introduction, self._introduced_studio(introduction))
            self._introduced.move_to_end(project)
            while len(self._introduced) > _MAX_CONNECTIONS:
                self._introduced.popitem(last=False)

    def _introduced_studio(self, introduction: _Introduction) -> Studio:
        """The one that projects of the same introduction share, with its access token."""
        if self._configured and (introduction.hostname is None or self._outside_url):
            return self._configured
        for known, studio in self._introduced.values():
            if known == introduction:
                return studio
        return self._studio(introduction.url, introduction.token, introduction.hostname)

    def _studio(self, url: str, token: str | None, introduced_as: str | None = None) -> Studio:
        set_by = "LABEL_STUDIO_API_KEY" + ("" if self._key else ", which is not set")
        return Studio(
            url,
            token,
            set_by=set_by,
            outside_url=self._outside_url,
            introduced_as=introduced_as,
            connections=self._connections,
        )

    def of_project(self, project: str | None) -> Studio | None:
        """The Label Studio of a project, None where nothing is configured and nobody introduced one."""
        with self._lock:
            known = self._introduced.get(project) if project else None
        return known[1] if known else self._configured or self._anonymous

    def check(self, project: str | None) -> None:
        """Check the project's Label Studio where an address is configured. Raises StudioError."""
        if self._url and (studio := self.of_project(project)):
            studio.check()


def as_address(url: str) -> str | None:
    """An address of Label Studio's, None for what can't be one."""
    try:
        return studio_address(url)
    except ValueError:
        return None


def _detail(response: _Answer) -> str:
    return str(response.body.get("detail", ""))


def _forbidden(detail: str, path: str) -> Trouble:
    said = f": {shortened(detail)}" if detail else ""
    return Trouble(
        f"Label Studio doesn't let the token's user do that (403 at {path}{said})",
        "give them the right, or take the token of another",
    )


def _thing_at(path: str) -> str:
    """What an address of the API stands for, in words."""
    found = re.match(r"/api/(project|task|prediction)s/(\d+)", path)
    return f"{found[1]} {found[2]}" if found else path


def _anew(error: Exception) -> Exception:
    """The same error once more: a traceback grows with each raise, and holds what those who met it had in hand."""
    if isinstance(error, StudioError):
        return type(error)(error.trouble or str(error), error.reason)
    return type(error)(str(error))


class _TooLongError(Exception):
    """The answer has more bytes than are read."""


def _read(response: requests.Response, ends_at: float) -> bytes:
    """The answer's body, of a bounded size and by then: the time-out of requests is for each piece."""
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
