"""The ground of errors that are told to people."""

from __future__ import annotations


class UserError(Exception):
    """Something that a person has to put right; the message says in one line what failed, where, and what to do."""
