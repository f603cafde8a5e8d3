"""What can go wrong with one image."""

from __future__ import annotations

from yolo_backend.errors import UserError


class ImageError(UserError):
    """An image that can't be had. `kind` is a short name for metrics; the message is for the person who must act.

    `status` is the HTTP status that its server answered, where that is what went wrong.
    """

    def __init__(self, kind: str, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
