"""The bytes of an image: over pooled connections, with limits, and with the token for Label Studio alone."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests_hardened.ip_filter import InvalidIPAddress
from requests_hardened.ip_filter_adapter import IPFilterAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from yolo_backend.images.errors import ImageError
from yolo_backend.images.sources import DEFAULT_PORTS, Inline, LocalFile, Source, origin_of

_CONNECT_TIMEOUT_S = 5.0
_READ_TIMEOUT_S = 20.0
_MAX_REDIRECTS = 5
_HOSTS_KEPT = 32
_PIECE_BYTES = 1 << 16


class TokenHolder(Protocol):
    """Label Studio as the fetcher needs it: an address, and what to send there as `Authorization`."""

    @property
    def url(self) -> str: ...

    def authorization(self, *, renew: bool = False) -> str | None: ...


class ImageFetcher:
    """Fetches images; safe to share between threads.

    Hosts on private, loopback and link-local addresses are refused, by the address that is connected to and at every
    redirect, unless they are named in `allowed_hosts` or are Label Studio's own.
    """

    def __init__(
        self, *, timeout_s: float, max_bytes: int, connections: int, allowed_hosts: frozenset[str] = frozenset()
    ) -> None:
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._allowed_hosts = allowed_hosts
        self._session = requests.Session()
        # Without an auth of its own, requests would send what a .netrc file holds for the host.
        self._session.auth = lambda request: request
        self._open = HTTPAdapter()
        self._guarded = {scheme: IPFilterAdapter(is_https_proto=scheme == "https") for scheme in ("http", "https")}
        for adapter in (self._open, *self._guarded.values()):
            adapter.init_poolmanager(_HOSTS_KEPT, connections)
            adapter.poolmanager.pool_classes_by_scheme = {"http": _TimedPool, "https": _TimedTlsPool}

    def fetch(self, source: Source, studio: TokenHolder | None) -> bytes:
        """The bytes of `source`. Raises ImageError, and StudioError where the token can't be exchanged."""
        if isinstance(source, Inline):
            return self._check_size(source.content)
        if isinstance(source, LocalFile):
            return self._read(source.path)
        try:
            return self._download(source.url, studio)
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError, UnicodeError) as error:
            raise _explain(error) from None

    def _download(self, url: str, studio: TokenHolder | None) -> bytes:
        ends_at = time.monotonic() + self._timeout_s
        for _ in range(_MAX_REDIRECTS + 1):
            with self._get(url, studio, ends_at) as response:
                if not response.is_redirect:
                    _check_status(response)
                    return self._read_body(response, ends_at)
                target = urljoin(response.url, self._session.get_redirect_target(response) or "")
            if urlsplit(target).scheme not in DEFAULT_PORTS:
                raise ImageError("unsupported", "the server redirects to something that isn't http(s)")
            if _is_studio(response.url, studio) and urlsplit(target).path.rstrip("/").endswith("/user/login"):
                raise ImageError("unauthorized", "Label Studio asks for a login: set LABEL_STUDIO_API_KEY")
            url = target
        raise ImageError("redirects", f"the server redirects more than {_MAX_REDIRECTS} times")

    def _get(self, url: str, studio: TokenHolder | None, ends_at: float) -> requests.Response:
        request = self._session.prepare_request(
            requests.Request("GET", url, headers={"Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"})
        )
        # Asked of the address as it will be connected to, and anew at every redirect.
        if not _is_studio(request.url, studio) or studio is None:
            return self._send(request, ends_at, trusted=_host(request.url) in self._allowed_hosts)
        authorization = studio.authorization()
        response = self._send(_authorized(request, authorization), ends_at, trusted=True)
        if response.status_code == 401 and (renewed := studio.authorization(renew=True)):
            response.close()
            response = self._send(_authorized(request, renewed), ends_at, trusted=True)
        return response

    def _send(self, request: requests.PreparedRequest, ends_at: float, *, trusted: bool) -> requests.Response:
        url = str(request.url)
        adapter = self._open if trusted else self._guarded[urlsplit(url).scheme]
        environment: Any = self._session.merge_environment_settings(url, {}, True, None, None)
        left_s = ends_at - time.monotonic()
        if left_s <= 0:
            raise self._too_late()
        timeout_s = (min(_CONNECT_TIMEOUT_S, left_s), min(_READ_TIMEOUT_S, left_s))
        _answer_by.ends_at = ends_at
        # Not Session.send, which reads the body of a redirect to its end, whatever its length.
        try:
            response = adapter.send(request, timeout=timeout_s, **environment)
        except requests.ConnectionError:
            if time.monotonic() > ends_at:
                raise self._too_late() from None
            raise
        if time.monotonic() > ends_at:  # headers that were hung up on look like an answer
            response.close()
            raise self._too_late()
        return response

    def _read_body(self, response: requests.Response, ends_at: float) -> bytes:
        body = bytearray()
        # Piece by piece as it arrives, so that a server that trickles meets the time limit.
        while piece := response.raw.read1(_PIECE_BYTES, decode_content=True):
            body += piece
            if len(body) > self._max_bytes:
                raise _too_large(self._max_bytes)
            if time.monotonic() > ends_at:
                raise self._too_late()
        return self._check_size(bytes(body))

    def _too_late(self) -> ImageError:
        return ImageError("timeout", f"the image didn't arrive within {self._timeout_s:g} s")

    def _read(self, path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                return self._check_size(file.read(self._max_bytes + 1))
        except OSError as error:
            raise ImageError("unreadable", f"the file can't be read: {error.strerror}") from None

    def _check_size(self, content: bytes) -> bytes:
        if not content:
            raise ImageError("empty", "the image has no bytes")
        if len(content) > self._max_bytes:
            raise _too_large(self._max_bytes)
        return content


class _AnswerBy(threading.local):
    """When the answer to this thread's request must be there, on the monotonic clock."""

    ends_at = float("inf")


_answer_by = _AnswerBy()


@contextlib.contextmanager
def _hanging_up_in_time(connection: socket.socket) -> Iterator[None]:
    # The read time-out is for each piece, so headers that drip would never meet it.
    timer = threading.Timer(max(0.0, _answer_by.ends_at - time.monotonic()), _hang_up, (connection,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _HangingUp:
    sock: socket.socket

    def getresponse(self) -> Any:
        with _hanging_up_in_time(self.sock):
            return super().getresponse()  # type: ignore[misc]  # of the connection beside us


class _TimedConnection(_HangingUp, HTTPConnection):
    pass


class _TimedTlsConnection(_HangingUp, HTTPSConnection):
    pass


class _TimedPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _TimedConnection


class _TimedTlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TimedTlsConnection


def _is_studio(url: str | None, studio: TokenHolder | None) -> bool:
    return studio is not None and url is not None and origin_of(url) == origin_of(studio.url)


def _host(url: str | None) -> str:
    return origin_of(url or "")[1]


def _authorized(request: requests.PreparedRequest, authorization: str | None) -> requests.PreparedRequest:
    copy = request.copy()
    if authorization:
        copy.headers["Authorization"] = authorization
    return copy


def _check_status(response: requests.Response) -> None:
    status = response.status_code
    if status in {401, 403}:
        raise ImageError("unauthorized", f"the server refuses access ({status})")
    if status in {404, 410}:
        raise ImageError("not_found", f"the server has no such image ({status})")
    if status != 200:
        raise ImageError("http_error", f"the server answers {status}")


def _explain(error: Exception) -> ImageError:
    text = str(error)
    if isinstance(error, InvalidIPAddress):
        return ImageError(
            "forbidden_address", "the server is on a private address: name its host in ALLOWED_IMAGE_HOSTS to trust it"
        )
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError) or "timed out" in text:
        return ImageError("timeout", "the server didn't answer in time")
    if isinstance(error, requests.exceptions.SSLError):
        return ImageError("tls", "the server's certificate can't be verified")
    if "NameResolution" in text or "getaddrinfo" in text or "resolve" in text:
        return ImageError("dns", "the server's name can't be resolved")
    if "refused" in text:
        return ImageError("unreachable", "the server refuses the connection")
    if isinstance(error, requests.ConnectionError | urllib3.exceptions.HTTPError):
        return ImageError("unreachable", "the connection failed or broke off")
    return ImageError("bad_address", f"the address can't be fetched ({type(error).__name__})")


def _too_large(max_bytes: int) -> ImageError:
    return ImageError("too_large", f"the image is larger than {max_bytes / 1e6:g} MB (MAX_IMAGE_MEGABYTES)")
