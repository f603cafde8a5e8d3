"""What others' errors say, fit for one line of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_MAX_SHOWN = 80
_CODE_POINTS_SHOWN = 4


class Trouble(NamedTuple):
    """What is wrong, and what to do about it; as text, one line of both. What lasts isn't mended by waiting."""

    what: str
    fix: str
    lasts: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.fix}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message that isn't blank, or its type where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def api_message(body: Any) -> str:
    """What Label Studio's API says is wrong, in one line; `body` is the JSON that it answers."""
    if isinstance(body, dict):
        details = body.get("validation_errors") or body.get("non_field_errors") or body.get("detail") or body
        body = next(iter(details.values())) if isinstance(details, dict) and details else details
    if isinstance(body, list):
        body = " ".join(str(part) for part in body)
    return " ".join(str(body).split())


def named(name: str, position: int, what: str = "label") -> str:
    """A name as it is; one that Latin-1 can't say, with its position, counted from 1, by which it is found anyway."""
    return name if to_latin1(name) == name else f"({what} {position}, {name})"


def to_latin1(text: str) -> str:
    """One line that survives in HTTP's reason phrase, which is read as Latin-1: other letters as `U+8ECA`."""

    def code_points(match: re.Match[str]) -> str:
        shown = [f"U+{ord(letter):04X}" for letter in match[0][:_CODE_POINTS_SHOWN]]
        return " ".join(shown) + ("..." if len(match[0]) > _CODE_POINTS_SHOWN else "")

    printable = re.sub(r"[\x00-\x20\x7f-\x9f]+", " ", text).strip()
    return re.sub(r"[^\x20-\xff]+", code_points, printable)


def shortened(text: str, max_characters: int = _MAX_SHOWN) -> str:
    """A text that strangers may have written, as a part of one line: printable, and cut where it is long."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= max_characters else line[: max_characters - 3] + "..."


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """The error and what it wraps: requests wraps urllib3's errors, which wrap the system's."""
    yield error
    for wrapped in (*error.args, getattr(error, "reason", None), error.__cause__):
        if isinstance(wrapped, BaseException):
            yield from causes_of(wrapped)
