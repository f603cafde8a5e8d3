"""What others' errors say, fit for one line of ours."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
