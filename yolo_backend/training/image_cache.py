"""The images that are trained on, upright and on the disk, so that each is decoded once and not for every run."""

from __future__ import annotations

import errno
import math
import os
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import simplejpeg

from yolo_backend.errors import UserError
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.images.decode import DecodedImage, decode_image
from yolo_backend.images.errors import ImageError
from yolo_backend.images.orientation import without_metadata
from yolo_backend.training.looks import look_of

MAX_BYTES = 5_000_000_000
_QUALITY = 95
_MAX_SIDE_PX = 65_500  # libjpeg's own limit
_JPEG = b"\xff\xd8\xff"  # with which each begins
_END_OF_JPEG = b"\xff\xd9"  # without it, Ultralytics encodes the file anew
_COLORS_OF_ALL = {"YCbCr", "RGB", "Gray"}
_ENOUGH_PX = 256  # for a look
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_ABANDONED_AFTER_S = 3600.0


class ImageCacheError(UserError):
    """The disk takes no more images; the message says what to do."""


@dataclass(frozen=True)
class CachedImage:
    """A JPEG of the upright pixels, its size in pixels, its perceptual hash, and whether it was made of a JPEG."""

    file: Path
    size_wh: tuple[int, int]
    look: int
    is_of_jpeg: bool


class ImageCache:
    """Images by the digest of their bytes; safe to share between threads. One for each run.

    It may hold more than `max_bytes` while a run needs that many: `make_room` never removes what was taken from this
    object. After the run, `make_room` of a new one keeps the limit.
    """

    def __init__(self, folder: Path, max_megapixels: float, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_megapixels = max_megapixels
        self._max_bytes = max_bytes
        self._taken: set[Path] = set()
        self._making_room = threading.Lock()

    def take(self, digest: str, content: bytes) -> CachedImage:
        """The image whose bytes these are; decoded only where it isn't known. Raises ImageError, ImageCacheError."""
        file = self._folder / f"{digest}.jpg"
        self._taken.add(file)
        try:
            cached = self._known(file, content)
            if cached is None:
                self._write(file, _upright_jpeg(content, self._max_megapixels))
                cached = self._known(file, content)
        except OSError as error:
            raise ImageCacheError(
                f"Images to train on can't be kept in {self._folder} ({error.strerror}): make room there, or let the "
                "server's user read and write it"
            ) from None
        if cached is None:
            raise ImageError(FailureKind.BROKEN, "the image can't be read again after it was written to the disk")
        return cached

    def make_room(self, max_bytes: int | None = None) -> None:
        """Remove what was used least recently, down to the limit, and what a killed run left half-written."""
        limit = self._max_bytes if max_bytes is None else max_bytes
        with self._making_room:
            found = []
            for file in self._folder.glob("*"):
                with suppress(FileNotFoundError):
                    stat = file.stat()
                    found.append((stat.st_mtime, stat.st_size, file))
            total = sum(size for _, size, file in found)
            abandoned_before = time.time() - _ABANDONED_AFTER_S
            for used_at, size, file in sorted(found):
                is_half_written = file.name.startswith(".")
                is_in_the_way = total > limit and file not in self._taken
                if (used_at < abandoned_before) if is_half_written else is_in_the_way:
                    file.unlink(missing_ok=True)
                    total -= size

    def _known(self, file: Path, content: bytes) -> CachedImage | None:
        """What is there already of this content; None where nothing is, or where a power cut left it empty."""
        try:
            jpeg = file.read_bytes()
            os.utime(file)
        except FileNotFoundError:
            return None
        try:
            image = decode_image(jpeg, math.inf, _ENOUGH_PX)
        except ImageError:
            return None
        return CachedImage(file, image.size_wh, look_of(image.pixels), _is_jpeg(content))

    def _write(self, file: Path, content: bytes) -> None:
        try:
            self._write_beside(file, content)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self.make_room(0)
            self._write_beside(file, content)

    def _write_beside(self, file: Path, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        making = self._folder / f".{file.name}.{secrets.token_hex(4)}"
        try:
            making.write_bytes(content)
            making.replace(file)
        finally:
            making.unlink(missing_ok=True)


def _upright_jpeg(content: bytes, max_megapixels: float) -> bytes:
    """A JPEG that every reader shows upright: the file's own data, where it is one already."""
    image = decode_image(content, max_megapixels)
    if _is_plain(content, image):
        return without_metadata(content)
    if max(image.size_wh) > _MAX_SIDE_PX:
        raise ImageError(
            FailureKind.TOO_MANY_PIXELS, f"the image is longer than {_MAX_SIDE_PX} pixels, too long to train on"
        )
    jpeg: bytes = simplejpeg.encode_jpeg(image.pixels, _QUALITY, "RGB", "444", fastdct=False)
    return jpeg


def _is_jpeg(content: bytes) -> bool:
    return content.startswith(_JPEG)


def _is_plain(content: bytes, image: DecodedImage) -> bool:
    if not _is_jpeg(content) or image.orientation != 1:
        return False
    try:
        *_, colors, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:  # what libjpeg-turbo alone doesn't read
        return False
    return colors in _COLORS_OF_ALL and content.endswith(_END_OF_JPEG)
