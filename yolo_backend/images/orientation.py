"""How the labeling page turns a file: by the EXIF orientation as Chromium reads it. Pillow reads it otherwise.

The page ignores XMP and the texts in which ImageMagick keeps EXIF. Of several blocks, inner directories or values it
takes the first. A value of an odd type doesn't count. tests/e2e/apart/test_orientation.py asks the browser.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from PIL import AvifImagePlugin, Image, JpegImagePlugin, MpoImagePlugin, PngImagePlugin

_ORIENTATION, _EXIF_DIRECTORY = 0x0112, 0x8769
_SHORT, _LONG = 3, 4
_ENTRY_BYTES = 12
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}

# A JPEG's segments as libjpeg finds them.
_MARKER = re.compile(rb"\xff([^\x00\xff])")
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_ABOUT_THE_PICTURE = frozenset(range(_APP1, 0xF0)) - {0xEE}  # by which the colours are told
_EXIF_START = re.compile(rb"Exif\x00.", re.DOTALL)
_PNG_START_BYTES = 8
_MAX_PNG_CHUNKS = 10_000


def orientation_of(image: Image.Image, content: bytes) -> int:
    """Which of EXIF's eight orientations the page gives to this opened file. For most it is 1, which turns nothing."""
    if image.format in {JpegImagePlugin.JpegImageFile.format, MpoImagePlugin.MpoImageFile.format}:
        return _read_exif(_exif_of_jpeg(content))
    if image.format == PngImagePlugin.PngImageFile.format:
        return _read_exif(_exif_of_png(content))
    if image.format == AvifImagePlugin.AvifImageFile.format:
        # Pillow gives the container's own rotation (irot and imir) as EXIF. The file's EXIF was taken out before.
        return _read_exif(image.info.get("exif", b"").removeprefix(b"Exif\0\0"))
    return 1  # no browser turns a WebP, a GIF or a BMP, and Pillow turns a TIFF by itself


def _exif_of_jpeg(content: bytes) -> bytes:
    position = 2
    while marker := _MARKER.search(content, position):
        kind, position = marker[1][0], marker.end()
        if kind in {_SCAN, _END}:
            break
        if kind in _WITHOUT_LENGTH:
            continue
        length = int.from_bytes(content[position : position + 2], "big")
        if kind == _APP1 and _EXIF_START.match(content, position + 2):
            return content[position + 8 : position + length]
        position += length
    return b""


def without_metadata(jpeg: bytes) -> bytes:
    """The same picture, pixel by pixel, without EXIF, XMP and the like: no reader turns it."""
    kept = []
    start = place = 2
    while marker := _MARKER.search(jpeg, place):
        kind, place = marker[1][0], marker.end()
        if kind in {_SCAN, _END}:
            break
        if kind in _WITHOUT_LENGTH:
            continue
        place += int.from_bytes(jpeg[place : place + 2], "big")
        if kind in _ABOUT_THE_PICTURE:
            kept.append(jpeg[start : marker.start()])
            start = place
    return b"".join([jpeg[:2], *kept, jpeg[start:]])


def _exif_of_png(content: bytes) -> bytes:
    position = _PNG_START_BYTES
    for _ in range(_MAX_PNG_CHUNKS):
        if position + 8 > len(content):
            break
        length, name = struct.unpack_from(">I4s", content, position)
        if name == b"eXIf":
            return content[position + 8 : position + 8 + length]
        if name == b"IDAT":
            break
        position += length + 12
    return b""


def _read_exif(exif: bytes) -> int:
    order = _BYTE_ORDERS.get(exif[:4])
    if order is None or len(exif) < 8:
        return 1
    (start,) = struct.unpack_from(order + "I", exif, 4)
    return next((value for value in _orientations(exif, order, start) if 1 <= value <= 8), 1)


def _orientations(exif: bytes, order: str, start: int, *, may_follow: bool = True) -> Iterator[int]:
    """The orientations in a directory, and in the first EXIF directory that it names; that one may name no other."""
    if start + 2 > len(exif):
        return
    (count,) = struct.unpack_from(order + "H", exif, start)
    for position in range(start + 2, min(start + 2 + count * _ENTRY_BYTES, len(exif) - _ENTRY_BYTES + 1), _ENTRY_BYTES):
        tag, kind, values = struct.unpack_from(order + "HHI", exif, position)
        if values != 1:
            continue
        if tag == _ORIENTATION and kind == _SHORT:
            yield struct.unpack_from(order + "H", exif, position + 8)[0]
        elif tag == _EXIF_DIRECTORY and kind == _LONG and may_follow:
            may_follow = False  # there may be any number of others, and Chromium reads none of them
            (inner,) = struct.unpack_from(order + "I", exif, position + 8)
            yield from _orientations(exif, order, inner, may_follow=False)
