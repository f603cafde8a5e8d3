"""The bytes of an image: over pooled connections, with limits, and with the token for Label Studio alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Protocol
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter

from yolo_backend.images.errors import ImageError
from yolo_backend.images.sources import Inline, LocalFile, Source, origin_of

_CONNECT_TIMEOUT_S = 5.0
_READ_TIMEOUT_S = 20.0
_MAX_REDIRECTS = 5
_CHUNK_BYTES = 1 << 16


class TokenHolder(Protocol):
    """Label Studio as the fetcher needs it: an address, and what to send there as `Authorization`."""

    @property
    def url(self) -> str: ...

    def authorization(self, *, renew: bool = False) -> str | None: ...


class ImageFetcher:
    """Fetches images; safe to share between threads."""

    def __init__(self, *, timeout_s: float, max_bytes: int, connections: int) -> None:
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._session = requests.Session()
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        # Without an auth of its own, requests would send what a .netrc file holds for the host.
        self._session.auth = _send_nothing
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_connections=32, pool_maxsize=connections))

    def fetch(self, source: Source, studio: TokenHolder | None) -> bytes:
        """The bytes of `source`. Raises ImageError."""
        if isinstance(source, Inline):
            return self._check_size(source.content)
        if isinstance(source, LocalFile):
            return self._read(source.path)
        try:
            return self._download(source.url, studio)
        except requests.Timeout:
            raise ImageError("timeout", "the server didn't answer in time") from None
        except requests.exceptions.SSLError:
            raise ImageError("tls", "the server's certificate can't be verified") from None
        except requests.ConnectionError as error:
            raise _connection_error(error) from None
        except (requests.RequestException, ValueError, UnicodeError) as error:
            raise ImageError("bad_address", f"the address can't be fetched ({type(error).__name__})") from None

    def _download(self, url: str, studio: TokenHolder | None) -> bytes:
        ends_at = time.monotonic() + self._timeout_s
        for _ in range(_MAX_REDIRECTS + 1):
            with self._get(url, studio) as response:
                if not response.is_redirect:
                    _check_status(response)
                    return self._read_body(response, ends_at)
                target = urljoin(url, response.headers["location"])
            if urlsplit(target).scheme not in {"http", "https"}:
                raise ImageError("unsupported", "the server redirects to something that isn't http(s)")
            if _is_studio(url, studio) and urlsplit(target).path.rstrip("/").endswith("/user/login"):
                raise ImageError("unauthorized", "Label Studio asks for a login: set LABEL_STUDIO_API_KEY")
            url = target
        raise ImageError("redirects", f"the server redirects more than {_MAX_REDIRECTS} times")

    def _get(self, url: str, studio: TokenHolder | None) -> requests.Response:
        # The token's question is asked anew at every redirect: only Label Studio's own origin gets it.
        holder = studio if _is_studio(url, studio) else None
        response = self._request(url, holder.authorization() if holder else None)
        if response.status_code == 401 and holder and (renewed := holder.authorization(renew=True)):
            response.close()
            response = self._request(url, renewed)
        return response

    def _request(self, url: str, authorization: str | None) -> requests.Response:
        return self._session.get(
            url,
            auth=_sending(authorization) if authorization else _send_nothing,
            allow_redirects=False,
            stream=True,
            timeout=(_CONNECT_TIMEOUT_S, min(_READ_TIMEOUT_S, self._timeout_s)),
            headers={"Accept": "image/*,*/*;q=0.5"},
        )

    def _read_body(self, response: requests.Response, ends_at: float) -> bytes:
        body = bytearray()
        for chunk in response.iter_content(_CHUNK_BYTES):
            body += chunk
            if len(body) > self._max_bytes:
                raise _too_large(self._max_bytes)
            if time.monotonic() > ends_at:
                raise ImageError("timeout", f"the image didn't arrive within {self._timeout_s:g} s")
        return self._check_size(bytes(body))

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


def _is_studio(url: str, studio: TokenHolder | None) -> bool:
    return studio is not None and origin_of(url) == origin_of(studio.url)


def _sending(authorization: str) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = authorization
        return request

    return authorize


def _send_nothing(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _check_status(response: requests.Response) -> None:
    status = response.status_code
    if status in {401, 403}:
        raise ImageError("unauthorized", f"the server refuses access ({status})")
    if status in {404, 410}:
        raise ImageError("not_found", f"the server has no such image ({status})")
    if status != 200:
        raise ImageError("http_error", f"the server answers {status}")


def _connection_error(error: requests.ConnectionError) -> ImageError:
    text = str(error)
    if "NameResolution" in text or "getaddrinfo" in text:
        return ImageError("dns", "the server's name can't be resolved")
    if "refused" in text:
        return ImageError("unreachable", "the server refuses the connection")
    if "Read timed out" in text:
        return ImageError("timeout", "the server stopped answering half-way")
    return ImageError("unreachable", "the connection failed or broke off")


def _too_large(max_bytes: int) -> ImageError:
    return ImageError("too_large", f"the image is larger than {max_bytes / 1e6:g} MB (MAX_IMAGE_MEGABYTES)")
