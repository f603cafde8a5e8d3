"""Small files that ask for minutes or for all memory are refused, soon; unusual ones that don't are decoded.

Ultralytics replaces `Image.open`: these pass with it (`make test`, where others import it) and without
(`make quick`).
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.harness.pictures import encode, png_chunk
from yolo_backend.images.decode import decode_image
from yolo_backend.images.errors import ImageError

SOON_S = 3
SMALL = Image.fromarray(np.random.default_rng(7).integers(0, 256, (16, 16, 3)).astype(np.uint8))

pytestmark = pytest.mark.filterwarnings("ignore:.*")  # what Pillow says of odd files, lines on stderr in production


def kind_of(content: bytes, max_megapixels: float = 20) -> str:
    """`image`, or the kind of the failure; either of them soon."""
    started_at = time.monotonic()
    try:
        pixels = decode_image(content, max_megapixels).pixels
    except ImageError as error:
        return error.kind if str(error).isprintable() else "told in several lines"
    finally:
        assert time.monotonic() - started_at < SOON_S
    return "image" if pixels.dtype == np.uint8 and pixels.ndim == 3 else "no image"


def jpeg_with(*, after_start: bytes = b"", before_end: bytes = b"", **options: object) -> bytes:
    content = encode(SMALL, "JPEG", **options)
    return content[:2] + after_start + content[2:-2] + before_end + content[-2:]


def segment(kind: int, content: bytes) -> bytes:
    return bytes([0xFF, kind]) + struct.pack(">H", len(content) + 2) + content


def scans(count: int) -> bytes:
    """The last scan of a progressive JPEG, again and again."""
    content = encode(SMALL, "JPEG", progressive=True)
    return content[content.rindex(b"\xff\xda") : -2] * count


def png_with(*chunks: bytes) -> bytes:
    content = encode(SMALL, "PNG")
    start = content.index(b"IDAT") - 4
    return content[:start] + b"".join(chunks) + content[start:]


def tiff(entries: list[tuple[int, int, int, int]], content: bytes = b"", *, size: int = 16) -> bytes:
    """A grey TIFF of these tags besides those that it must have; `content` stands at 1000."""
    must = [(256, 4, 1, size), (257, 4, 1, size), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 1000)]
    must += [(278, 4, 1, size), (279, 4, 1, 256)]
    known = {entry[0]: entry for entry in [*must, *entries]}
    directory = b"".join(struct.pack("<HHII", *known[tag]) for tag in sorted(known))
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(known)) + directory + bytes(4)
    return head + bytes(1000 - len(head)) + (content or bytes(range(256)))


def webp_canvas(width: int, height: int) -> bytes:
    """An animation whose one small frame stands on a large canvas."""
    picture = encode(SMALL, "WEBP", lossless=True)[12:]
    frame = bytes(6) + struct.pack("<I", 15)[:3] * 2 + bytes(4) + picture
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + size + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body += b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp_rle(body: bytes, width: int = 1000, height: int = 1000) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(body), 0, 0, 1078) + header + bytes(1024) + body


def gif_frame(width: int, height: int) -> bytes:
    """A small screen with a frame that is larger."""
    content = bytearray(encode(Image.new("P", (8, 8)), "GIF"))
    start = content.rindex(b",", 0, -10)
    content[start + 5 : start + 9] = struct.pack("<HH", width, height)
    return bytes(content)


BOMB = zlib.compress(bytes(100_000_000), 9)
BOMBS: dict[str, tuple[Callable[[], bytes], set[str]]] = {
    "JPEG of many scans": (lambda: jpeg_with(before_end=scans(200), progressive=True), {"broken"}),
    "JPEG of many scans behind a false end": (
        lambda: jpeg_with(after_start=b"\xff\xd9", before_end=scans(200), progressive=True),
        {"broken"},
    ),
    "JPEG of many comments": (lambda: jpeg_with(after_start=segment(0xFE, b"") * 100_000), {"broken"}),
    "JPEG of many starts": (lambda: jpeg_with(after_start=b"\xff\xd8" * 100_000), {"broken"}),
    "JPEG of much EXIF": (
        lambda: jpeg_with(after_start=segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 300),
        {"broken"},
    ),
    "JPEG of filling bytes": (lambda: b"\xff\xd8" + b"\xff" * 20_000_000, {"broken"}),
    "PNG of more pixels than it has": (
        lambda: encode(SMALL, "PNG").split(b"IDAT")[0][:-4] + png_chunk(b"IDAT", BOMB) + png_chunk(b"IEND", b""),
        {"image", "broken"},
    ),
    "PNG zTXt": (lambda: png_with(png_chunk(b"zTXt", b"a\0\0" + BOMB)), {"broken"}),
    "PNG iTXt": (lambda: png_with(png_chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB)), {"broken"}),
    "PNG iCCP": (lambda: png_with(png_chunk(b"iCCP", b"a\0\0" + BOMB)), {"broken"}),
    "PNG of many texts": (
        lambda: png_with(png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000))) * 500),
        {"broken"},
    ),
    "PNG of much EXIF": (
        lambda: png_with(png_chunk(b"eXIf", tiff([(274, 5, 2_000_000, 1000)], bytes(16_000_000)))),
        {"image"},
    ),
    "WebP canvas": (lambda: webp_canvas(5000, 5000), {"too_many_pixels"}),
    "WebP canvas of all pixels": (lambda: webp_canvas(16_383, 16_383), {"too_many_pixels"}),
    "WebP canvas of one line": (lambda: webp_canvas(1 << 24, 2), {"too_many_pixels", "broken"}),
    "GIF frame": (lambda: gif_frame(65_535, 65_535), {"too_many_pixels"}),
    "GIF of many comments": (
        lambda: encode(Image.new("L", (8, 8)), "GIF")[:13] + (b"!\xfe" + b"\1x" * 50 + b"\0") * 50_000,
        {"broken"},
    ),
    "BMP of steps that lead nowhere": (lambda: bmp_rle(b"\0\2\0\0" * 500_000), {"broken"}),
    "BMP of steps that lead far": (lambda: bmp_rle(b"\0\2\xff\xff" * 500_000), {"image", "broken"}),
    "TIFF of many strips": (lambda: tiff([(273, 4, 2_500_000, 1000)], bytes(10_000_000)), {"broken"}),
    "TIFF of many numbers": (lambda: tiff([(282, 5, 1_500_000, 1000)], bytes(12_000_000)), {"broken"}),
    "TIFF of large tiles": (
        lambda: tiff([(259, 3, 1, 8), (322, 4, 1, 30_000), (323, 4, 1, 30_000), (324, 4, 1, 1000)], BOMB),
        {"too_many_pixels"},
    ),
    "TIFF of a large strip": (lambda: tiff([(259, 3, 1, 8), (278, 4, 1, 2**32 - 1)], BOMB), {"image", "broken"}),
    "TIFF of many samples": (lambda: tiff([(277, 4, 1, 2**32 - 1)]), {"broken"}),
    "TIFF of many pixels": (lambda: tiff([], size=2**31), {"too_many_pixels"}),
    "TIFF that begins within itself": (lambda: b"II*\0\0\0\0\0" * 1000, {"broken"}),
}


@pytest.mark.long
@pytest.mark.parametrize(("make", "kinds"), BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_is_refused_soon(make: Callable[[], bytes], kinds: set[str]) -> None:
    assert kind_of(make()) in kinds


@pytest.mark.parametrize(
    "content",
    [
        jpeg_with(before_end=scans(50), progressive=True),
        jpeg_with(after_start=segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(60_000)) * 255),
        jpeg_with(after_start=segment(0xE1, b"Exif\0\0II*\0" + bytes(60_000)) * 2),
        jpeg_with() + b"\xff\xda" * 5000,  # the film of a motion photo holds any bytes
        jpeg_with(after_start=segment(0xE1, b"\xff\xda" * 5000)),
        tiff([(700, 1, 9_000_000, 1000)], bytes(9_000_000)),
        tiff([(322, 4, 1, 256), (323, 4, 1, 256), (324, 4, 1, 1000)], bytes(65_536)),
    ],
    ids=["scans", "color profile", "two EXIF", "film", "scans in a segment", "XMP", "tiles"],
)
def test_unusual_files_are_decoded(content: bytes) -> None:
    assert kind_of(content) == "image"


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
@settings(max_examples=40)
@given(data=st.data())
def test_any_pieces_of_files_are_an_image_or_told(image_format: str, data: st.DataObject) -> None:
    """Cut, doubled and shuffled, with large numbers in the place of small ones."""
    options: dict[str, object] = {"progressive": True} if image_format == "JPEG" else {}
    content = encode(SMALL, image_format, **options)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=4)))
    pieces = [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    odd = st.sampled_from([*pieces, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff", bytes(4), b"\xff\xda"])
    shuffled = pieces[0] + b"".join(data.draw(st.lists(odd, max_size=8)))
    assert kind_of(shuffled) in {"image", "broken", "not_an_image", "too_many_pixels"}


def test_filling_before_segments_is_passed_soon() -> None:
    """A search that begins anew at each byte of filling would take minutes."""
    filling = (b"\xff" * 60_000 + b"\0") * 50
    assert kind_of(jpeg_with(after_start=segment(0xFE, b"a") + filling[:60_001])) == "image"
    assert kind_of(jpeg_with(after_start=filling)) == "broken"


def test_chunks_without_end_are_passed_soon() -> None:
    assert kind_of(png_with(png_chunk(b"abCd", b"") * 50_000)) == "image"
