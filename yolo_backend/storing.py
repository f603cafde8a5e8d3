"""Predictions into Label Studio, which is asked first what it holds: nothing is stored twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests

from yolo_backend.studio import Studio, StudioError, StudioRefusedError, StudioRejectedError, StudioTimeout


class UnknownOutcomeError(StudioError):
    """Label Studio may have stored what it was sent, or may be storing it still."""


@dataclass(frozen=True)
class Stored:
    """What became of predictions, by their tasks' ids: held before, created now, or not taken."""

    held: frozenset[int] = frozenset()
    created: frozenset[int] = frozenset()
    rejected: frozenset[int] = frozenset()


def store_predictions(
    studio: Studio,
    project: int,
    predictions: Sequence[Mapping[str, Any]],
    is_wanted: Callable[[], bool] = lambda: True,
) -> Iterator[Stored]:
    """Store predictions of one model_version, each with its `task`, and tell of each part what became of it.

    Where one of them spoils all, they are halved until it stands alone. `is_wanted` is asked before each part is sent.
    Raises StudioError, StudioRefusedError where the token may not do it, UnknownOutcomeError and requests.Timeout.
    """
    if not predictions:
        return
    version = predictions[0]["model_version"]
    held = studio.tasks_holding(project, version, [prediction["task"] for prediction in predictions])
    yield Stored(held=frozenset(held))
    missing = [prediction for prediction in predictions if prediction["task"] not in held]
    task_ids = [prediction["task"] for prediction in missing]
    if not missing or not is_wanted():
        return
    try:
        created = studio.import_predictions(project, missing)
        taken = studio.tasks_holding(project, version, task_ids) if created < len(missing) else set(task_ids)
    except StudioRejectedError:
        # Too much for a proxy, or one task that was deleted meanwhile spoils all.
        if len(missing) == 1:
            yield Stored(rejected=frozenset(task_ids))
            return
        middle = len(missing) // 2
        yield from store_predictions(studio, project, missing[:middle], is_wanted)
        yield from store_predictions(studio, project, missing[middle:], is_wanted)
        return
    except StudioRefusedError:
        raise
    except (StudioError, requests.Timeout) as error:
        raise UnknownOutcomeError(explain(error)) from None
    yield Stored(created=frozenset(taken), rejected=frozenset(set(task_ids) - taken))


def explain(error: StudioError | requests.Timeout) -> str:
    """The error in words; the text of a time-out of requests' own holds the whole address."""
    return str(error) if isinstance(error, StudioError | StudioTimeout) else "Label Studio doesn't answer in time"
