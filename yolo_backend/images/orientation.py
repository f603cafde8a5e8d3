"""How the labeling page turns a file: the EXIF orientation as Chromium reads it, which isn't as Pillow does.

The page looks neither at XMP nor at the texts in which ImageMagick keeps EXIF; of several blocks, inner directories or
values it takes the first, and a value of an odd type is none. tests/e2e/apart/test_orientation.py asks the browser.
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
    """By which of EXIF's eight turns the page shows this opened file; 1, which turns nothing, for most."""
    if image.format in {JpegImagePlugin.JpegImageFile.format, MpoImagePlugin.MpoImageFile.format}:
        return _read_exif(_exif_of_jpeg(content))
    if image.format == PngImagePlugin.PngImageFile.format:
        return _read_exif(_exif_of_png(content))
    if image.format == AvifImagePlugin.AvifImageFile.format:
        # Pillow tells how the container turns it (irot and imir) as EXIF; the file's own was taken out.
        return _read_exif(image.info.get("exif", b"").removeprefix(b"Exif\0\0"))
    return 1  # no browser turns a WebP, a GIF or a BMP, and Pillow turns a TIFF by itself


def _exif_of_jpeg(content: bytes) -> bytes:
    place = 2
    while marker := _MARKER.search(content, place):
        kind, place = marker[1][0], marker.end()
        if kind in {_SCAN, _END}:
            break
        if kind in _WITHOUT_LENGTH:
            continue
        length = int.from_bytes(content[place : place + 2], "big")
        if kind == _APP1 and _EXIF_START.match(content, place + 2):
            return content[place + 8 : place + length]
        place += length
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
    place = _PNG_START_BYTES
    for _ in range(_MAX_PNG_CHUNKS):
        if place + 8 > len(content):
            break
        length, name = struct.unpack_from(">I4s", content, place)
        if name == b"eXIf":
            return content[place + 8 : place + 8 + length]
        if name == b"IDAT":
            break
        place += length + 12
    return b""


def _read_exif(exif: bytes) -> int:
    order = _BYTE_ORDERS.get(exif[:4])
    if order is None or len(exif) < 8:
        return 1
    (start,) = struct.unpack_from(order + "I", exif, 4)
    return next((value for value in _orientations(exif, order, start) if 1 <= value <= 8), 1)


def _orientations(exif: bytes, order: str, start: int, *, may_follow: bool = True) -> Iterator[int]:
    """The orientations in a directory, and in the first EXIF directory that it names, which names none itself."""
    if start + 2 > len(exif):
        return
    (count,) = struct.unpack_from(order + "H", exif, start)
    for place in range(start + 2, min(start + 2 + count * _ENTRY_BYTES, len(exif) - _ENTRY_BYTES + 1), _ENTRY_BYTES):
        tag, kind, values = struct.unpack_from(order + "HHI", exif, place)
        if values != 1:
            continue
        if tag == _ORIENTATION and kind == _SHORT:
            yield struct.unpack_from(order + "H", exif, place + 8)[0]
        elif tag == _EXIF_DIRECTORY and kind == _LONG and may_follow:
            may_follow = False  # of others, which could be any number, Chromium reads none
            (inner,) = struct.unpack_from(order + "I", exif, place + 8)
            yield from _orientations(exif, order, inner, may_follow=False)
