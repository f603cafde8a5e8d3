"""Decoding: upright RGB of 8 bits, whatever the file; and nothing but ImageError for what is no image.

Ultralytics replaces `Image.open`: these pass with it (`make test`, where others import it) and without
(`make quick`).
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps, JpegImagePlugin, TiffImagePlugin

from tests.harness.pictures import BEST, TURNED_BY_THE_PAGE, encode, png_chunk, turned
from tests.harness.turned_files import FIRST_FRAMES, TURNED_FILES, four_colours
from yolo_backend.images.decode import DecodedImage, decode_image, size_and_orientation
from yolo_backend.images.errors import ImageError

Pixels = NDArray[np.uint8]

# What Pillow says of a file that it reads all the same; in production these are lines on stderr.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{start}")
    for start in (
        "Palette images with Transparency",
        "Corrupt EXIF data",
        "Tag data larger than file",
        "Metadata Warning",
        "Truncated File Read",
        "Possibly corrupt EXIF data",
        "Invalid APNG",
        "Image appears to be a malformed MPO",
        "Image size",
        "image file could not be identified",
    )
]

ORIENTATION = 0x0112


def noise(height: int = 12, width: int = 17, channels: int = 3) -> Pixels:
    return np.random.default_rng(5).integers(0, 256, (height, width, channels)).astype(np.uint8)


def smooth(height: int = 48, width: int = 64) -> Pixels:
    """Gradients that JPEG keeps, and no two corners the same."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    return np.stack([x / width * 250, y / height * 250, (x + y) / (width + height) * 120], axis=2).astype(np.uint8)


def as_opencv_reads(content: bytes) -> Pixels:
    """What Ultralytics would get from a file, in RGB order."""
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(pixels)[..., ::-1]


def decode(content: bytes, max_megapixels: float = 1) -> Pixels:
    pixels = decode_image(content, max_megapixels).pixels
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.flags.c_contiguous
    return pixels


def failure(content: bytes, max_megapixels: float = 1) -> ImageError:
    with pytest.raises(ImageError) as raised:
        decode_image(content, max_megapixels)
    assert len(str(raised.value).splitlines()) == 1
    return raised.value


# What is no image


UNKNOWN = "not a JPEG, PNG, WebP, AVIF, BMP, GIF or TIFF image"


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"\xff\xfe\xff", b"\x89PNX" + bytes(100), b"RIFF\0\0\0\0WEBPVP9 ", b"ab\0\1\2"]
)
def test_what_is_nothing_known_is_told(content: bytes) -> None:
    error = failure(content)
    assert (error.kind, str(error)) == ("not_an_image", UNKNOWN)


LOSSLESS: dict[str, dict[str, object]] = {"PNG": {}, "BMP": {}, "TIFF": {}, "WEBP": {"lossless": True}}
EVERY_FORMAT: dict[str, dict[str, object]] = {**LOSSLESS, "GIF": {}, "JPEG": {}, "AVIF": {}}


@pytest.mark.parametrize("image_format", EVERY_FORMAT)
@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
def test_a_truncated_file_is_broken(image_format: str, share: float) -> None:
    content = encode(noise(60, 80), image_format)
    assert failure(content[: int(len(content) * share)]).kind in {"broken", "not_an_image"}


@pytest.mark.parametrize("image_format", EVERY_FORMAT)
def test_the_start_of_a_file_alone_is_no_image(image_format: str) -> None:
    assert failure(encode(noise(), image_format)[:12]).kind in {"broken", "not_an_image"}


