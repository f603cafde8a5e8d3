"""The bytes of an image: over pooled connections, with limits, and with the token for Label Studio alone."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidHeader, InvalidProxyURL, InvalidSchema, ProxyError, SSLError
from requests.utils import default_user_agent
from requests_hardened.ip_filter import InvalidIPAddress

from yolo_backend.images.connections import Alarm, make_adapters
from yolo_backend.images.errors import ImageError
from yolo_backend.images.local_files import open_below
from yolo_backend.images.sources import DEFAULT_PORTS, Inline, LocalFile, Source, is_same_origin, origin_of
from yolo_backend.images.versions import Validators, Version, read_stamp, read_validators

_CONNECT_TIMEOUT_S = 5.0
_READ_TIMEOUT_S = 20.0
_MAX_REDIRECTS = 5
_PIECE_BYTES = 1 << 16
_ORIGINS_KEPT = 1000
_HEADERS = {"User-Agent": default_user_agent(), "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}


class TokenHolder(Protocol):
    """Label Studio as the fetcher needs it: an address, and what to send there as `Authorization`."""

    @property
    def url(self) -> str: ...

    def authorization(self, *, renew: bool = False) -> str | None: ...


@dataclass(frozen=True)
class Fetched:
    """An image's bytes, and what tells later whether they changed; empty where they haven't, for no image is empty."""

    content: bytes
    version: Version | None = None


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
        self._open, self._guarded = make_adapters(connections)
        self._environments: dict[str, Any] = {}

    def fetch(self, source: Source, studio: TokenHolder | None, known: Version | None = None) -> Fetched:
        """The bytes of `source`, unless they are those of the version `known`.

        Raises ImageError, and StudioError where the token can't be exchanged.
        """
        if isinstance(source, Inline):
            return Fetched(self._check_size(source.content))
        if isinstance(source, LocalFile):
            return self._read(source, known)
        try:
            return self._fetch(source.url, studio, known if isinstance(known, Validators) else None)
        except ImageError as error:
            raise (source.remark.explain(error) if source.remark else error) from None

    def _fetch(self, url: str, studio: TokenHolder | None, validators: Validators | None) -> Fetched:
        with Alarm(self._timeout_s) as alarm:
            try:
                return self._download(url, studio, alarm, validators)
            except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
                alarm.left_s()
                raise _explain(error) from None

    def _download(self, url: str, studio: TokenHolder | None, alarm: Alarm, validators: Validators | None) -> Fetched:
        for _ in range(_MAX_REDIRECTS + 1):
            with self._get(url, studio, alarm, validators) as response:
                if validators and _says_unchanged(response, validators):
                    response.raw.read1(1)  # nothing, but then the connection can be used again
                    return Fetched(b"", validators)
                if not response.is_redirect:
                    _check_status(response)
                    version = read_validators(response.headers, response.url)
                    return Fetched(self._read_body(response, alarm), version)
                target = urljoin(response.url, self._session.get_redirect_target(response) or "")
            if urlsplit(target).scheme not in DEFAULT_PORTS:
                raise ImageError("unsupported", "the server redirects to something that isn't http(s)")
            if _is_studio(response.url, studio) and urlsplit(target).path.rstrip("/").endswith("/user/login"):
                raise ImageError("unauthorized", "Label Studio asks for a login: set LABEL_STUDIO_API_KEY")
            url = target
        raise ImageError("redirects", f"the server redirects more than {_MAX_REDIRECTS} times")

    def _get(
        self, url: str, studio: TokenHolder | None, alarm: Alarm, validators: Validators | None
    ) -> requests.Response:
        # Not Session.prepare_request, which looks for cookies, a .netrc and more that is never there.
        request = requests.PreparedRequest()
        request.prepare("GET", url, headers=_HEADERS, auth=_no_auth)
        if validators:
            request.headers.update(validators.headers_for(str(request.url)))
        # Asked of the address as it will be connected to, and anew at every redirect.
        if not _is_studio(request.url, studio) or studio is None:
            adapter = self._open if _host(request.url) in self._allowed_hosts else self._guarded[_scheme(request.url)]
            return self._send(request, adapter, alarm)
        authorization = studio.authorization()
        response = self._send(_authorized(request, authorization), self._open, alarm, is_studio=True)
        if response.status_code == 401 and (renewed := studio.authorization(renew=True)):
            response.close()
            response = self._send(_authorized(request, renewed), self._open, alarm, is_studio=True)
        return response

    def _send(
        self, request: requests.PreparedRequest, adapter: HTTPAdapter, alarm: Alarm, *, is_studio: bool = False
    ) -> requests.Response:
        scheme, host, port = origin_of(str(request.url))
        environment = self._environment(scheme, host, port)
        if is_studio and scheme == "http":
            environment["proxies"] = {}  # a proxy would read the token
        left_s = alarm.left_s()
        timeout_s = (min(_CONNECT_TIMEOUT_S, left_s), min(_READ_TIMEOUT_S, left_s))
        # Not Session.send, which reads the body of a redirect to its end, whatever its length.
        response = adapter.send(request, timeout=timeout_s, **environment)
        try:
            alarm.left_s()  # headers that were hung up on look like an answer
        except ImageError:
            response.close()
            raise
        return response

    def _environment(self, scheme: str, host: str, port: int | None) -> dict[str, Any]:
        """What the environment says of proxies and certificates for this origin; requests reads all of it each time."""
        origin = f"{scheme}://{host}:{port}"
        known = self._environments.get(origin)
        if known is None:
            if len(self._environments) >= _ORIGINS_KEPT:
                self._environments.clear()
            known = self._session.merge_environment_settings(origin, {}, True, None, None)
            self._environments[origin] = known
        return dict(known)

    def _read_body(self, response: requests.Response, alarm: Alarm) -> bytes:
        body = io.BytesIO()
        # Piece by piece as it arrives, so that a server that trickles meets the time limit.
        while piece := response.raw.read1(_PIECE_BYTES, decode_content=True):
            body.write(piece)
            if body.tell() > self._max_bytes:
                raise _too_large(self._max_bytes)
            alarm.left_s()
        alarm.left_s()  # a body that was hung up on looks like a whole one
        return self._check_size(body.getvalue())

    def _read(self, source: LocalFile, known: Version | None) -> Fetched:
        try:
            with open_below(source.root, source.name) as file:
                stamp = read_stamp(os.fstat(file.fileno()))  # before reading, for it may be written meanwhile
                if stamp is not None and stamp == known:
                    return Fetched(b"", stamp)
                return Fetched(self._check_size(file.read(self._max_bytes + 1)), stamp)
        except OSError as error:
            raise ImageError("unreadable", f"the file can't be read: {error.strerror}") from None

    def _check_size(self, content: bytes) -> bytes:
        if not content:
            raise ImageError("empty", "the image has no bytes")
        if len(content) > self._max_bytes:
            raise _too_large(self._max_bytes)
        return content


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Without an auth, requests would send the login that stands in an address."""
    return request


