"""What may end a training, in words for the person who must act."""

from __future__ import annotations

import errno

import requests

from yolo_backend.errors import UserError
from yolo_backend.label_studio.errors import explain
from yolo_backend.messages import first_line


class TrainingError(UserError):
    """A run that can't begin, or go on; the message says what to do."""


def told_of(error: Exception) -> str:
    """An error that ended a run, in a sentence that says what to do."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, requests.Timeout):
        return f"{explain(error)}: train again when it does"
    if isinstance(error, OSError) and error.errno is not None:
        where = f" ({error.filename})" if error.filename else ""
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return f"The disk is full{where}: make room in MODEL_DIR, and train again"
        return f"MODEL_DIR can't be used{where}: {error.strerror}: let the server's user write there, and train again"
    return f"The training failed ({type(error).__name__}: {first_line(error)}): its training.log says more"
