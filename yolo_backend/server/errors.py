"""Why a request is not served, for reasons that the other modules don't know."""

from __future__ import annotations


class BadRequestError(ValueError):
    """A body that doesn't follow the protocol."""


class StoppingError(Exception):
    """The process was told to end."""
