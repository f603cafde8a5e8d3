"""TIFFs and PNGs of more than 8 bits, of numbers with a point, and of cameras: as they are meant, or told."""

from __future__ import annotations

import struct
from typing import Literal

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.harness.pictures import encode
from yolo_backend.images.decode import decode_image
from yolo_backend.images.errors import ImageError

Values = NDArray[np.generic]

pytestmark = pytest.mark.filterwarnings("ignore:.*")  # what Pillow says of odd files, lines on stderr in production

RAMP = np.linspace(0, 1, 12).reshape(3, 4)
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2)
LEVELS = [0, 23, 46, 69, 92, 115, 139, 162, 185, 208, 231, 255]


def tiff(
    values: Values, *, photometric: int = 1, form: int = 1, order: Literal["<", ">"] = "<", in_planes: bool = False,
    more: tuple[tuple[int, int, int], ...] = (), next_page: int = 0,
) -> bytes:  # fmt: skip
    """An uncompressed TIFF of these values, as Pillow doesn't write them; `more` are tags: number, type, value."""
    height, width = values.shape[:2]
    samples = 1 if values.ndim == 2 else values.shape[2]
    stored = values.transpose(2, 0, 1) if in_planes else values
    data = stored.astype(values.dtype.newbyteorder(order)).tobytes()
    strips = samples if in_planes else 1
    start, length = 1024, len(data) // strips
    bits = values.dtype.itemsize * 8
    tags: dict[int, tuple[int, list[int]]] = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * samples), 259: (3, [1]), 262: (3, [photometric]),
        273: (4, [start + number * length for number in range(strips)]), 277: (3, [samples]), 278: (4, [height]),
        279: (4, [length] * strips), 284: (3, [2 if in_planes else 1]), 339: (3, [form] * samples),
    }  # fmt: skip
    tags |= {tag: (kind, [value]) for tag, kind, value in more}
    directory, beside = struct.pack(order + "H", len(tags)), b""
    place = 8 + 2 + 12 * len(tags) + 4
    for tag in sorted(tags):
        kind, numbers = tags[tag]
        packed = struct.pack(order + {1: "B", 3: "H", 4: "I"}[kind] * len(numbers), *numbers)
        directory += struct.pack(order + "HHI", tag, kind, len(numbers))
        directory += packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(order + "I", place + len(beside))
        beside += packed if len(packed) > 4 else b""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8) + directory
    return (head + struct.pack(order + "I", next_page) + beside).ljust(start, b"\0") + data


def levels(content: bytes) -> list[int]:
    pixels = decode_image(content, 1).pixels
    assert (pixels == pixels[..., :1]).all()
    return [int(level) for level in pixels[..., 0].ravel()]


def told(content: bytes) -> str:
    with pytest.raises(ImageError) as raised:
        decode_image(content, 1)
    assert raised.value.kind == "not_an_image"
    return str(raised.value)


# Numbers


@pytest.mark.parametrize("dtype", ["f4", "i4", "u4"])
@pytest.mark.parametrize(("white", "tolerance"), [(1, 0), (255, 0), (65_535, 1)])
def test_numbers_are_scaled_by_what_they_are(dtype: str, white: int, tolerance: int) -> None:
    values = (RAMP * white).astype(dtype)
    expected = np.array(LEVELS) if white > 1 or dtype == "f4" else values.ravel().astype(int) * 255
    form = {"f": 3, "i": 2, "u": 1}[dtype[0]]
    assert np.abs(np.array(levels(tiff(values, form=form))) - expected).max() <= tolerance


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_read(order: Literal["<", ">"]) -> None:
    assert levels(tiff(RAMP.astype("f4"), form=3, order=order)) == LEVELS


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[-0.02, 0.5, 1.04]], [0, 127, 255]),
        ([[-3, 127.5, 261]], [0, 127, 255]),
        ([[np.nan, 1, np.inf, -np.inf, 0.5]], [0, 255, 255, 0, 127]),
        ([[np.nan, 0]], [0, 0]),
        ([[0, 0]], [0, 0]),
        ([[0, 100, 255, 255, 3.4e38]], [0, 100, 255, 255, 255]),
    ],
    ids=["resampled", "resampled, to 255", "not finite", "nothing but black", "black", "filled"],
)
def test_numbers_a_little_beyond_are_clipped(values: list[list[float]], expected: list[int]) -> None:
    assert levels(encode(Image.fromarray(np.array(values, np.float32)), "TIFF")) == expected


