"""Values that Label Studio's page can't show as an image, and addresses that often fail: what they are, what to do.

The page hands a task's value to the browser as it is, once Label Studio has put presigned addresses into it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from yolo_backend.addresses import type_name
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.images.errors import ImageError

CLOUD_SCHEMES = frozenset({"s3", "gs", "azure-blob"})
_SERVE_IT = "upload the file, or serve its folder as a Local Files storage"
_GIVE_IT = "give the address alone"
# What others call the kinds of buckets for which Label Studio has one name.
_BUCKETS = {
    "s3": {"s3a", "s3n", "minio", "r2", "b2", "oss", "cos", "obs"},
    "gs": {"gcs", "gcp", "google"},
    "azure-blob": {"azure", "az", "azblob", "azureblob", "abfs", "abfss", "wasb", "wasbs", "adl"},
}
_LABEL_STUDIOS_NAME = {other: name for name, others in _BUCKETS.items() for other in others}
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{0,20}):", re.IGNORECASE)
_HOST = re.compile(
    r"([^/@\s]*@)?(www\.[\w.-]+|localhost|[\w.-]+:\d{1,5}|[\d.]{7,15}|[\w-]+(\.[\w-]+)*\.[a-z]{2,})(:\d+)?/", re.I
)
# How JPEG, PNG, GIF, WebP and TIFF begin in base64.
_BASE64_IMAGE = re.compile(r"(/9j/|iVBORw0KGgo|R0lGOD|UklGR|SUkqA|TU0AK)[A-Za-z0-9+/\s]{40}")
_SEVERAL = re.compile(r"(?<=[,;|\s])(/data/(upload|local-files)/|[a-z][a-z0-9+.-]{1,20}://)", re.IGNORECASE)
_WINDOWS_PATH = re.compile(r"[a-z]:|.*\\", re.IGNORECASE | re.DOTALL)
_TWICE_ESCAPED = re.compile(r"%25[0-9a-f]{2}", re.IGNORECASE)
# How Label Studio says no: mostly 404, 403 for what it doesn't serve, 500 for an upload that it doesn't know.
_REFUSED = frozenset({400, 403, 404, 410, 500})
_MISSING = frozenset({404, 410})
# An image that came and was too large, for example, is none of these.
_NOT_HAD = frozenset(
    {
        FailureKind.UNAUTHORIZED,
        FailureKind.NOT_FOUND,
        FailureKind.FORBIDDEN_ADDRESS,
        FailureKind.DNS,
        FailureKind.UNREACHABLE,
        FailureKind.HTTP_ERROR,
        FailureKind.TLS,
    }
)


@dataclass(frozen=True)
class Remark:
    """What is odd about an address, to be told if its image can't be had: with one of these statuses, or with any."""

    kind: FailureKind
    message: str
    statuses: frozenset[int] = frozenset()

    def explain(self, error: ImageError) -> ImageError:
        """The error, with what is odd if that is its cause."""
        is_its_fault = error.status in self.statuses if self.statuses else error.kind in _NOT_HAD
        if not is_its_fault:
            return error
        return ImageError(self.kind, f"{self.message} ({error})", error.status)


def looks_like_base64(text: str) -> bool:
    """Returns True if this is the beginning of an image's file, in base64."""
    return _BASE64_IMAGE.match(text[:100]) is not None


def type_sentence(value: Any) -> str:
    """What a value is if it isn't a text, and how it could become an image's address."""
    should = "the task's value should be an image address, not "
    if isinstance(value, dict):
        texts = (key for key, inner in value.items() if isinstance(inner, str) and re.fullmatch(r"\w{1,40}", str(key)))
        name = next(texts, None)
        hint = f': let the Image name the field in it, as in value="$image.{name}"' if name else ""
        return f"{should}an object{hint}"
    if isinstance(value, list):
        return f"{should}a list: for a list of addresses, use the Image's valueList"
    return should + type_name(value)


def check_address(value: str) -> None:
    """Raises ImageError for a text that the page can't show as an image: what it is, and what to do."""
    for kind, check in _CHECKS:
        if sentence := check(value):
            raise ImageError(kind, sentence)


