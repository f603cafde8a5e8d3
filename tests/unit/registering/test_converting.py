from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.harness.pictures import encode
from yolo_backend.images.decode import decode_image
from yolo_backend.images.other_formats import decode_other
from yolo_backend.registering.converting import Converted, ConvertError, convert, made_of

MAX_MEGAPIXELS = 10.0
PICTURE = np.zeros((10, 20, 3), np.uint8)
PICTURE[2:5, 3:9] = (255, 128, 0)


def converted(folder: Path, *names: str, into: str = "made", uploaded: bool = True) -> Converted:
    return convert([folder / name for name in names], folder / into, MAX_MEGAPIXELS, uploaded=uploaded)


def pixels_of(path: Path) -> NDArray[np.uint8]:
    return decode_image(path.read_bytes(), MAX_MEGAPIXELS).pixels


@pytest.mark.parametrize(
    ("name", "image_format"),
    [
        ("a.tif", "TIFF"), ("a.png", "TIFF"), ("a.ppm", "PPM"), ("a.tga", "TGA"), ("a.jp2", "JPEG2000"),
        ("a.ico", "ICO"), ("a.pcx", "PCX"),
    ],
)  # fmt: skip
def test_what_the_page_can_not_show_becomes_a_png_of_the_same_pixels(
    tmp_path: Path, name: str, image_format: str
) -> None:
    options: dict[str, object] = {"irreversible": False} if image_format == "JPEG2000" else {}
    picture = np.zeros((32, 32, 3), np.uint8) if image_format == "ICO" else PICTURE
    if image_format == "ICO":
        options = {"sizes": [(32, 32)]}
    (tmp_path / name).write_bytes(encode(picture, image_format, **options))

    found = converted(tmp_path, name)

    (made,) = found.images
    assert made == tmp_path / "made" / "a.png"
    assert isinstance(made, Path)
    assert made.read_bytes().startswith(b"\x89PNG")
    np.testing.assert_array_equal(pixels_of(made), picture)
    assert (found.originals, found.unfit) == ({made: tmp_path / name}, {})
    assert made_of(found, tmp_path / "made") == f"Made 1 image in {tmp_path}/made of {Path(name).suffix}"


def test_16_bits_are_as_the_decoder_shows_them(tmp_path: Path) -> None:
    grey = (np.arange(200, dtype=np.uint16).reshape(10, 20) * 300).astype(np.uint16)
    (tmp_path / "a.tif").write_bytes(encode(Image.fromarray(grey), "TIFF"))
    (tmp_path / "b.pgm").write_bytes(b"P5 20 10 65535\n" + grey.astype(">u2").tobytes())

    made, other = converted(tmp_path, "a.tif", "b.pgm").images

    assert isinstance(made, Path)
    assert isinstance(other, Path)
    with Image.open(made) as image:
        assert image.mode == "RGB"
    np.testing.assert_array_equal(pixels_of(made)[..., 0], grey >> 8)
    np.testing.assert_array_equal(pixels_of(other)[..., 0], grey >> 8)


def test_a_jpeg_of_another_name_stays_as_it_is(tmp_path: Path) -> None:
    content = encode(PICTURE, "JPEG")
    (tmp_path / "a.jfif").write_bytes(content)

    (made,) = converted(tmp_path, "a.jfif").images

    assert isinstance(made, Path)
    assert (made.name, made.read_bytes()) == ("a.jpg", content)


def test_others_are_left_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode(PICTURE))
    address = "https://host/a.tif"

    found = convert([tmp_path / "a.png", address], tmp_path / "made", MAX_MEGAPIXELS, uploaded=True)

    assert (found.images, found.originals) == ([tmp_path / "a.png", address], {})
    assert not (tmp_path / "made").exists()
    assert made_of(found, tmp_path / "made") is None


@pytest.mark.parametrize(("uploaded", "made"), [(True, 1), (False, 0)])
def test_an_avif_is_only_made_into_another_where_it_is_uploaded(tmp_path: Path, uploaded: bool, made: int) -> None:
    (tmp_path / "a.avif").write_bytes(encode(PICTURE, "AVIF"))

    assert len(converted(tmp_path, "a.avif", uploaded=uploaded).originals) == made


