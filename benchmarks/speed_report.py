"""The speed benchmark's tables, plot and JSON."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from benchmarks.speed_photos import PHOTOS, SIZES_WH
from benchmarks.speed_results import Ratio, Results
from tests.harness.report import made_by, table
from tests.harness.stack import ROOT
from yolo_backend.cores import usable_cores

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

REPORT = ROOT / "docs" / "journal" / "speed.md"
PLOT = ROOT / "docs" / "images" / "speed.png"
_RESULTS = ROOT / "benchmarks" / "results"
_PACKAGES = ("torch", "onnxruntime", "ultralytics-opencv-headless", "numpy", "pillow")
GREY, BLUE, ORANGE = "#b8b8b8", "#2f6db3", "#e0913a"


def machine() -> dict[str, str | int | float]:
    """What was measured on; nothing that names the machine."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "memory_gb": round(memory_gb, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
    }


def write_json(
    results: DataclassInstance,
    ratios: Sequence[Ratio],
    settings: dict[str, str],
    took_s: float,
    benchmark: str | None = None,
) -> Path:
    """Keep the numbers in benchmarks/results; the file. `benchmark` ends its name; None for `make bench`."""
    facts = machine()
    name = re.sub(r"[^a-z0-9]+", "-", f"{facts['cpu']} {facts['cores']} cores {benchmark or ''}".lower()).strip("-")
    path = _RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-{name}.json"
    content = {
        "machine": facts,
        "settings": settings,
        "took_s": took_s,
        "ratios": [
            {"what": each.what, "measured": each.measured, "target": each.target, "is_met": each.is_met}
            for each in ratios
        ],
        **asdict(results),
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(_rounded(content), indent=1) + "\n")
    return path


def section(results: Results, ratios: Sequence[Ratio], took_s: float) -> str:
    """All tables, in Markdown; those of cases that weren't measured are left out."""
    parts = [f"![Images per second, end to end and of the model alone](../images/{PLOT.name})"]
    parts += [
        made_by("bench", took_s, "python -m benchmarks.speed"),
        _setting(results),
        _photos(results),
        ratios_table(ratios),
        _limits(results),
        _throughputs(results),
    ]
    parts += [_latencies(results), _growths(results), _repeats(results), _delays(results)]
    return "\n\n".join(part for part in parts if part)


