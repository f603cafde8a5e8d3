"""A look at what was chosen: a histogram of the pool, and a contact sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from yolo_backend.labels.drawing import draw_contact_sheet
from yolo_backend.protocol import Region
from yolo_backend.sampling.choosing import Sample
from yolo_backend.sampling.diversity import Load
from yolo_backend.sampling.pool import Unscored

_BINS = 40
_CAPTION_CHARACTERS = 45


def write_report(sample: Sample, folder: Path, label: str, load: Load) -> list[Unscored]:
    """Write `histogram.png` and `chosen.jpg`, a contact sheet. Returns those whose images can't be had any more.

    There is no histogram of a pool that nothing predicts yet. Raises OSError.
    """
    lost: list[Unscored] = []

    def pictures() -> Iterator[tuple[str, Picture.Image, list[Region]]]:
        for item in sample.chosen:
            images = load(item.image)
            if isinstance(images, Unscored):
                lost.append(images)
                continue
            for image in images:
                regions = [region for region in item.prediction["result"] if image.shows(region)]
                number = f"{item.uncertainty:.2f}  " if item.is_predicted else ""
                yield number + _short(item.image.shown), Picture.fromarray(image.pixels), regions

    if sample.pool:
        draw_histogram(sample.pool, [item.uncertainty for item in sample.chosen], label, folder / "histogram.png")
    draw_contact_sheet(pictures(), folder / "chosen.jpg")
    return lost


def draw_histogram(pool: Sequence[float], chosen: Sequence[float], label: str, path: Path) -> None:
    """Write a PNG that shows how uncertain the pool and the chosen images are. `label` names the measure."""
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