def test_folders_stay_and_no_two_get_one_name(tmp_path: Path) -> None:
    for name in ("day 1/a.tif", "day 2/a.tif", "day 2/a.ppm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode(PICTURE, "TIFF" if name.endswith("tif") else "PPM"))

    found = converted(tmp_path, "day 1/a.tif", "day 2/a.tif", "day 2/a.ppm")

    assert found.images == [tmp_path / "made" / name for name in ("day 1/a.png", "day 2/a.png", "day 2/a.ppm.png")]


def test_made_again_it_is_the_same_and_another_image_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(encode(PICTURE, "TIFF"))

    first, again = converted(tmp_path, "a.tif"), converted(tmp_path, "a.tif")
    assert first.images == again.images

    (tmp_path / "a.tif").write_bytes(encode(PICTURE[::-1].copy(), "TIFF"))
    with pytest.raises(ConvertError, match=r"made/a\.png is there already, and is another image: give --convert"):
        converted(tmp_path, "a.tif")


def test_a_folder_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(encode(PICTURE, "TIFF"))
    (tmp_path / "made").write_bytes(b"a file")

    with pytest.raises(ConvertError, match=r"made/a\.png can't be written: File exists"):
        converted(tmp_path, "a.tif")


def test_what_can_not_be_converted_is_left_out_with_what_converts_it(tmp_path: Path) -> None:
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    contents = {
        "a.heic": heic, "b.dcm": bytes(128) + b"DICM", "c.jxl": b"\xff\x0a", "d.tif": b"", "e.tif": b"II*\0",
        "f.ppm": b"P6 90000 90000 255\n",
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)

    found = converted(tmp_path, *contents)

    why = {file.name: reason for reason, files in found.unfit.items() for file in files}
    assert found.images == []
    assert why["b.dcm"].startswith("is a DICOM")
    assert why["c.jxl"] == "is a JPEG XL: convert it to JPEG or PNG"
    assert why["d.tif"].startswith("Label Studio takes no .tif files") or why["d.tif"] == "has no bytes: replace it"
    assert why["e.tif"].startswith("the image is broken: ")
    assert "more than 10 megapixels" in why["f.ppm"]
    if importlib.util.find_spec("pillow_heif") is None:
        assert why["a.heic"].startswith("is a HEIC, as iPhones make: install pip's pillow-heif (the extra `heic`) and ")


@pytest.mark.skipif(importlib.util.find_spec("pillow_heif") is None, reason="the extra `heic` isn't installed")
def test_a_heic_becomes_a_jpeg(tmp_path: Path) -> None:
    import pillow_heif

    picture = np.full((64, 96, 3), 200, np.uint8)
    picture[:, :32] = (200, 30, 30)
    written = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(picture)).save(written, quality=95)
    (tmp_path / "IMG_1.HEIC").write_bytes(written.getvalue())

    (made,) = converted(tmp_path, "IMG_1.HEIC").images

    assert made == tmp_path / "made" / "IMG_1.jpg"
    assert isinstance(made, Path)
    assert np.abs(pixels_of(made).astype(int) - picture).mean() < 4


def test_only_the_first_page_of_a_tiff_is_taken_and_it_is_said(tmp_path: Path) -> None:
    pages = [Image.fromarray(PICTURE), Image.fromarray(PICTURE)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])

    assert converted(tmp_path, "a.tif").remarks == [f"{tmp_path}/a.tif: only the first of its pages is looked at"]


def test_of_a_tga_the_name_is_known_and_of_others_the_content() -> None:
    content = encode(PICTURE, "TGA")

    np.testing.assert_array_equal(decode_other(content, ".TGA", MAX_MEGAPIXELS), PICTURE)
    with pytest.raises(Exception, match="no image in a format that can be read"):
        decode_other(content, ".bin", MAX_MEGAPIXELS)
