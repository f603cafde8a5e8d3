"""Web addresses as text: whose origin they have, and how they may stand in a log or a message."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from yolo_backend.messages import shortened

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_ADDRESS_CHARACTERS = 16_384
_LINE_BREAKS = str.maketrans("", "", "\t\r\n")  # as browsers do, wherever they stand in an address
# A value may be thousands of characters long, and no stranger's may make these take long.
_PARAMETER = re.compile(r"[?&#;]([^=?&#;]*)=")
_SECRET = re.compile(r"sig|token|secret|passw|credential|key|auth|jwt|session", re.IGNORECASE)
_LOGIN = re.compile(r"((?:^|:)/{2,})[^/]*@|(^|:/)(?=[^/@\s]*:)[^/\s]*@")
_WEB = re.compile(r"https?:|//", re.IGNORECASE)
_UPLOAD = re.compile(r"/data/upload/\d+/[0-9a-f]{8}-([^/?]+)$")


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
    """Returns True if these addresses have one origin; a malformed one has none."""
    try:
        return origin_of(url) == origin_of(other_url)
    except ValueError:
        return False


def without_line_breaks(address: str) -> str:
    """An address without tabs and line breaks, which browsers drop wherever they stand."""
    return address.translate(_LINE_BREAKS)


def is_local_files(path: str) -> bool:
    """Returns True if a path is that of Label Studio's Local Files, whose query names a file."""
    return path.rstrip("/").endswith("/data/local-files")


def uploaded_name(address: str) -> str | None:
    """The stored name of the uploaded file that has this address; None if it is no upload's address."""
    match = _UPLOAD.search(address)
    return unquote(match[1]) if match else None


def path_in(address: str) -> str:
    """The path of the file at this address, as a person reads it; that of a Local File is in the query.

    Raises ValueError for a malformed address.
    """
    parts = urlsplit(address)
    return parse_qs(parts.query).get("d", [""])[0] if is_local_files(parts.path) else unquote(parts.path)


def file_name_in(address: Any) -> str:
    """What a person calls the file at this address: its name, without the digits of an upload.

    It is empty if there is none: for inline content, the root of a server, a malformed address, or what is no text.
    """
    if not isinstance(address, str) or address[:5].lower() == "data:":
        return ""
    try:
        path = path_in(address)
    except ValueError:
        return ""
    return uploaded_name(address.partition("?")[0]) or path.rstrip("/").rpartition("/")[2]


def shown_host(url: str) -> str:
    """The host of an address, with a port that its scheme doesn't imply, as it may stand in a message."""
    try:
        scheme, host, port = origin_of(url)
    except ValueError:
        return "the server"
    return shortened(host if port in {None, DEFAULT_PORTS.get(scheme)} else f"{host}:{port}") or "the server"


def type_name(value: Any) -> str:
    """What a value is that is no address, in plain words."""
    names = {"NoneType": "nothing", "str": "an empty text", "dict": "an object", "list": "a list"}
    names |= {"bool": "true or false", "int": "a number", "float": "a number"}
    return names.get(type(value).__name__, f"a {type(value).__name__}")


def redact(value: Any) -> str:
    """An address fit for a log: no query, which may hold a signature, no login, no inline content."""
    if not isinstance(value, str):
        return type_name(value)
    value = value.strip()
    if value[:5].lower() == "data:":
        return f"data: address of {len(value)} characters"
    if len(value) > MAX_ADDRESS_CHARACTERS:
        return f"an address of {len(value)} characters"
    # Also in an address that stands inside of something else, or lacks its scheme.
    value = _LOGIN.sub(r"\1\2", without_line_breaks(value))
    if web := _WEB.match(value):
        if not _is_well_formed(value):
            return "a malformed address"
        value = web[0].lower() + value[web.end() :].partition("#")[0]
    shown = _shown_query(value)
    printable = "".join(letter if letter.isprintable() else "?" for letter in shown)
    return printable if len(printable) <= 200 else printable[:197] + "..."


def _is_well_formed(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _shown_query(value: str) -> str:
    """Without a query, which may hold a signature; but a file's name, of a disk or a bucket, may hold ? and #."""
    path, _, query = value.partition("?")
    if is_local_files(path) and (names := re.findall(r"(?:^|&)(d=[^&]+)", query)):
        return f"{path}?{names[-1]}"
    is_name = not _WEB.match(value) and (not query or re.search(r"\.\w{1,5}$", query))
    if is_name and not any(_SECRET.search(name) for name in _PARAMETER.findall(value)):
        return value
    mark = re.search(r"[?#]", value)
    return f"{value[: mark.end()]}..." if mark and mark.end() < len(value) else value
