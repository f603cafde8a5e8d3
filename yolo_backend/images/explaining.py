"""Why an image's server can't be reached, in words. Of an address, only the host is told."""

from __future__ import annotations

import socket
from collections.abc import Iterable

import requests
import urllib3
from requests.exceptions import InvalidHeader, InvalidProxyURL, InvalidSchema, ProxyError
from requests_hardened.ip_filter import InvalidIPAddress

from yolo_backend.failure_kinds import FailureKind
from yolo_backend.images.errors import ImageError
from yolo_backend.messages import causes_of, shortened
from yolo_backend.tls import explain_tls

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_MAX_HOSTS_SHOWN = 80

# The first line with an error that is wrapped in ours counts. The text doesn't, because it holds the address.
_BEFORE_TLS: tuple[tuple[tuple[type[BaseException], ...], FailureKind, str], ...] = (
    ((InvalidIPAddress,), FailureKind.FORBIDDEN_ADDRESS, "{host} is on a private address"),
    (
        (ProxyError, InvalidProxyURL, InvalidSchema),
        FailureKind.PROXY,
        "the proxy doesn't pass {host} on: check HTTP_PROXY and HTTPS_PROXY, or name it in NO_PROXY",
    ),
)
_AFTER_TLS: tuple[tuple[tuple[type[BaseException], ...], FailureKind, str], ...] = (
    ((socket.gaierror,), FailureKind.DNS, "the name {host} can't be looked up here"),
    ((ConnectionRefusedError,), FailureKind.UNREACHABLE, "{host} refuses the connection"),
    ((urllib3.exceptions.NewConnectionError,), FailureKind.UNREACHABLE, "there is no way to {host}"),
    # After the line above, whose error is a time-out by its class alone.
    ((requests.Timeout, urllib3.exceptions.TimeoutError), FailureKind.TIMEOUT, "{host} didn't answer in time"),
    ((InvalidHeader, urllib3.exceptions.DecodeError), FailureKind.HTTP_ERROR, "the answer of {host} isn't proper HTTP"),
    ((urllib3.exceptions.LocationValueError,), FailureKind.BAD_ADDRESS, "the address, or the proxy's, can't be read"),
    (
        (requests.ConnectionError, urllib3.exceptions.HTTPError, ConnectionError),
        FailureKind.UNREACHABLE,
        "the connection to {host} failed or broke off",
    ),
)


def explain_error(error: Exception, host: str) -> ImageError:
    """The error for a person; `host` is the server that was asked, as it is to be shown."""
    causes = list(causes_of(error))
    for table in (_BEFORE_TLS, _AFTER_TLS):
        for types, kind, message in table:
            if any(isinstance(cause, types) for cause in causes):
                is_loopback = kind == FailureKind.UNREACHABLE and host.rpartition(":")[0] in _LOOPBACK
                hint = "; in a container, that is the container itself" if is_loopback else ""
                return ImageError(kind, message.format(host=host) + hint)
        if table is _BEFORE_TLS and (trouble := explain_tls(error, host)):
            return ImageError(FailureKind.TLS, str(trouble))
    return ImageError(FailureKind.BAD_ADDRESS, "the address can't be read")


def allowing(hosts: Iterable[str], host: str) -> str:
    """What to write so that `host` is allowed beside these."""
    together = ",".join(sorted({*hosts, host}))
    return f"ALLOWED_IMAGE_HOSTS={together if len(together) <= _MAX_HOSTS_SHOWN else f'...,{shortened(host)}'}"
