"""What is written down of a run, in its run.json: who reads or writes it has these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import msgspec

Stage = Literal["collecting", "fitting", "judging", "exporting"]
State = Literal["collecting", "fitting", "judging", "exporting", "ended", "failed", "cancelled"]
"""A run under way is in one of the stages. One that isn't over though nobody holds the lock was cut off."""

Side = Literal["train", "val"]
Verdict = Literal["promote", "refuse", "aside"]
"""What the gate says; *aside* is a model that waits for a person's word, because it couldn't be judged, or
because a model of another kind serves.
"""

Promote = Literal["auto", "always", "never"]
"""Whether a person lets a new model serve: if the gate says so, in any case, or not at all."""

_OF_BOXES = {"detect", "obb", None}

STAGES: tuple[str, ...] = get_args(Stage)


@dataclass(frozen=True)
class Progress:
    """How far a run is: `epoch` of `epochs`, counted from 1, and the last `score`, as `fitting.FitProgress` has it.

    `at` is the time of day when this was so, `seconds_left` what is left from then on.
    """

    stage: Stage
    at: float
    epoch: int | None = None
    epochs: int | None = None
    score: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class Options:
    """What was asked of a run, `by_button` of a server; `base` is the name of the weights that it began with, in
    MODEL_ROOT or as a person wrote it. None: as it comes.
    """

    base: str
    minutes: float
    image_size: int | None = None
    seed: int = 0
    promote: Promote = "auto"
    group_by: str | None = None
    precision: float | None = None
    by_button: bool = False


@dataclass(frozen=True)
class TaskSource:
    """What was taken of a task: its annotation, and digests of the image's bytes and of the labels, in hex."""

    task: int
    annotation: int
    image: str
    labels: str


@dataclass(frozen=True)
class Manifest:
    """From which a run can be made again: a file beside run.json, because thousands of tasks make it long.

    `base` is the fingerprint of its weights; versions go by package.
    """

    tasks: tuple[TaskSource, ...]
    base: str
    epochs: int | None = None
    steps: int | None = None
    batch: int | None = None
    threads: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageCounts:
    """How many images there were to train on, and how many to validate with."""

    train: int
    val: int


@dataclass(frozen=True)
class LabelScore:
    """What came of a label: its validation `boxes`, scores from 0 to 1, and the threshold that it serves with."""

    boxes: int
    ap50: float | None = None
    recall: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A score of the model that serves and of the candidate; `interval` is that of the difference, low and high."""

    current: float | None = None
    candidate: float | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Result:
    """How a run ended, as `train --json` prints it: promoted or refused, the `reason`, and scores by label."""

    run: str
    promoted: bool
    reason: str
    model_version: str | None
    images: ImageCounts
    labels: Mapping[str, LabelScore] = field(default_factory=dict)
    map50: Comparison = Comparison()
    map50_95: Comparison = Comparison()

    @property
    def has_model(self) -> bool:
        """Returns True if a model was trained: not where the labels were refused before."""
        return bool(self.labels)


@dataclass(frozen=True)
class Run:
    """A run as its run.json says: `run` is its number, `project` the project's key, times are times of day.

    `failure` is why it failed or was cancelled, in a sentence that says what to do; `remarks` are sentences for the
    person, in the order in which they came up. `kind` is that of the weights; None in runs of earlier versions, which
    are detect or obb.
    """

    run: str
    project: str
    state: State
    began_at: float
    ended_at: float | None = None
    progress: Progress | None = None
    options: Options | None = None
    result: Result | None = None
    verdict: Verdict | None = None
    failure: str | None = None
    remarks: tuple[str, ...] = ()
    kind: str | None = None

    @property
    def is_over(self) -> bool:
        """Returns True if it ended, well or not. One that isn't over runs, or was cut off."""
        return self.state not in STAGES

    @property
    def is_trusted(self) -> bool:
        """Returns True if its labels were trusted enough for its model to serve."""
        return self.verdict in {"promote", "aside"}

    @property
    def map50(self) -> float | None:
        """The candidate's mAP50, where it was judged."""
        return self.result.map50.candidate if self.result else None

    @property
    def shown_kind(self) -> str:
        """The kind of its weights as people read it; empty as long as it isn't known."""
        return self.kind or ("detect" if self.result else "")


def are_judged_alike(one: str | None, other: str | None) -> bool:
    """Returns True if models of these two kinds are judged by the same: `detect` and `obb` both find boxes."""
    return one == other or {one, other} <= _OF_BOXES


def are_of_several_kinds(runs: Sequence[Run]) -> bool:
    """Returns True if the scores of these runs aren't all of the same: boxes, masks, key points or choices."""
    kinds = [run.kind for run in runs if run.result]
    return any(not are_judged_alike(kinds[0], kind) for kind in kinds)


def run_to_json(run: Run) -> bytes:
    """The content of a run.json."""
    return msgspec.json.format(msgspec.json.encode(run), indent=2)


def run_from_json(content: bytes) -> Run:
    """Raises ValueError for what is no run, or half of one."""
    return msgspec.json.decode(content, type=Run)
