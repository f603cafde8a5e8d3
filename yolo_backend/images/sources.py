"""What a task's value means: where the bytes of its image are."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from yolo_backend.failure_kinds import FailureKind
from yolo_backend.images.errors import ImageError
from yolo_backend.images.inline import decode_data_uri
from yolo_backend.images.local_files import open_below
from yolo_backend.images.oddities import (
    CLOUD_SCHEMES,
    Remark,
    check_address,
    looks_like_base64,
    remark_on_bucket,
    remark_on_own,
    remark_on_prefix,
    remark_on_unknown_studio,
    remark_on_web,
    type_name,
    type_sentence,
)
from yolo_backend.images.uploads import ProjectUploads

DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_ADDRESS_CHARACTERS = 16_384
_DROPPED = str.maketrans("", "", "\t\r\n")  # as browsers do, wherever they stand in an address
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# What Label Studio serves of tasks' images, below its address.
_OWN_PATH = re.compile(
    r"/(data/upload/|data/local-files(/|\?|$)|storage-data/uploaded(/|\?|$)"
    r"|(tasks|projects)/\d+/(presign|resolve)(/|\?|$)|api/projects/\d+/file-proxy(/|\?|$))"
)
# A value may be thousands of characters long, and no stranger's may make these take long.
_PARAMETER = re.compile(r"[?&#;]([^=?&#;]*)=")
_SECRET = re.compile(r"sig|token|secret|passw|credential|key|auth|jwt|session", re.IGNORECASE)
_LOGIN = re.compile(r"((?:^|:)/{2,})[^/]*@|(^|:/)(?=[^/@\s]*:)[^/\s]*@")
_WEB = re.compile(r"https?:|//", re.IGNORECASE)

OutsideUrl = Callable[[], str | None]


@dataclass(frozen=True)
class _Disk:
    """What of Label Studio's own files is read from the disk."""

    local_files_root: Path | None
    uploads: ProjectUploads | None


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
    """An address to fetch; whether the token goes along is decided per request by its origin.

    `remark` is what to tell where it can't be fetched.
    """

    url: str
    remark: Remark | None = None


@dataclass(frozen=True)
class Upload:
    """An upload on the disk that Label Studio keeps it on: `name` below the folder `root`.

    `remote` is the same upload as Label Studio serves it, for where the file isn't there, or can't be read.
    """

    root: Path
    name: str
    remote: Remote

    @property
    def place(self) -> str:
        """What stands in the place of a host, and never is one: the same for all uploads of a project."""
        return f"/data/{self.name.rpartition('/')[0]}"


Source = Inline | LocalFile | Upload | Remote


def resolve_source(
    value: Any,
    task_id: int | None,
    studio_url: str | None,
    local_files_root: Path | None,
    outside_url: OutsideUrl | None = None,
    *,
    uploads: ProjectUploads | None = None,
) -> Source:
    """Say where the image of a task's value is, as the browser reads it that shows Label Studio's page.

    `studio_url` is Label Studio's address as it is reached from here, perhaps with a path prefix; `outside_url` tells
    its address in a browser, and is called only where the value may be of there. Of uploads, only those of the asking
    project's `uploads` are read from the disk, and only by values that `may_mean` lets pass. Raises ImageError.
    """
    if not isinstance(value, str) or not value.strip():
        raise ImageError(FailureKind.WRONG_TYPE, type_sentence(value))
    value = value.strip()
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ImageError(FailureKind.BAD_ADDRESS, "the address holds half of a character: write it anew") from None
    if value[:5].lower() == "data:":
        return Inline(decode_data_uri(value))
    if len(value) > _MAX_ADDRESS_CHARACTERS and not looks_like_base64(value):
        raise ImageError(FailureKind.BAD_ADDRESS, f"the address is longer than {_MAX_ADDRESS_CHARACTERS} characters")
    disk = _Disk(local_files_root, uploads if uploads and uploads.may_mean(value) else None)
    value = value.translate(_DROPPED)
    check_address(value)
    scheme = value.split(":", 1)[0].lower()
    if scheme in CLOUD_SCHEMES:
        if task_id is None:
            raise ImageError(
                FailureKind.UNSUPPORTED, f"a {scheme}:// image needs the task's id to be presigned by Label Studio"
            )
        file_uri = base64.urlsafe_b64encode(value.encode()).decode()
        url = f"{_known(studio_url)}/tasks/{task_id}/presign/?fileuri={file_uri}"
        return Remote(url, remark_on_bucket(value))
    outside_url = outside_url or _nobody_knows
    if scheme not in DEFAULT_PORTS:
        head, mark, query = value.partition("?")
        value = head.replace("\\", "/") + mark + query
        if not value.startswith("//"):
            return _own(_below_prefix(value, studio_url, outside_url), studio_url, disk)
        # An address without its scheme has that of the page.
        value = f"{urlsplit(outside_url() or studio_url or 'https:').scheme}:{value}"
    return _web(value, studio_url, disk, outside_url)


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
        return type_name(value)
    value = value.strip()
    if value[:5].lower() == "data:":
        return f"data: address of {len(value)} characters"
    if len(value) > _MAX_ADDRESS_CHARACTERS:
        return f"an address of {len(value)} characters"
    # Also in an address that stands inside of something else, or lacks its scheme.
    value = _LOGIN.sub(r"\1\2", value.translate(_DROPPED))
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
    if _is_local_files(path) and (names := re.findall(r"(?:^|&)(d=[^&]+)", query)):
        return f"{path}?{names[-1]}"
    is_name = not _WEB.match(value) and (not query or re.search(r"\.\w{1,5}$", query))
    if is_name and not any(_SECRET.search(name) for name in _PARAMETER.findall(value)):
        return value
    mark = re.search(r"[?#]", value)
    return f"{value[: mark.end()]}..." if mark and mark.end() < len(value) else value