def _is_studio(url: str | None, studio: TokenHolder | None) -> bool:
    return studio is not None and url is not None and is_same_origin(url, studio.url)


def _scheme(url: str | None) -> str:
    return origin_of(url or "")[0]


def _host(url: str | None) -> str:
    return origin_of(url or "")[1]


def _authorized(request: requests.PreparedRequest, authorization: str | None) -> requests.PreparedRequest:
    copy = request.copy()
    if authorization:
        copy.headers["Authorization"] = authorization
    return copy


def _says_unchanged(response: requests.Response, validators: Validators) -> bool:
    """Is this the answer to our conditional header, which not every server on the way got?"""
    return response.status_code == requests.codes.not_modified and validators.header in response.request.headers


def _check_status(response: requests.Response) -> None:
    status = response.status_code
    if status in {401, 403}:
        raise ImageError("unauthorized", f"the server refuses access ({status})", status)
    if status in {404, 410}:
        raise ImageError("not_found", f"the server has no such image ({status})", status)
    if status != 200:
        raise ImageError("http_error", f"the server answers {status}", status)


# By what is wrapped in an error, the first that fits; not by its text, which holds the address.
_EXPLANATIONS: tuple[tuple[tuple[type[BaseException], ...], str, str], ...] = (
    (
        (InvalidIPAddress,),
        "forbidden_address",
        "the server is on a private address: name its host in ALLOWED_IMAGE_HOSTS to trust it",
    ),
    (
        (ProxyError, InvalidProxyURL, InvalidSchema),
        "proxy",
        "the proxy doesn't pass this on: check HTTP_PROXY, HTTPS_PROXY and NO_PROXY",
    ),
    ((SSLError, urllib3.exceptions.SSLError), "tls", "the server's certificate can't be verified"),
    ((socket.gaierror,), "dns", "the server's name can't be resolved"),
    ((ConnectionRefusedError,), "unreachable", "the server refuses the connection"),
    ((urllib3.exceptions.NewConnectionError,), "unreachable", "there is no way to the server"),
    # After the line above, whose error is a time-out by its class alone.
    ((requests.Timeout, urllib3.exceptions.TimeoutError), "timeout", "the server didn't answer in time"),
    ((InvalidHeader, urllib3.exceptions.DecodeError), "http_error", "the server's answer isn't proper HTTP"),
    ((urllib3.exceptions.LocationValueError,), "bad_address", "the address, or the proxy's, can't be read"),
    ((requests.ConnectionError, urllib3.exceptions.HTTPError), "unreachable", "the connection failed or broke off"),
)


def _explain(error: Exception) -> ImageError:
    causes = list(_causes(error))
    for types, kind, message in _EXPLANATIONS:
        if any(isinstance(cause, types) for cause in causes):
            return ImageError(kind, message)
    return ImageError("bad_address", f"the address can't be fetched ({type(error).__name__})")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it wraps: requests wraps urllib3's errors, which wrap the system's."""
    yield error
    for wrapped in (*error.args, getattr(error, "reason", None), error.__cause__):
        if isinstance(wrapped, BaseException):
            yield from _causes(wrapped)


def _too_large(max_bytes: int) -> ImageError:
    return ImageError("too_large", f"the image is larger than {max_bytes / 1e6:g} MB (MAX_IMAGE_MEGABYTES)")
