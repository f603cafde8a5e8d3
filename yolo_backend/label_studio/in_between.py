"""What answers in Label Studio's place, such as a proxy with its login, or why nothing does; and what to do."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from yolo_backend.addresses import is_same_origin
from yolo_backend.messages import Trouble, causes_of, shortened
from yolo_backend.tls import explain_tls

# Why there is no answer.
REFUSED, UNKNOWN_HOST, BROKEN_OFF = "connection refused", "unknown host name", "the connection broke off"
PROXY, IN_TIME, NO_WAY, NO_HTTP = "the proxy doesn't pass it on", "not in time", "no way to it", "no proper HTTP"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
IN_A_CONTAINER = "in a container, localhost is the container itself: use host.docker.internal or the service's name"

_MAX_ADDRESS = 100  # if the address is to be set; of others, less is enough
_MAX_SHOWN = 48
_MAX_TITLE = 30
_AROUND = "let the backend through, or set LABEL_STUDIO_URL to an address that goes around it"
_FIRST_PAGE = "set LABEL_STUDIO_URL to the address of Label Studio's first page"
_LOGIN = re.compile(r"log-?in|log-?on|sign_?-?in|oauth|sso|saml|openid|oidc|authorize|cdn-cgi/access|\bauth\b|\bidp\b")
_HOST = re.compile(r"[\w.-]+|[0-9a-f:.]+", re.ASCII)
_TITLE = re.compile(rb"<title[^>]*>([^<]{1,200})</title", re.IGNORECASE)
_HTTPS_ONLY = (b"plain http request was sent to https", b"http request to an https server", b"plain http to an ssl")


class Answer(Protocol):
    """An HTTP answer. `json` is None if the body is no JSON, and `head` is the body's beginning."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def json(self) -> Any: ...
    @property
    def head(self) -> bytes: ...


def explain_stranger(answer: Answer, url: str, path: str) -> Trouble | None:
    """What answered `path` below Label Studio's address `url`; None if it may be Label Studio itself.

    Of a redirect's address it tells only scheme, host, port and the path before `path`.
    """
    status, shown = answer.status_code, shortened(url, _MAX_SHOWN)
    if isinstance(answer.json, dict) and "detail" in answer.json:  # this is how Label Studio says what is wrong
        return None
    if 300 <= status < 400:
        return _explain_redirect(answer, url, path)
    if status == 413:
        return Trouble(
            f"A proxy in front of Label Studio takes no request of this size (413 at {shown})",
            "raise its limit, which nginx calls client_max_body_size",
        )
    if status == 400 and any(words in answer.head.lower() for words in _HTTPS_ONLY):
        https = shortened("https" + url.removeprefix("http"), _MAX_ADDRESS)
        return Trouble(f"{shown} wants https", f"set LABEL_STUDIO_URL to {https}", lasts=True)
    if status in {401, 407}:
        return Trouble(f"A proxy in front of Label Studio at {shown} asks for a login ({status})", _AROUND, lasts=True)
    if answer.json is not None and (status < 400 or status in {400, 422}):
        return None
    for statuses, what, fix in _BY_STATUS:
        if status in statuses:
            return Trouble(what.format(url=shown, status=status, page=_page(answer)), fix)
    return Trouble(f"{shown} answers {status}, and not as Label Studio does", _FIRST_PAGE)


# Statuses of others than Label Studio, what they mean, and what to do.
_BY_STATUS: tuple[tuple[range | set[int], str, str], ...] = (
    (
        range(200, 300),
        "{url} answers with a web page{page}, and not as Label Studio does",
        f"{_FIRST_PAGE}, not of a login",
    ),
    (
        {400, 421},
        "{url} answers {status}, and not as Label Studio does",
        "see that Label Studio's ALLOWED_HOSTS and the proxy before it take this host name",
    ),
    ({403, 451}, "A proxy in front of Label Studio at {url} refuses the backend ({status}{page})", _AROUND),
    (
        {404, 405, 410},
        "{url} isn't Label Studio's address ({status})",
        f"{_FIRST_PAGE}, with its path, as in https://host/label-studio",
    ),
    ({408, 429}, "A proxy in front of Label Studio at {url} wants fewer requests ({status})", "raise its limit"),
    ({500}, "{url} answers 500", "see the logs of Label Studio and of a proxy before it"),
    ({502}, "{url} answers 502", "the proxy there can't reach Label Studio: see that it runs, then the proxy's log"),
    ({503}, "{url} answers 503", "Label Studio is starting, or stopped: see that it runs, then the proxy's log"),
    (
        {504},
        "{url} answers 504",
        "Label Studio takes longer than the proxy before it waits: see its log, or raise the proxy's time-out",
    ),
    (
        range(520, 531),  # Cloudflare's
        "{url} answers {status}",
        "the proxy there can't reach Label Studio: see that it runs, then the proxy's log",
    ),
)


