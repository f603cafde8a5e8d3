"""Image files of the tests' own making."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def encode(pixels: NDArray[np.uint8] | Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    """An image file."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


BEST: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "GIF": {},
    "BMP": {},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}
"""How each format that a browser shows keeps the most of a picture."""

_AS_EXIF_SAYS = {orientation: orientation for orientation in range(1, 9)}
_NOT_AT_ALL = dict.fromkeys(range(1, 9), 1)
TURNED_BY_THE_PAGE = {
    "JPEG": _AS_EXIF_SAYS,
    "PNG": _AS_EXIF_SAYS,
    "WEBP": _NOT_AT_ALL,
    "GIF": _NOT_AT_ALL,
    "BMP": _NOT_AT_ALL,
    "AVIF": _AS_EXIF_SAYS,  # by its container, into which Pillow writes what the EXIF says
}
"""By which EXIF orientation a browser turns a file of each format: tests/e2e/apart/test_orientation.py asks one."""


def turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The picture that is meant by pixels as they are stored, with this EXIF orientation."""
    return {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels),
    }[orientation]
