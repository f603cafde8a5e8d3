"""What a run works on: the images of both sides, the classes, and the labels that are judged."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from yolo_backend.labels.control import Control, Label
from yolo_backend.training.classes import Classes, choose_classes
from yolo_backend.training.found import Findings
from yolo_backend.training.labelled import LabelledImage, Snapshot
from yolo_backend.training.learnt import count_points, learnt_labels, undrawn_points
from yolo_backend.training.matching import IOUS, TrueBoxes, match_all
from yolo_backend.training.records import Side
from yolo_backend.training.remarks import left_out_remarks, on_images, why_few_validate
from yolo_backend.training.split import Split, split_images
from yolo_backend.training.things import Things, things_of
from yolo_backend.training.thresholds import ThresholdRule, names_of

_OF_SEVERAL_LABELS = "several choices, of which a classifier can learn only one; it is judged by them all the same"


@dataclass(frozen=True)
class Collected:
    """What there is to train on, and what the model shall know: `labels` are those that are judged.

    `of_several_labels` are images that can't be trained on for that reason. The labels of the `controls` are the
    model's classes. `points` are the key points that a thing has, at least, and `undrawn_points` the labels of those
    that no training image has.
    """

    split: Split
    classes: Classes
    labels: tuple[str, ...]
    controls: tuple[Control, ...]
    kind: str = "detect"
    of_several_labels: tuple[LabelledImage, ...] = ()
    points: int = 0
    undrawn_points: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        snapshot: Snapshot,
        controls: Sequence[Control],
        sides: Mapping[str, Side],
        known: Sequence[str],
        kind: str = "detect",
    ) -> Collected:
        """Of a snapshot; `sides` and `known` are the sides of images and the order of classes so far.

        A classifier is trained on images of one label, because it says of an image that it is one thing.
        """
        split = split_images(snapshot.images, sides)
        most = 1 if kind == "classify" else sys.maxsize
        of_several = tuple(image for image in split.train if len(image.boxes) > most)
        split = replace(split, train=tuple(image for image in split.train if len(image.boxes) <= most))
        classes = choose_classes(split.train, snapshot.labels, known)
        validated = {box.label for image in split.val for box in image.boxes}
        labels = tuple(
            label
            for label in classes.order
            if label in classes.names or (label in snapshot.labels and label in validated)
        )
        learnt = tuple(_with_labels(control, snapshot.labels) for control in controls)
        undrawn = tuple(undrawn_points(controls, split.train))
        return cls(split, classes, labels, learnt, kind, of_several, count_points(controls), undrawn)

    @property
    def things(self) -> Things:
        """What people drew, or chose."""
        return things_of(self.kind)

    @property
    def is_single(self) -> bool:
        """Returns True if the controls take one label for an image."""
        return self.kind == "classify" and not any(getattr(control, "is_multiple", False) for control in self.controls)

    @property
    def own_thresholds(self) -> dict[str, float]:
        """The thresholds that the labeling config has, by label."""
        return {
            label.value: threshold
            for control in reversed(self.controls)
            for label in control.labels
            if (threshold := control.score_threshold if label.score_threshold is None else label.score_threshold)
            is not None
        }

    def learnt_thresholds(self, candidate: Findings, judged: Sequence[int], rule: ThresholdRule) -> dict[str, float]:
        """The threshold of each label, by what the candidate found in the validation images of these numbers."""
        images = [self.split.val[number] for number in judged]
        truths = [TrueBoxes.of(image.boxes, image.size_wh, self.labels) for image in images]
        return rule.choose(match_all(truths, candidate.at(judged).shown, self.labels, IOUS[:1]))

    def remarks(self) -> Iterator[str]:
        """What a person should know of it."""
        yield from left_out_remarks(self.split.left_out)
        yield from on_images([(image.task_id, _OF_SEVERAL_LABELS) for image in self.of_several_labels])
        if reason := why_few_validate(self.split):
            yield reason
        if self.classes.without_box:
            names = names_of(self.classes.without_box)
            yield f"No training image has a {self.things.one} with these labels, so the model won't know them: {names}"
        if self.undrawn_points:
            names = names_of(self.undrawn_points)
            yield f"No training image has key points with these labels, so the model won't know where they are: {names}"


def _with_labels(control: Control, labels: Sequence[str]) -> Control:
    """The control with the labels that a model learns; those that people used, if they come with the tasks."""
    if control.labels_value is None:
        return replace(control, labels=learnt_labels(control))
    return replace(control, labels=tuple(Label(label, (label,)) for label in labels))
