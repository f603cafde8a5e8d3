"""What kind of file it is that no decoder here takes, by its first bytes: a message names it, and what to do."""

from __future__ import annotations

import codecs
import re

from yolo_backend.images.errors import NotAnImageError

_CONVERT = "convert it to JPEG or PNG"
_DEVELOP = "convert it to JPEG or PNG, because a raw file has no colours yet"
_FRAMES = "take its frames out as JPEG or PNG"
_ARRAY = "save what it holds as PNG with 8 bits"
_UNPACK = "unpack it, and give the images in it"
_OPEN_ADDRESS = "open the address in a browser: there may be a login or an error in the image's place"

_HEIC = ("a HEIC, as iPhones make", _CONVERT)
_HEIF = ("a HEIF", _CONVERT)
RAW = ("a camera's raw file", _DEVELOP)
_VIDEO = ("a video", _FRAMES)
_SOUND = ("a sound", "label it in a project for sound")
_JPEG_XL = ("a JPEG XL", _CONVERT)
_JPEG_2000 = ("a JPEG 2000", _CONVERT)
_DICOM = ("a DICOM", "convert it to PNG with 8 bits, with the window that shows what matters")
_EPS = ("a PostScript (EPS)", "export it as PNG")
_ARCHIVE = ("an archive", _UNPACK)
_OPENEXR = ("an OpenEXR", "convert it to PNG with 8 bits")
_NETPBM = ("a Netpbm (PPM, PGM, PBM)", _CONVERT)
_LFS = ("a Git LFS pointer, not the file itself", "run `git lfs pull` where it lies, and upload or serve it anew")
_ANNEX = ("a git-annex pointer, not the file itself", "run `git annex get` where it lies, and upload or serve it anew")
_SIDECAR = (
    "what macOS stores beside a file (AppleDouble), not the file itself",
    "give the file without `._` in its name",
)
_ZEROS = ("only zeros, as after an interrupted copy", "copy the file anew")
_SVG = ("an SVG", "export it as PNG: a model needs pixels")
_HTML = ("a web page (HTML)", _OPEN_ADDRESS)
_XML = ("XML", _OPEN_ADDRESS)
_JSON = ("JSON", _OPEN_ADDRESS)
_TEXT = ("text", "open it, or the address, to see what it says")