def draw(results: Results, path: Path = PLOT) -> None:
    """Draw images per second, weights side by side."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    subplots = figure.subplots(1, max(1, len(results.limits)), squeeze=False, sharey=False)[0]
    for axes, (weights, limits) in zip(subplots, results.limits.items(), strict=False):
        bars = [
            ("model alone, our export", limits.own_onnx, GREY),
            ("model alone, Ultralytics' export", limits.best_onnx, GREY),
        ]
        if limits.torch:
            bars.append(("model alone, torch", limits.best_torch, GREY))
        for each in (each for each in results.throughputs if each.weights == weights):
            bars.append((each.case, each.typical, BLUE))
            if each.loop:
                bars.append((f"{each.case}, hand-written loop", statistics.median(each.loop), ORANGE))
        names, rates, colors = zip(*reversed(bars), strict=True)
        drawn = axes.barh(names, rates, color=colors, height=0.7)
        axes.bar_label(drawn, fmt="%.1f", padding=3, fontsize=8)
        axes.set_title(f"YOLO11n at {weights} pixels", fontsize=10)
        axes.set_xlabel("images per second")
        axes.tick_params(axis="y", labelsize=8)
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def _setting(results: Results) -> str:
    shown = ", ".join(f"{engine} at {weights} pixels" for weights, engine in results.engines.items())
    return (
        "The backend (gunicorn), the client and the image server are processes of their own, on the same cores. The "
        f"model is a YOLO11n{f': {shown}' if shown else ''}. What the model alone does is measured before and after "
        "each request, and a ratio is of these. Numbers are medians.\n\n"
        "The model alone is what `YOLO(weights).export(format='onnx', dynamic=True)` writes, in ONNX Runtime, on "
        "tensors that lie ready, in whatever way is fastest. The backend's own export of the same weights is faster by "
        "itself, and has a column of its own."
    )


def _photos(results: Results) -> str:
    shown = [
        f"{name} ({', '.join(f'{width} x {height}' for width, height in SIZES_WH[name])}; {kilobytes:,.0f} kB)"
        for name, kilobytes in results.file_kilobytes.items()
    ]
    return (
        f"{PHOTOS} photographs of each size, as JPEGs (quality 90, 4:2:0) with light noise: {', '.join(shown)}. "
        "Sizes of files are means. Each task's file is one of its own."
    )


def ratios_table(ratios: Sequence[Ratio]) -> str:
    """The numbers that have a target, in Markdown."""
    return table(["", "measured", "target", ""], [each.row() for each in ratios]) if ratios else ""


def _limits(results: Results) -> str:
    rows = [
        [
            weights,
            f"{limits.shape[1]} x {limits.shape[0]}",
            f"{limits.best_onnx:.1f} images/s ({limits.best_way})",
            f"{limits.own_onnx:.1f} images/s",
            f"{limits.best_torch:.1f} images/s" if limits.torch else "",
            f"{limits.one_image_s * 1e3:.1f} ms",
        ]
        for weights, limits in results.limits.items()
    ]
    head = [
        "the model alone, at", "input", "ONNX Runtime at its best", "the backend's export", "torch at its best",
        "one image, ONNX Runtime",
    ]  # fmt: skip
    return table(head, rows)


def _throughputs(results: Results) -> str:
    rows = [
        [
            f"{each.case}, {each.tasks:,} tasks",
            each.weights,
            f"{each.typical:.1f}",
            *(
                f"{part:.0%} of {_mean(limits):.1f}"
                for part, limits in ((each.of_limit, each.limits), (each.of_own_limit, each.own_limits))
            ),
            f"{each.times_loop:.1f} x {statistics.median(each.loop):.1f}" if each.times_loop else "",
            f"{each.boxes_per_image:.1f}" + (f" ({each.loop_boxes_per_image:.1f})" if each.loop else ""),
        ]
        for each in results.throughputs
    ]
    head = [
        "one request, end to end", "at", "images/s", "of the model alone", "of the backend's export", "of the loop",
        "boxes an image (loop)",
    ]  # fmt: skip
    return table(head, rows) if rows else ""


def _latencies(results: Results) -> str:
    rows = [
        [
            each.case,
            str(len(each.seconds)),
            *(f"{each.percentile_ms(percent):.0f} ms" for percent in (50, 95, 99)),
            f"{statistics.mean(each.model_alone_s) * 1e3:.0f} ms",
        ]
        for each in results.latencies
    ]
    return table(["one-task requests", "times", "p50", "p95", "p99", "the model alone"], rows) if rows else ""


def _growths(results: Results) -> str:
    rows = [
        [
            f"{each.tasks:,}",
            f"{each.seconds_per_image * 1e3:.2f} ms",
            f"{statistics.median(each.around_seconds_per_image) * 1e3:.2f} ms",
            f"{each.idle_megabytes:,.0f} MB",
            f"{each.peak_megabytes:,.0f} MB",
        ]
        for each in results.growths
    ]
    around = f"with {results.growths[0].around_tasks} tasks, before and after" if rows else ""
    return table(["tasks in one request", "an image", around, "memory before", "peak"], rows) if rows else ""


def _repeats(results: Results) -> str:
    rows = [
        [
            each.kind,
            f"{each.first_s:.2f} s",
            f"{statistics.median(each.again_s) * 1e3:.0f} ms, {each.times_faster:.0f} x",
            f"{statistics.median(each.other_threshold_s) * 1e3:.0f} ms, {each.times_faster_at_other_threshold:.0f} x",
        ]
        for each in results.repeats
    ]
    tasks = f"{results.repeats[0].tasks} tasks" if rows else ""
    return table([tasks, "first", "again, for another project", "with another threshold"], rows) if rows else ""


def _delays(results: Results) -> str:
    rows = [
        [
            f"{each.late_by_s * 1e3:.0f} ms",
            f"{statistics.median(each.late):.1f}",
            f"{statistics.median(each.plain):.1f}",
            f"{each.ratio:.0%}",
        ]
        for each in results.delays
    ]
    return table(["the image server is late by", "images/s", "at once", ""], rows) if rows else ""


def _mean(limits: Sequence[tuple[float, float]]) -> float:
    return statistics.mean(limit for pair in limits for limit in pair)


def _cpu_model() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.machine()


def _rounded(value: object) -> object:
    """Four digits are more than the noise leaves."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
