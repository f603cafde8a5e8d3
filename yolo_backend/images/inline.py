"""`data:` addresses: images in the task itself, by RFC 2397 and as browsers read them."""

from __future__ import annotations

import base64
import binascii
import re
import string
from urllib.parse import unquote_to_bytes

from yolo_backend.failure_kinds import FailureKind
from yolo_backend.images.errors import ImageError
from yolo_backend.images.oddities import looks_like_base64

_MAX_ESCAPES = 1_000_000  # each costs far more memory than its three characters
_BASE64 = re.compile(r";\s*base64\s*$", re.IGNORECASE)


def decode_data_uri(uri: str) -> bytes:
    """The bytes that a `data:` address holds. Raises ImageError."""
    header, comma, payload = uri.partition(",")
    if not comma:
        raise ImageError(FailureKind.NOT_AN_IMAGE, "the data: address has no comma, so no content")
    payload = payload.partition("#")[0]  # what follows is a fragment, as in any address
    if payload.count("%") > _MAX_ESCAPES:
        raise ImageError(FailureKind.TOO_LARGE, f"the data: address has more than {_MAX_ESCAPES} escaped characters")
    raw = unquote_to_bytes(payload)
    if not _BASE64.search(header):
        if looks_like_base64(payload.lstrip()):
            raise ImageError(
                FailureKind.NOT_AN_IMAGE, "the data: address lacks ;base64 before its comma: write it there"
            )
        return raw
    try:
        compact = raw.translate(None, string.whitespace.encode())
        return base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)
    except binascii.Error as error:
        raise ImageError(FailureKind.NOT_AN_IMAGE, f"the data: address is not base64: {error}") from None
