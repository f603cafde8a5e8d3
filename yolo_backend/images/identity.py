"""An image's identity: the digest of its bytes, remembered by its address, so that they need not be fetched."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from blake3 import blake3
from cachetools import TTLCache

from yolo_backend.images.sources import Inline, Remote, Source, Upload
from yolo_backend.images.uploads import UPLOAD, ProjectUploads
from yolo_backend.images.versions import Validators, Version

_KEPT_S = 24 * 3600.0
_ENTRY_BYTES = 500  # of the objects of one entry, as tracemalloc counts them


class TokenOwner(Protocol):
    """What makes one Label Studio another one: its address, and the token, which decides what it shows."""

    @property
    def url(self) -> str: ...

    @property
    def token(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Identity:
    """The BLAKE3 digest of an image's bytes; `version` tells whether they changed. A lasting image never changes."""

    digest: bytes
    version: Version | None
    is_lasting: bool


class Identities:
    """The images of the last 24 h; the latest ones if there are too many. Safe to share between threads."""

    def __init__(self, max_bytes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._known: TTLCache[bytes, Identity, float] = TTLCache(max_bytes, _KEPT_S, clock, _size_of)
        self._lock = threading.Lock()

    def find(self, key: bytes) -> Identity | None:
        """What `identity_key` stood for when it was met last."""
        with self._lock:
            return self._known.get(key)

    def keep(self, key: bytes, identity: Identity) -> None:
        """Remember an image."""
        if _size_of(identity) <= self._known.maxsize:
            with self._lock:
                self._known[key] = identity


def identity_key(
    value: Any,
    studio: TokenOwner | None,
    outside_url: str | None = None,
    uploads: ProjectUploads | None = None,
) -> bytes:
    """The key of a task's value: a digest, because an address may hold a signature and inline content is long.

    It depends on the token, because another one may have no right to the image. For a whole address it also depends on
    Label Studio's address outside, because the value may mean another file then. For what a project may read from the
    disk without asking Label Studio, it depends on the project: no other project is answered by what this one has read.
    """
    text = value.strip() if isinstance(value, str) else ""  # any other value has no image
    digest = blake3(text.encode(errors="surrogatepass"))
    outside_url = None if text.startswith(("/data/", "data:")) else outside_url
    digest.update(repr((studio.url, studio.token, outside_url) if studio else None).encode())
    if uploads and uploads.may_mean(text):
        digest.update(uploads.project.encode())
    return digest.digest()


def is_lasting(source: Source, studio: TokenOwner | None) -> bool:
    """Returns True if this source has the same bytes for ever, as inline content and Label Studio's uploads have."""
    if isinstance(source, Inline | Upload):
        return True
    if studio is None or not isinstance(source, Remote) or not source.url.startswith(studio.url):
        return False
    return UPLOAD.fullmatch(source.url.removeprefix(studio.url)) is not None


def _size_of(identity: Identity) -> int:
    version = identity.version
    text = len(version.value) + len(version.given_by) if isinstance(version, Validators) else 0
    return _ENTRY_BYTES + text
