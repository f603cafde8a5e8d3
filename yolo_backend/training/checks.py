"""Whether a model can be made of what was collected: what is missing is told before anything is fitted."""

from __future__ import annotations

from collections.abc import Sequence

from yolo_backend.label_studio.filters import task_filter
from yolo_backend.label_studio.projects import Project
from yolo_backend.labels.control import Control
from yolo_backend.messages import shortened
from yolo_backend.training.collected import Collected
from yolo_backend.training.errors import TrainingError
from yolo_backend.training.labelled import Snapshot
from yolo_backend.training.things import Things

LEAST_LABELLED = 10
"""Images with boxes, below which nothing is trained: there would be two or three to validate with."""

# Labels that were registered are predictions, unless somebody says otherwise.
_UNSUBMITTED = (
    task_filter("total_predictions", "greater", 0, "Number"),
    task_filter("total_annotations", "equal", 0, "Number"),
)


def check_enough(snapshot: Snapshot, things: Things, project: Project) -> None:
    """Raises TrainingError where too few images are labelled, StudioError and requests.Timeout."""
    labelled = sum(bool(image.boxes) for image in snapshot.images)
    if labelled < LEAST_LABELLED:
        unsubmitted = project.count(_UNSUBMITTED)
        raise TrainingError(
            f"A training needs at least {LEAST_LABELLED} labelled images with {things.several}, and project "
            f"{project.id} has {labelled}: label and submit {LEAST_LABELLED - labelled} more, and train again"
            + (
                f". Tasks whose predictions nobody submitted aren't trained on: there are {unsubmitted:,}"
                if unsubmitted
                else ""
            )
        )


def check_kind(kind: str, controls: Sequence[Control]) -> None:
    """Raises TrainingError for a base of a kind whose model could serve none of these controls."""
    if kind != "obb" and any(getattr(control, "needs_obb", False) for control in controls):
        raise TrainingError(
            'model_obb="true" in the labeling config needs OBB weights: name an OBB base (--base), or leave it out'
        )


def check_classes(collected: Collected) -> None:
    """Raises TrainingError where there is nothing to learn, and for a classifier with nothing to choose between."""
    names = collected.classes.names
    if collected.kind == "classify" and len(names) < 2:
        raise TrainingError(
            "A classifier needs images of two choices at least to learn from, and all that it could be trained on are "
            f"{shortened(names[0], 40)}: label images of others, too"
            if names
            else "None of the images has a single choice, and a classifier learns from such only: label more images"
        )
    if not names:  # groups validate as a whole, and perhaps with all that anybody drew
        things = collected.things
        raise TrainingError(
            f"No image that could be trained on has a {things.one}, because all that have {things.several} are kept "
            "aside to judge with, or are almost the same as one of these or of its group: label and submit images of "
            "other scenes or groups, and train again"
        )
