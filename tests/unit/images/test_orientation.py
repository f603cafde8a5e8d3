"""Reading how an image is turned takes no time, whatever a stranger writes; what is read, TURNED_FILES has."""

from __future__ import annotations

import struct
import time

import pytest

from tests.harness.pictures import encode
from tests.harness.turned_files import four_colours, with_chunks, with_segments
from yolo_backend.images.decode import decode_image, size_and_orientation

SOON_S = 3
INNER, LONG = 0x8769, 4
JPEG, PNG = encode(four_colours(), "JPEG"), encode(four_colours(), "PNG")


def jpeg_with(content: bytes) -> bytes:
    return with_segments(JPEG, (0xE1, b"Exif\0\0" + content))


def png_with(content: bytes) -> bytes:
    return with_chunks(PNG, (b"eXIf", content))


@pytest.mark.filterwarnings("ignore:.*")
def test_directories_that_name_themselves_are_read_soon() -> None:
    entry = struct.pack("<HHII", INNER, LONG, 1, 8)
    content = b"II*\0\x08\0\0\0" + struct.pack("<H", 65_535) + entry * 65_535
    for file in (png_with(content), jpeg_with(content[:65_000])):
        started_at = time.monotonic()
        assert decode_image(file, 1).size_wh == size_and_orientation(file)[0] == (48, 32)
        assert time.monotonic() - started_at < SOON_S
