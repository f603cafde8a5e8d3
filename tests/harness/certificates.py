"""Certificates of an authority of one's own, made by openssl, and servers' contexts with them."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

_CONFIG = """
[ca]
default_ca = ours
[ours]
database = index.txt
new_certs_dir = .
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
[any]
commonName = supplied
"""
_YEARS = {"good": ("20200101000000Z", "20900101000000Z"), "expired": ("20200101000000Z", "20200102000000Z"),
          "future": ("20890101000000Z", "20900101000000Z")}  # fmt: skip


@dataclass(frozen=True)
class Certificates:
    """An authority that nobody knows: its certificate, `ca`, and what it signs, in this folder."""

    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def context(self, name: str) -> ssl.SSLContext:
        """A server's side of TLS with the certificate of this name."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / f"{name}.pem", self.folder / "server.key")
        return context

    def pem(self, name: str) -> Path:
        """The certificate's file."""
        return self.folder / f"{name}.pem"


def make_certificates(folder: Path) -> Certificates:
    """Certificates: good, expired, future; elsewhere, for other names; nameless; self-signed."""
    (folder / "ca.conf").write_text(_CONFIG)
    (folder / "index.txt").touch()
    authority = ["-subj", "/CN=An authority of our own", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    _openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *authority,
             "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
    here = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    _openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
             "-addext", here, "-keyout", "server.key", "-out", "self-signed.pem")  # fmt: skip
    _openssl(folder, "req", "-new", "-key", "server.key", "-subj", "/CN=localhost", "-out", "server.csr")
    for name, names in {"elsewhere": "subjectAltName=DNS:studio.example,DNS:*.lab.example", "nameless": ""}.items():
        _sign(folder, name, names, "good")
    for name in _YEARS:
        _sign(folder, name, here, name)
    return Certificates(folder)


def _sign(folder: Path, name: str, names: str, years: str) -> None:
    extensions = folder / "extensions"
    extensions.write_text(f"authorityKeyIdentifier=keyid\n{names}\n")
    begins, ends = _YEARS[years]
    _openssl(folder, "ca", "-batch", "-notext", "-config", "ca.conf", "-cert", "ca.pem", "-keyfile", "ca.key",
             "-in", "server.csr", "-out", f"{name}.pem", "-extfile", extensions.name,
             "-startdate", begins, "-enddate", ends)  # fmt: skip


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(
        [shutil.which("openssl") or "openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60
    )
