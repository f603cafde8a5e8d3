"""Connections to image servers: guarded ones to public addresses only, and none outlives the time of its image."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests_hardened.ip_filter import InvalidIPAddress
from requests_hardened.ip_filter_adapter import IPFilterAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from yolo_backend.images.errors import ImageError
from yolo_backend.tls import NamingAdapter

_HOSTS_KEPT = 32


class Alarm:
    """Hangs up when an image's time is over: a read time-out is for each piece, so what drips would never meet it.

    A context manager; inside, the connections that this thread uses are the ones it hangs up on.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.ends_at = time.monotonic() + timeout_s
        self._connection: socket.socket | None = None

    def __enter__(self) -> Alarm:
        _this_thread.alarm = self
        _clock.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _clock.cancel(self)
        _this_thread.alarm = None

    def left_s(self) -> float:
        """The time that is left. Raises ImageError where none is: what was read of a connection then isn't whole."""
        left_s = self.ends_at - time.monotonic()
        if left_s <= 0:
            raise ImageError("timeout", f"the image didn't arrive within {self._timeout_s:g} s")
        return left_s

    def watch(self, connection: socket.socket) -> None:
        """Hang up on this connection, too late or in time."""
        self._connection = connection
        if time.monotonic() >= self.ends_at:
            self.ring()

    def ring(self) -> None:
        """The time is over."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)


class _AlarmClock:
    """One thread for all alarms; a timer would start one for each image."""

    def __init__(self) -> None:
        self._alarms: set[Alarm] = set()
        self._wakes_at = float("inf")
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def set(self, alarm: Alarm) -> None:
        with self._changed:
            self._alarms.add(alarm)
            if self._thread is None or not self._thread.is_alive():  # nor does it in the child of a fork
                self._thread = threading.Thread(target=self._run, name="alarms", daemon=True)
                self._thread.start()
            elif alarm.ends_at < self._wakes_at:
                self._changed.notify()

    def cancel(self, alarm: Alarm) -> None:
        with self._changed:
            self._alarms.discard(alarm)

    def _run(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                due = {alarm for alarm in self._alarms if alarm.ends_at <= now}
                self._alarms -= due
                if not due:
                    self._wakes_at = min((alarm.ends_at for alarm in self._alarms), default=float("inf"))
                    self._changed.wait(None if self._wakes_at == float("inf") else self._wakes_at - now)
                # Under the lock: who is out of its alarm has given its connection back, and others may have it.
                for alarm in due:
                    alarm.ring()


_clock = _AlarmClock()


class _ThisThread(threading.local):
    alarm: Alarm | None = None


_this_thread = _ThisThread()


class _Watched:
    sock: socket.socket

    def getresponse(self) -> Any:
        if _this_thread.alarm is not None:
            _this_thread.alarm.watch(self.sock)
        return super().getresponse()  # type: ignore[misc]  # of the connection beside us


class _WatchedConnection(_Watched, HTTPConnection):
    pass


class _WatchedTlsConnection(_Watched, HTTPSConnection):
    pass


class _WatchedPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _WatchedConnection


class _WatchedTlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _WatchedTlsConnection


_WATCHED_POOLS = {"http": _WatchedPool, "https": _WatchedTlsPool}


class OpenAdapter(NamingAdapter):
    """Connects to any address, over watched connections, with or without a proxy."""

    def init_poolmanager(self, *sizes: Any, **options: Any) -> None:
        super().init_poolmanager(*sizes, **options)
        self.poolmanager.pool_classes_by_scheme = _WATCHED_POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        if isinstance(manager, urllib3.ProxyManager):  # a SOCKS proxy's own pools are its way through the proxy
            manager.pool_classes_by_scheme = _WATCHED_POOLS
        return manager


class GuardedAdapter(IPFilterAdapter, OpenAdapter):  # type: ignore[misc]  # it comes without types
    """Connects to public addresses only: the name is resolved, and its address is checked and connected to.

    A proxy is told that address where it makes a tunnel (https); for http it is told the name, and resolves it again.
    """

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        address = ipaddress.ip_address(host["host"].strip("[]"))
        # What the library lets pass: IPv4 inside of IPv6 in the forms of old (::127.0.0.1), and site-local.
        if address.is_reserved or (address.version == 6 and address.is_site_local):
            raise InvalidIPAddress(address)
        return host, pool


def make_adapters(connections: int) -> tuple[HTTPAdapter, dict[str, HTTPAdapter]]:
    """The open adapter, and the guarded one of each scheme; `connections` are kept of each host."""
    open_adapter = OpenAdapter(_HOSTS_KEPT, connections)
    guarded: dict[str, HTTPAdapter] = {}
    for scheme in ("http", "https"):
        guarded[scheme] = GuardedAdapter(is_https_proto=scheme == "https")  # type: ignore[call-arg]
        guarded[scheme].init_poolmanager(_HOSTS_KEPT, connections)
    return open_adapter, guarded
