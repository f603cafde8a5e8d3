"""Which images are trained on, and which judge the model: never two that show the same thing, and the same for ever."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from blake3 import blake3

from yolo_backend.training.labelled import LabelledImage
from yolo_backend.training.looks import chains, near
from yolo_backend.training.records import Side

LOOKS_ALIKE = "almost the same as a validation image"
SAME_GROUP = "in the same group as a validation image"
"""Why an image is left out."""

SHARE = 0.25  # with which 40 images have the 10 to validate with that judging a model takes


@dataclass(frozen=True)
class LeftOut:
    """An image that is used on neither side in this run, and why. Its side on record, if any, stays."""

    image: LabelledImage
    reason: str


@dataclass(frozen=True)
class Split:
    """The images of each side, in the order in which they came; `sides` is the record for the runs to come.

    `kept_together` is how many images the largest group has that look alike, or are of one group.
    """

    train: tuple[LabelledImage, ...]
    val: tuple[LabelledImage, ...]
    left_out: tuple[LeftOut, ...]
    sides: Mapping[str, Side]
    kept_together: int = 0


def split_images(images: Sequence[LabelledImage], known: Mapping[str, Side], share: float = SHARE) -> Split:
    """Put each image on one side, together with all that look alike, have the same bytes or are of one group.

    `known` is the side of each digest that was ever split: it stays. Where images of both sides come to be in one such
    group, those that are near a validation image themselves are left out, and the others are trained on. Of new ones,
    so many validate that these are `share` of all, as far as groups allow. The order of `images` doesn't matter.
    """
    sides: dict[str, Side] = dict(known)
    left_out: dict[str, str] = {}
    new: list[_Group] = []
    groups = _groups(images)
    near_val = _near_validation(images, known)
    for group in groups:
        recorded = {known[digest] for digest in group.digests if digest in known}
        if not recorded:
            new.append(group)
            continue
        fresh = [digest for digest in group.digests if digest not in known]
        if len(recorded) == 1:
            sides.update(dict.fromkeys(fresh, next(iter(recorded))))
            continue
        # A fixed camera's images are one long chain of looks. Most of it is nowhere near a validation image.
        left_out.update({digest: near_val[digest] for digest in group.digests if digest in near_val})
        sides.update(dict.fromkeys((digest for digest in fresh if digest not in near_val), "train"))
    usable = [image for image in images if image.digest not in left_out]
    validating = sum(sides.get(image.digest) == "val" for image in usable)
    chosen = _choose(new, round(share * len(usable)) - validating, len(usable) // 2 - validating)
    for group in new:
        sides.update(dict.fromkeys(group.digests, "val" if group in chosen else "train"))
    return Split(
        train=tuple(image for image in usable if sides[image.digest] == "train"),
        val=tuple(image for image in usable if sides[image.digest] == "val"),
        left_out=tuple(LeftOut(image, left_out[image.digest]) for image in images if image.digest in left_out),
        sides=sides,
        kept_together=max((group.size for group in groups), default=0),
    )


def _near_validation(images: Sequence[LabelledImage], known: Mapping[str, Side]) -> dict[str, str]:
    """Why an image can't be trained on, by digest: it looks like a recorded validation image, or is of its group."""
    validating = [image for image in images if known.get(image.digest) == "val"]
    looks = np.array([image.look for image in validating], np.uint64)
    groups = {image.group for image in validating} - {None}
    reasons: dict[str, str] = {}
    for image in images:
        if known.get(image.digest) == "val":
            continue
        if near(image.look, looks).any():
            reasons[image.digest] = LOOKS_ALIKE
        elif image.group in groups:
            reasons.setdefault(image.digest, SAME_GROUP)
    return reasons


@dataclass(frozen=True)
class _Group:
    """Images that stay together: so many, of these different digests, in their order."""

    size: int
    digests: tuple[str, ...]

    @property
    def lot(self) -> str:
        """What decides when it is its turn: the same in any project, and without a rule to how images were made."""
        return blake3(self.digests[0].encode()).hexdigest()


def _choose(groups: Iterable[_Group], wanted: int, at_most: int) -> set[_Group]:
    """Groups of `wanted` images together; where they are too large for that, one more, within `at_most`."""
    chosen: set[_Group] = set()
    by_lot = sorted(groups, key=lambda group: group.lot)
    for group in by_lot:
        if group.size <= wanted:
            chosen.add(group)
            wanted, at_most = wanted - group.size, at_most - group.size
    smallest = min((group for group in by_lot if group not in chosen), key=lambda group: group.size, default=None)
    if smallest and wanted > 0 and smallest.size <= at_most:
        chosen.add(smallest)
    return chosen


def _groups(images: Sequence[LabelledImage]) -> list[_Group]:
    parents = list(range(len(images)))

    def root_of(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    def join(one: int, other: int) -> None:
        parents[root_of(one)] = root_of(other)

    firsts: dict[tuple[str, str], int] = {}
    first_of_look: dict[int, int] = {}
    for index, image in enumerate(images):
        join(index, firsts.setdefault(("digest", image.digest), index))
        join(index, first_of_look.setdefault(image.look, index))
        if image.group is not None:
            join(index, firsts.setdefault(("group", image.group), index))
    looks = list(first_of_look)  # each once: thousands may be equal
    for chain in chains(looks):
        for one in chain:
            join(first_of_look[looks[one]], first_of_look[looks[chain[0]]])
    members: defaultdict[int, list[str]] = defaultdict(list)
    for index, image in enumerate(images):
        members[root_of(index)].append(image.digest)
    return [_Group(len(digests), tuple(sorted(set(digests)))) for digests in members.values()]