def _check_wrapped(value: str) -> str | None:
    """An address, or what should be one, inside of something else."""
    if value[0] == "<":
        return f"it is HTML, not an address: {_GIVE_IT}, as it stands in src"
    if re.match(r"!?\[[^\]]*\]\(", value):
        return f"it is a Markdown link, not an address: {_GIVE_IT}, as it stands in the parentheses"
    if value[0] in "\"'`“”„‘’«":
        return "it stands in quotes: leave them out"
    if value[0] in "{[" and _is_json(value):
        return "it is an object or a list, written as a text: import it without the quotes around it"
    if value.lower() in {"nan", "none", "null", "undefined", "n/a"}:
        return f"it is the word {value}, which stands for an empty field: give the task an image, or delete it"
    if looks_like_base64(value):
        return "it is an image in base64 without its beginning: write data:image/jpeg;base64, before it"
    return None


def _check_disk_path(value: str) -> str | None:
    if re.match(r"[a-z]:", value, re.IGNORECASE):  # no scheme has one letter
        return f"it is a path of a Windows disk, which no web page can open: {_SERVE_IT}"
    if value.startswith("\\\\"):
        return f"it is a path of a Windows network share, which no web page can open: {_SERVE_IT}"
    if value[:5].lower() == "file:":
        return f"it is a file: address, which no web page can open: {_SERVE_IT}"
    if value[0] == "~":
        return f"it is a path of a home folder, which no web page can open: {_SERVE_IT}"
    return None


def _check_completeness(value: str) -> str | None:
    """An address of the web or of a bucket that lacks something."""
    match = re.match(r"(https?|s3|gs|azure-blob):", value, re.IGNORECASE)
    if match is None:
        return None
    scheme, rest = match[1].lower(), value[match.end() :]
    if not rest.startswith("//"):
        return f"it lacks a slash: two stand after {scheme}:"
    if scheme in CLOUD_SCHEMES:
        has_file = re.match(r"//[^/]+/.", rest, re.DOTALL)
        return (
            None
            if has_file
            else f"it names no file in a bucket: it should look like {scheme}://bucket/folder/image.jpg"
        )
    has_host = not re.match(r"//(https?:|$|[/?#])", rest, re.IGNORECASE)
    return None if has_host else f"it names no host after its first {scheme}://: correct the address"


def _check_scheme(value: str) -> str | None:
    if ":" not in value.split("/", 1)[0] or _HOST.match(value):
        return None
    scheme = match[1].lower() if (match := _SCHEME.match(value)) else ""
    if scheme in CLOUD_SCHEMES or scheme in {"http", "https"}:
        return None
    if scheme in _LABEL_STUDIOS_NAME:
        name = _LABEL_STUDIOS_NAME[scheme]
        return f"Label Studio doesn't know {scheme}: addresses: write {name}://, and add the bucket as a storage"
    if scheme == "blob":
        return "it is a blob: address, which lives only in the browser that made it: upload the file"
    shown = f"{scheme}:" if scheme else "such"
    return f"{shown} addresses are not served, and no web page shows them: {_SERVE_IT}"


_WEB_PAGES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"https?://(drive|docs)\.google\.com/(file/d/|open\?|drive/)", re.IGNORECASE),
        "it is Google Drive's web page about a file, not the file: download the image and upload it",
    ),
    (
        re.compile(r"https?://(www\.)?dropbox\.com/(?!.*[?&](raw|dl)=1)", re.IGNORECASE),
        "it is Dropbox's web page about a file, not the file: let the address end in raw=1 instead of dl=0",
    ),
    (
        re.compile(r"https?://(www\.)?github\.com/[^/]+/[^/]+/blob/(?!.*[?&]raw=)", re.IGNORECASE),
        "it is GitHub's web page about a file, not the file: write /raw/ instead of /blob/",
    ),
)


def _check_web_page(value: str) -> str | None:
    return next((sentence for pattern, sentence in _WEB_PAGES if pattern.match(value)), None)


def _check_relative(value: str) -> str | None:
    has_scheme = _SCHEME.match(value) and not _HOST.match(value)
    if has_scheme or value[0] in "/\\":
        return None
    if match := re.match(r"(data/(upload|local-files)/|storage-data/)", value):
        return f"it lacks its first slash: write /{match[1]}…"
    if value.startswith("upload/"):
        return "it lacks its beginning: write /data/upload/…"
    if _HOST.match(value):
        return "it lacks its beginning: write https:// (or http://) before the host, or upload the file"
    return f"the task's value is neither an address nor a path of Label Studio: {_SERVE_IT}"


