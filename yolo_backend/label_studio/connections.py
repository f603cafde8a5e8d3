"""Connections to Label Studio, kept between calls, because opening one takes longer than most calls."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from yolo_backend.kept_connections import Kept, was_closed_meanwhile
from yolo_backend.tls import NamingAdapter

# These do no harm if they arrive twice.
REPEATABLE = frozenset({"GET", "DELETE"})

_CONNECT_TIMEOUT_S = 10.0
_HOSTS_KEPT = 8
_KEPT_OF_EACH = 128
# Firewalls and load balancers forget an idle connection after a minute or more, and then drop what is sent over it.
_KEPT_S = 20.0


class Connections:
    """Connections to Label Studios, kept between calls; safe to share between threads, and after a fork.

    No cookie is kept or sent, and no redirect is followed. They are closed when this is no longer held.
    """

    def __init__(self) -> None:
        self._sessions: dict[tuple[int, str], requests.Session] = {}

    @contextmanager
    def ask(self, method: str, url: str, ends_at: float, **request: Any) -> Iterator[requests.Response]:
        """The answer, of which only the head is read yet. A connection that isn't read to the end is closed.

        Until `ends_at` (of `time.monotonic`), half of the time is for connecting and half for the answer. Who reads the
        answer has to look at the clock, too. Raises what requests raises.
        """
        # Label Studio may close a kept connection at the moment when it is used again. Nobody knows then whether the
        # request arrived, so a POST never goes over one: it has a connection of its own, which costs less than an
        # import takes. A GET is sent once more over a new connection.
        if method in REPEATABLE:
            try:
                response = _send(self._kept(url), method, url, ends_at, request)
            except requests.ConnectionError as error:
                if not was_closed_meanwhile(error):
                    raise
            else:
                with response:
                    yield response
                return
        with _new_session(url) as session, _send(session, method, url, ends_at, request) as response:
            yield response

    def _kept(self, url: str) -> requests.Session:
        # After a fork parent and child would read each other's answers.
        key = os.getpid(), urlsplit(url).scheme
        return self._sessions.get(key) or self._sessions.setdefault(key, _new_session(url))


class _Session(requests.Session):
    def resolve_redirects(self, *_: Any, **__: Any) -> Iterator[Any]:
        """Follow none. The method of requests reads the whole body even if it is told to follow none."""
        return iter(())


def _new_session(url: str) -> requests.Session:
    session = _Session()
    session.trust_env = url.startswith("https:")  # a proxy would read the token
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    for scheme in ("http://", "https://"):
        session.mount(scheme, _KeepingAdapter(_HOSTS_KEPT, _KEPT_OF_EACH))
    return session


def _send(
    session: requests.Session, method: str, url: str, ends_at: float, request: dict[str, Any]
) -> requests.Response:
    half_s = max(0.05, (ends_at - time.monotonic()) / 2)
    timeout = min(_CONNECT_TIMEOUT_S, half_s), half_s
    return session.request(method, url, timeout=timeout, allow_redirects=False, stream=True, **request)


class _Kept(Kept):
    sock: socket.socket

    @property
    def is_connected(self) -> bool:
        """Returns True if it can be used again. urllib3 asks this each time."""
        is_fresh = self.answered_at is None or time.monotonic() - self.answered_at < _KEPT_S
        return is_fresh and super().is_connected  # type: ignore[misc]

    def getresponse(self) -> Any:
        # A server that sends head and body separately, as Django's own does, holds the body back until the head is
        # acknowledged. On a connection that was used before, the system delays this for 40 ms.
        if hasattr(socket, "TCP_QUICKACK"):  # on Linux; the system forgets it after a while, so it is set each time
            connection = getattr(self.sock, "socket", self.sock)  # a proxy makes TLS within TLS
            with suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return super().getresponse()


class _KeptConnection(_Kept, HTTPConnection):
    pass


class _KeptTlsConnection(_Kept, HTTPSConnection):
    pass


class _KeptPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _KeptConnection


class _KeptTlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _KeptTlsConnection


_KEPT_POOLS = {"http": _KeptPool, "https": _KeptTlsPool}


class _KeepingAdapter(NamingAdapter):
    pool_classes = _KEPT_POOLS
