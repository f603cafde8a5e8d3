"""What people draw or choose for a model of each kind, as sentences call it."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Things:
    """One, and several; images with them were `made` so, and shuffled labels are those of `shuffled`.

    `tag` is the tag of the labeling config that a label of theirs has; it is empty where the labels of a model are no
    labels there. `fix` says what to do with thresholds that are to stay, which are shown after it. Of what
    is found, those that `hit` one that was drawn are counted.
    """

    one: str
    several: str
    made: str
    shuffled: str
    tag: str
    fix: str = "paste them into the labeling config"
    hit: str = "overlap a drawn one by half"


BOXES = Things("box", "boxes", "drawn", "the labels on other boxes", "Label")
REGIONS = replace(BOXES, one="region", several="regions", shuffled="the labels on other regions")
POSES = replace(
    BOXES,
    tag="",
    fix="write each into the labels of its class's points in the labeling config",
    hit="have their points where those of a drawn one are (an OKS of 0.5)",
)
CHOICES = Things(
    "choice",
    "choices",
    "labelled",
    "the choices of other images",
    "Choice",
    "write each into its Choice in the labeling config, for the path of a Taxonomy into the last Choice of it",
)
_THINGS = {"segment": REGIONS, "pose": POSES, "classify": CHOICES}


def things_of(kind: str | None) -> Things:
    """What weights of this kind learn from; None is that of runs that don't say it."""
    return _THINGS.get(kind or "", BOXES)
