"""AVIFs: decoded as they look, and measured before they are: the pictures within may be larger than the header says."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import AvifImagePlugin

from tests.harness.pictures import encode, turned
from tests.harness.turned_files import four_colours
from yolo_backend.images import avif as images_avif
from yolo_backend.images.decode import decode_image, size_and_orientation
from yolo_backend.images.errors import ImageError

DATA = Path(__file__).parents[2] / "data" / "avif"
SOON_S = 3


def avif(name: str) -> bytes:
    return (DATA / f"{name}.avif").read_bytes()


def failure(content: bytes, max_megapixels: float = 100) -> ImageError:
    started_at = time.monotonic()
    with pytest.raises(ImageError) as raised:
        decode_image(content, max_megapixels)
    assert time.monotonic() - started_at < SOON_S
    return raised.value


def drawn(height: int = 64, width: int = 128) -> NDArray[np.uint8]:
    """The four colours of the files."""
    return np.kron(four_colours()[::16, ::24], np.ones((height // 2, width // 2, 1), np.uint8))


@pytest.mark.parametrize("name", ["ten_bits", "ten_bits_alpha", "hdr", "sequence"])
def test_avifs_look_as_they_are_meant(name: str) -> None:
    decoded = decode_image(avif(name), 1)
    assert decoded.size_wh == (128, 64)
    assert np.abs(decoded.pixels.astype(int) - drawn()).mean() < 3


def test_a_grid_is_put_together() -> None:
    decoded = decode_image(avif("grid"), 1)
    assert decoded.size_wh == size_and_orientation(avif("grid"))[0] == (256, 256)
    assert np.abs(decoded.pixels[:64, :128].astype(int) - drawn()).mean() < 3


def test_a_container_turns_an_avif() -> None:
    expected = turned(drawn(), 5)
    decoded = decode_image(avif("turned"), 1)
    assert decoded.size_wh == size_and_orientation(avif("turned"))[0] == (64, 128)
    assert np.abs(decoded.pixels.astype(int) - expected).mean() < 3


def test_a_grey_one_has_three_equal_channels() -> None:
    pixels = decode_image(avif("grey"), 1).pixels
    assert pixels.shape == (64, 128, 3)
    assert (pixels == pixels[..., :1]).all()


def test_a_crop_that_programs_show_differently_is_told() -> None:
    error = failure(avif("cropped"))
    assert (error.kind, str(error)) == (
        "not_an_image",
        "is an AVIF that is cropped by its header (clap), which programs show differently: save it anew",
    )


def test_up_to_the_limit_pixels_are_decoded() -> None:
    content = encode(four_colours(), "AVIF")
    assert decode_image(content, 32 * 48 / 1e6).size_wh == (48, 32)
    assert failure(content, 32 * 48 / 1e6 - 1e-6).kind == "too_many_pixels"


@pytest.mark.parametrize("side", [12_000, 16])
def test_more_pixels_than_the_header_says_are_told(side: int) -> None:
    content = avif("144_megapixels")
    place = content.index(b"ispe") + 8
    error = failure(content[:place] + struct.pack(">II", side, side) + content[place + 8 :])
    assert error.kind == "too_many_pixels"
    assert str(error) == ("the image has 12000x12000 pixels, more than 100 megapixels (MAX_IMAGE_MEGAPIXELS)")


def test_the_parts_of_an_image_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_avif, "_MAX_SHARE", 2)
    tile = 128 * 128 / 1e6
    with pytest.raises(ImageError) as raised:
        images_avif.check_avif(avif("grid"), tile)
    assert str(raised.value) == (
        "the image's 4 parts have 0.065536 megapixels, far more than 0.016384 megapixels (MAX_IMAGE_MEGAPIXELS)"
    )
    assert images_avif.check_avif(avif("grid"), 2 * tile)


def test_frames_that_name_their_own_size_are_told() -> None:
    """They may be as large as they like, and the decoder takes what they say."""
    error = failure(avif("frames_of_other_sizes"))
    assert (error.kind, str(error)) == (
        "broken",
        "the image is broken, or an AVIF of an unusual kind: save it anew",
    )


def test_other_encoders_write_other_headers() -> None:
    assert decode_image(avif("svt"), 1).size_wh == (320, 240)


@pytest.mark.parametrize("more", [b"junk" * 10, b"\0" * 30, b"\xff" * 7])
def test_bytes_behind_the_end_do_no_harm(more: bytes) -> None:
    content = encode(four_colours(), "AVIF", quality=95)
    assert np.array_equal(decode_image(content + more, 1).pixels, decode_image(content, 1).pixels)


def with_box(content: bytes, name: bytes, change: bytes, at: int) -> bytes:
    place = content.index(name) + at
    return content[:place] + change + content[place + len(change) :]


STILL = encode(four_colours(), "AVIF", quality=90)
BROKEN = {
    "data beyond the file": with_box(STILL, b"iloc", b"\x7f\xff\xff\xff", 18),
    "no place of the data": STILL.replace(b"iloc", b"free"),
    "no kinds of items": STILL.replace(b"iinf", b"free"),
    "a box that is too long": with_box(STILL, b"iinf", b"\x7f\xff\xff\xff", -4),
    "a box of no length": with_box(STILL, b"hdlr", b"\0\0\0\4", -4),
    "two of what there should be one": STILL.replace(b"pitm", b"iloc"),
    "the brand alone": STILL[:32],
    "zeros in the place of AV1": STILL[: STILL.index(b"mdat") + 4] + bytes(100),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_what_can_not_be_measured_is_broken(content: bytes) -> None:
    assert failure(content).kind == "broken"


def test_boxes_without_end_are_broken_soon() -> None:
    assert failure(STILL[:32] + b"\0\0\0\x08free" * 1_000_000).kind == "broken"


def test_units_without_end_are_broken_soon() -> None:
    start = STILL.index(b"mdat") + 4
    units = b"\x12\0" * 1_000_000 + STILL[start:]
    content = STILL[:start] + units
    content = with_box(content, b"mdat", struct.pack(">I", len(units) + 8), -4)
    content = with_box(content, b"iloc", struct.pack(">I", len(units)), 22)
    assert failure(content).kind == "broken"


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + name + content


def with_table(table: bytes, more: bytes = b"") -> bytes:
    """An AVIF with another table of where its items lie (iloc), and more behind its end."""
    start = STILL.index(b"meta") - 4
    (length,) = struct.unpack_from(">I", STILL, start)
    added = box(b"iloc", bytes(4) + table)
    content = STILL.replace(b"iloc", b"free")
    head = content[:start] + struct.pack(">I", length + len(added)) + content[start + 4 : start + 12]
    return head + added + content[start + 12 :] + more


def with_extents(count: int, *, item: int = 1, items: int = 1, more: bytes = b"") -> bytes:
    """An AVIF whose picture's data is in extents that take no bytes: each is the whole file."""
    return with_table(struct.pack(">HH", 0, items) + struct.pack(">HHH", item, 0, count) * items, more)