# The position in the file, the bytes there, what such a file is, and what to do. Only files that no decoder here
# accepts are compared with these.
_STARTS: tuple[tuple[int, bytes, tuple[str, str]], ...] = (
    (0, rb"\x00\x00\x00\x0cJXL \r\n\x87\n", _JPEG_XL),
    (0, rb"\xff\x0a", _JPEG_XL),
    (0, rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", _JPEG_2000),
    (0, rb"II\xbc\x01", ("a JPEG XR", _CONVERT)),
    (128, rb"DICM", _DICOM),
    (0, rb"[\x02\x08]\x00\x00\x00UL\x04\x00", _DICOM),  # without its preamble
    (0, rb"8BPS", ("a Photoshop file (PSD)", _CONVERT)),
    (0, rb"gimp xcf", ("a GIMP file (XCF)", _CONVERT)),
    (0, rb"%!PS|\xc5\xd0\xd3\xc6", _EPS),
    (0, rb"P[1-6]\s*[#\d]|P[7Ff]\s", _NETPBM),
    (0, rb"\x00\x00[\x01\x02]\x00[\x01-\xff]\x00", ("an icon (ICO)", _CONVERT)),
    (0, rb"\x76\x2f\x31\x01", _OPENEXR),
    (0, rb"#\?RADIANCE|#\?RGBE", ("a Radiance HDR", "convert it to PNG with 8 bits")),
    (0, rb"DDS ", ("a DDS", _CONVERT)),
    (0, rb"qoif", ("a QOI", _CONVERT)),
    (0, rb"BPG\xfb", ("a BPG", _CONVERT)),
    (0, rb"AT&TFORM", ("a DjVu", "save its pages as PNG")),
    (0, rb"FUJIFILMCCD-RAW|FOVb|\x00MRM|IIRO|IIRS|MMOR|IIU\x00", RAW),
    (0, rb"\x93NUMPY", ("a NumPy array", _ARRAY)),
    (0, rb"\x89HDF\r\n\x1a\n", ("an HDF5", _ARRAY)),
    (0, rb"MATLAB \d", ("a MATLAB file", _ARRAY)),
    (0, rb"SIMPLE  =", ("a FITS", _ARRAY)),
    (344, rb"n[+i]1\x00", ("a NIfTI", _ARRAY)),
    (0, rb"RIFF....AVI ", _VIDEO),
    (0, rb"RIFF....WAVE|ID3|OggS|fLaC", _SOUND),
    (0, rb"\x1a\x45\xdf\xa3|FLV\x01|\x00\x00\x01\xba|\x00\x00\x01\xb3", _VIDEO),
    (4, rb"moov|mdat|wide", _VIDEO),
    (0, rb"PK\x03\x04|PK\x05\x06|\x1f\x8b\x08|Rar!|7z\xbc\xaf|BZh[1-9]|\xfd7zXZ|\x28\xb5\x2f\xfd", _ARCHIVE),
    (257, rb"ustar", _ARCHIVE),
    (0, rb"\x00\x05\x16\x07", _SIDECAR),
    (0, rb"version https://git-lfs", _LFS),
    (0, rb"/annex/objects/|(\.\./)*\.git/annex/objects/", _ANNEX),
    (0, rb".{0,1000}?%PDF-\d", ("a PDF", "save its pages as PNG")),  # a PDF may begin with other bytes
)
_PATTERNS = tuple((position, re.compile(pattern, re.DOTALL), told) for position, pattern, told in _STARTS)
_BRANDS = (
    (frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}), _HEIC),
    (frozenset({b"crx "}), RAW),
    (frozenset({b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B "}), _SOUND),
    (frozenset({b"jxl "}), _JPEG_XL),
    (frozenset({b"jp2 ", b"jpx ", b"jpm ", b"mjp2"}), _JPEG_2000),
    (frozenset({b"avci", b"avcs", b"j2ki", b"j2is"}), _HEIF),
)
_GENERAL_BRANDS = frozenset({b"mif1", b"mif2", b"msf1", b"miaf"})
_LOOKED_AT_BYTES = 4096
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_JSON_START = re.compile(r'\{\s*["}]|\[\s*["{\[\]\d]')
# Comments, instructions and declarations, and the name of a document's kind or of its first element.
_MARKUP = re.compile(r"<!--.*?(?:-->|\Z)|<!doctype\s+([\w:.-]+)|<[?!][^>]*|<([\w:.-]+)", re.DOTALL)
_HTML_NAMES = frozenset(
    {"b", "body", "br", "center", "div", "h1", "h2", "head", "html", "link", "meta", "p", "pre", "script", "style"}
    | {"title"}
)
_SVG_NAME = "svg"


def tell_apart(start: bytes) -> NotAnImageError | None:
    """What kind of file begins like this, if it is no image that we decode; None if we don't know."""
    start = start[:_LOOKED_AT_BYTES]
    if told := _by_brand(start) or _by_pattern(start) or _by_text(start):
        return NotAnImageError(*told)
    return None


def _by_brand(start: bytes) -> tuple[str, str] | None:
    if start[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(start[:4], "big"), len(start))
    brand, others = start[8:12], {start[position : position + 4] for position in range(16, end, 4)}
    # If the first brand is a general one, the others say what the file is.
    brands = {brand} if brand not in _GENERAL_BRANDS or others <= _GENERAL_BRANDS else others - _GENERAL_BRANDS
    return next((told for known, told in _BRANDS if brands & known), _HEIF if brand in _GENERAL_BRANDS else _VIDEO)


def _by_pattern(start: bytes) -> tuple[str, str] | None:
    return next((told for position, pattern, told in _PATTERNS if pattern.match(start, position)), None)


def _by_text(start: bytes) -> tuple[str, str] | None:
    if len(start) > 1 and not start.strip(b"\0"):
        return _ZEROS
    text = _decode(start).strip().lower()
    if not text or _CONTROL.search(text):
        return None
    if text[0] == "<":
        return _by_markup(text)
    return _JSON if _JSON_START.match(text) else _TEXT


def _by_markup(text: str) -> tuple[str, str]:
    names = (match[1] or match[2] for match in _MARKUP.finditer(text))
    name = next(filter(None, names), "")
    if name in _HTML_NAMES:
        return _HTML
    return _SVG if name.rpartition(":")[2] == _SVG_NAME else _XML


def _decode(start: bytes) -> str:
    """The text of these bytes; nothing if they are no text."""
    encoding = "utf-16" if start[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"
    try:
        # Incrementally, because the last letter may be cut in two.
        return codecs.getincrementaldecoder(encoding)().decode(start)
    except UnicodeDecodeError:
        return ""
