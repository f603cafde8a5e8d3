"""Who an image is: the digest of its bytes, found by its address, so that they need not be fetched to know them."""

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
    """Label Studio as it is told from others: an address, and the token that decides what it shows."""

    @property
    def url(self) -> str: ...

    @property
    def token(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Identity:
    """The BLAKE3 digest of an image's bytes; `version` tells whether they changed; of a lasting one they never do."""

    digest: bytes
    version: Version | None
    is_lasting: bool


class Identities:
    """The images that were met in the last 24 h, those met last; safe to share between threads."""

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
    """The key of a task's value: a digest, for an address may hold a signature, and inline content is long.

    It is another one for another token, which may have no right to the image, and for a whole address also where Label
    Studio has another one outside, for then it may mean another file. Of what a project may read from the disk without
    asking Label Studio, it is the project's own: what it learned there, no other is told of.
    """
    text = value.strip() if isinstance(value, str) else ""  # what is no text has no image
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
