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
    """What is found at a link; `fix` says what to do where it isn't as it should be."""

    detail: str
    state: LinkState = LinkState.OK
    fix: str | None = None


@dataclass(frozen=True)
class Finding:
    """What is found at the link that `check` names."""

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
    """The link that doesn't hold because of this; `fix` is for what doesn't say itself what to do."""
    if error.trouble is None:
        return BrokenLinkError(str(error), fix)
    return BrokenLinkError(error.trouble.what, fix_of(error.trouble))


def fix_of(trouble: Trouble) -> str:
    """What to do about it, as a sentence."""
    does = trouble.fix
    return f"{does[0].upper()}{does[1:]}{'' if does.endswith('?') else '.'}"


class NotTriedError(Exception):
    """A link that can't be tried; the message says what is missing."""
