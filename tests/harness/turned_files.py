"""Files whose orientation stands in odd places or forms, and by what a browser turns each: the truth of decoding.

Made once with Chromium; tests/e2e/apart/test_orientation.py asks it again.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.harness.pictures import encode, png_chunk


def four_colours() -> NDArray[np.uint8]:
    """A picture that looks otherwise however it is turned."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24], pixels[:16, 24:], pixels[16:, :24], pixels[16:, 24:] = (
        (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0),
    )  # fmt: skip
    return pixels


def exif(*entries: tuple[int, int, int, int], order: str = "<", start: int = 8, count: int | None = None) -> bytes:
    """EXIF of these entries: tag, type, how many, value."""
    content = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", start)
    content = content.ljust(start, b"\0") + struct.pack(order + "H", len(entries) if count is None else count)
    for tag, kind, many, value in entries:
        content += struct.pack(order + "HHI", tag, kind, many)
        content += struct.pack(order + ("HH" if kind in {3, 8} else "I"), *((value, 0) if kind in {3, 8} else (value,)))
    return content + bytes(4)


def orientation(value: int, *, order: str = "<", kind: int = 3, many: int = 1) -> bytes:
    """EXIF that says this orientation alone."""
    return exif((0x0112, kind, many, value), order=order)


def with_segments(jpeg: bytes, *segments: tuple[int, bytes], before: bytes = b"") -> bytes:
    """A JPEG with more segments at its start, or before the marker `before`."""
    place = jpeg.index(before) if before else 2
    added = b"".join(bytes([0xFF, kind]) + struct.pack(">H", len(content) + 2) + content for kind, content in segments)
    return jpeg[:place] + added + jpeg[place:]


def with_chunks(png: bytes, *chunks: tuple[bytes, bytes], before: bytes = b"IDAT") -> bytes:
    """A PNG with more chunks."""
    place = png.index(before) - 4
    return png[:place] + b"".join(png_chunk(*chunk) for chunk in chunks) + png[place:]


def with_avif_exif(value: int, container_says: int = 1) -> bytes:
    """An AVIF whose EXIF says `value`, and whose container turns by what `container_says`: its irot and imir."""
    says = [(0x0112, 3, 1, container_says)] if container_says > 1 else []
    content = encode(four_colours(), "AVIF", quality=95, exif=exif(*says, (0x0113, 3, 1, 6)))
    for order in "<>":  # Pillow takes the orientation for the container, so another tag has to become it
        content = content.replace(
            struct.pack(order + "HHIH", 0x0113, 3, 1, 6), struct.pack(order + "HHIH", 0x0112, 3, 1, value)
        )
    return content


def _raw_profile(value: int) -> bytes:
    """EXIF as ImageMagick writes it into a PNG's text."""
    content = b"Exif\0\0" + orientation(value)
    return b"\nexif\n%8d\n%s\n" % (len(content), content.hex().encode())


def _xmp(value: int) -> bytes:
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{value}"/>'
        f"</rdf:RDF></x:xmpmeta>"
    ).encode()


def _interlaced() -> bytes:
    """A PNG in seven passes, which Pillow doesn't write."""
    pixels = four_colours()
    steps = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = [row for x, y, x_step, y_step in steps for row in pixels[y::y_step, x::x_step]]
    height, width = pixels.shape[:2]
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1))
    data = png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + data + png_chunk(b"IEND", b"")


_JPEG = encode(four_colours(), "JPEG", quality=95, subsampling=0)
_PROGRESSIVE = encode(four_colours(), "JPEG", quality=95, subsampling=0, progressive=True)
_CMYK = encode(Image.fromarray(four_colours()).convert("CMYK"), "JPEG", quality=95, subsampling=0)
_MPO = encode(four_colours(), "MPO", quality=95, save_all=True, append_images=[Image.fromarray(255 - four_colours())])
_PNG = encode(four_colours(), "PNG")
_ANIMATED: dict[str, object] = {"save_all": True, "append_images": [Image.fromarray(255 - four_colours())]}
_THUMBNAIL = encode(Image.fromarray(np.ascontiguousarray(np.rot90(four_colours()))).resize((16, 24)), "JPEG")


def _jpeg_exif(*contents: bytes) -> bytes:
    return with_segments(_JPEG, *((0xE1, b"Exif\0\0" + content) for content in contents))


def _png_exif(*contents: bytes, png: bytes = _PNG, before: bytes = b"IDAT") -> bytes:
    return with_chunks(png, *((b"eXIf", content) for content in contents), before=before)


def _text(name: bytes, content: bytes, *more: tuple[bytes, bytes], before: bytes = b"IDAT") -> bytes:
    return with_chunks(_PNG, *more, (name, content), before=before)