@pytest.mark.parametrize(
    "content",
    [
        with_extents(65_535),
        with_extents(65_535, more=box(b"free", bytes(10_000))),
        with_extents(2),
        with_extents(65_535, item=9, items=10_000),
        with_extents(1, item=9, items=60_000),
        with_extents(1, items=1000, more=box(b"free", bytes(100_000))),
    ],
    ids=["many", "many of more bytes", "two", "in items of no picture", "many items", "many pictures"],
)
def test_extents_without_end_are_broken_soon_and_with_little_memory(content: bytes) -> None:
    tracemalloc.start()
    try:
        assert failure(content).kind == "broken"
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_extents_that_lie_in_the_same_place_are_broken() -> None:
    """Each of them goes to the end of the file, and says so with a length of 0."""
    table = b"\x44\0" + struct.pack(">HHHH", 1, 1, 0, 5000) + struct.pack(">II", 0, 0) * 5000
    assert failure(with_table(table)).kind == "broken"


def test_tracks_that_name_the_whole_file_are_broken_soon() -> None:
    """Each of them with the same data, that takes a while to look at."""
    unit = b"\x12\0" * 300
    tables = box(b"stsz", struct.pack(">III", 0, 10**6, 1)) + box(b"stco", struct.pack(">III", 0, 1, 0))
    track = box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", tables))))
    content = STILL[:32] + box(b"moov", track * 3000) + unit
    file = images_avif._File(content)
    taken: list[int] = []
    with pytest.raises(images_avif._BrokenError):
        taken.extend(map(len, file.pictures()))
    assert sum(taken) <= 4 * len(content)
    assert failure(content).kind == "broken"


