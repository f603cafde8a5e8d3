"""How far the work on a project is, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far the work on a project is, in numbers of tasks.

    `left_s` is an estimate for what waits; `finished_at` is the time of day when all of it was done and delivered.
    """

    project: str
    model_version: str
    asked: int
    waiting: int
    running: int
    predicted: int
    failed: int
    answered: int
    pushed: int
    kept: int
    rate_per_s: float
    left_s: float | None
    last_error: str | None
    finished_at: float | None = None