SAVE = "so that black and white are unknown: save it as PNG with 8 bits, or with numbers from 0 to 1"


@pytest.mark.parametrize(
    ("values", "form", "numbers"),
    [
        ((RAMP * 2 - 1).astype("f4"), 3, "go from -1 to 1"),
        ((RAMP * 9).astype("f4"), 3, "go from 0 to 9"),
        ((RAMP * 4095).astype("f4"), 3, "go from 0 to 4095"),
        ((RAMP * 4000 - 1024).astype("i2"), 2, "go from -1024 to 2976"),
        ((RAMP * 65_535 - 32_768).astype("i2"), 2, "go from -32768 to 32767"),
        ((RAMP * (2**32 - 1)).astype("u4"), 1, "go beyond 65535"),
        ((RAMP * 1e6).astype("f4"), 3, "go beyond 65535"),
        (np.full((3, 4), np.nan, "f4"), 3, "are all NaN or infinite"),
        (np.array([[np.inf, -np.inf, np.nan]], "f4"), 3, "are all NaN or infinite"),
    ],
)
def test_numbers_that_could_be_this_or_that_are_told(values: Values, form: int, numbers: str) -> None:
    assert told(tiff(values, form=form)) == f"is an image whose numbers {numbers}, {SAVE}"


def test_the_numbers_of_a_large_image_are_taken_together() -> None:
    """It is read in pieces, of which one is darker."""
    values = np.zeros((600, 4), np.float32)
    values[500:] = 200
    assert levels(encode(Image.fromarray(values), "TIFF"))[-1] == 200
    assert levels(encode(Image.fromarray(values[::-1].copy()), "TIFF"))[0] == 200


# White is zero


@pytest.mark.parametrize(("dtype", "form"), [("u1", 1), ("u2", 1), ("f4", 3)])
def test_white_may_be_zero(dtype: str, form: int) -> None:
    white = {"u1": 255, "u2": 65_535, "f4": 1}[dtype]
    content = tiff((RAMP * white).astype(dtype), photometric=0, form=form)
    assert np.abs(np.array(levels(content)) - (255 - np.array(LEVELS))).max() <= 1
    if form == 1:
        read = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert np.abs(decode_image(content, 1).pixels.astype(int) - np.asarray(read)).max() <= 1


# 16 bits


@pytest.mark.parametrize("dark", [15, 255, 4095])
@pytest.mark.parametrize("of", ["grey TIFF", "grey PNG", "colour TIFF", "colour PNG"])
def test_16_bits_that_are_nearly_black_are_read_as_by_ultralytics_and_told(of: str, dark: int) -> None:
    values = ((COLOURS if "colour" in of else RAMP) * dark).astype(np.uint16)
    if "PNG" in of:
        content = cv2.imencode(".png", values)[1].tobytes()
    else:
        content = tiff(values, photometric=2 if "colour" in of else 1)
    decoded = decode_image(content, 1)
    read = np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR))[..., ::-1]
    tolerance = 1 if of == "colour TIFF" else 0  # which OpenCV rounds
    assert np.abs(decoded.pixels.astype(int) - read).max() <= tolerance
    assert decoded.remark == (
        "it is nearly black, as it is for Ultralytics: its 16 bits are used to a sixteenth at most. "
        "Stretch it to 0 to 65535, or save it with 8 bits"
    )


@pytest.mark.parametrize("of", ["8 bits, black", "16 bits, bright"])
def test_others_are_not_remarked(of: str) -> None:
    values = np.zeros((3, 4), np.uint8) if of.startswith("8") else (RAMP * 65_535).astype(np.uint16)
    for image_format in ("PNG", "TIFF"):
        assert decode_image(encode(Image.fromarray(values), image_format), 1).remark == ""


def test_12_bits_are_all_used() -> None:
    values = (RAMP * 4095).astype(int).ravel()
    packed = bytes(
        byte
        for first, second in zip(values[::2], values[1::2], strict=True)
        for byte in (first >> 4, (first & 15) << 4 | second >> 8, second & 255)
    )
    content = tiff(np.frombuffer(packed, np.uint8).reshape(3, 6), more=((256, 4, 4), (258, 3, 12)))
    assert levels(content) == [int(value) >> 4 for value in values]


# Other kinds


def test_the_first_of_several_pages_is_told() -> None:
    content = encode(
        Image.fromarray((RAMP * 255).astype(np.uint8)), "TIFF", save_all=True, append_images=[Image.new("L", (4, 3))]
    )
    assert levels(content) == LEVELS
    assert decode_image(content, 1).remark == "only the first of its pages is looked at"