_CHECKS = (
    (FailureKind.UNSUPPORTED, _check_wrapped),
    (FailureKind.UNSUPPORTED, _check_disk_path),
    (FailureKind.BAD_ADDRESS, _check_completeness),
    (FailureKind.UNSUPPORTED, _check_scheme),
    (FailureKind.NOT_AN_IMAGE, _check_web_page),
    (FailureKind.UNSUPPORTED, _check_relative),
)


def _is_json(value: str) -> bool:
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return False
    return True


def remark_on_own(path: str) -> Remark | None:
    """What to tell if Label Studio has nothing at a path of its own, below its address."""
    if _SEVERAL.search(path):
        return _several(_REFUSED)
    if path.startswith("/data/local-files"):
        return Remark(FailureKind.NOT_FOUND, _about_local_file(path), _REFUSED)
    if path.startswith(("/data/upload/", "/storage-data/")):
        is_twice = _TWICE_ESCAPED.search(path)
        hint = (
            "the address is percent-encoded twice (%25)" if is_twice else "it was deleted, or is another Label Studio's"
        )
        return Remark(FailureKind.NOT_FOUND, f"Label Studio has no such upload: {hint}", _REFUSED - {403})
    if re.match(r"/(tasks|projects|api|static)/", path):
        return None
    return Remark(
        FailureKind.UNSUPPORTED,
        f"Label Studio has nothing at this path; if it is one of a disk, no web page can open it: {_SERVE_IT}",
        _MISSING,
    )


def remark_on_prefix(prefix: str) -> Remark:
    """What to tell if Label Studio has nothing at a path of its own that stands below another path."""
    message = f"if Label Studio's address in a browser ends in {prefix}, set LABEL_STUDIO_HOST to that address"
    return Remark(FailureKind.OTHER_LABEL_STUDIO, message, _REFUSED)


def _about_local_file(path: str) -> str:
    name = (parse_qs(urlsplit(path).query).get("d") or [""])[-1]
    if not name:
        return "the address of a local file names none: write its path after /data/local-files/?d="
    if _WINDOWS_PATH.match(name):
        return "it has a Windows path after ?d=: write the file's path below LOCAL_FILES_DOCUMENT_ROOT, with / only"
    if _TWICE_ESCAPED.search(path):
        return "Label Studio serves no such file: its path after ?d= is percent-encoded twice (%25)"
    if ".." in name.split("/"):
        return "Label Studio serves nothing above LOCAL_FILES_DOCUMENT_ROOT: correct the path after ?d="
    return (
        "Label Studio serves no such file: check that it is below LOCAL_FILES_DOCUMENT_ROOT, in a folder that is a "
        "Local Files storage of a project, and that LOCAL_FILES_SERVING_ENABLED=true"
    )


def remark_on_bucket(uri: str) -> Remark | None:
    """What to tell if Label Studio has nothing for an address of a bucket."""
    if _SEVERAL.search(uri):
        return _several(_REFUSED)
    if "?" in uri:
        return Remark(
            FailureKind.NOT_FOUND, "Label Studio reads a bucket's address up to its ? only: rename the file", _MISSING
        )
    return None


def remark_on_web(url: str) -> Remark | None:
    """What to tell if an address of the web can't be fetched."""
    return _several(_REFUSED) if _SEVERAL.search(url) else None


def _several(statuses: frozenset[int]) -> Remark:
    message = "it holds several addresses: import them as a list, and let the Image name it as valueList"
    return Remark(FailureKind.UNSUPPORTED, message, statuses)


def remark_on_unknown_studio(address: str, known: str | None, *, is_configured: bool) -> Remark:
    """What to tell if a file can't be fetched from a Label Studio whose address isn't known as ours."""
    if known:
        message = (
            f"it is of a Label Studio at {address}, and ours is {known}: correct the address, or LABEL_STUDIO_HOST"
        )
    elif is_configured:
        message = f"if Label Studio's own address in a browser is {address}, set LABEL_STUDIO_HOST={address}"
    else:
        message = f"if {address} is your Label Studio, set LABEL_STUDIO_URL={address} and LABEL_STUDIO_API_KEY"
    return Remark(FailureKind.OTHER_LABEL_STUDIO, message)
