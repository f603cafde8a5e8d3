"""What two real detectors found in BCCD's 87 validation photographs, recorded, and what can be made worse of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolo_backend.training.found import Findings, FoundBoxes
from yolo_backend.training.labelled import LabelledBox, LabelledImage, Origin

LABELS = ("RBC", "WBC", "Platelets")
RECORDED = Path(__file__).parent.parent / "data" / "findings.npz"
TRUTH, BETTER, WORSE = "truth", "bccd", "bccd-yolo11n"
_PER_PX, _PER_SCORE = 10, 10_000

Generator = np.random.Generator


def pack(name: str, images: Sequence[FoundBoxes]) -> dict[str, NDArray[Any]]:
    """Boxes of each image as few bytes: to a tenth of a pixel, and a ten thousandth of score."""
    return {
        f"{name} counts": np.array([len(each.labels) for each in images], np.uint16),
        f"{name} boxes": np.concatenate([np.round(each.boxes * _PER_PX) for each in images]).astype(np.int16),
        f"{name} scores": np.concatenate([np.round(each.scores * _PER_SCORE) for each in images]).astype(np.uint16),
        f"{name} labels": np.array([LABELS.index(label) for each in images for label in each.labels], np.uint8),
    }


@dataclass(frozen=True)
class Recorded:
    """The photographs as people labelled them, and what each detector found in them down to a score of 0.01."""

    images: list[LabelledImage]
    better: Findings
    worse: Findings

    def some(self, count: int, generator: Generator) -> Recorded:
        """So many of the photographs."""
        chosen = generator.permutation(len(self.images))[:count].tolist()
        return Recorded([self.images[number] for number in chosen], self.better.at(chosen), self.worse.at(chosen))


@cache
def recorded() -> Recorded:
    """All that was recorded. mAP50 of the better one is 0.82, of the worse 0.79."""
    with np.load(RECORDED) as arrays:
        found = {name: _unpack(name, arrays) for name in (TRUTH, BETTER, WORSE)}
        sizes_wh, names = arrays["sizes_wh"].tolist(), arrays["names"].tolist()
    images = [
        labelled(number, zip(drawn.labels, drawn.boxes.tolist(), strict=True), digest=name, size_wh=tuple(size_wh))
        for number, (drawn, name, size_wh) in enumerate(zip(found[TRUTH], names, sizes_wh, strict=True))
    ]
    known = frozenset(LABELS)
    return Recorded(images, Findings(known, found[BETTER]), Findings(known, found[WORSE]))


def _unpack(name: str, arrays: Mapping[str, NDArray[Any]]) -> list[FoundBoxes]:
    ends = np.cumsum(arrays[f"{name} counts"])[:-1].tolist()
    boxes = np.split(arrays[f"{name} boxes"] / _PER_PX, ends)
    scores = np.split(arrays[f"{name} scores"] / _PER_SCORE, ends)
    numbers = np.split(arrays[f"{name} labels"], ends)
    return [
        FoundBoxes(box, score, tuple(LABELS[number] for number in those))
        for box, score, those in zip(boxes, scores, numbers, strict=True)
    ]


def labelled(
    number: int,
    boxes: Any,
    *,
    digest: str | None = None,
    size_wh: tuple[int, int] = (640, 480),
    origin: Origin = "manual",
    file: Path = Path(),
) -> LabelledImage:
    """An image with these boxes, each a label and an upright place."""
    drawn = tuple(box(label, place_xyxy, origin) for label, place_xyxy in boxes)
    return LabelledImage(number, number, f"{number}.jpg", digest or f"{number:064x}", number, file, size_wh, drawn)


def box(label: str, place_xyxy: Sequence[float], origin: Origin = "manual") -> LabelledBox:
    """An upright box."""
    left, top, right, bottom = place_xyxy
    around = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top, 0.0)
    return LabelledBox(label, (left, top, right, bottom), around, origin)


# Models that are worse, or as good


def noisy(found: Findings, seed: int, *, dropped: float = 0.1, moved: float = 0.03, logits: float = 0.5) -> Findings:
    """As if trained anew: some boxes aren't found, others lie a little beside, and all have other scores.

    `moved` is a part of the box's size, `logits` that of the scores; both are standard deviations.
    """
    generator = np.random.default_rng(seed)

    def change(each: FoundBoxes) -> FoundBoxes:
        kept = np.flatnonzero(generator.random(len(each.labels)) >= dropped)
        boxes = each.boxes[kept]
        sizes = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        scores = np.clip(each.scores[kept], 1e-4, 1 - 1e-4)
        scores = 1 / (1 + np.exp(-np.log(scores / (1 - scores)) - generator.normal(0, logits, len(kept))))
        return _sorted(
            boxes + sizes * generator.normal(0, moved, boxes.shape), scores, [each.labels[index] for index in kept]
        )

    return replace(found, images=[change(each) for each in found.images])


def with_labels(found: Findings, names: Mapping[str, str]) -> Findings:
    """With other labels: the classes in another order, say."""
    return replace(
        found,
        images=[replace(each, labels=tuple(names.get(label, label) for label in each.labels)) for each in found.images],
    )


def without(found: Findings, label: str, share: float, seed: int) -> Findings:
    """A share of the boxes of a label isn't found."""
    generator = np.random.default_rng(seed)

    def change(each: FoundBoxes) -> FoundBoxes:
        kept = [index for index, name in enumerate(each.labels) if name != label or generator.random() >= share]
        return FoundBoxes(each.boxes[kept], each.scores[kept], tuple(each.labels[index] for index in kept))

    return replace(found, images=[change(each) for each in found.images])


