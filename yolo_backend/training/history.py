"""The history of a project's runs, as a small picture for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from yolo_backend.training.pages import render

_WIDTH, _HEIGHT, _MARGIN = 320, 96, 10


@dataclass(frozen=True)
class HistoryPoint:
    """A run: its number, how many labelled images it had, its mAP50, and whether it was promoted."""

    run: str
    images: int
    map50: float
    is_promoted: bool


@dataclass(frozen=True)
class _Dot:
    x: float
    y: float
    point: HistoryPoint


def draw_history(points: Sequence[HistoryPoint]) -> Markup:
    """An inline SVG of the score over the labelled images, in the colors of the page around it; empty without runs.

    It needs neither styles nor scripts, which the status page's policy forbids.
    """
    if not points:
        return Markup()
    most = max(1, *(point.images for point in points))
    dots = [
        _Dot(
            round(_MARGIN + point.images / most * (_WIDTH - 2 * _MARGIN), 1),
            round(_HEIGHT - _MARGIN - min(max(point.map50, 0.0), 1.0) * (_HEIGHT - 2 * _MARGIN), 1),
            point,
        )
        for point in points
    ]
    promoted = [dot for dot in dots if dot.point.is_promoted]
    return render("history.svg", dots=dots, promoted=promoted, width=_WIDTH, height=_HEIGHT, margin=_MARGIN, most=most)
