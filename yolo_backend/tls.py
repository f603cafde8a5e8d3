"""Certificates, and what is wrong with them, in words; requests decides which authorities count."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, ProxyManager
from urllib3.poolmanager import pool_classes_by_scheme
from urllib3.util.ssl_match_hostname import CertificateError

from yolo_backend.messages import Trouble, causes_of, shortened

# In this order, as requests looks them up.
_BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
# OpenSSL's numbers (X509_V_ERR_...), which are the same in each of its versions.
_NOT_YET_VALID, _EXPIRED, _SELF_SIGNED = 9, 10, 18
_UNKNOWN_AUTHORITY = frozenset({2, 19, 20, 21})
_OTHER_NAME = frozenset({62, 64})
_PLAIN_HTTP = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"})
_OLD_TLS = frozenset({"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE"})
_SHOWN_NAMES = 3


class NamingAdapter(HTTPAdapter):
    """Accepts the certificates that requests does, and can tell for which names one is that it refuses.

    Its connections are those of the `pool_classes`, by scheme, with or without a proxy.
    """

    pool_classes: Mapping[str, type[HTTPConnectionPool]] = pool_classes_by_scheme

    def init_poolmanager(self, *sizes: Any, **options: Any) -> None:
        super().init_poolmanager(*sizes, **options)
        self.poolmanager.pool_classes_by_scheme = dict(self.pool_classes)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        if isinstance(manager, ProxyManager):  # a SOCKS proxy's own pools are its way through the proxy
            manager.pool_classes_by_scheme = dict(self.pool_classes)
        return manager

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        if host["scheme"] == "https":
            # The name is compared by urllib3 then, and not by OpenSSL, which doesn't tell the certificate's names.
            pool["assert_hostname"] = (host["host"] or "").rstrip(".")  # type: ignore[typeddict-unknown-key]  # of urllib3, and known there
        return host, pool


def explain_tls(error: BaseException, host: str, address: str = "the address") -> Trouble | None:
    """What is wrong with TLS, or with the file of authorities, None where it is something else.

    `host` is the server's name, perhaps with its port; `address` is what holds its address. What breaks off may pass.
    """
    causes = list(causes_of(error))
    for cause in causes:
        if isinstance(cause, CertificateError):
            return _other_name(cause, host, address)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _refused(cause, host, address)
    broken = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    # requests and urllib3 have an OSError for a file of authorities that isn't there, and an SSLError for another file.
    may_be_bundle = broken or isinstance(error, requests.exceptions.SSLError) or type(error) is OSError
    if may_be_bundle and (trouble := _explain_bundle()):
        return trouble
    return _broken(broken, host, address) if broken else None


def bundle_variable() -> str | None:
    """The variable that names a file of authorities, None where those of requests count."""
    return next((name for name in _BUNDLE_VARIABLES if os.environ.get(name)), None)


def _lasting(what: str, fix: str) -> Trouble:
    """What no waiting mends."""
    return Trouble(what, fix, lasts=True)


def _other_name(error: CertificateError, host: str, address: str) -> Trouble:
    names = re.findall(r"'([^']+)'", str(error).partition(" match")[2])
    if not names:
        return _lasting(f"the certificate of {host} names no host (subjectAltName)", "get one that names it")
    more = ", ..." if len(names) > _SHOWN_NAMES else ""
    shown = shortened(", ".join(names[:_SHOWN_NAMES]) + more)
    return _lasting(f"the certificate of {host} is for another name: {shown}", f"use that name in {address}")


def _refused(error: ssl.SSLCertVerificationError, host: str, address: str) -> Trouble:
    code = error.verify_code
    if code == _EXPIRED:
        return _lasting(f"the certificate of {host} has expired", "renew it there")
    if code == _NOT_YET_VALID:
        return _lasting(f"the certificate of {host} isn't valid yet", "compare the clocks of both machines")
    if code in _OTHER_NAME:
        return _lasting(f"the certificate of {host} is for another name", f"use its name in {address}")
    if code == _SELF_SIGNED:
        return _lasting(f"the certificate of {host} is self-signed", _trust())
    if code in _UNKNOWN_AUTHORITY:
        return _lasting(f"the certificate of {host} is from an authority that isn't known here", _trust())
    reason = shortened(error.verify_message.lower())
    return _lasting(f"the certificate of {host} isn't accepted ({reason})", "get a new certificate")


def _trust() -> str:
    if variable := bundle_variable():
        return f"add it to the PEM file that {variable} names"
    return "set REQUESTS_CA_BUNDLE to a PEM file with it"


def _broken(error: ssl.SSLError, host: str, address: str) -> Trouble:
    reason = getattr(error, "reason", None) or ""  # not all have one
    if reason in _PLAIN_HTTP:
        return _lasting(f"{host} speaks plain http, and not https", f"write http:// in {address}")
    if "CERTIFICATE_REQUIRED" in reason:
        return _lasting(f"{host} wants a client's certificate, and the backend has none", "don't ask for one there")
    if reason in _OLD_TLS:
        return _lasting(f"{host} speaks an old TLS only", "let it speak TLS 1.2 or newer")
    words = shortened(reason.replace("_", " ").lower()) or "it breaks off"
    return Trouble(f"TLS with {host} fails ({words})", "see that server's log")  # as while it is restarted


def _explain_bundle() -> Trouble | None:
    """What is wrong with the file, or the folder, of authorities that the environment names."""
    variable = bundle_variable()
    if variable is None:
        return None
    path = Path(os.environ[variable])
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(
            cafile=None if path.is_dir() else path, capath=path if path.is_dir() else None
        )
    except OSError as error:
        why = "is no PEM file of certificates" if isinstance(error, ssl.SSLError) else "can't be read"
        return _lasting(f"the file that {variable} names {why} ({shortened(str(path))})", "correct it")
    return None
