"""What is no image here is named, with what to do; and no image is taken for anything else."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.harness.pictures import BEST, encode
from yolo_backend.images.decode import decode_image, format_of
from yolo_backend.images.errors import ImageError
from yolo_backend.images.signatures import tell_apart

PICTURE = Image.fromarray(np.random.default_rng(3).integers(0, 256, (20, 30, 3)).astype(np.uint8))


def ftyp(*brands: bytes) -> bytes:
    content = brands[0] + bytes(4) + b"".join(brands[1:])
    return struct.pack(">I", len(content) + 8) + b"ftyp" + content + b"\0\0\0\x08free" + bytes(100)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.jpg", encode(PICTURE, "JPEG"))
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.jpg"))
    return file.getvalue()


def saved_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros((2, 2)))
    return file.getvalue()


HEIC = "is a HEIC, as iPhones make: convert it to JPEG or PNG"
HEIF = "is a HEIF: convert it to JPEG or PNG"
RAW = "is a camera's raw file: convert it to JPEG or PNG, because a raw file has no colours yet"
VIDEO = "is a video: take its frames out as JPEG or PNG"
NETPBM = "is a Netpbm (PPM, PGM, PBM): convert it to JPEG or PNG"
OPEN = "open the address in a browser: there may be a login or an error in the image's place"
PAGE = f"is a web page (HTML): {OPEN}"
ARCHIVE = "is an archive: unpack it, and give the images in it"

TOLD: dict[str, tuple[bytes, str]] = {
    "heic": (ftyp(b"heic", b"mif1", b"heic"), HEIC),
    "heix": (ftyp(b"heix", b"mif1"), HEIC),
    "hevc": (ftyp(b"hevc", b"msf1"), HEIC),
    "mif1 and heic": (ftyp(b"mif1", b"mif1", b"heic"), HEIC),
    "msf1 and hevc": (ftyp(b"msf1", b"hevc"), HEIC),
    "mif1 alone": (ftyp(b"mif1"), HEIF),
    "HEIF of H.264": (ftyp(b"avci", b"mif1"), HEIF),
    "JPEG XL": (b"\xff\x0a" + bytes(50), "is a JPEG XL: convert it to JPEG or PNG"),
    "JPEG XL in boxes": (b"\0\0\0\x0cJXL \r\n\x87\n" + ftyp(b"jxl "), "is a JPEG XL: convert it to JPEG or PNG"),
    "JPEG 2000": (encode(PICTURE, "JPEG2000"), "is a JPEG 2000: convert it to JPEG or PNG"),
    "JPEG 2000, naked": (encode(PICTURE, "JPEG2000", no_jp2=True), "is a JPEG 2000: convert it to JPEG or PNG"),
    "JPEG XR": (b"II\xbc\x01" + bytes(50), "is a JPEG XR: convert it to JPEG or PNG"),
    "DICOM": (
        bytes(128) + b"DICM\2\0\0\0UL\4\0",
        "is a DICOM: convert it to PNG with 8 bits, with the window that shows what matters",
    ),
    "SVG": (
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "is an SVG: export it as PNG: a model needs pixels",
    ),
    "SVG behind XML": (
        b'<?xml version="1.0"?>\n<!-- Inkscape -->\n<svg width="9"/>',
        "is an SVG: export it as PNG: a model needs pixels",
    ),
    "SVG with a title": (b"<svg><title>x</title></svg>", "is an SVG: export it as PNG: a model needs pixels"),
    "SVG behind a comment of HTML": (
        b'<!-- <html> -->\n<!DOCTYPE svg [<!ENTITY a "b">]>\n<svg><script/></svg>',
        "is an SVG: export it as PNG: a model needs pixels",
    ),
    "SVG with a prefix": (
        b'<svg:svg xmlns:svg="http://www.w3.org/2000/svg"/>',
        "is an SVG: export it as PNG: a model needs pixels",
    ),
    "PDF": (encode(PICTURE, "PDF"), "is a PDF: save its pages as PNG"),
    "PDF behind a mark": (b"\xef\xbb\xbf\n%PDF-1.7\n", "is a PDF: save its pages as PNG"),
    "PSD": (b"8BPS\0\1" + bytes(50), "is a Photoshop file (PSD): convert it to JPEG or PNG"),
    "EPS": (encode(PICTURE, "EPS"), "is a PostScript (EPS): export it as PNG"),
    "EPS of DOS": (b"\xc5\xd0\xd3\xc6" + bytes(30), "is a PostScript (EPS): export it as PNG"),
    "PPM": (encode(PICTURE, "PPM"), NETPBM),
    "PGM": (encode(PICTURE.convert("L"), "PPM"), NETPBM),
    "PBM with a comment": (b"P1\n# a\n2 2\n0 1 1 0", NETPBM),
    "PFM": (b"Pf\n2 2\n-1.0\n" + bytes(16), NETPBM),
    "PAM": (b"P7\nWIDTH 2\n", NETPBM),
    "ICO": (encode(PICTURE, "ICO"), "is an icon (ICO): convert it to JPEG or PNG"),
    "EXR": (b"\x76\x2f\x31\x01\2\0\0\0", "is an OpenEXR: convert it to PNG with 8 bits"),
    "HDR": (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", "is a Radiance HDR: convert it to PNG with 8 bits"),
    "NumPy": (saved_array(), "is a NumPy array: save what it holds as PNG with 8 bits"),
    "Canon CR3": (ftyp(b"crx ", b"crx ", b"isom"), RAW),
    "Fujifilm": (b"FUJIFILMCCD-RAW 0201", RAW),
    "Panasonic": (b"IIU\0\x18\0\0\0" + bytes(50), RAW),
    "Olympus": (b"IIRO\x08\0\0\0" + bytes(50), RAW),
    "MP4": (ftyp(b"isom", b"iso2", b"avc1", b"mp41"), VIDEO),
    "MOV": (ftyp(b"qt  "), VIDEO),
    "old MOV": (b"\0\0\x10\0moov" + bytes(50), VIDEO),
    "WebM": (b"\x1a\x45\xdf\xa3" + bytes(50), VIDEO),
    "AVI": (b"RIFF\x24\0\0\0AVI LIST", VIDEO),
    "WAV": (b"RIFF\x24\0\0\0WAVEfmt ", "is a sound: label it in a project for sound"),
    "M4A": (ftyp(b"M4A ", b"isom", b"mp42"), "is a sound: label it in a project for sound"),
    "M4B": (ftyp(b"M4B ", b"isom"), "is a sound: label it in a project for sound"),
    "ZIP": (zipped(), ARCHIVE),
    "gzip": (gzip.compress(encode(PICTURE, "JPEG")), ARCHIVE),
    "tar": (tarred(), ARCHIVE),
    "Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "is a Git LFS pointer, not the file itself: run `git lfs pull` where it lies, and upload or serve it anew",
    ),
    "macOS": (
        b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(50),
        "is what macOS stores beside a file (AppleDouble), not the file itself: give the file without `._` in its name",
    ),
    "zeros": (bytes(1000), "is only zeros, as after an interrupted copy: copy the file anew"),
    "HTML": (b"<!doctype html><html><body>Log in</body></html>", PAGE),
    "HTML in capitals": (b"\n\n<HTML><HEAD><TITLE>403 Forbidden", PAGE),
    "HTML behind XML": (b'<?xml version="1.0"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml">', PAGE),
    "HTML without a head": (b"<h1>403 Forbidden</h1>", PAGE),
    "HTML behind a comment of an SVG": (b"<!-- <svg> --><html></html>", PAGE),
    "HTML with an SVG in it": (b"<html><body><svg/></body></html>", PAGE),
    "HTML in two bytes a letter": ("<html>Zugang verweigert".encode("utf-16"), PAGE),
    "XML": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', f"is XML: {OPEN}"),
    "XML with a title": (b"<rss><channel><title>News</title></channel></rss>", f"is XML: {OPEN}"),
    "XML of nothing": (b"<?xml version='1.0'?>", f"is XML: {OPEN}"),
    "JSON": (b'{"detail": "Not found."}', f"is JSON: {OPEN}"),
    "JSON, a list": (b'[{"a": 1}]', f"is JSON: {OPEN}"),
    "text": (b"hello world", "is text: open it, or the address, to see what it says"),
    "text that is cut in a letter": ("ä".encode() * 4096, "is text: open it, or the address, to see what it says"),
    "text that is cut behind a mark": (
        b"\xef\xbb\xbf" + "é".encode() * 3000,
        "is text: open it, or the address, to see what it says",
    ),
    "text that is cut in a pair": (
        ("a" + "\N{DOG FACE}" * 3000).encode("utf-16"),
        "is text: open it, or the address, to see what it says",
    ),
    "text in Latin": (b"x" * 5000 + b"\xff", "is text: open it, or the address, to see what it says"),
}


@pytest.mark.parametrize(("content", "message"), TOLD.values(), ids=TOLD.keys())
def test_what_a_file_is_is_told(content: bytes, message: str) -> None:
    with pytest.raises(ImageError) as raised:
        decode_image(content, 1)
    assert (raised.value.kind, str(raised.value)) == ("not_an_image", message)
    assert len(message) < 160  # a reason phrase has more before it, and is cut
    assert str(raised.value.told_of("/data/upload/1/a")) == message


def test_a_heic_named_jpg_is_told_by_its_name() -> None:
    with pytest.raises(ImageError) as raised:
        decode_image(ftyp(b"heic", b"mif1", b"heic"), 1)
    told = "is a HEIC, as iPhones make, though named .jpg: convert it to JPEG or PNG"
    for name in ("a.jpg", "/data/upload/1/a.jpg", "/data/local-files/?d=photos/a.jpg", "https://host/a.jpg?..."):
        assert raised.value.told_of(name) == told
    assert "named .JPG:" in raised.value.told_of("IMG_0001.JPG")
    for name in ("a.HEIC", "a", "https://host/image?...", "data: address of 500 characters"):
        assert raised.value.told_of(name) == HEIC


@pytest.mark.parametrize("image_format", [*BEST, "TIFF"])
def test_no_image_is_taken_for_something_else(image_format: str) -> None:
    for mode in ("RGB", "L", "1", "P", "RGBA"):
        if (image_format, mode) not in {("JPEG", "P"), ("JPEG", "RGBA"), ("JPEG", "1"), ("BMP", "RGBA")}:
            content = encode(PICTURE.convert(mode), image_format)
            assert format_of(content[:64]) == image_format
            told = tell_apart(content)
            assert told is None or image_format == "AVIF", mode  # of which nobody asks


@pytest.mark.parametrize("name", ["ten_bits", "grid", "sequence", "turned"])
def test_an_avif_is_one_by_any_of_its_brands(name: str) -> None:
    content = (Path(__file__).parents[2] / "data" / "avif" / f"{name}.avif").read_bytes()
    assert format_of(content) == "AVIF"
    length = int.from_bytes(content[:4], "big")
    brands = b"mif1" + content[12:16] + b"avif" + bytes(length - 20)
    assert format_of(content[:8] + brands) == "AVIF"


@given(st.binary(max_size=600))
def test_any_bytes_are_told_in_one_line(content: bytes) -> None:
    told = tell_apart(content)
    assert told is None or str(told).isprintable()


@given(st.sampled_from([content for content, _ in TOLD.values()]), st.data())
def test_damage_is_told_or_unknown(content: bytes, data: st.DataObject) -> None:
    damaged = bytearray(content[:512])
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=6)):
        damaged[place] = data.draw(st.integers(0, 255))
    with pytest.raises(ImageError) as raised:
        decode_image(bytes(damaged), 1)
    assert str(raised.value).isprintable()
