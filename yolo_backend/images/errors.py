"""What can go wrong with one image."""

from __future__ import annotations

from yolo_backend.errors import UserError


class ImageError(UserError):
    """An image that can't be had. `kind` is a short name for metrics; the message is for the person who must act."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