_OTHER = (0x0113, 3, 1, 6)
_XMP_SEGMENT = (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + _xmp(6))
_XMP_CHUNK = (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + _xmp(6))

_INNER, _LONG = 0x8769, 4
_NONE, _THREE, _SIX, _NINE = exif((0x0113, 3, 1, 6))[8:], orientation(3)[8:], orientation(6)[8:], orientation(9)[8:]
_BEHIND = 8 + 2 + 2 * 12 + 4  # a directory of two entries
_NEXT = _BEHIND + len(_NONE)
# Of several inner directories, Chromium reads the first that a LONG of one value names, and no other.
_INNER_DIRECTORIES: dict[str, tuple[bytes, int]] = {
    "none, then 6": (exif((_INNER, _LONG, 1, _BEHIND), (_INNER, _LONG, 1, _NEXT)) + _NONE + _SIX, 1),
    "6, then 3": (exif((_INNER, _LONG, 1, _BEHIND), (_INNER, _LONG, 1, _NEXT)) + _SIX + _THREE, 6),
    "9, then 6": (exif((_INNER, _LONG, 1, _BEHIND), (_INNER, _LONG, 1, _NEXT)) + _NINE + _SIX, 1),
    "beyond the end, then 6": (exif((_INNER, _LONG, 1, 50_000), (_INNER, _LONG, 1, _BEHIND)) + _SIX, 1),
    "itself, then 6": (exif((_INNER, _LONG, 1, 8), (_INNER, _LONG, 1, _BEHIND)) + _SIX, 1),
    "a SHORT, then 6": (exif((_INNER, 3, 1, _BEHIND), (_INNER, _LONG, 1, _NEXT)) + _NONE + _SIX, 6),
    "of two values, then 6": (exif((_INNER, _LONG, 2, _BEHIND), (_INNER, _LONG, 1, _NEXT)) + _NONE + _SIX, 6),
    "6 within, then 3": (exif((_INNER, _LONG, 1, _BEHIND), (0x0112, 3, 1, 3)) + _SIX, 6),
    "none within, then 3": (exif((_INNER, _LONG, 1, _BEHIND), (0x0112, 3, 1, 3)) + _NONE, 3),
    "9 within, then 3": (exif((_INNER, _LONG, 1, _BEHIND), (0x0112, 3, 1, 3)) + _NINE, 3),
    "within what is within": (exif((_INNER, _LONG, 1, 26)) + exif((_INNER, _LONG, 1, 44))[8:] + _SIX, 1),
}

