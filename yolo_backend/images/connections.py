"""Connections to image servers: guarded ones to public addresses only, and each can be hung up on at any time."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import time
from functools import partial
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests_hardened.ip_filter import InvalidIPAddress
from requests_hardened.ip_filter_adapter import IPFilterAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, LocationParseError, NameResolutionError, NewConnectionError
from urllib3.util import wait_for_write
from urllib3.util.connection import allowed_gai_family

from yolo_backend.addresses import origin_of
from yolo_backend.images.line import Alarm, this_thread
from yolo_backend.kept_connections import Kept
from yolo_backend.tls import NamingAdapter

_HOSTS_KEPT = 32
_LOOK_EVERY_S = 0.05
_UNDER_WAY = frozenset({errno.EINPROGRESS, errno.EWOULDBLOCK})


class _Watched(Kept):
    """A connection that its thread's alarm can hang up on, also while it connects or negotiates TLS."""

    sock: Any
    host: str
    port: int
    timeout: Any
    socket_options: Any
    _dns_host: str

    def _new_conn(self) -> socket.socket:
        if (alarm := this_thread.alarm) is None:
            return super()._new_conn()  # type: ignore[misc,no-any-return]  # of the connection beside us
        me: Any = self
        try:
            return create_connection((self._dns_host, self.port), self.timeout, self.socket_options, alarm)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, me, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(me, f"no connection within {self.timeout:g} s") from error
        except OSError as error:
            raise NewConnectionError(me, str(error)) from error

    def getresponse(self) -> Any:
        if this_thread.alarm is not None:
            this_thread.alarm.watch(partial(_shut_down, self.sock))
        return super().getresponse()


class _WatchedConnection(_Watched, HTTPConnection):
    pass


class _WatchedTlsConnection(_Watched, HTTPSConnection):
    _twin: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        connection = super()._new_conn()
        if this_thread.alarm is not None:
            self._twin = connection.dup()  # TLS takes the socket out of the object that we hold
            this_thread.alarm.watch(partial(_shut_down, self._twin))
        return connection

    def _tunnel(self) -> None:
        super()._tunnel()
        if this_thread.alarm is not None:
            this_thread.alarm.left_s()  # a proxy's headers that were hung up on look like an answer

    def connect(self) -> None:
        try:
            super().connect()
        finally:
            if this_thread.alarm is not None:
                this_thread.alarm.let_go()
            if self._twin is not None:
                self._twin.close()
                self._twin = None


class _LettingGo:
    def _put_conn(self, connection: Any) -> None:
        # Before others get it: a connection that was hung up on at the last moment is broken.
        if (alarm := this_thread.alarm) is not None and alarm.let_go() and connection is not None:
            connection.close()
        super()._put_conn(connection)  # type: ignore[misc]  # of the pool beside us


def create_connection(address: tuple[str, int], timeout_s: float, options: Any, alarm: Alarm) -> socket.socket:
    """A connection to the first of the name's addresses that accepts one; each has `timeout_s`.

    It is urllib3's function, but the alarm can hang up meanwhile. Raises OSError, and what the alarm's `left_s` does.
    """
    host, port = address
    try:
        host.encode("idna")
    except UnicodeError:
        raise LocationParseError(f"'{host}', label empty or too long") from None
    failure = OSError("the name has no address")
    for family, kind, protocol, _, where in socket.getaddrinfo(
        host.strip("[]"), port, allowed_gai_family(), socket.SOCK_STREAM
    ):
        try:
            connection = socket.socket(family, kind, protocol)
            try:
                for option in options or ():
                    connection.setsockopt(*option)
                _connect(connection, where, timeout_s, alarm)
                connection.settimeout(timeout_s)
                return connection
            except BaseException:
                connection.close()
                raise
        except OSError as error:
            failure = error
    raise failure


def _connect(connection: socket.socket, where: Any, timeout_s: float, alarm: Alarm) -> None:
    ends_at = time.monotonic() + timeout_s
    alarm.left_s()
    connection.setblocking(False)
    code = connection.connect_ex(where)
    while code in _UNDER_WAY:
        left_s = ends_at - time.monotonic()
        # We wait for short times, because not every system wakes us when an unfinished connection is shut down.
        is_over = wait_for_write(connection, max(0.0, min(_LOOK_EVERY_S, left_s)))
        alarm.left_s()
        if is_over:
            code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        elif left_s <= 0:
            raise TimeoutError
    if code:
        raise OSError(code, os.strerror(code))


def _shut_down(connection: Any) -> None:
    """Wake the thread that reads from it. TLS's own `shutdown` would take away the state that this thread uses."""
    connection = getattr(connection, "socket", connection)  # a proxy makes TLS within TLS
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _WatchedPool(_LettingGo, urllib3.HTTPConnectionPool):
    ConnectionCls = _WatchedConnection


class _WatchedTlsPool(_LettingGo, urllib3.HTTPSConnectionPool):
    ConnectionCls = _WatchedTlsConnection


_WATCHED_POOLS = {"http": _WatchedPool, "https": _WatchedTlsPool}


class OpenAdapter(NamingAdapter):
    """Connects to any address, over watched connections, with or without a proxy."""

    pool_classes = _WATCHED_POOLS


class _KnownPoolsAdapter(OpenAdapter):
    """The same, which looks for an origin's pool of connections once: that took a tenth of asking for an ETag.

    A guarded one has to look each time, for that is when it checks the address.
    """

    def __init__(self, *sizes: Any) -> None:
        super().__init__(*sizes)
        self._pools: dict[tuple[Any, ...], Any] = {}

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        if proxies or cert:
            return super().get_connection_with_tls_context(request, verify, proxies, cert)
        key = (*origin_of(request.url or ""), verify)
        pool = self._pools.get(key)
        if pool is None or pool.pool is None:  # closed, for others were used more
            pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
            if len(self._pools) >= _HOSTS_KEPT:
                self._pools.clear()
            self._pools[key] = pool
        return pool


class GuardedAdapter(IPFilterAdapter, OpenAdapter):  # type: ignore[misc]  # it comes without types
    """Connects to public addresses only: the name is resolved, and its address is checked and connected to.

    For https, a proxy makes a tunnel and gets that address. For http it gets the name, and resolves it again.
    """

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        address = ipaddress.ip_address(host["host"].strip("[]"))
        # The library lets these pass: IPv4 in the old form of IPv6 (::127.0.0.1), and site-local addresses.
        if address.is_reserved or (address.version == 6 and address.is_site_local):
            raise InvalidIPAddress(address)
        return host, pool


def make_adapters(connections: int) -> tuple[HTTPAdapter, dict[str, HTTPAdapter]]:
    """The open adapter, and the guarded one of each scheme; `connections` are kept of each host."""
    open_adapter = _KnownPoolsAdapter(_HOSTS_KEPT, connections)
    guarded: dict[str, HTTPAdapter] = {}
    for scheme in ("http", "https"):
        guarded[scheme] = GuardedAdapter(is_https_proto=scheme == "https")  # type: ignore[call-arg]
        guarded[scheme].init_poolmanager(_HOSTS_KEPT, connections)
    return open_adapter, guarded
