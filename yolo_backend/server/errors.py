"""Why a request is not served, beside what the other rooms say."""

from __future__ import annotations


class BadRequestError(ValueError):
    """A body that isn't what the protocol says."""


class StoppingError(Exception):
    """The process was told to end."""