TURNED_FILES: dict[str, tuple[bytes, int]] = {
    # Values
    **{f"JPEG, {value}": (_jpeg_exif(orientation(value)), 1) for value in (0, 9, 255, 65_535)},
    **{f"PNG, {value}": (_png_exif(orientation(value)), 1) for value in (0, 9, 65_535)},
    "JPEG, big-endian": (_jpeg_exif(orientation(6, order=">")), 6),
    "PNG, big-endian": (_png_exif(orientation(6, order=">")), 6),
    "JPEG, a LONG": (_jpeg_exif(orientation(6, kind=4)), 1),
    "JPEG, a big-endian LONG": (_jpeg_exif(orientation(6, kind=4, order=">")), 1),
    "PNG, a LONG": (_png_exif(orientation(6, kind=4)), 1),
    "JPEG, a BYTE": (_jpeg_exif(orientation(6, kind=1)), 1),
    "JPEG, a signed SHORT": (_jpeg_exif(orientation(6, kind=8)), 1),
    "JPEG, of no values": (_jpeg_exif(orientation(6, many=0)), 1),
    "JPEG, of two values": (_jpeg_exif(orientation(6, many=2)), 1),
    "JPEG, a wrong one, then 6": (_jpeg_exif(exif((0x0112, 3, 1, 9), (0x0112, 3, 1, 6))), 6),
    "JPEG, 3 and 6": (_jpeg_exif(exif((0x0112, 3, 1, 3), (0x0112, 3, 1, 6))), 3),
    # Directories
    "JPEG, in the EXIF directory": (_jpeg_exif(exif((0x8769, 4, 1, 26)) + orientation(6)[8:]), 6),
    "JPEG, in the thumbnail's directory": (_jpeg_exif(exif(_OTHER)[:-4] + b"\x1a\0\0\0" + orientation(6)[8:]), 1),
    "JPEG, 1, in the thumbnail's 6": (_jpeg_exif(orientation(1)[:-4] + b"\x1a\0\0\0" + orientation(6)[8:]), 1),
    "JPEG, with a thumbnail that is turned": (
        _jpeg_exif(
            orientation(6)[:-4]
            + b"\x1a\0\0\0"
            + exif((0x0103, 3, 1, 6), (0x0201, 4, 1, 68), (0x0202, 4, 1, len(_THUMBNAIL)))[8:]
            + _THUMBNAIL
        ),
        6,
    ),
    "JPEG, far behind": (_jpeg_exif(exif((0x0112, 3, 1, 6), start=400)), 6),
    "JPEG, more entries said than there are": (_jpeg_exif(exif((0x0112, 3, 1, 6), count=50)), 6),
    "JPEG, cut behind the entry": (_jpeg_exif(orientation(6)[:-4]), 6),
    **{f"JPEG, inner, {name}": (_jpeg_exif(content), turn) for name, (content, turn) in _INNER_DIRECTORIES.items()},
    **{f"PNG, inner, {name}": (_png_exif(content), turn) for name, (content, turn) in _INNER_DIRECTORIES.items()},
    # Headers
    "JPEG, any byte behind Exif": (with_segments(_JPEG, (0xE1, b"Exif\0\1" + orientation(6))), 6),
    "JPEG, EXIF in capitals": (with_segments(_JPEG, (0xE1, b"EXIF\0\0" + orientation(6))), 1),
    "JPEG, Exif twice": (_jpeg_exif(b"Exif\0\0" + orientation(6)), 1),
    "JPEG, its EXIF a BigTIFF": (_jpeg_exif(b"II+\0" + orientation(6)[4:]), 1),
    "JPEG, of mixed byte order": (_jpeg_exif(b"II\0*" + orientation(6)[4:]), 1),
    "PNG, Exif before it": (_png_exif(b"Exif\0\0" + orientation(6)), 1),
    # Blocks
    "JPEG, 6, then 3": (_jpeg_exif(orientation(6), orientation(3)), 6),
    "JPEG, 3, then 6": (_jpeg_exif(orientation(3), orientation(6)), 3),
    "JPEG, none, then 6": (_jpeg_exif(exif(_OTHER), orientation(6)), 1),
    "JPEG, broken, then 6": (_jpeg_exif(b"garbage", orientation(6)), 1),
    "PNG, 6, then 3": (_png_exif(orientation(6), orientation(3)), 6),
    # Places
    "JPEG, behind JFIF": (with_segments(_JPEG, (0xE1, b"Exif\0\0" + orientation(6)), before=b"\xff\xdb"), 6),
    "JPEG, behind other segments": (
        with_segments(
            _JPEG,
            (0xE2, b"ICC_PROFILE\0\1\1" + bytes(100)),
            (0xED, b"Photoshop 3.0\0" + bytes(30)),
            (0xFE, b"a comment"),
            (0xE1, b"Exif\0\0" + orientation(6)),
        ),
        6,
    ),
    "JPEG, just before the scan": (with_segments(_JPEG, (0xE1, b"Exif\0\0" + orientation(6)), before=b"\xff\xda"), 6),
    "JPEG, behind the scan": (with_segments(_JPEG, (0xE1, b"Exif\0\0" + orientation(6)), before=b"\xff\xd9"), 1),
    "PNG, behind the pixels": (_png_exif(orientation(6), before=b"IEND"), 1),
    "JPEG, in XMP": (with_segments(_JPEG, _XMP_SEGMENT), 1),
    "JPEG, 6 in XMP, none in EXIF": (with_segments(_JPEG, (0xE1, b"Exif\0\0" + exif(_OTHER)), _XMP_SEGMENT), 1),
    "JPEG, 6 in XMP, 3 in EXIF": (with_segments(_JPEG, _XMP_SEGMENT, (0xE1, b"Exif\0\0" + orientation(3))), 3),
    "PNG, in XMP": (_text(*_XMP_CHUNK), 1),
    "PNG, 6 in XMP, none in EXIF": (_text(*_XMP_CHUNK, (b"eXIf", exif(_OTHER))), 1),
    "PNG, as ImageMagick writes it": (_text(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(_raw_profile(6))), 1),
    "PNG, as ImageMagick writes it, plain": (_text(b"tEXt", b"Raw profile type exif\0" + _raw_profile(6)), 1),
    "PNG, as ImageMagick writes it, international": (
        _text(b"iTXt", b"Raw profile type exif\0\0\0\0\0" + _raw_profile(6)),
        1,
    ),
    "PNG, as ImageMagick writes it, behind the pixels": (
        _text(b"tEXt", b"Raw profile type exif\0" + _raw_profile(6), before=b"IEND"),
        1,
    ),
    "PNG, 6 as ImageMagick writes it, 3 in EXIF": (
        _text(b"tEXt", b"Raw profile type exif\0" + _raw_profile(6), (b"eXIf", orientation(3))),
        3,
    ),
    # Encodings
    "progressive JPEG": (with_segments(_PROGRESSIVE, (0xE1, b"Exif\0\0" + orientation(6))), 6),
    "CMYK JPEG": (with_segments(_CMYK, (0xE1, b"Exif\0\0" + orientation(6))), 6),
    "JPEG of several pictures": (with_segments(_MPO, (0xE1, b"Exif\0\0" + orientation(6))), 6),
    "interlaced PNG": (_interlaced(), 1),
    "interlaced PNG, 6": (_png_exif(orientation(6), png=_interlaced()), 6),
    "animated PNG": (encode(four_colours(), "PNG", **_ANIMATED), 1),
    "animated PNG, 6": (_png_exif(orientation(6), png=encode(four_colours(), "PNG", **_ANIMATED)), 6),
    "animated PNG with another picture for others": (
        encode(255 - four_colours(), "PNG", default_image=True, save_all=True,
               append_images=[Image.fromarray(four_colours()), Image.fromarray(255 - four_colours())]),
        1,
    ),
    "lossy WebP, 6": (encode(four_colours(), "WEBP", quality=95, exif=b"Exif\0\0" + orientation(6)), 1),
    "WebP with alpha, 6": (
        encode(Image.fromarray(four_colours()).convert("RGBA"), "WEBP", lossless=True, exif=orientation(6)),
        1,
    ),
    "WebP, in XMP": (encode(four_colours(), "WEBP", lossless=True, xmp=_xmp(6)), 1),
    "animated WebP, 6": (encode(four_colours(), "WEBP", lossless=True, exif=orientation(6), **_ANIMATED), 1),
    "animated GIF": (encode(four_colours(), "GIF", **_ANIMATED), 1),
    "GIF, in XMP": (encode(four_colours(), "GIF", xmp=_xmp(6)), 1),
    # An AVIF is turned by its container alone.
    **{f"AVIF, {value} in EXIF alone": (with_avif_exif(value), 1) for value in range(1, 9)},
    **{f"AVIF, {value} in EXIF, 8 in its container": (with_avif_exif(value, 8), 8) for value in (1, 3, 6)},
    "AVIF with EXIF that is broken": (with_avif_exif(6).replace(b"MM\0*", b"XXXX").replace(b"II*\0", b"XXXX"), 1),
    "AVIF, in XMP": (encode(four_colours(), "AVIF", quality=95, xmp=_xmp(6)), 1),
    "animated AVIF": (encode(four_colours(), "AVIF", quality=95, **_ANIMATED), 1),
}  # fmt: skip
"""Files of `four_colours`, and the orientation by which a browser turns what is stored."""


