"""A running backend, seen from outside: what it says of itself, and whom it lets in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import requests
from requests.auth import AuthBase, HTTPBasicAuth

from yolo_backend.addresses import redact, shown_host
from yolo_backend.label_studio.in_between import reason_of
from yolo_backend.tls import NamingAdapter, explain_tls

_TIMEOUT_S = 5.0


class BackendError(Exception):
    """The backend isn't there or can't serve; the message says what failed, `fix` what to do."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


class BackendLoginError(BackendError):
    """The backend asks for a login, or for another one."""


class _Header(AuthBase):
    """An `Authorization` header as it is, or none: without it, requests would look for a login in a .netrc."""

    def __init__(self, authorization: str | None) -> None:
        self._authorization = authorization

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._authorization:
            request.headers["Authorization"] = self._authorization
        return request


@dataclass(frozen=True)
class RemoteBackend:
    """A backend at its address as this process reaches it, and the login that it may ask for."""

    url: str
    basic_auth: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def shown_url(self) -> str:
        """The address without a login that may stand in it."""
        return redact(self.url)

    def index(self) -> dict[str, Any]:
        """What it says of its model, its projects and its work. Raises BackendError."""
        response = self._ask("GET", "/")
        answer = _json_of(response)
        if not response.ok or "model_class" not in answer:
            leads_to = f", and leads to {shown_host(response.headers['Location'])}" if response.is_redirect else ""
            raise BackendError(
                f"what answers at {self.shown_url} ({response.status_code}) isn't this backend{leads_to}",
                "Give the backend's own address; its port is 9090 where none was chosen.",
            )
        return answer

    def setup(self, project: str, label_config: str) -> str:
        """The `model_version` that it serves a project with, told as Label Studio is. Raises BackendError."""
        response = self._ask("POST", "/setup", {"project": project, "schema": label_config})
        answer = _json_of(response)
        if not response.ok:
            raise BackendError(
                f"the backend at {self.shown_url} refuses the project: {answer.get('error') or response.reason}",
                "Do what it says; its log and its page, in a browser, tell more.",
            )
        return str(answer.get("model_version"))

    def lets_in(self, authorization: str | None) -> bool:
        """Returns True if it answers whoever sends this `Authorization` header, or none. Raises BackendError."""
        response = self._send("GET", "/", _Header(authorization))
        return bool(response.status_code != requests.codes.unauthorized)

    def _ask(self, method: str, path: str, body: Any = None) -> requests.Response:
        login = HTTPBasicAuth(*self.basic_auth) if self.basic_auth else _Header(None)
        response = self._send(method, path, login, body)
        if response.status_code == requests.codes.unauthorized:
            raise BackendLoginError(
                f"{self.shown_url} refuses the login" if self.basic_auth else f"{self.shown_url} asks for a login",
                "Set BASIC_AUTH_USER and BASIC_AUTH_PASS as the backend has them, and BACKEND_URL to its address.",
            )
        return response

    def _send(self, method: str, path: str, auth: AuthBase, body: Any = None) -> requests.Response:
        try:
            with requests.Session() as session:
                session.trust_env = self.url.startswith("https:")  # a proxy would read the login
                session.mount("https://", NamingAdapter())
                return session.request(
                    method,
                    self.url.rstrip("/") + path,
                    json=body,
                    auth=auth,
                    timeout=_TIMEOUT_S,
                    allow_redirects=False,
                )
        except (requests.RequestException, ValueError, OSError) as error:
            if trouble := explain_tls(error, self.shown_url):
                raise BackendError(trouble.what, f"{trouble.fix[0].upper()}{trouble.fix[1:]}.") from None
            is_address = isinstance(error, requests.RequestException | OSError) and not isinstance(error, ValueError)
            reason = reason_of(error) if is_address else "that is no address"
            raise BackendError(
                f"no backend answers at {self.shown_url} ({reason})",
                "Start it, or correct the address. In a container, localhost is the container itself.",
            ) from None


def _json_of(response: requests.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
