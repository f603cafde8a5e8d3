"""Which of several EXIF directories says how an image is turned, as Chromium showed it; and that none takes long."""

from __future__ import annotations

import struct
import time

import pytest

from tests.harness.pictures import encode
from tests.harness.turned_files import exif, four_colours, orientation, with_chunks, with_segments
from yolo_backend.images.decode import decode_image, upright_size

SOON_S = 3
INNER, LONG = 0x8769, 4
JPEG, PNG = encode(four_colours(), "JPEG"), encode(four_colours(), "PNG")
NONE, THREE, SIX, NINE = exif((0x0113, 3, 1, 6))[8:], orientation(3)[8:], orientation(6)[8:], orientation(9)[8:]
BEHIND = 8 + 2 + 2 * 12 + 4  # a directory of two entries
NEXT = BEHIND + len(NONE)

DIRECTORIES: dict[str, tuple[bytes, int]] = {
    "none, then 6": (exif((INNER, LONG, 1, BEHIND), (INNER, LONG, 1, NEXT)) + NONE + SIX, 1),
    "6, then 3": (exif((INNER, LONG, 1, BEHIND), (INNER, LONG, 1, NEXT)) + SIX + THREE, 6),
    "9, then 6": (exif((INNER, LONG, 1, BEHIND), (INNER, LONG, 1, NEXT)) + NINE + SIX, 1),
    "beyond the end, then 6": (exif((INNER, LONG, 1, 50_000), (INNER, LONG, 1, BEHIND)) + SIX, 1),
    "itself, then 6": (exif((INNER, LONG, 1, 8), (INNER, LONG, 1, BEHIND)) + SIX, 1),
    "a SHORT, then 6": (exif((INNER, 3, 1, BEHIND), (INNER, LONG, 1, NEXT)) + NONE + SIX, 6),
    "of two values, then 6": (exif((INNER, LONG, 2, BEHIND), (INNER, LONG, 1, NEXT)) + NONE + SIX, 6),
    "6 within, then 3": (exif((INNER, LONG, 1, BEHIND), (0x0112, 3, 1, 3)) + SIX, 6),
    "none within, then 3": (exif((INNER, LONG, 1, BEHIND), (0x0112, 3, 1, 3)) + NONE, 3),
    "9 within, then 3": (exif((INNER, LONG, 1, BEHIND), (0x0112, 3, 1, 3)) + NINE, 3),
    "within what is within": (exif((INNER, LONG, 1, 26)) + exif((INNER, LONG, 1, 44))[8:] + SIX, 1),
}


def jpeg_with(content: bytes) -> bytes:
    return with_segments(JPEG, (0xE1, b"Exif\0\0" + content))


def png_with(content: bytes) -> bytes:
    return with_chunks(PNG, (b"eXIf", content))


@pytest.mark.filterwarnings("ignore:.*")  # what Pillow says of odd files
@pytest.mark.parametrize(("content", "turn"), DIRECTORIES.values(), ids=DIRECTORIES.keys())
def test_the_first_inner_directory_is_read(content: bytes, turn: int) -> None:
    corners = {1: [255, 0, 0], 3: [255, 255, 0], 6: [0, 0, 255]}
    for file in (jpeg_with(content), png_with(content)):
        decoded = decode_image(file, 1)
        assert decoded.size_wh == upright_size(file) == ((32, 48) if turn == 6 else (48, 32))
        assert abs(decoded.pixels[4, 4].astype(int) - corners[turn]).max() < 40


@pytest.mark.filterwarnings("ignore:.*")
def test_directories_that_name_themselves_are_read_soon() -> None:
    entry = struct.pack("<HHII", INNER, LONG, 1, 8)
    content = b"II*\0\x08\0\0\0" + struct.pack("<H", 65_535) + entry * 65_535
    for file in (png_with(content), jpeg_with(content[:65_000])):
        started_at = time.monotonic()
        assert decode_image(file, 1).size_wh == upright_size(file) == (48, 32)
        assert time.monotonic() - started_at < SOON_S