def _gif_on_screen(screen_wh: tuple[int, int], at_xy: tuple[int, int] = (0, 0), **options: object) -> bytes:
    """A GIF whose first frame of 48 by 32 pixels stands at a place of a screen of another size."""
    content = bytearray(encode(four_colours(), "GIF", **options))
    content[6:10] = struct.pack("<HH", *screen_wh)
    place = content.index(b",\0\0\0\0" + struct.pack("<HH", 48, 32))
    content[place + 1 : place + 5] = struct.pack("<HH", *at_xy)
    return bytes(content)


def _webp_on_canvas(canvas_wh: tuple[int, int], at_xy: tuple[int, int]) -> bytes:
    """An animated WebP whose first frame of 48 by 32 pixels stands at a place, of even numbers, of a larger canvas."""

    def three_bytes(*numbers: int) -> bytes:
        return b"".join(number.to_bytes(3, "little") for number in numbers)

    picture = encode(four_colours(), "WEBP", lossless=True)[12:]
    frame = three_bytes(at_xy[0] // 2, at_xy[1] // 2, 47, 31, 100) + b"\0" + picture
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + three_bytes(canvas_wh[0] - 1, canvas_wh[1] - 1)
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6) + (b"ANMF" + struct.pack("<I", len(frame)) + frame) * 2
    return b"RIFF" + struct.pack("<I", len(body)) + body


FIRST_FRAMES: dict[str, tuple[bytes, tuple[int, int], tuple[int, int]]] = {
    "GIF on a larger screen": (_gif_on_screen((64, 48), (8, 10)), (64, 48), (8, 10)),
    "GIF on a smaller screen": (_gif_on_screen((40, 20)), (48, 32), (0, 0)),
    "animated GIF on a larger screen": (_gif_on_screen((64, 48), (8, 10), disposal=2, **_ANIMATED), (64, 48), (8, 10)),
    "animated GIF that goes back": (encode(four_colours(), "GIF", disposal=3, **_ANIMATED), (48, 32), (0, 0)),
    "animated WebP on a larger canvas": (_webp_on_canvas((64, 48), (8, 10)), (64, 48), (8, 10)),
}
"""Files whose first frame shows `four_colours` at a place of another size: the size on the page, and the place."""