def trained_on_shuffled_labels(found: Findings, images: Sequence[LabelledImage], seed: int) -> Findings:
    """Finds everything, and says of each thing any label as often as people did: that is all there is to learn."""
    generator = np.random.default_rng(seed)
    drawn = [each.label for image in images for each in image.boxes]
    shares = np.array([drawn.count(label) / len(drawn) for label in LABELS])

    def change(each: FoundBoxes) -> FoundBoxes:
        # A detector has a score for each label: what it says of a thing is a box of each.
        count = len(each.labels)
        scores = np.concatenate([each.scores * share for share in shares])
        scores *= np.exp(generator.normal(0, 0.2, len(scores)))
        return _sorted(np.tile(each.boxes, (3, 1)), np.clip(scores, 0, 1), np.repeat(LABELS, count).tolist())

    return replace(found, images=[change(each) for each in found.images])


def trained_on_random_places(found: Findings, images: Sequence[LabelledImage], seed: int) -> Findings:
    """Finds boxes anywhere."""
    generator = np.random.default_rng(seed)
    return replace(
        found,
        images=[
            FoundBoxes(_anywhere(each.boxes, image.size_wh, generator), each.scores, each.labels)
            for each, image in zip(found.images, images, strict=True)
        ],
    )


def _sorted(boxes: NDArray[np.float64], scores: NDArray[np.float64], labels: Sequence[str]) -> FoundBoxes:
    order = np.argsort(-scores, kind="stable")
    return FoundBoxes(boxes[order], scores[order], tuple(labels[index] for index in order))


# Labels that somebody spoiled


def spoiled_labels(images: Sequence[LabelledImage], seed: int, share: float = 1.0) -> list[LabelledImage]:
    """With the labels of this share of the boxes shuffled among them."""
    generator = np.random.default_rng(seed)
    places = [(number, index) for number, image in enumerate(images) for index in range(len(image.boxes))]
    chosen = [places[at] for at in generator.permutation(len(places))[: round(share * len(places))]]
    labels = [images[number].boxes[index].label for number, index in chosen]
    given = dict(zip(chosen, (labels[at] for at in generator.permutation(len(labels))), strict=True))
    return [
        replace(
            image,
            boxes=tuple(
                replace(each, label=given.get((number, index), each.label)) for index, each in enumerate(image.boxes)
            ),
        )
        for number, image in enumerate(images)
    ]


def spoiled_places(images: Sequence[LabelledImage], seed: int, share: float = 1.0) -> list[LabelledImage]:
    """With this share of the boxes anywhere in their image."""
    generator = np.random.default_rng(seed)

    def move(each: LabelledBox, size_wh: tuple[int, int]) -> LabelledBox:
        if generator.random() >= share:
            return each
        (place,) = _anywhere(np.array([each.box_xyxy]), size_wh, generator).tolist()
        return box(each.label, place, each.origin)

    return [replace(image, boxes=tuple(move(each, image.size_wh) for each in image.boxes)) for image in images]


def _anywhere(boxes_xyxy: NDArray[np.float64], size_wh: tuple[int, int], generator: Generator) -> NDArray[np.float64]:
    sizes = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    corners = generator.random(sizes.shape) * np.maximum(np.array(size_wh) - sizes, 0)
    return np.concatenate([corners, corners + sizes], axis=1)
