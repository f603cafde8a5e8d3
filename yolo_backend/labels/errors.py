"""What can be wrong with a labeling config."""

from __future__ import annotations

from yolo_backend.errors import UserError


class LabelingConfigError(UserError, ValueError):
    """A labeling config that we can't serve; the message says what to change."""
