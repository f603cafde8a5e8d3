"""What tells whether the bytes behind an address, or in a file, are still those that were read before."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,200}"')
# If a file was written in the moment in which it was sent or read, its next version may look the same.
_DATE_GAP_S = 60.0  # RFC 9110, 8.8.2.2, with room for a clock that is wrong
_FILE_GAP_S = 2.0  # the coarsest clock of a file system (FAT)


@dataclass(frozen=True, slots=True)
class FileStamp:
    """A file as the system knows it. It changes if the file is written to or replaced."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class Validators:
    """What a server calls the bytes that it sent: the header to ask with, and the address that may be asked."""

    header: str
    value: str
    given_by: str

    def headers_for(self, url: str) -> dict[str, str]:
        """The conditional header, for the address that gave it and no other."""
        address = url if self.header == "If-Modified-Since" else _without_query(url)
        return {self.header: self.value} if address == self.given_by else {}


Version = FileStamp | Validators


def read_stamp(stat: os.stat_result) -> FileStamp | None:
    """The stamp of an opened file; None if the file is so young that its next version may have the same."""
    if time.time() - stat.st_mtime < _FILE_GAP_S:
        return None
    return FileStamp(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def read_validators(headers: Mapping[str, str], url: str) -> Validators | None:
    """By what this answer of `url` is known next time; None if that isn't certain, or if the server forbids it."""
    if "no-store" in headers.get("Cache-Control", "").lower():
        return None
    # A weak one (W/) may stand for other bytes, too.
    if _STRONG_ETAG.fullmatch(etag := headers.get("ETag", "")):
        # A presigned address has another query each time.
        return Validators("If-None-Match", etag, _without_query(url))
    modified, date = headers.get("Last-Modified", ""), headers.get("Date", "")
    modified_s, date_s = _seconds(modified), _seconds(date)
    if modified_s is not None and date_s is not None and date_s - modified_s >= _DATE_GAP_S:
        # Another query may mean another file. If that is older, it would pass for the same.
        return Validators("If-Modified-Since", modified, url)
    return None


def _without_query(url: str) -> str:
    return url.partition("?")[0]


def _seconds(date: str) -> float | None:
    if not date.isascii() or not date.isprintable():
        return None
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