def test_headers_that_take_long_to_read_are_broken_soon() -> None:
    """Sequence headers of 32 operating points; and numbers of variable length, of which most bits are zeros."""
    points = "000" + "0" + "0" + "0" + "0" + "11111" + ("0" * 12 + "11111" + "0" + "0") * 32
    zeros = "000" + "0" + "0" + "1" + "0" * 64 + "1" + "0" * 3900 + "1" + "0" * 3900
    for bits in (points + "0" * 400, zeros):
        unit = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
        data = (b"\x0a" + bytes([len(unit) & 127 | 128, len(unit) >> 7]) + unit) * 6000
        assert failure(with_data(STILL, data)).kind == "broken"


def with_data(content: bytes, data: bytes) -> bytes:
    """An AVIF of one picture that has other AV1 data, behind all else."""
    place = content.index(b"iloc") + 18
    return content[:place] + struct.pack(">II", len(content) + 8, len(data)) + content[place + 8 :] + box(b"mdat", data)


@pytest.mark.parametrize("kind", [3, 7])
def test_a_redundant_header_is_one_where_none_came_before(kind: int) -> None:
    """The decoder takes it for one, and the size in it."""
    content = avif("frames_of_other_sizes")
    data = next(images_avif._File(content).pictures())
    place = content.index(data)
    behind = content[place + len(data) :]  # which lies after it, so that it is found there
    sequence, frame = data[: 2 + data[1]], data[2 + data[1] :]
    assert (sequence[0] >> 3, frame[0] >> 3) == (1, 6)
    frame = frame[next(number for number in range(1, 5) if frame[number] < 128) + 1 :]
    split = sequence + bytes([kind << 3 | 2, 100]) + frame[:100] + bytes([4 << 3]) + frame[100:]
    content = content.replace(struct.pack(">I", len(data)), struct.pack(">I", len(split)))
    content = content.replace(struct.pack(">I", place), struct.pack(">I", len(content) + 8)) + box(
        b"free", split + behind
    )
    if kind == 7:
        AvifImagePlugin.AvifImageFile(io.BytesIO(content), "").load()
    assert failure(content).kind == "broken"


@pytest.mark.parametrize("name", ["still", "sequence", "grid", "ten_bits_alpha"])
@settings(max_examples=100)
@given(data=st.data())
def test_any_damage_is_an_image_or_told_soon(name: str, data: st.DataObject) -> None:
    content = bytearray(STILL if name == "still" else avif(name))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    started_at = time.monotonic()
    try:
        kind, told = f"an image of {decode_image(bytes(content), 1).pixels.shape[2]} channels", ""
    except ImageError as error:
        kind, told = error.kind, str(error)
    assert kind in {"an image of 3 channels", "broken", "not_an_image", "too_many_pixels"}
    assert told == "" or told.isprintable()
    assert time.monotonic() - started_at < SOON_S


def test_a_pillow_that_reads_no_avif_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AvifImagePlugin, "SUPPORTED", False)
    assert str(failure(STILL)) == "is an AVIF, which the installed Pillow doesn't read: install Pillow's own wheel"
