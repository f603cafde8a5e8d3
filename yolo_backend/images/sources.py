"""What a task's value means: where the bytes of its image are."""

from __future__ import annotations

import base64
import binascii
import re
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote_to_bytes, urlsplit

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from yolo_backend.images.errors import ImageError
from yolo_backend.images.local_files import open_below

CLOUD_SCHEMES = frozenset({"s3", "gs", "azure-blob"})
DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_ADDRESS_CHARACTERS = 16_384
_MAX_ESCAPES = 1_000_000  # of a data: address; each costs far more memory than its three characters


@dataclass(frozen=True)
class Inline:
    """The bytes stand in the task itself."""

    content: bytes


@dataclass(frozen=True)
class LocalFile:
    """A file on this machine's disk: `name` below the folder `root`."""

    root: Path
    name: str


@dataclass(frozen=True)
class Remote:
    """An address to fetch; whether the token goes along is decided per request by its origin."""

    url: str


Source = Inline | LocalFile | Remote


def resolve_source(value: Any, task_id: int | None, studio_url: str | None, local_files_root: Path | None) -> Source:
    """Say where the image of a task's value is, by the table of Label Studio's image addresses.

    `studio_url` is Label Studio's address, perhaps with a path prefix. Raises ImageError.
    """
    if not isinstance(value, str) or not value.strip():
        raise ImageError("wrong_type", f"the task's value should be an image address, not {_type_name(value)}")
    value = value.strip()
    scheme = value.split(":", 1)[0].lower() if ":" in value.split("/", 1)[0] else ""
    if scheme == "data":
        return Inline(_decode_data_uri(value))
    if len(value) > _MAX_ADDRESS_CHARACTERS:
        raise ImageError("bad_address", f"the address is longer than {_MAX_ADDRESS_CHARACTERS} characters")
    if scheme in {"http", "https"}:
        return Remote(value)
    if scheme in CLOUD_SCHEMES:
        if task_id is None:
            raise ImageError("unsupported", f"a {scheme}:// image needs the task's id to be presigned by Label Studio")
        file_uri = base64.urlsafe_b64encode(value.encode()).decode()
        return Remote(_studio_address(studio_url, value) + f"/tasks/{task_id}/presign/?fileuri={file_uri}")
    if scheme:
        shown = f"{scheme}:" if re.fullmatch(r"[a-z][a-z0-9+.-]{0,20}", scheme) else "such"
        raise ImageError("unsupported", f"{shown} addresses are not served")
    if not value.startswith("/"):
        raise ImageError("unsupported", "the task's value is neither an address nor a path of Label Studio")
    if local_files_root is not None and (file := _local_file(value, local_files_root)):
        return file
    return Remote(_join_studio_path(_studio_address(studio_url, value), value))


def origin_of(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port, with the port that the scheme implies; what a browser calls the origin.

    Read as requests and urllib3 read it, for two readers may see two hosts in one address. Raises ValueError.
    """
    try:
        parts = parse_url(url)
    except LocationParseError as error:
        raise ValueError(str(error)) from None
    scheme = (parts.scheme or "").lower()
    return scheme, (parts.host or "").lower(), parts.port or DEFAULT_PORTS.get(scheme)


def is_same_origin(url: str, other_url: str) -> bool:
    """Have these addresses one origin? Malformed ones have none."""
    try:
        return origin_of(url) == origin_of(other_url)
    except ValueError:
        return False


def redact(value: Any) -> str:
    """An address fit for a log: no query, which may hold a signature, no login, no inline content."""
    if not isinstance(value, str):
        return _type_name(value)
    value = value.strip()
    if value[:5].lower() == "data:":
        return f"data: address of {len(value)} characters"
    if len(value) > _MAX_ADDRESS_CHARACTERS:
        return f"an address of {len(value)} characters"
    try:
        parts = urlsplit(value)
        host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname or ""
    except ValueError:
        return "a malformed address"
    # Of a query that may hold a signature, only the file's name of Local Files is told.
    file = parse_qs(parts.query).get("d") if parts.path.endswith("/data/local-files/") else None
    query = f"?d={file[0]}" if file else "?..." if parts.query else ""
    shown = (f"{parts.scheme}://{host}" if parts.scheme else "") + parts.path + query
    printable = "".join(letter if letter.isprintable() else "?" for letter in shown)
    return printable if len(printable) <= 200 else printable[:197] + "..."


def _studio_address(studio_url: str | None, value: str) -> str:
    if studio_url is None:
        raise ImageError("no_label_studio", "this image is behind Label Studio: set LABEL_STUDIO_URL and its API key")
    return studio_url.rstrip("/")


def _join_studio_path(studio_url: str, path: str) -> str:
    # Behind a path prefix, Label Studio writes it into an upload's address; Local Files come without.
    prefix = urlsplit(studio_url).path
    base = studio_url.removesuffix(prefix) if prefix and path.startswith(prefix + "/") else studio_url
    # A file name may hold what an address must not; what is quoted already stays as it is.
    escaped = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", path)
    return base + quote(escaped, safe="/%?&=:@!$'()*+,;~[]")


def _local_file(value: str, root: Path) -> LocalFile | None:
    """The file of a `/data/local-files/?d=` address below `root`, or None where it can't be read there."""
    parts = urlsplit(value)
    if not parts.path.endswith("/data/local-files/"):
        return None
    name = parse_qs(parts.query).get("d", [""])[0].lstrip("/")
    try:
        open_below(root, name).close()
    except (OSError, ValueError):
        return None
    return LocalFile(root, name)


def _decode_data_uri(uri: str) -> bytes:
    header, comma, payload = uri.partition(",")
    if not comma:
        raise ImageError("not_an_image", "the data: address has no comma, so no content")
    if payload.count("%") > _MAX_ESCAPES:
        raise ImageError("too_large", f"the data: address has more than {_MAX_ESCAPES} escaped characters")
    raw = unquote_to_bytes(payload)
    if not header.lower().endswith(";base64"):
        return raw
    try:
        compact = raw.translate(None, string.whitespace.encode())
        return base64.b64decode(compact + b"=" * (-len(compact) % 4))
    except binascii.Error as error:
        raise ImageError("not_an_image", f"the data: address is not base64: {error}") from None


def _type_name(value: Any) -> str:
    names = {"NoneType": "nothing", "str": "an empty text", "dict": "an object", "list": "a list"}
    return names.get(type(value).__name__, f"a {type(value).__name__}")