def test_grey_with_alpha_that_is_multiplied_already_is_read() -> None:
    values = np.stack([RAMP * 255, np.full_like(RAMP, 255)], axis=2).astype(np.uint8)
    assert levels(tiff(values, more=((338, 3, 1),))) == LEVELS


@pytest.mark.parametrize("options", [{"big_tiff": True}, {"compression": "jpeg", "quality": 100}, {"tile": True}])
def test_usual_kinds_of_tiff_are_read(options: dict[str, object]) -> None:
    values = (np.kron(COLOURS, np.ones((16, 16, 1))) * 255).astype(np.uint8)
    if options.pop("tile", None):  # of 16 by 16 pixels
        tiles = [values[y : y + 16, x : x + 16] for y in range(0, 48, 16) for x in range(0, 64, 16)]
        content = _tiled(tiles, 64, 48)
    else:
        content = encode(values, "TIFF", **options)
    assert np.abs(decode_image(content, 1).pixels.astype(int) - values).max() <= 4


def _tiled(tiles: list[NDArray[np.uint8]], width: int, height: int) -> bytes:
    count, start = len(tiles), 1024
    bits, offsets, lengths = 300, 320, 320 + 4 * count
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, bits), (259, 3, 1, 1), (262, 3, 1, 2), (277, 3, 1, 3),
        (322, 4, 1, 16), (323, 4, 1, 16), (324, 4, count, offsets), (325, 4, count, lengths),
    ]  # fmt: skip
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)
    head = head.ljust(bits, b"\0") + struct.pack("<HHH", 8, 8, 8)
    head = head.ljust(offsets, b"\0") + struct.pack(f"<{count}I", *(start + 768 * number for number in range(count)))
    head += struct.pack(f"<{count}I", *[768] * count)
    return head.ljust(start, b"\0") + b"".join(tile.tobytes() for tile in tiles)


def test_colours_in_planes_are_read() -> None:
    values = (COLOURS * 255).astype(np.uint8)
    assert np.array_equal(decode_image(tiff(values, photometric=2, in_planes=True), 1).pixels, values)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (tiff((COLOURS * 65_535).astype("u2"), photometric=2, in_planes=True), "3 x 16 bits, in planes"),
        (tiff(RAMP.astype("f8"), form=3), "1 x 64 bits floating point"),
        (tiff(RAMP.astype("f2"), form=3), "1 x 16 bits floating point"),
        (tiff(COLOURS.astype("f4"), photometric=2, form=3), "3 x 32 bits floating point"),
        (tiff((np.repeat(RAMP[..., None], 5, 2) * 255).astype("u1")), "5 x 8 bits"),
        (tiff((RAMP * 255).astype("u1"), more=((259, 3, 50_002),)), "1 x 8 bits, compression 50002"),
    ],
)
def test_kinds_of_tiff_that_are_not_read_are_told(content: bytes, kind: str) -> None:
    assert told(content) == f"is a TIFF of a kind that isn't read ({kind}): save it as PNG, or as TIFF with 8 bits"


RAW = "is a camera's raw file: convert it to JPEG or PNG, because a raw file has no colours yet"
GREY = (RAMP * 255).astype("u1")


@pytest.mark.parametrize(
    "content",
    [
        tiff(GREY, more=((50_706, 4, 0x0104),)),
        tiff((COLOURS * 255).astype("u1"), photometric=2, order=">", more=((254, 4, 1), (330, 4, 9000))),
        tiff(GREY, more=((254, 4, 1),), next_page=600),
        tiff((RAMP * 16_000).astype("u2"), photometric=32_803),
        b"II*\0\x10\0\0\0CR\2\0" + bytes(4) + tiff(GREY)[8:],
    ],
    ids=["DNG", "NEF", "ARW", "CFA", "CR2"],
)
def test_a_cameras_raw_file_is_told(content: bytes) -> None:
    """Its first picture is a small preview, or no colours yet."""
    assert told(content) == RAW


@pytest.mark.parametrize(
    "more",
    [((254, 4, 0), (330, 4, 9000)), ((254, 4, 2),), ((254, 4, 1),)],
    ids=["smaller ones behind", "a page", "a thumbnail alone"],
)
def test_other_tiffs_are_taken_for_no_raw_file(more: tuple[tuple[int, int, int], ...]) -> None:
    assert levels(tiff(GREY, more=more)) == LEVELS
