"""The bytes of an image: over pooled connections, with limits, and with the token for Label Studio alone."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import default_user_agent, select_proxy

from yolo_backend.addresses import DEFAULT_PORTS, is_same_origin, origin_of, shown_host
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.images.connections import make_adapters
from yolo_backend.images.errors import HungUpError, ImageError
from yolo_backend.images.explaining import allowing, explain_error
from yolo_backend.images.line import Alarm, Line
from yolo_backend.images.local_files import open_below, reason_of
from yolo_backend.images.sources import Inline, LocalFile, Source, Upload
from yolo_backend.images.versions import Validators, Version, read_stamp, read_validators
from yolo_backend.kept_connections import was_closed_meanwhile

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 5.0
_READ_TIMEOUT_S = 20.0
_MAX_REDIRECTS = 5
_PIECE_BYTES = 1 << 16
_ORIGINS_KEPT = 1000
_LOGINS_OF_PROXIES = frozenset({"basic", "digest", "negotiate", "ntlm"})  # Label Studio has none of these
_HEADERS = {"User-Agent": default_user_agent(), "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}


class TokenHolder(Protocol):
    """Label Studio as the fetcher needs it: an address, and what to send there as `Authorization`."""

    @property
    def url(self) -> str: ...

    def authorization(self, *, renew: bool = False) -> str | None: ...

    def must_ask(self) -> bool:
        """Returns True if `authorization` has to ask Label Studio first, or to wait for another thread that asks."""


@dataclass(frozen=True)
class Fetched:
    """An image's bytes, and what tells later whether they changed. Without bytes, they haven't changed."""

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
        self._reasons_told: set[str] = set()  # why uploads can't be read from the disk

    def fetch(
        self,
        source: Source,
        studio: TokenHolder | None,
        known: Version | None = None,
        line: Line | None = None,
    ) -> Fetched:
        """The bytes of `source`, unless they are those of the version `known`.

        Raises ImageError, StudioError if the token can't be exchanged, and HungUpError once `line` is hung up.
        """
        if line is not None and line.is_hung_up:
            raise HungUpError("nobody waits for this image any more")
        if isinstance(source, Inline):
            return Fetched(self._check_size(source.content))
        if isinstance(source, LocalFile):
            return self._read_local(source, known)
        if isinstance(source, Upload):
            if fetched := self._read_upload(source, known):
                if line is not None and line.on_host is not None:
                    line.on_host(source.pseudo_host)
                return fetched
            source = source.remote
        try:
            return self._fetch(source.url, studio, known if isinstance(known, Validators) else None, line)
        except ImageError as error:
            raise (source.remark.explain(error) if source.remark else error) from None

    def _fetch(
        self, first_url: str, studio: TokenHolder | None, validators: Validators | None, line: Line | None
    ) -> Fetched:
        url = first_url
        with Alarm(self._timeout_s, line) as alarm:
            for _ in range(_MAX_REDIRECTS + 1):
                try:
                    fetched = self._download(url, studio, alarm, validators)
                except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError, OSError) as error:
                    alarm.left_s()
                    raise self._explain(error, url, studio) from None
                if isinstance(fetched, Fetched):
                    return fetched
                url = fetched
        raise ImageError(FailureKind.REDIRECTS, f"{shown_host(first_url)} redirects more than {_MAX_REDIRECTS} times")

    def _download(
        self, url: str, studio: TokenHolder | None, alarm: Alarm, validators: Validators | None
    ) -> Fetched | str:
        """The image, or the address that its server redirects to."""
        with self._get(url, studio, alarm, validators) as response:
            if validators and _says_unchanged(response, validators):
                response.raw.read1(1)  # there is nothing to read, but now the connection can be used again
                return Fetched(b"", validators)
            if not response.is_redirect:
                _check_status(response, is_studio=_is_studio(response.url, studio))
                version = read_validators(response.headers, response.url)
                return Fetched(self._read_body(response, alarm), version)
            target = urljoin(response.url, self._session.get_redirect_target(response) or "")
        if urlsplit(target).scheme not in DEFAULT_PORTS:
            raise ImageError(FailureKind.UNSUPPORTED, f"{shown_host(url)} redirects to something that isn't http(s)")
        if _is_studio(response.url, studio) and urlsplit(target).path.rstrip("/").endswith("/user/login"):
            raise ImageError(FailureKind.UNAUTHORIZED, "Label Studio asks for a login: set LABEL_STUDIO_API_KEY")
        return target

    def _explain(self, error: Exception, url: str, studio: TokenHolder | None) -> ImageError:
        """What went wrong on the way to this address. Only its host is told."""
        host = shown_host(url)
        explained = explain_error(error, host)
        if explained.kind == FailureKind.FORBIDDEN_ADDRESS:
            value = allowing(self._allowed_hosts, _host(url))
            return ImageError(explained.kind, f"{host} is on a private address: to trust it, set {value}")
        if explained.kind == FailureKind.DNS and not _is_studio(url, studio) and self._goes_by_proxy(url):
            value = allowing(self._allowed_hosts, _host(url))
            return ImageError(explained.kind, f"{explained}; if the proxy can, set {value}, and the proxy looks it up")
        return explained

    def _goes_by_proxy(self, url: str) -> bool:
        """Returns True if there is a proxy for this address, by HTTP_PROXY, HTTPS_PROXY and NO_PROXY."""
        return bool(select_proxy(url, self._environment(*origin_of(url))["proxies"]))

    def _get(
        self, url: str, studio: TokenHolder | None, alarm: Alarm, validators: Validators | None
    ) -> requests.Response:
        alarm.left_s()
        # Session.prepare_request would look for cookies, a .netrc and more, which we never have.
        request = requests.PreparedRequest()
        request.prepare("GET", url, headers=_HEADERS, auth=_no_auth)
        if validators:
            request.headers.update(validators.headers_for(str(request.url)))
        # Whose address this is, is decided as requests will connect to it, and anew at every redirect.
        origin = origin_of(str(request.url))
        if alarm.line.on_host is not None:
            alarm.line.on_host(_host_and_port(*origin))
        if not _is_studio(request.url, studio) or studio is None:
            scheme, host, _ = origin
            adapter = self._open if host in self._allowed_hosts else self._guarded[scheme]
            return self._send(request, adapter, alarm, self._environment(*origin))
        environment = self._environment(*origin)
        if origin[0] == "http":
            environment["proxies"] = {}  # a proxy would read the token
        authorization = _authorization(studio, alarm)
        response = self._send(_authorized(request, authorization), self._open, alarm, environment)
        if response.status_code == 401 and (renewed := _authorization(studio, alarm, renew=True)):
            response.close()
            response = self._send(_authorized(request, renewed), self._open, alarm, environment)
        return response

    def _send(
        self, request: requests.PreparedRequest, adapter: HTTPAdapter, alarm: Alarm, environment: Mapping[str, Any]
    ) -> requests.Response:
        while True:
            left_s = alarm.left_s()
            timeout_s = (min(_CONNECT_TIMEOUT_S, left_s), min(_READ_TIMEOUT_S, left_s))
            try:
                # Session.send would read the whole body of a redirect, however long it is.
                response = adapter.send(request, timeout=timeout_s, **environment)
                break
            except requests.ConnectionError as error:
                # This kept connection is gone now. After the last of them, a new one is made.
                if not was_closed_meanwhile(error):
                    raise
        try:
            alarm.left_s()  # headers that were hung up on look like an answer
        except (ImageError, HungUpError):
            response.close()
            raise
        return response

    def _environment(self, scheme: str, host: str, port: int | None) -> dict[str, Any]:
        """What the environment says of proxies and certificates for this origin. requests would read it each time."""
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
        # We read each piece as it arrives, so that the time limit holds for a slow server, too.
        while piece := response.raw.read1(_PIECE_BYTES, decode_content=True):
            body.write(piece)
            if body.tell() > self._max_bytes:
                raise _too_large(self._max_bytes)
            alarm.left_s()
        alarm.left_s()  # a body that was hung up on looks like a whole one
        return self._check_size(body.getvalue())

    def _read_local(self, source: LocalFile, known: Version | None) -> Fetched:
        try:
            return self._read(source, known)
        except (OSError, ValueError) as error:
            raise ImageError(FailureKind.UNREADABLE, f"the file can't be read: {reason_of(error)}") from None

    def _read_upload(self, source: Upload, known: Version | None) -> Fetched | None:
        """The upload's bytes; None if they can't be read, because then Label Studio is asked."""
        try:
            return self._read(source, known)
        except (OSError, ValueError) as error:
            reason = reason_of(error)
            if reason not in self._reasons_told:  # only once, because each task may have such an upload
                self._reasons_told.add(reason)
                log.warning(
                    "An upload can't be read below LABEL_STUDIO_MEDIA_ROOT (%s), so Label Studio is asked for it. This "
                    "is said once for each cause; `yolo-backend check` tries one upload",
                    reason,
                )
            return None

    def _read(self, source: LocalFile | Upload, known: Version | None) -> Fetched:
        """The bytes of a file. Raises OSError, and ImageError if there are none or too many."""
        with open_below(source.root, source.name) as file:
            stat = os.fstat(file.fileno())
            stamp = read_stamp(stat)  # before reading, because somebody may write meanwhile
            if stamp is not None and stamp == known:
                return Fetched(b"", stamp)
            size = min(stat.st_size, self._max_bytes)  # because reading up to the limit would allocate as much at first
            content = file.read(size + 1)
            if len(content) > size:
                content += file.read(self._max_bytes + 1 - len(content))
            return Fetched(self._check_size(content), stamp)

    def _check_size(self, content: bytes) -> bytes:
        if not content:
            raise ImageError(FailureKind.EMPTY, "the image has no bytes")
        if len(content) > self._max_bytes:
            raise _too_large(self._max_bytes)
        return content


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """If there is no auth, requests sends the login that stands in an address."""
    return request


def _is_studio(url: str | None, studio: TokenHolder | None) -> bool:
    return studio is not None and url is not None and is_same_origin(url, studio.url)


def _host(url: str | None) -> str:
    return origin_of(url or "")[1]


def _host_and_port(scheme: str, host: str, port: int | None) -> str:
    return host if port in {None, DEFAULT_PORTS.get(scheme)} else f"{host}:{port}"


def _authorization(studio: TokenHolder, alarm: Alarm, *, renew: bool = False) -> str | None:
    if renew or studio.must_ask():
        return alarm.wait_for(lambda: studio.authorization(renew=renew))
    return studio.authorization()


def _authorized(request: requests.PreparedRequest, authorization: str | None) -> requests.PreparedRequest:
    copy = request.copy()
    if authorization:
        copy.headers["Authorization"] = authorization
    return copy


def _says_unchanged(response: requests.Response, validators: Validators) -> bool:
    """Returns True if this is the answer to our conditional header, which not every server on the way got."""
    return response.status_code == requests.codes.not_modified and validators.header in response.request.headers


def _check_status(response: requests.Response, *, is_studio: bool) -> None:
    status, host = response.status_code, shown_host(response.url)
    if status in {401, 403}:
        asks = response.headers.get("WWW-Authenticate", "").partition(" ")[0].lower()
        if is_studio and asks in _LOGINS_OF_PROXIES:
            reason = f"a proxy in front of Label Studio asks for a login ({status} of {host})"
            raise ImageError(FailureKind.UNAUTHORIZED, reason, status)
        raise ImageError(FailureKind.UNAUTHORIZED, f"{host} refuses access ({status})", status)
    if status in {404, 410}:
        raise ImageError(FailureKind.NOT_FOUND, f"{host} has no such image ({status})", status)
    if status != 200:
        raise ImageError(FailureKind.HTTP_ERROR, f"{host} answers {status}", status)


def _too_large(max_bytes: int) -> ImageError:
    return ImageError(FailureKind.TOO_LARGE, f"the image is larger than {max_bytes / 1e6:g} MB (MAX_IMAGE_MEGABYTES)")
