"""What a task's value means: where the bytes of its image are."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from urllib3.util import parse_url

from yolo_backend.addresses import (
    DEFAULT_PORTS,
    MAX_ADDRESS_CHARACTERS,
    is_local_files,
    is_same_origin,
    origin_of,
    without_line_breaks,
)
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
    type_sentence,
)
from yolo_backend.images.uploads import ProjectUploads

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# What Label Studio serves of tasks' images, below its address.
_OWN_PATH = re.compile(
    r"/(data/upload/|data/local-files(/|\?|$)|storage-data/uploaded(/|\?|$)"
    r"|(tasks|projects)/\d+/(presign|resolve)(/|\?|$)|api/projects/\d+/file-proxy(/|\?|$))"
)

OutsideUrl = Callable[[], str | None]


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

    `remark` is what to tell if it can't be fetched.
    """

    url: str
    remark: Remark | None = None


@dataclass(frozen=True)
class Upload:
    """An upload, read from the disk on which Label Studio keeps it: `name` below the folder `root`.

    `remote` is the same upload over HTTP, in case that the file isn't there or can't be read.
    """

    root: Path
    name: str
    remote: Remote

    @property
    def pseudo_host(self) -> str:
        """A name that takes the place of a host, and is none: the same for all uploads of a project."""
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
    """Say where the image of a task's value is, as a browser reads the value on Label Studio's page.

    `studio_url` is Label Studio's address as it is reached from here, perhaps with a path prefix; `outside_url` returns
    its address in a browser, and is called only if the value may start with that. Only uploads of the asking project
    (`uploads`) are read from the disk, and only if `may_mean` says yes to the value. Raises ImageError.
    """
    value = _checked(value)
    if value[:5].lower() == "data:":
        return Inline(decode_data_uri(value))
    if len(value) > MAX_ADDRESS_CHARACTERS and not looks_like_base64(value):
        raise ImageError(FailureKind.BAD_ADDRESS, f"the address is longer than {MAX_ADDRESS_CHARACTERS} characters")
    own_uploads = uploads if uploads and uploads.may_mean(value) else None
    studio = _LabelStudio(studio_url, outside_url or _nobody_knows, local_files_root, own_uploads)
    value = without_line_breaks(value)
    check_address(value)
    scheme = value.split(":", 1)[0].lower()
    if scheme in CLOUD_SCHEMES:
        return studio.in_bucket(value, scheme, task_id)
    if scheme in DEFAULT_PORTS:
        return studio.on_the_web(value)
    head, mark, query = value.partition("?")
    value = head.replace("\\", "/") + mark + query
    return studio.without_scheme(value) if value.startswith("//") else studio.at_path(value)


def _checked(value: Any) -> str:
    """The value as a text that can be read. Raises ImageError."""
    if not isinstance(value, str) or not value.strip():
        raise ImageError(FailureKind.WRONG_TYPE, type_sentence(value))
    text: str = value.strip()
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ImageError(FailureKind.BAD_ADDRESS, "the address holds half of a character: write it anew") from None
    return text


@dataclass(frozen=True)
class _LabelStudio:
    """The Label Studio whose task has the value: its addresses, and which of its files are read from the disk."""

    url: str | None
    outside_url: OutsideUrl
    local_files_root: Path | None
    uploads: ProjectUploads | None

    def in_bucket(self, value: str, scheme: str, task_id: int | None) -> Source:
        """An object of a bucket, which Label Studio presigns."""
        if task_id is None:
            raise ImageError(
                FailureKind.UNSUPPORTED, f"a {scheme}:// image needs the task's id to be presigned by Label Studio"
            )
        file_uri = base64.urlsafe_b64encode(value.encode()).decode()
        return Remote(f"{self._known_url()}/tasks/{task_id}/presign/?fileuri={file_uri}", remark_on_bucket(value))

    def without_scheme(self, value: str) -> Source:
        """An address without a scheme. It has the page's scheme."""
        return self.on_the_web(f"{urlsplit(self.outside_url() or self.url or 'https:').scheme}:{value}")

    def on_the_web(self, value: str) -> Source:
        """An address of the web. It may be Label Studio's own: the one that we reach, or the one outside."""
        if (own := _OWN_PATH.search(value)) is None:
            return Remote(value, remark_on_web(value))
        if self.url and (path := _path_below(value, self.url)):
            return self._own(path)
        outside = self.outside_url()
        if outside and (path := _path_below(value, outside)):
            return self._own(path)
        return Remote(value, _remark_on_unknown(value[: own.start()], outside, self.url) or remark_on_web(value))

    def at_path(self, path: str) -> Source:
        """A path of Label Studio's host.

        If Label Studio has a path prefix, an upload's address begins with it. That of a Local File doesn't.
        """
        prefix = urlsplit(self.url or "").path.rstrip("/")
        if prefix and (below := _after(path, prefix)):
            return self._own(below)
        # Label Studio may have a prefix outside that it doesn't have at our address.
        if _OWN_PATH.match(path) is None and _OWN_PATH.search(path) and (outside := self.outside_url()):
            path = _after(path, urlsplit(outside).path) or path
        return self._own(path)

    def _own(self, path: str) -> Source:
        """A path below Label Studio's address: read from the disk, or fetched from the address that we reach."""
        # A file name may hold characters that an address may not. What is quoted already stays.
        path = quote(_BAD_ESCAPE.sub("%25", path), safe="/%?&=:@!$'()*+,;~[]")
        if self.local_files_root is not None and (file := _local_file(path, self.local_files_root)):
            return file
        prefix = path[: found.start()] if (found := _OWN_PATH.search(path)) else ""
        remote = Remote(self._known_url() + path, remark_on_prefix(prefix) if prefix else remark_on_own(path))
        if self.uploads and (name := self.uploads.name_of(path)):
            return Upload(self.uploads.media_root, name, remote)
        return remote

    def _known_url(self) -> str:
        if self.url is None:
            raise ImageError(
                FailureKind.NO_LABEL_STUDIO, "this image is behind Label Studio: set LABEL_STUDIO_URL and its API key"
            )
        return self.url.rstrip("/")


def _nobody_knows() -> None:
    return None


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
    """The path of `url` below Label Studio's address, with the query; None if it isn't below it."""
    if not is_same_origin(url, address):
        return None
    path = parse_url(_BAD_ESCAPE.sub("%25", url)).request_uri  # without .., as a browser asks for it
    below = _after(path, urlsplit(address).path)
    return below if below and _OWN_PATH.match(below) else None


def _after(path: str, prefix: str) -> str | None:
    prefix = prefix.rstrip("/")
    return path.removeprefix(prefix) if path.startswith(prefix + "/") else None


def _local_file(path: str, root: Path) -> LocalFile | None:
    """The file of a `/data/local-files/?d=` address below `root`; None if it can't be read there."""
    path, _, query = path.partition("?")
    if not is_local_files(path):
        return None
    # Of several, Django takes the last.
    name = parse_qs(query.partition("#")[0], keep_blank_values=True).get("d", [""])[-1].lstrip("/")
    try:
        open_below(root, name).close()
    except (OSError, ValueError):
        return None
    return LocalFile(root, name)
