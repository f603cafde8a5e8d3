"""What was chosen to be labelled next, into Label Studio: registered, or written to its tasks; and as a histogram."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from yolo_backend.label_studio.filters import task_filter
from yolo_backend.label_studio.projects import Project
from yolo_backend.label_studio.storing import store_predictions
from yolo_backend.labels.control import Control
from yolo_backend.labels.drawing import draw_contact_sheet
from yolo_backend.labels.plans import ProjectPlan
from yolo_backend.protocol import Region
from yolo_backend.registering.finding import Image
from yolo_backend.registering.registration import Item, register
from yolo_backend.sampling.sampling import ImagesOf, Sample, Scored, Unscored, as_served, load_images

UNCERTAINTY_KEY = "uncertainty"  # of a task's data, by which the Data Manager can order
_CHUNK_TASKS = 100
_BINS = 40
_CAPTION_CHARACTERS = 45


@dataclass(frozen=True)
class Written:
    """A task that has its measure now; or how many got their first prediction of the version, or have it refused."""

    task_id: int | None = None
    predicted: int = 0
    rejected: int = 0


def write_to_tasks(project: Project, chosen: Sequence[Scored], plan: ProjectPlan) -> Iterator[Written]:
    """Write the measure into the data of tasks that are there already, and the server's prediction where it's missing.

    Their data are read anew, for somebody may have changed them meanwhile, or deleted the task. Raises StudioError and
    requests.Timeout after telling of what is done.
    """
    there = [item for item in chosen if item.image.task_id is not None]
    for start in range(0, len(there), _CHUNK_TASKS):
        of_task = {item.image.task_id: item for item in there[start : start + _CHUNK_TASKS]}
        tasks = list(project.tasks([task_filter("id", "in_list", list(of_task), "List")], fields=["data"]))
        predictions = [
            {"task": task["id"], **as_served(of_task[task["id"]].prediction, plan, of_task[task["id"]].image)}
            for task in tasks
        ]
        for stored in store_predictions(project.studio, project.id, predictions):
            yield Written(predicted=len(stored.created), rejected=len(stored.rejected))
        for task in tasks:
            project.change_data(task["id"], {**task["data"], UNCERTAINTY_KEY: of_task[task["id"]].uncertainty})
            yield Written(task["id"])


def register_chosen(
    project: Project, chosen: Sequence[Scored], plan: ProjectPlan, control: Control
) -> Iterator[tuple[Image, int]]:
    """Register what isn't there yet, with the server's prediction and the measure; each with its task's id.

    Raises RegisterError, StudioError, requests.Timeout.
    """
    items = [
        Item(item.image.source, {UNCERTAINTY_KEY: item.uncertainty}, [as_served(item.prediction, plan, item.image)])
        for item in chosen
        if not isinstance(item.image.source, Mapping)
    ]
    for part in register(project, items, control) if items else ():
        yield from zip((item.image for item in part.items), part.task_ids, strict=True)


def write_report(sample: Sample, folder: Path, label: str, control: Control, images_of: ImagesOf) -> list[Unscored]:
    """Write `histogram.png` and `chosen.png`, a contact sheet; what isn't on it, for its image can't be had any more.

    Raises OSError.
    """
    lost: list[Unscored] = []

    def pictures() -> Iterator[tuple[str, Picture.Image, list[Region]]]:
        for item in sample.chosen:
            images = load_images(item.image, control, images_of)
            if isinstance(images, Unscored):
                lost.append(images)
                continue
            for image in images:
                regions = [region for region in item.prediction["result"] if image.shows(region)]
                yield f"{item.uncertainty:.3f}  {_short(item.image.name)}", Picture.fromarray(image.pixels), regions

    draw_histogram(sample.pool, [item.uncertainty for item in sample.chosen], label, folder / "histogram.png")
    draw_contact_sheet(pictures(), folder / "chosen.png")
    return lost


def draw_histogram(pool: Sequence[float], chosen: Sequence[float], label: str, path: Path) -> None:
    """Write how uncertain the pool is, the chosen marked, as a PNG. `label` names the measure."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    edges = np.histogram_bin_edges(pool, _BINS).tolist()
    axes.hist(pool, edges, color="#c4c9d1", label=f"pool: {len(pool):,} images")
    axes.hist(chosen, edges, color="#ff5a36", label=f"chosen: {len(chosen):,}")
    axes.set(xlabel=f"uncertainty ({label})", ylabel="images")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _short(name: str) -> str:
    """The end of a path, which tells more than its beginning."""
    return name if len(name) <= _CAPTION_CHARACTERS else "..." + name[-_CAPTION_CHARACTERS:]
