"""What a file's headers may ask of its decoder: a small file can ask for minutes, or for all memory."""

from __future__ import annotations

import re

from PIL import Image, TiffImagePlugin

from yolo_backend.images.errors import ImageError

# Well above what cameras and editors write.
_MAX_JPEG_SCANS = 100  # each goes over all pixels
_MAX_JPEG_SEGMENTS = 1000
_MAX_GAP_BYTES = 1 << 16  # of filling before a segment, which Pillow reads byte by byte
_MAX_EXIF_BYTES = 1 << 20
_MAX_TIFF_TAG_BYTES = 8_000_000  # of a tag of numbers: a strip or a tile each, for example

# Neither stuffed bytes nor restart markers, which stand within a scan.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_WITHOUT_LENGTH = {0x01, 0xD8, 0xD9}
_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_BYTES_AND_TEXT = {1, 2, 6, 7}


def check_pixels(image: Image.Image, max_megapixels: float) -> None:
    """Raises ImageError for more pixels than that, in the image or in a tile of it, before any is decoded."""
    sizes_wh = [image.size]
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        sizes_wh.append((image.tag_v2.get(_TILE_WIDTH, 0), image.tag_v2.get(_TILE_LENGTH, 0)))
    for width, height in sizes_wh:
        if width * height > max_megapixels * 1e6:
            raise ImageError(
                "too_many_pixels",
                f"the image has {width}x{height} pixels, more than {max_megapixels:g} megapixels "
                "(MAX_IMAGE_MEGAPIXELS)",
            )


def check_jpeg(content: bytes) -> None:
    """Raises ImageError for more scans or segments than a picture has, and for none."""
    segments = scans = exif_bytes = 0
    place = 2
    while marker := _JPEG_MARKER.search(content, place):
        kind, gap_bytes, place = marker[1][0], marker.start() - place, marker.end()
        if kind == _END and scans:  # what follows is another picture, or a film
            return
        length = 0 if kind in _WITHOUT_LENGTH else int.from_bytes(content[place : place + 2], "big")
        segments += 1
        if kind == _APP1 and content.startswith(b"Exif", place + 2):
            exif_bytes += length
        if segments > _MAX_JPEG_SEGMENTS or exif_bytes > _MAX_EXIF_BYTES or (gap_bytes > _MAX_GAP_BYTES and not scans):
            break
        scans += kind == _SCAN
        if scans > _MAX_JPEG_SCANS:
            break
        place += length
    else:
        if scans:
            return
    raise ImageError("broken", "the image is broken: a JPEG of too many parts, or of none")


def has_readable_exif(image: Image.Image) -> bool:
    """Whether the EXIF is of a size that can be read in no time."""
    return len(image.info.get("exif", b"")) <= _MAX_EXIF_BYTES


class TiffFile(TiffImagePlugin.TiffImageFile):
    """A TIFF whose tags are measured before they become numbers, and strips and tiles become objects."""

    def _setup(self) -> None:
        tags = self.tag_v2
        for tag, kind in tags.tagtype.items():
            if kind not in _BYTES_AND_TEXT and len(tags._tagdata.get(tag, b"")) > _MAX_TIFF_TAG_BYTES:
                raise ImageError("broken", "the image is broken: a TIFF of too many parts")
        super()._setup()
