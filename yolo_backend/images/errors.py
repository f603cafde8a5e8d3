"""What can go wrong with one image."""

from __future__ import annotations

import re

from yolo_backend.errors import UserError
from yolo_backend.failure_kinds import FailureKind

# A name that promises an image, at the end of a file's name or of an address without its query.
_PROMISE = re.compile(r"\.(avif|bmp|gif|jpe?g|png|tiff?|webp)(\?\.\.\.)?$", re.IGNORECASE)


class ImageError(UserError):
    """An image that can't be had. The message is for the person who must act.

    `status` is the HTTP status that its server answered, if that is what went wrong.
    """

    def __init__(self, kind: FailureKind, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status

    def told_of(self, name: str) -> str:
        """The message, to be shown beside this name of the file."""
        return str(self)


class NotAnImageError(ImageError):
    """A file that is something else, such as `a HEIC`; `remedy` says what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(FailureKind.NOT_AN_IMAGE, f"is {what}: {remedy}")
        self._what, self._remedy = what, remedy

    def told_of(self, name: str) -> str:
        """The message, with the name's ending if that promises an image."""
        promise = _PROMISE.search(name)
        return f"is {self._what}, though named .{promise[1]}: {self._remedy}" if promise else str(self)


class HungUpError(Exception):
    """Nobody waits for the image any more. This is no fault, and nobody is told."""
