"""What the doctor finds: plain data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from yolo_backend.label_studio.errors import StudioError
from yolo_backend.messages import Trouble


class LinkState(StrEnum):
    """What became of a link. A remark is no fault, but worth knowing."""

    OK = "ok"
    REMARK = "remark"
    WRONG = "wrong"
    NOT_TRIED = "not tried"


@dataclass(frozen=True)
class Observation:
    """What is found at a link. `fix` says what to do if it isn't as it should be."""

    detail: str
    state: LinkState = LinkState.OK
    fix: str | None = None


@dataclass(frozen=True)
class Finding:
    """An observation, with the name of its link (`check`)."""

    check: str
    state: LinkState
    detail: str
    fix: str | None = None


class BrokenLinkError(Exception):
    """A link that doesn't hold; the message says why, `fix` what to do."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


def broken_by(error: StudioError, fix: str) -> BrokenLinkError:
    """The broken link of this error. `fix` is used if the error itself doesn't say what to do."""
    if error.trouble is None:
        return BrokenLinkError(str(error), fix)
    return BrokenLinkError(error.trouble.what, fix_of(error.trouble))


def fix_of(trouble: Trouble) -> str:
    """What to do about it, as a sentence."""
    does = trouble.fix
    return f"{does[0].upper()}{does[1:]}{'' if does.endswith('?') else '.'}"


class NotTriedError(Exception):
    """A link that can't be tried; the message says what is missing."""
