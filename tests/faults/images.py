"""Images for the fault table: good ones, and files that are broken, lie about their size, or are no images."""

from __future__ import annotations

import base64
import gzip
import io
import random
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image

from yolo_backend.demo.scenes import draw_scene

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
_SIZE_WH = (320, 240)
_MEBIBYTE = 1 << 20


@cache
def photo(seed: int = 3) -> Image.Image:
    """A demo scene, made small, with objects that the demo's weights find."""
    return Image.fromarray(draw_scene(seed).image).resize(_SIZE_WH)


@cache
def photo_file(image_format: str = "JPEG", seed: int = 3) -> bytes:
    """The photo as a file."""
    return encode(photo(seed), image_format)


@cache
def tiny_file(image_format: str) -> bytes:
    """A small image with all kinds of pixels, for damage that should hit more than pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    return encode(Image.fromarray(pixels), image_format)


def photo_with_comment(comment: str) -> bytes:
    """The photo as a PNG with a comment: another file for each, with the same pixels."""
    return _png_with_chunk(b"tEXt", b"Comment\0" + comment.encode("latin-1"))


def flat_file(color_rgb: tuple[int, int, int]) -> bytes:
    """A PNG of one colour, as large as the photo."""
    return encode(Image.new("RGB", _SIZE_WH, color_rgb), "PNG")


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    """An image file."""
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def data_address(content: bytes) -> str:
    """A data: address of these bytes, whatever they are."""
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


# Damage


def truncated(content: bytes, share: float = 0.5) -> bytes:
    """The first part of a file."""
    return content[: int(len(content) * share)]


def with_flipped_bits(content: bytes, seed: int, count: int = 20) -> bytes:
    """A file with some bits turned over; the same seed turns the same ones."""
    damaged = bytearray(content)
    chance = random.Random(seed)
    for _ in range(count):
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


# Headers that promise more pixels than anyone has


def huge_png() -> bytes:
    """A few bytes that claim 65500 x 65500 pixels."""
    return _png(65_500, 65_500, zlib.compress(bytes(10)))


def huge_jpeg() -> bytes:
    """A photo whose header claims 65500 x 65500 pixels."""
    content = bytearray(photo_file("JPEG"))
    start = content.index(b"\xff\xc0")
    content[start + 5 : start + 9] = struct.pack(">HH", 65_500, 65_500)
    return bytes(content)


def huge_gif() -> bytes:
    """A GIF whose screen claims 65535 x 65535 pixels."""
    return _patched(photo_file("GIF"), 6, struct.pack("<HH", 65_535, 65_535))


def huge_bmp() -> bytes:
    """A BMP that claims 30000 x 30000 pixels."""
    return _patched(photo_file("BMP"), 18, struct.pack("<ii", 30_000, 30_000))


def huge_tiff() -> bytes:
    """A TIFF that claims 65500 x 65500 pixels."""
    content = photo_file("TIFF")
    (entries_at,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, entries_at)
    for number in range(count):
        entry_at = entries_at + 2 + 12 * number
        tag, kind = struct.unpack_from("<HH", content, entry_at)
        if tag in {256, 257}:  # ImageWidth, ImageLength
            content = _patched(content, entry_at + 8, struct.pack("<H" if kind == 3 else "<I", 65_500))
    return content


def huge_webp() -> bytes:
    """A WebP whose lossy frame claims 16383 x 16383 pixels, the most that one can."""
    content = photo_file("WEBP")
    start = content.index(b"\x9d\x01\x2a")
    return _patched(content, start + 3, struct.pack("<HH", 16_383, 16_383))


# Few bytes that unpack to many


def png_with_endless_pixels() -> bytes:
    """A PNG of 10 x 10 pixels whose data unpack to 256 MiB."""
    return _png(10, 10, _zeros_compressed(256))


def png_with_text_bomb() -> bytes:
    """A good PNG but for a comment that unpacks to 256 MiB."""
    return _png_with_chunk(b"zTXt", b"Comment\0\0" + _zeros_compressed(256))


def png_with_profile_bomb() -> bytes:
    """A good PNG but for a colour profile that unpacks to 256 MiB."""
    return _png_with_chunk(b"iCCP", b"profile\0\0" + _zeros_compressed(256))


def png_with_much_text() -> bytes:
    """A good PNG but for 2,000 comments that unpack to 512 KiB each: together more than a gigabyte."""
    chunk = _png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(_MEBIBYTE // 2)))
    return _with_chunks(chunk * 2000)


def tiff_with_a_bomb() -> bytes:
    """A TIFF of 320 x 240 pixels whose deflated strip unpacks to 256 MiB."""
    content = encode(photo(), "TIFF", compression="tiff_adobe_deflate")
    (entries_at,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, entries_at)
    bomb = _zeros_compressed(256)
    for number in range(count):
        entry_at = entries_at + 2 + 12 * number
        (tag,) = struct.unpack_from("<H", content, entry_at)
        if tag in {273, 279, 278}:  # StripOffsets, StripByteCounts, RowsPerStrip
            value = {273: len(content), 279: len(bomb), 278: _SIZE_WH[1]}[tag]
            content = _patched(content, entry_at + 2, struct.pack("<HII", 4, 1, value))
    return content + bomb


def tiff_in_circles() -> bytes:
    """A good TIFF whose list of pages leads back to its first one."""
    content = photo_file("TIFF")
    (entries_at,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, entries_at)
    return _patched(content, entries_at + 2 + 12 * count, struct.pack("<I", entries_at))


def gif_with_many_frames() -> bytes:
    """A good GIF with 200 frames behind the first."""
    frames = [Image.new("L", _SIZE_WH, number % 256) for number in range(200)]
    return encode(photo(), "GIF", save_all=True, append_images=frames)


def jpeg_with_bad_exif() -> bytes:
    """A good JPEG but for its EXIF, which is noise and orientation 99."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\x01\0\0\0\x63\0\0\0" + bytes(range(256))
    return encode(photo(), "JPEG", exif=exif)


@cache
def gzip_of_gzip_of_zeros() -> bytes:
    """Some kilobytes that unpack, twice, to 4 GiB."""
    return gzip.compress(gzip.compress(bytes(64 * _MEBIBYTE)) * 64)


@cache
def gzip_of_zeros() -> bytes:
    """A few hundred kilobytes that unpack to 256 MiB."""
    return gzip.compress(bytes(256 * _MEBIBYTE))


@cache
def _zeros_compressed(mebibytes: int) -> bytes:
    return zlib.compress(bytes(mebibytes * _MEBIBYTE))


def _png(width: int, height: int, data: bytes) -> bytes:
    header = _png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _png_chunk(b"IDAT", data) + _png_chunk(b"IEND", b"")


def _png_with_chunk(name: bytes, content: bytes) -> bytes:
    return _with_chunks(_png_chunk(name, content))


def _with_chunks(chunks: bytes) -> bytes:
    content = photo_file("PNG")
    start = content.index(b"IDAT") - 4
    return content[:start] + chunks + content[start:]


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _patched(content: bytes, offset: int, new: bytes) -> bytes:
    return content[:offset] + new + content[offset + len(new) :]