def _explain_redirect(answer: Answer, url: str, path: str) -> Trouble | None:
    shown, own = shortened(url, _MAX_SHOWN), urlsplit(url)
    try:
        target = urljoin(url + path, answer.headers.get("Location") or "nowhere:")
        parts = urlsplit(target)
        host = (parts.hostname or "").lower()
        address = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{f':{parts.port}' if parts.port else ''}"
    except ValueError:
        target, parts, host, address = "", own, "", ""
    if not _HOST.fullmatch(host) or parts.scheme not in {"http", "https"}:
        return Trouble(f"{shown} answers a redirect to nowhere", _FIRST_PAGE)
    asked, found = path.partition("?")[0].rstrip("/"), parts.path.rstrip("/")
    is_same_host = host == (own.hostname or "").lower()
    if found.endswith(asked):
        prefix = found.removesuffix(asked)
        is_here = is_same_origin(target, url) and prefix == own.path  # but for a slash at the end
        return None if is_here else _moved(shown, address + prefix)
    if is_same_host and found.endswith("/user/login"):
        return Trouble(f"{shown} leads to a login page, and not to Label Studio's API", _FIRST_PAGE)
    if _LOGIN.search(f"{host}{found}".lower()):
        return Trouble(
            f"A proxy in front of Label Studio asks for a login (it leads to {shortened(host, _MAX_SHOWN)})",
            _AROUND,
            lasts=True,
        )
    if not is_same_host and (found or parts.query):  # another kind of login, or a temporary page
        return Trouble(f"{shown} leads to {shortened(host, _MAX_SHOWN)}, and not to Label Studio's API", _AROUND)
    if not is_same_origin(target, url):
        return _moved(shown, address + (own.path if is_same_host else ""))
    return Trouble(f"{shown} leads to another page there", f"{_FIRST_PAGE}, with the path that it may have")


def _moved(shown: str, address: str) -> Trouble:
    return Trouble(
        f"{shown} answers a redirect to {shortened(address, _MAX_ADDRESS)}", "set LABEL_STUDIO_URL to that", lasts=True
    )


def _page(answer: Answer) -> str:
    found = _TITLE.search(answer.head)
    title = shortened(found[1].decode(errors="replace"), _MAX_TITLE) if found else ""
    return f' "{title}"' if title else ""


def explain_silence(error: BaseException, url: str) -> Trouble:
    """Why nothing answers at Label Studio's address `url`, by the error that requests raises."""
    shown, host = shortened(url, _MAX_SHOWN), urlsplit(url).hostname or ""
    reason = reason_of(error)
    if reason == PROXY:
        scheme = urlsplit(url).scheme.upper()
        return Trouble(
            f"Label Studio doesn't answer at {shown} ({reason})",
            f"correct {scheme}_PROXY, or name {shortened(host, _MAX_SHOWN)} in NO_PROXY",
        )
    if trouble := explain_tls(error, f"Label Studio at {shown}", "LABEL_STUDIO_URL"):
        return trouble._replace(what=trouble.what[0].upper() + trouble.what[1:])
    fix = "start it, or correct LABEL_STUDIO_URL"
    if reason == REFUSED and host in LOOPBACK:
        fix += "; " + IN_A_CONTAINER
    elif reason == UNKNOWN_HOST:
        fix = "correct LABEL_STUDIO_URL: it should be the address as the backend's machine or container reaches it"
    elif reason == BROKEN_OFF:
        https = ", or write https:// where it wants that" if url.startswith("http:") else ""
        fix = f"see its log, and that LABEL_STUDIO_URL is its address{https}"
    return Trouble(f"Label Studio doesn't answer at {shown} ({reason})", fix)


# The first line with an error that is wrapped in ours counts. The text doesn't, because it may hold a whole address.
_REASONS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((requests.exceptions.ProxyError, requests.exceptions.InvalidProxyURL, requests.exceptions.InvalidSchema), PROXY),
    ((ConnectionRefusedError,), REFUSED),
    ((socket.gaierror, urllib3.exceptions.NameResolutionError), UNKNOWN_HOST),
    ((urllib3.exceptions.NewConnectionError,), NO_WAY),  # its class says that it is a time-out, but it is none
    ((requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError), IN_TIME),
    ((requests.ConnectionError, urllib3.exceptions.ProtocolError, ConnectionError), BROKEN_OFF),
    ((requests.RequestException, urllib3.exceptions.HTTPError), NO_HTTP),
)


def is_unsent(error: BaseException) -> bool:
    """Returns True if there was no connection, so that nothing was sent."""
    return any(isinstance(cause, urllib3.exceptions.NewConnectionError) for cause in causes_of(error))


def reason_of(error: BaseException) -> str:
    """Why there is no answer, in some words; TLS is for `explain_tls`."""
    causes = list(causes_of(error))
    return next((words for types, words in _REASONS if any(isinstance(one, types) for one in causes)), NO_WAY)