def test_a_checksum_that_is_wrong_is_broken() -> None:
    content = bytearray(encode(noise(60, 80), "PNG"))
    content[len(content) // 2] ^= 0xFF
    assert failure(bytes(content)).kind == "broken"


# Too many pixels, told before they are decoded


def png_header(width: int, height: int) -> bytes:
    """A black and white PNG that ends where its pixels should be."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(bytes(10)))[:-8]


def with_patched_size(image_format: str, offset: int, numbers: bytes) -> bytes:
    content = bytearray(encode(noise(), image_format))
    content[offset : offset + len(numbers)] = numbers
    return bytes(content)


def jpeg_with_size(width: int, height: int) -> bytes:
    content = bytearray(encode(noise(), "JPEG"))
    start = content.index(b"\xff\xc0")
    content[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "max_megapixels"),
    [
        (png_header(1001, 1000), 1),
        (png_header(10_000, 10_000), 99),
        (png_header(20_000, 20_000), 150),
        (png_header(2**31 - 1, 2**31 - 1), 150),
        (jpeg_with_size(65_500, 65_500), 150),
        (with_patched_size("GIF", 6, struct.pack("<HH", 65_535, 65_535)), 150),
        (with_patched_size("BMP", 18, struct.pack("<ii", 30_000, 30_000)), 150),
    ],
)
def test_too_many_pixels_are_told_by_the_header(content: bytes, max_megapixels: float) -> None:
    error = failure(content, max_megapixels)
    assert error.kind == "too_many_pixels"
    assert "MAX_IMAGE_MEGAPIXELS" in str(error)


def test_up_to_the_limit_pixels_are_decoded() -> None:
    content = encode(noise(100, 100), "PNG")
    assert decode(content, 0.01).shape == (100, 100, 3)
    assert failure(content, 0.009_999).kind == "too_many_pixels"


@pytest.mark.parametrize("megapixels", [100, 200])
def test_a_limit_above_pillows_own_counts(megapixels: int) -> None:
    error = failure(png_header(megapixels * 100, 10_000), 300)
    assert error.kind == "broken"
    assert "exceeds" not in str(error)


# Formats


@pytest.mark.parametrize("image_format", LOSSLESS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (50, 1), (12, 17)])
def test_lossless_formats_come_back_exactly(image_format: str, height: int, width: int) -> None:
    pixels = noise(height, width)
    assert np.array_equal(decode(encode(pixels, image_format, **LOSSLESS[image_format])), pixels)


@pytest.mark.parametrize(
    "options",
    [
        {"format": "JPEG", "quality": 95},
        {"format": "JPEG", "quality": 40},
        {"format": "JPEG", "progressive": True},
        {"format": "JPEG", "subsampling": 0},
        {"format": "JPEG", "subsampling": 2},
        {"format": "WEBP", "quality": 90},
        {"format": "TIFF", "compression": "tiff_lzw"},
        {"format": "TIFF", "compression": "tiff_adobe_deflate"},
        {"format": "TIFF", "compression": "jpeg"},
    ],
)
def test_other_encodings_look_the_same(options: dict[str, object]) -> None:
    options = dict(options)
    decoded = decode(encode(smooth(), str(options.pop("format")), **options))
    assert np.abs(decoded.astype(int) - smooth()).max() <= 20


def test_photographs_are_what_opencv_reads(bccd_files: list[Path]) -> None:
    for file in bccd_files[::6]:
        expected = np.asarray(cv2.imread(str(file), cv2.IMREAD_COLOR))[..., ::-1]
        assert np.array_equal(decode(file.read_bytes()), expected), file.name


def test_the_first_picture_of_an_mpo() -> None:
    second = Image.fromarray(255 - smooth())
    content = encode(smooth(), "MPO", save_all=True, append_images=[second])
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "MPO"
    assert np.array_equal(decode(content), as_opencv_reads(content))


@pytest.mark.parametrize(
    ("image_format", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})]
)
def test_the_first_frame_of_several(image_format: str, options: dict[str, object]) -> None:
    first, second = (Image.new("RGB", (20, 10), color) for color in ((255, 0, 0), (0, 0, 255)))
    content = encode(first, image_format, save_all=True, append_images=[second], **options)
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 2  # type: ignore[attr-defined]
    assert np.array_equal(decode(content), np.asarray(first))


# Modes


def palette_image(transparency: object = None) -> bytes:
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) % 4, "L")
    image = image.convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 8, 7])
    return encode(image, "PNG", **({} if transparency is None else {"transparency": transparency}))


PALETTE_RGB = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]], np.uint8)[np.arange(48).reshape(6, 8) % 4]


@pytest.mark.parametrize("transparency", [None, 1, b"\x00\x80\xff\x01"])
def test_a_palette_gives_its_colors_and_transparency_is_dropped(transparency: object) -> None:
    content = palette_image(transparency)
    assert np.array_equal(decode(content), PALETTE_RGB)
    assert np.array_equal(as_opencv_reads(content), PALETTE_RGB)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_dropped_not_blended(image_format: str) -> None:
    pixels = noise(channels=4)
    pixels[0, :, 3], pixels[1, :, 3] = 0, 255
    options: dict[str, object] = {"lossless": True, "exact": True} if image_format == "WEBP" else {}
    assert np.array_equal(decode(encode(pixels, image_format, **options)), pixels[..., :3])


def test_grey_with_alpha() -> None:
    pixels = noise(channels=2)
    content = encode(Image.fromarray(pixels, "LA"), "PNG")
    assert np.array_equal(decode(content), np.repeat(pixels[..., :1], 3, axis=2))


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "GIF", "JPEG"])
def test_grey(image_format: str) -> None:
    grey = smooth()[..., 0]
    content = encode(Image.fromarray(grey), image_format)
    decoded = decode(content)
    assert (decoded == decoded[..., :1]).all()
    tolerance = 3 if image_format == "JPEG" else 0
    assert np.abs(decoded[..., 0].astype(int) - grey).max() <= tolerance


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF"])
def test_black_and_white_is_0_and_255(image_format: str) -> None:
    bits = noise()[..., 0] > 127
    decoded = decode(encode(Image.fromarray(bits), image_format))
    assert np.array_equal(decoded, np.repeat(bits[..., None], 3, axis=2) * np.uint8(255))


GREY_16 = np.array([[0, 1, 255, 256, 257], [32767, 32768, 65279, 65280, 65535]], np.uint16)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_16_bits_of_grey_become_their_high_byte(image_format: str, big_endian: bool) -> None:
    image = Image.fromarray(GREY_16.astype(">u2" if big_endian else "<u2"))
    content = encode(image, image_format)
    expected = np.repeat((GREY_16 >> 8).astype(np.uint8)[..., None], 3, axis=2)
    assert np.array_equal(decode(content), expected)
    if image_format == "PNG":
        assert np.array_equal(as_opencv_reads(content), expected)


@pytest.mark.parametrize("channels", [3, 4])
def test_16_bits_of_color_become_their_high_byte(channels: int) -> None:
    pixels = np.random.default_rng(6).integers(0, 65536, (7, 9, channels)).astype(np.uint16)
    content = cv2.imencode(".png", pixels)[1].tobytes()
    expected = (pixels[..., 2::-1] >> 8).astype(np.uint8)
    assert np.array_equal(decode(content), expected)
    assert np.array_equal(as_opencv_reads(content), expected)


def test_numbers_with_a_point_are_clipped() -> None:
    values = np.array([[-5, 0, 0.5, 1.9], [127.5, 255, 256, 1e9], [np.nan, np.inf, -np.inf, 3]], np.float32)
    decoded = decode(encode(Image.fromarray(values), "TIFF"))
    assert decoded[..., 0].tolist() == [[0, 0, 0, 1], [127, 255, 255, 255], [0, 255, 0, 3]]
    assert (decoded == decoded[..., :1]).all()


@pytest.mark.parametrize("image_format", ["JPEG", "TIFF"])
def test_cmyk_looks_the_same(image_format: str) -> None:
    content = encode(Image.fromarray(smooth()).convert("CMYK"), image_format)
    assert np.abs(decode(content).astype(int) - smooth()).max() <= 20


# EXIF: the page shows images upright, and regions lie on what it shows


def stored_for(upright: Pixels, orientation: int) -> Pixels:
    """The pixels as they stand in a file whose EXIF says `orientation`."""
    return turned(upright, {6: 8, 8: 6}.get(orientation, orientation))  # the others turn back what they turned


def exif_of(orientation: object) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", TURNED_BY_THE_PAGE)
def test_an_image_comes_as_the_page_shows_it(image_format: str, orientation: int) -> None:
    stored = smooth()
    content = encode(stored, image_format, exif=exif_of(orientation), **BEST[image_format])
    expected = turned(stored, TURNED_BY_THE_PAGE[image_format][orientation])
    decoded = decode(content)
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).mean() <= 12  # a JPEG's and a GIF's colours are other ones


@pytest.mark.parametrize(("content", "orientation"), TURNED_FILES.values(), ids=TURNED_FILES.keys())
def test_odd_files_are_turned_as_the_page_turns_them(content: bytes, orientation: int) -> None:
    expected = turned(four_colours(), orientation)
    decoded = decode(content)
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).mean() < 12
    assert size_and_orientation(content) == (expected.shape[1::-1], orientation)


@pytest.mark.parametrize(("content", "size_wh", "at_xy"), FIRST_FRAMES.values(), ids=FIRST_FRAMES.keys())
def test_a_first_frame_lies_where_the_page_shows_it(
    content: bytes, size_wh: tuple[int, int], at_xy: tuple[int, int]
) -> None:
    decoded = decode_image(content, 1)
    x, y = at_xy
    assert decoded.size_wh == decoded.pixels.shape[1::-1] == size_wh
    assert np.abs(decoded.pixels[y : y + 32, x : x + 48].astype(int) - four_colours()).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_lossless_images_come_upright(image_format: str, orientation: int) -> None:
    upright = noise()
    stored = np.ascontiguousarray(stored_for(upright, orientation))
    content = encode(stored, image_format, exif=exif_of(orientation), **LOSSLESS[image_format])
    assert np.array_equal(decode(content), upright)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "MPO"])
def test_photographs_come_upright(image_format: str, orientation: int) -> None:
    upright = smooth()
    stored = np.ascontiguousarray(stored_for(upright, orientation))
    options = {"save_all": True, "append_images": [Image.fromarray(stored)]} if image_format == "MPO" else {}
    content = encode(stored, image_format, exif=exif_of(orientation), quality=95, **options)
    decoded = decode(content)
    assert decoded.shape == upright.shape
    assert np.abs(decoded.astype(int) - upright).max() <= 12
    assert np.array_equal(decoded, as_opencv_reads(content))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "I;16"])
def test_other_modes_come_upright_too(mode: str) -> None:
    grey = noise()[..., 0]
    stored = np.ascontiguousarray(np.rot90(grey, 1))
    image = Image.fromarray(stored.astype(np.uint16) << 8) if mode == "I;16" else Image.fromarray(stored).convert(mode)
    expected = np.where(grey > 127, 255, 0) if mode == "1" else grey
    if mode == "1":
        image = Image.fromarray(stored > 127)
    decoded = decode(encode(image, "PNG", exif=exif_of(6)))
    assert np.array_equal(decoded[..., 0], expected)


@pytest.mark.parametrize("orientation", [0, 9, 255, 65_535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    assert np.array_equal(decode(encode(noise(), "PNG", exif=exif_of(orientation))), noise())


def _entry(tag: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, kind, count, value)


BAD_EXIF = {
    "no TIFF header": b"Exif\0\0garbage, all of it",
    "empty": b"Exif\0\0",
    "a header alone": b"Exif\0\0II*\0",
    "entries that are missing": b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
    "an offset out of the file": b"Exif\0\0II*\0\xff\xff\xff\x7f",
    "a value out of the file": b"Exif\0\0II*\0\x08\0\0\0\x01\0" + _entry(0x010F, 2, 5000, 0x7FFFFFFF) + bytes(4),
    "an orientation in letters": b"Exif\0\0II*\0\x08\0\0\0\x01\0" + _entry(ORIENTATION, 2, 4, 0x41414141) + bytes(4),
    "a pointer to nowhere": b"Exif\0\0II*\0\x08\0\0\0\x01\0" + _entry(0x8769, 4, 1, 0x7FFFFFFF) + bytes(4),
    "an unknown kind": b"Exif\0\0II*\0\x08\0\0\0\x01\0" + _entry(0x010F, 99, 1, 0) + bytes(4),
}


@pytest.mark.parametrize("exif", BAD_EXIF.values(), ids=BAD_EXIF.keys())
def test_broken_exif_is_no_reason_to_refuse_an_image(exif: bytes) -> None:
    content = encode(smooth(), "JPEG", exif=exif)
    assert np.array_equal(decode(content), as_opencv_reads(content))


@pytest.mark.parametrize(
    ("tag", "kind"),
    [
        (0x0100, 1), (0x0100, 2), (0x0100, 3), (0x0111, 4), (0x0111, 7), (0x010F, 2), (0x010F, 3), (0x010F, 5),
        (0x010F, 12), (0x829A, 5), (0x8769, 4), (0x8825, 4), (0x9286, 7), (0x927C, 7), (0xEA1C, 1),
    ],
)  # fmt: skip
def test_odd_exif_beside_an_orientation_does_no_harm(tag: int, kind: int) -> None:
    exif = (
        b"Exif\0\0II*\0\x08\0\0\0\x02\0"
        + _entry(*min((ORIENTATION, 3, 1, 6), (tag, kind, 1, 0x1C)))
        + _entry(*max((ORIENTATION, 3, 1, 6), (tag, kind, 1, 0x1C)))
        + bytes(40)
    )
    content = encode(smooth(), "JPEG", exif=exif)
    assert np.array_equal(decode(content), as_opencv_reads(content))


# JPEGs: decoded by another library than Pillow, to the same pixels


def as_pillow_reads(content: bytes) -> Pixels | None:
    """A JPEG as Pillow alone makes it upright RGB; None where it refuses."""
    try:
        with JpegImagePlugin.JpegImageFile(io.BytesIO(content)) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception:  # whatever a plugin raises on bad data
        return None


def assert_as_pillow(content: bytes) -> None:
    expected = as_pillow_reads(content)
    if expected is None:
        assert failure(content).kind == "broken"
    else:
        assert np.array_equal(decode(content), expected)


def textured(height: int, width: int) -> Pixels:
    """Gradients with noise: something for each coefficient of a JPEG."""
    return np.asarray(cv2.addWeighted(smooth(height, width), 0.7, noise(height, width), 0.3, 0))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (50, 1), (7, 9), (16, 16), (33, 47)])
@pytest.mark.parametrize("sampling", [0x111111, 0x211111, 0x121111, 0x221111, 0x411111])
@pytest.mark.parametrize("progressive", [0, 1])
def test_every_subsampling_is_as_pillow_reads_it(height: int, width: int, sampling: int, progressive: int) -> None:
    options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    assert_as_pillow(cv2.imencode(".jpg", textured(height, width), options)[1].tobytes())


JPEG_OPTIONS: list[dict[str, object]] = [
    *(dict[str, object](quality=quality) for quality in (1, 5, 25, 50, 75, 90, 95, 99, 100)),
    *(dict[str, object](subsampling=subsampling, optimize=True) for subsampling in (0, 1, 2)),
    {"restart_marker_blocks": 1},
    {"restart_marker_rows": 1, "progressive": True},
    {"keep_rgb": True},
    {"comment": b"a comment", "dpi": (300, 300), "icc_profile": b"no profile at all"},
]


@pytest.mark.parametrize("options", JPEG_OPTIONS, ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_every_encoding_is_as_pillow_reads_it(mode: str, options: dict[str, object]) -> None:
    content = encode(Image.fromarray(textured(37, 51)).convert(mode), "JPEG", **options)
    assert as_pillow_reads(content) is not None
    assert_as_pillow(content)


@pytest.mark.parametrize("transform", [0, 1, 2])
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_adobes_colors_are_as_pillow_reads_them(mode: str, transform: int) -> None:
    """RGB, YCbCr, CMYK or YCCK, as the Adobe segment says."""
    content = encode(Image.fromarray(textured(37, 51)).convert(mode), "JPEG")
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
    if mode == "CMYK":
        start = content.index(adobe[:9])
        content = content[:start] + content[start + 16 :]
    else:  # a JFIF segment would have the last word
        content = content[:2] + content[20:]
    content = content[:2] + adobe + bytes([transform]) + content[2:]
    assert as_pillow_reads(content) is not None
    assert_as_pillow(content)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (7, 13), (31, 17)])
def test_odd_sizes_come_upright_as_from_pillow(height: int, width: int, orientation: int) -> None:
    content = encode(textured(height, width), "JPEG", exif=exif_of(orientation))
    assert_as_pillow(content)
    assert decode_image(content, 1).size_wh == ((height, width) if orientation > 4 else (width, height))


JPEG = encode(textured(37, 51), "JPEG", quality=60)
SCAN = JPEG.index(b"\xff\xda")
FORGIVEN = {
    "no end, but more bytes": JPEG[:-2] + bytes(100),
    "bytes before the end": JPEG[:-2] + b"odd bytes" + JPEG[-2:],
    "bytes after the end": JPEG + bytes(1000),
    "bytes before a segment": JPEG[:SCAN] + b"odd" + JPEG[SCAN:],
    "a version of JFIF that isn't": JPEG.replace(b"JFIF\0\x01", b"JFIF\0\x09"),
    "damage in the scan": JPEG[:-300] + bytes(100) + JPEG[-200:],
    "a restart marker that isn't due": JPEG[:-200] + b"\xff\xd3" + JPEG[-200:],
    "an unknown segment": JPEG[:2] + b"\xff\xef\0\x06odd!" + JPEG[2:],
    "a picture in the picture": encode(textured(37, 51), "JPEG", exif=b"Exif\0\0" + encode(noise(), "JPEG")),
}


@pytest.mark.parametrize("content", FORGIVEN.values(), ids=FORGIVEN.keys())
def test_what_pillow_forgives_is_forgiven(content: bytes) -> None:
    assert as_pillow_reads(content) is not None
    assert_as_pillow(content)


@pytest.mark.parametrize(
    "content", [JPEG[: SCAN + 2], JPEG[: SCAN + 40], JPEG[: len(JPEG) // 2], JPEG[:-40], JPEG[:-2]]
)
def test_what_pillow_refuses_is_refused(content: bytes) -> None:
    assert as_pillow_reads(content) is None
    assert_as_pillow(content)


@given(data=st.data())
def test_a_damaged_jpeg_is_what_pillow_makes_of_it(data: st.DataObject) -> None:
    content = bytearray(JPEG)
    places = st.integers(SCAN, len(content) - 3) if data.draw(st.booleans()) else st.integers(3, len(content) - 1)
    for place, byte in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)):
        content[place] = byte
    assert_as_pillow(bytes(content))


# JPEGs at a reduced scale


def reduced(content: bytes, enough_px: int) -> DecodedImage:
    decoded = decode_image(content, 1, enough_px)
    assert decoded.pixels.flags.c_contiguous
    return decoded


@pytest.mark.parametrize(
    ("longer_px", "enough_px", "scale"),
    [
        (100, 101, 1), (100, 100, 1), (100, 51, 1), (101, 51, 1), (100, 50, 2), (101, 50, 2), (100, 26, 2),
        (100, 25, 4), (100, 13, 4), (100, 12, 8), (101, 12, 8), (100, 1, 8), (1, 1, 1), (7, 1, 4), (8, 1, 8),
    ],
)  # fmt: skip
@pytest.mark.parametrize("shorter", [1.0, 0.7, 0.02])
def test_the_scale_keeps_enough_pixels_on_the_longer_side(
    longer_px: int, enough_px: int, scale: int, shorter: float
) -> None:
    size_wh = longer_px, max(1, int(longer_px * shorter))
    for width, height in (size_wh, size_wh[::-1]):
        decoded = reduced(encode(textured(height, width), "JPEG"), enough_px)
        assert decoded.size_wh == (width, height)
        assert decoded.pixels.shape == (math.ceil(height / scale), math.ceil(width / scale), 3)
        assert max(decoded.pixels.shape) >= min(enough_px, longer_px)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("options", [{}, {"progressive": True, "subsampling": 0}, {"keep_rgb": True}])
def test_a_reduced_image_comes_upright_and_knows_its_size(orientation: int, options: dict[str, object]) -> None:
    upright = smooth(96, 136)
    stored = np.ascontiguousarray(stored_for(upright, orientation))
    content = encode(stored, "JPEG", exif=exif_of(orientation), quality=95, **options)
    for scale, enough_px in ((2, 60), (4, 30), (8, 15)):
        decoded = reduced(content, enough_px)
        assert decoded.size_wh == (136, 96)
        expected = cv2.resize(upright, (136 // scale, 96 // scale), interpolation=cv2.INTER_AREA)
        assert decoded.pixels.shape == expected.shape
        assert np.abs(decoded.pixels.astype(int) - expected).max() <= 8


def test_a_grey_jpeg_is_reduced_too() -> None:
    decoded = reduced(encode(Image.fromarray(smooth(80, 80)).convert("L"), "JPEG"), 20)
    assert decoded.pixels.shape == (20, 20, 3)
    assert (decoded.pixels == decoded.pixels[..., :1]).all()


@pytest.mark.parametrize("image_format", [*LOSSLESS, "GIF"])
def test_only_jpegs_are_reduced(image_format: str) -> None:
    content = encode(smooth(80, 80), image_format)
    assert np.array_equal(reduced(content, 10).pixels, decode(content))


@pytest.mark.parametrize("content", FORGIVEN.values(), ids=FORGIVEN.keys())
def test_a_damaged_jpeg_knows_its_size_reduced_or_not(content: bytes) -> None:
    decoded = reduced(content, 25)
    assert decoded.size_wh == (51, 37)
    assert decoded.pixels.shape in {(19, 26, 3), (37, 51, 3)}


def test_too_many_pixels_are_too_many_at_any_scale() -> None:
    with pytest.raises(ImageError) as raised:
        decode_image(encode(noise(100, 101), "JPEG"), 0.01, enough_px=10)
    assert raised.value.kind == "too_many_pixels"


# Whatever comes


def kind_of(content: bytes) -> str:
    try:
        decode(content)
    except ImageError as error:
        return error.kind if len(str(error).splitlines()) == 1 else "told in several lines"
    return "an image"


@given(st.binary(max_size=400))
def test_any_bytes_are_an_image_or_told(content: bytes) -> None:
    assert kind_of(content) in {"an image", "not_an_image", "broken", "too_many_pixels"}


@pytest.mark.parametrize("image_format", [*EVERY_FORMAT, "MPO"])
@given(data=st.data())
def test_any_damage_is_an_image_or_told(image_format: str, data: st.DataObject) -> None:
    content = bytearray(
        encode(noise(9, 11), image_format, **({} if image_format in {"BMP", "GIF"} else {"exif": exif_of(6)}))
    )
    damage = st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255))
    for place, byte in data.draw(st.lists(damage, max_size=12)):
        content[place] = byte
    assert kind_of(bytes(content)) in {"an image", "not_an_image", "broken", "too_many_pixels"}


def test_tags_of_a_tiff_do_not_matter() -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[305] = "some software"
    tags[37_000] = b"\x00\xff" * 50
    assert np.array_equal(decode(encode(noise(), "TIFF", tiffinfo=tags)), noise())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"])
def test_the_headers_tell_the_size_that_the_pixels_have(image_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(Image.new("RGB", (30, 20)), image_format, exif=exif)

    assert size_and_orientation(content)[0] == decode_image(content, 1).size_wh


@pytest.mark.parametrize(("content", "kind"), [(b"<html>", "not_an_image"), (b"\x89PNG\r\n\x1a\n", "broken")])
def test_headers_that_tell_no_size_are_told(content: bytes, kind: str) -> None:
    with pytest.raises(ImageError) as caught:
        size_and_orientation(content)
    assert caught.value.kind == kind
