"""What `sample` tells: what was chosen, what became of it, and what couldn't be scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.markup import escape
from rich.table import Table

from yolo_backend.cli.common import out
from yolo_backend.label_studio.projects import Project
from yolo_backend.labels.plans import UNTRAINED
from yolo_backend.labels.regions import count_boxes
from yolo_backend.registering.finding import FileOrAddress
from yolo_backend.sampling.choosing import Choice, Sample
from yolo_backend.sampling.pool import Pool
from yolo_backend.sampling.scoring import Scored, Scoring

_SHOWN_FAILURES = 20


@dataclass
class Delivered:
    """What of the chosen is in Label Studio now: files and addresses with their tasks, and tasks with their measure."""

    registered: dict[FileOrAddress, int] = field(default_factory=dict)
    written: list[int] = field(default_factory=list)
    predicted: int = 0
    rejected: int = 0

    def task_id_of(self, item: Scored) -> int | None:
        """The task of an image, None where there is none."""
        source = item.image.source
        return int(source["id"]) if isinstance(source, Mapping) else self.registered.get(source)


@dataclass(frozen=True)
class SampleOutput:
    """All that is told of a run."""

    project: Project
    model_version: str
    choice: Choice
    scoring: Scoring
    pool: Pool
    sample: Sample
    delivered: Delivered

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "project": self.project.id,
            "url": self.project.url,
            "model_version": self.model_version,
            "strategy": self.choice.strategy,
            **asdict(self.scoring),
            "diverse": self.choice.is_diverse,
            "seed": self.choice.seed,
            "pool": self.pool.size,
            "chosen": [
                {
                    "image": item.image.name,
                    "task": self.delivered.task_id_of(item),
                    "uncertainty": item.uncertainty if item.is_predicted else None,
                    "boxes": count_boxes(item.prediction["result"]) if item.is_predicted else None,
                    "above_threshold": item.above_threshold if item.is_predicted else None,
                }
                for item in self.sample.chosen
            ],
            "registered": len(self.delivered.registered),
            "written": len(self.delivered.written),
            "predicted": self.delivered.predicted,
            "rejected": self.delivered.rejected,
            "failed": [
                {"image": one.image.name, "task": one.image.task_id, "kind": one.kind, "reason": one.reason}
                for one in self.sample.unscored
            ],
        }

    def print(self) -> None:
        """For people."""
        if self.sample.chosen:
            out.print(self._table())
        self._print_chosen()
        self._print_delivered()
        self._print_failures()

    def _table(self) -> Table:
        table = Table("", "task", "image", "uncertainty", "boxes", "above\nthreshold")
        table.columns[2].overflow = "fold"  # of a path that is cut off, nobody knows the file
        for column in (table.columns[index] for index in (0, 1, 3, 4, 5)):
            column.justify = "right"
        for rank, item in enumerate(self.sample.chosen, 1):
            boxes = count_boxes(item.prediction["result"])
            numbers = f"{item.uncertainty:.2f}", str(boxes), str(item.above_threshold)
            if not item.is_predicted:
                numbers = "", "", ""
            task = str(self.delivered.task_id_of(item) or "")
            table.add_row(str(rank), task, escape(item.image.shown), *numbers)
        return table

    def _print_chosen(self) -> None:
        is_unseen = any(not item.is_predicted for item in self.sample.chosen)
        by_measure = f"by {self.scoring.measure}, {self.scoring.aggregate}"
        by = "at random" if self.choice.strategy == "random" or is_unseen else by_measure
        what = "images that aren't registered yet" if self.pool.is_new else "tasks without annotations"
        out.print(
            f"Chosen: {len(self.sample.chosen):,} of {self.pool.size:,} {what}, {by}"
            f"{', diverse' if self.choice.is_diverse else ''}, of {self.project.title} ({self.project.url})",
            markup=False, soft_wrap=True,
        )  # fmt: skip

    def _print_delivered(self) -> None:
        done = self.delivered
        if done.registered:
            is_predicted = self.model_version != UNTRAINED
            what = f"with predictions as {self.model_version}" if is_predicted else "without predictions"
            out.print(f"Registered: {len(done.registered):,}, {what}", markup=False, soft_wrap=True)
        if done.written:
            out.print(
                f"Written: data.uncertainty of {len(done.written):,} tasks, and {done.predicted:,} predictions as "
                f"{self.model_version} where there were none",
                markup=False, soft_wrap=True,
            )  # fmt: skip
        if done.rejected:
            out.print(
                f"Label Studio doesn't take {done.rejected:,} predictions: were the project's labels changed "
                "meanwhile?",
                style="red", markup=False, soft_wrap=True,
            )  # fmt: skip

    def _print_failures(self) -> None:
        failed = self.sample.unscored
        for one in failed[:_SHOWN_FAILURES]:
            out.print(f"Not scored: {one}", style="red", markup=False, soft_wrap=True)
        if len(failed) > _SHOWN_FAILURES:
            out.print(f"and {len(failed) - _SHOWN_FAILURES:,} more, which --json lists", style="red")
