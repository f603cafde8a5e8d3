"""What people should know of a snapshot: what of their work isn't trained on, and why. One sentence for each reason."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from yolo_backend.messages import shortened
from yolo_backend.training.gate import MIN_IMAGES
from yolo_backend.training.split import SHARE, LeftOut, Split
from yolo_backend.training.things import BOXES, Things

_SHOWN_TASKS, _SHOWN_REASONS = 5, 10
_BY_CHANCE = 0.01

Faults = Sequence[tuple[int, str]]
"""The id of a task, and why something of it isn't trained on; once for each thing."""


class Used(NamedTuple):
    """When a task was submitted, and which labels it has."""

    at: datetime
    labels: frozenset[str]


def on_images(faults: Faults) -> Iterator[str]:
    """Images that aren't trained on."""
    return _not_trained_on(faults, "image", "images", " ({tasks}): {reason}")


def on_things(faults: Faults, one: str, several: str) -> Iterator[str]:
    """Boxes, choices or key points, as these two words call them, that aren't trained on."""
    return _not_trained_on(faults, one, several, " {reason} ({tasks})")


def left_out_remarks(left_out: Sequence[LeftOut]) -> list[str]:
    """Images that would show the model what it is judged by."""
    return list(on_images([(each.image.task_id, each.reason) for each in left_out]))


def why_few_validate(split: Split) -> str | None:
    """Why a model can't be judged though there are enough images; None if it can, or if groups aren't why."""
    count = len(split.train) + len(split.val) + len(split.left_out)
    if len(split.val) >= MIN_IMAGES or SHARE * count < MIN_IMAGES or split.kept_together <= SHARE * count:
        return None
    return (
        f"{split.kept_together:,} of the {count:,} images look so alike, or are of one group, that they were kept "
        f"together: {_counted(len(split.val), 'image validates', 'images validate')}, and judging a model takes "
        f"{MIN_IMAGES}. Label images of other scenes"
    )


def on_other_images(task_ids: Sequence[int], things: Things = BOXES) -> Iterator[str]:
    """Tasks whose image isn't the one that was labelled."""
    if task_ids:
        yield (
            f"{_counted(len(task_ids), 'task')} had an image of other proportions when labelled: check whether the "
            f"{things.several} still fit ({_named(task_ids)})"
        )


def on_late_labels(used: Sequence[Used]) -> Iterator[str]:
    """Labels that came into use so late that it can't be chance, and how many tasks may lack them because of that."""
    for label in sorted({label for each in used for label in each.labels}):
        having = [each.at for each in used if label in each.labels]
        began_at = min(having)
        before = sum(each.at < began_at for each in used)
        share = len(having) / (len(used) - before + 1)  # of those since, and a little less, because there may be few
        if (1 - share) ** before < _BY_CHANCE:
            yield (
                f'The label "{shortened(label)}" is in use only since {began_at:%Y-%m-%d %H:%M}. '
                f"{_counted(before, 'task')} submitted before may lack it, which teaches the model to miss it: check "
                "them"
            )


def _not_trained_on(faults: Faults, one: str, several: str, told: str) -> Iterator[str]:
    for count, tasks, reason in _by_reason(faults):
        why = told.format(tasks=tasks, reason=reason) if reason else " for other reasons"
        yield f"Not trained on: {_counted(count, one, several)}{why}"


def _by_reason(faults: Faults) -> Iterator[tuple[int, str, str]]:
    """How many, in which tasks, and why: the most frequent reasons first, and all that are left together."""
    found: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for task_id, reason in faults:
        found[reason][task_id] += 1
    by_count = sorted(found.items(), key=lambda item: -item[1].total())
    for reason, tasks in by_count[:_SHOWN_REASONS]:
        yield tasks.total(), _named(list(tasks)), reason
    if left := sum(tasks.total() for _, tasks in by_count[_SHOWN_REASONS:]):
        yield left, "", ""


def _counted(count: int, noun: str, plural: str = "") -> str:
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def _named(task_ids: Sequence[int]) -> str:
    shown = ", ".join(map(str, task_ids[:_SHOWN_TASKS]))
    more = f" and {len(task_ids) - _SHOWN_TASKS:,} more" if len(task_ids) > _SHOWN_TASKS else ""
    return f"task{'s' if len(task_ids) > 1 else ''} {shown}{more}"
