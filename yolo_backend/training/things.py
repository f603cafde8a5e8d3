"""What people draw or choose for a model of each kind, as sentences call it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Things:
    """One, and several; images with them were `made` so, and shuffled labels are those of `shuffled`.

    `tag` is the tag of the labeling config that a label of theirs has.
    """

    one: str
    several: str
    made: str
    shuffled: str
    tag: str


BOXES = Things("box", "boxes", "drawn", "the labels on other boxes", "Label")
REGIONS = Things("region", "regions", "drawn", "the labels on other regions", "Label")
CHOICES = Things("choice", "choices", "labelled", "the choices of other images", "Choice")


def things_of(kind: str | None) -> Things:
    """What weights of this kind learn from; None is that of runs that don't say it."""
    return CHOICES if kind == "classify" else REGIONS if kind == "segment" else BOXES
