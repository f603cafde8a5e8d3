"""What a file's headers may ask of its decoder: a small file can ask for minutes, or for all memory."""

from __future__ import annotations

import io
import re

from PIL import Image, TiffImagePlugin

from yolo_backend.failure_kinds import FailureKind
from yolo_backend.images.errors import ImageError, NotAnImageError
from yolo_backend.images.signatures import RAW

# Well above what cameras and editors write.
_MAX_JPEG_SCANS = 100  # each goes over all pixels
_MAX_JPEG_SEGMENTS = 1000
_MAX_GAP_BYTES = 1 << 16  # of padding before a segment, which Pillow reads byte by byte
_MAX_EXIF_BYTES = 1 << 20
_MAX_TIFF_TAG_BYTES = 8_000_000  # of a tag of numbers, such as the offsets of all strips or tiles

# Neither stuffed bytes nor restart markers, which stand within a scan.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_WITHOUT_LENGTH = {0x01, 0xD8, 0xD9}
_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_WIDTH, _LENGTH, _TILE_WIDTH, _TILE_LENGTH = 256, 257, 322, 323
_SUBFILE_TYPE, _IS_REDUCED, _SUB_DIRECTORIES, _DNG_VERSION = 254, 1, 330, 50706
_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _SAMPLE_FORMAT = 258, 259, 262, 277, 339
_PLANES, _IN_PLANES = 284, 2
_MAX_SAMPLES = 1000  # of a satellite's pixel
_FORMS = {2: " signed", 3: " floating point", 5: " complex", 6: " complex"}
_RAW_PHOTOMETRICS = {32_803, 34_892}  # of a sensor's own colours
_BYTES_AND_TEXT = {1, 2, 6, 7}


def check_pixels(image: Image.Image, max_megapixels: float) -> None:
    """Raises ImageError for more pixels than that, in the image or in a tile of it, before any is decoded."""
    sizes_wh = [image.size]
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        sizes_wh.append((image.tag_v2.get(_TILE_WIDTH, 0), image.tag_v2.get(_TILE_LENGTH, 0)))
    for width, height in sizes_wh:
        if width * height > max_megapixels * 1e6:
            raise ImageError(
                FailureKind.TOO_MANY_PIXELS,
                f"the image has {width}x{height} pixels, more than {max_megapixels:g} megapixels "
                "(MAX_IMAGE_MEGAPIXELS)",
            )


def check_jpeg(content: bytes) -> None:
    """Raises ImageError if there are more scans or segments than a picture has, or no scan."""
    segments = scans = exif_bytes = 0
    position = 2
    while marker := _JPEG_MARKER.search(content, position):
        kind, gap_bytes, position = marker[1][0], marker.start() - position, marker.end()
        if kind == _END and scans:  # what follows is another picture, or a film
            return
        length = 0 if kind in _WITHOUT_LENGTH else int.from_bytes(content[position : position + 2], "big")
        segments += 1
        if kind == _APP1 and content.startswith(b"Exif", position + 2):
            exif_bytes += length
        if segments > _MAX_JPEG_SEGMENTS or exif_bytes > _MAX_EXIF_BYTES or (gap_bytes > _MAX_GAP_BYTES and not scans):
            break
        scans += kind == _SCAN
        if scans > _MAX_JPEG_SCANS:
            break
        position += length
    else:
        if scans:
            return
    raise ImageError(FailureKind.BROKEN, "the image is broken: a JPEG of too many parts, or of none")


class TiffFile(TiffImagePlugin.TiffImageFile):
    """A TIFF whose tags are measured before they become numbers, and strips and tiles become objects.

    It refuses what Pillow would show wrongly: the preview in a camera's raw file, and colours of more than 8 bits in
    planes.
    """

    def _setup(self) -> None:
        tags = self.tag_v2
        for tag, kind in tags.tagtype.items():
            if kind not in _BYTES_AND_TEXT and len(tags._tagdata.get(tag, b"")) > _MAX_TIFF_TAG_BYTES:
                raise ImageError(FailureKind.BROKEN, "the image is broken: a TIFF of too many parts")
        if self._is_raw():
            raise NotAnImageError(*RAW)
        if self.number(_PLANES, 1) == _IN_PLANES and self.number(_SAMPLES, 1) > 1 and self.number(_BITS, 1) > 8:
            raise self._unusual()
        self.info.pop("xmp", None)  # because Pillow would turn the image by it
        try:
            super()._setup()
        except (SyntaxError, KeyError):  # Pillow knows only some combinations
            if _WIDTH not in tags or _LENGTH not in tags or self.number(_SAMPLES, 1) > _MAX_SAMPLES:
                raise
            raise self._unusual() from None

    def number(self, tag: int, default: int) -> int:
        """The first number of a tag."""
        value = self.tag_v2.get(tag, default)
        value = value[0] if isinstance(value, tuple) and value else value
        return value if isinstance(value, int) else default

    def _is_raw(self) -> bool:
        has_more = _SUB_DIRECTORIES in self.tag_v2 or self.is_animated
        return (
            _DNG_VERSION in self.tag_v2
            or self.number(_PHOTOMETRIC, 0) in _RAW_PHOTOMETRICS
            or bool(self.number(_SUBFILE_TYPE, 0) & _IS_REDUCED and has_more)
            or bool(isinstance(self.fp, io.BytesIO) and bytes(self.fp.getbuffer()[8:10]) == b"CR")  # Canon's CR2
        )

    def _unusual(self) -> NotAnImageError:
        form = _FORMS.get(self.number(_SAMPLE_FORMAT, 1), "")
        planes = ", in planes" if self.number(_PLANES, 1) == _IN_PLANES else ""
        kind = f"{self.number(_SAMPLES, 1)} x {self.number(_BITS, 1)} bits{form}{planes}"
        compression = self.number(_COMPRESSION, 1)
        packed = "" if compression in TiffImagePlugin.COMPRESSION_INFO else f", compression {compression}"
        return NotAnImageError(
            f"a TIFF of a kind that isn't read ({kind}{packed})", "save it as PNG, or as TIFF with 8 bits"
        )