def _is_local_files(path: str) -> bool:
    return path.rstrip("/").endswith("/data/local-files")


def _nobody_knows() -> None:
    return None


def _known(studio_url: str | None) -> str:
    if studio_url is None:
        raise ImageError(
            FailureKind.NO_LABEL_STUDIO, "this image is behind Label Studio: set LABEL_STUDIO_URL and its API key"
        )
    return studio_url.rstrip("/")


def _below_prefix(path: str, studio_url: str | None, outside_url: OutsideUrl) -> str:
    """A path of Label Studio's host, as it is below its address.

    Behind a path prefix, Label Studio writes it into an upload's address; Local Files come without.
    """
    prefix = urlsplit(studio_url or "").path.rstrip("/")
    if prefix and (below := _after(path, prefix)):
        return below
    # The prefix that Label Studio has outside may not be there on the way from here.
    if _OWN_PATH.match(path) is None and _OWN_PATH.search(path) and (outside := outside_url()):
        return _after(path, urlsplit(outside).path) or path
    return path


def _web(value: str, studio_url: str | None, disk: _Disk, outside_url: OutsideUrl) -> Source:
    """An address of the web, which may be Label Studio's own, by the one that we reach or by the one outside."""
    if (own := _OWN_PATH.search(value)) is None:
        return Remote(value, remark_on_web(value))
    if studio_url and (path := _path_below(value, studio_url)):
        return _own(path, studio_url, disk)
    outside = outside_url()
    if outside and (path := _path_below(value, outside)):
        return _own(path, studio_url, disk)
    return Remote(value, _remark_on_unknown(value[: own.start()], outside, studio_url) or remark_on_web(value))


def _remark_on_unknown(address: str, outside: str | None, studio_url: str | None) -> Remark | None:
    try:
        parts = urlsplit(address)
        scheme, host, port = origin_of(address)  # which keeps an IPv6 address in its brackets
    except ValueError:
        return None
    shown = f"{scheme}://{host}{'' if port == DEFAULT_PORTS.get(scheme) else f':{port}'}{parts.path}"
    if not host or parts.query or not shown.isprintable() or len(shown) > 100:
        return None
    return remark_on_unknown_studio(shown, outside, is_configured=studio_url is not None)


def _path_below(url: str, address: str) -> str | None:
    """What Label Studio at this address serves as `url`: the path below it, with the query; None where it isn't."""
    if not is_same_origin(url, address):
        return None
    path = parse_url(_BAD_ESCAPE.sub("%25", url)).request_uri  # without .., as a browser asks for it
    below = _after(path, urlsplit(address).path)
    return below if below and _OWN_PATH.match(below) else None


def _after(path: str, prefix: str) -> str | None:
    prefix = prefix.rstrip("/")
    return path.removeprefix(prefix) if path.startswith(prefix + "/") else None


def _own(path: str, studio_url: str | None, disk: _Disk) -> Source:
    """A path of Label Studio's, below its address: read from the disk, or to be fetched from where we reach it."""
    # A file name may hold what an address must not; what is quoted already stays as it is.
    path = quote(_BAD_ESCAPE.sub("%25", path), safe="/%?&=:@!$'()*+,;~[]")
    if disk.local_files_root is not None and (file := _local_file(path, disk.local_files_root)):
        return file
    prefix = path[: found.start()] if (found := _OWN_PATH.search(path)) else ""
    remote = Remote(_known(studio_url) + path, remark_on_prefix(prefix) if prefix else remark_on_own(path))
    if disk.uploads and (name := disk.uploads.name_of(path)):
        return Upload(disk.uploads.media_root, name, remote)
    return remote


def _local_file(path: str, root: Path) -> LocalFile | None:
    """The file of a `/data/local-files/?d=` address below `root`, or None where it can't be read there."""
    path, _, query = path.partition("?")
    if not _is_local_files(path):
        return None
    # Of several, Django takes the last.
    name = parse_qs(query.partition("#")[0], keep_blank_values=True).get("d", [""])[-1].lstrip("/")
    try:
        open_below(root, name).close()
    except (OSError, ValueError):
        return None
    return LocalFile(root, name)
