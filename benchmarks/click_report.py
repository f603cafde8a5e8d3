"""The tables and the plot of the benchmark of clicks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.click_results import Results, Row
from benchmarks.speed_report import BLUE, GREY, ORANGE, ratios_table
from benchmarks.speed_results import Ratio
from tests.harness.postgres import POSTGRESQL
from tests.harness.report import made_by, table
from tests.harness.stack import ROOT
from yolo_backend.label_studio.storing import QUICK_IMPORTS

PLOT = ROOT / "docs" / "images" / "click.png"
HEAD = [
    "click on", "at", "database", "processes", "images", "images/s", "rounds", "of `/predict`, images/s",
    "of what the cores allow, images/s", "of what Label Studio's processes allow, images/s", "serving, images/s",
    "storing, predictions/s", "the model, images/s",
    "core-ms: serving + predicting + storing", "core-ms in the click: Label Studio + backend",
]  # fmt: skip


def section(results: Results, ratios: Sequence[Ratio], took_s: float) -> str:
    """All tables, in Markdown."""
    parts = [
        f"![Images per second of a click, of /predict alone and of what the cores allow](../images/{PLOT.name})",
        made_by("bench-click", took_s, "python -m benchmarks.click"),
        ratios_table(ratios),
        table(HEAD, [cells(row) for row in results.rows]),
        _setting(results),
        *results.left_out,
        *(f"**Wrong: {problem}.**" for problem in results.problems),
    ]
    return "\n\n".join(part for part in parts if part)


def cells(row: Row) -> list[str]:
    """A row of the table."""
    serving = row.rounds[0].serving
    served = row.typical(lambda it: it.serving.images_per_s if it.serving else 0.0)
    served_ms = row.typical(lambda it: it.serving.core_ms if it.serving else 0.0)
    alone = [
        *([f"{served_ms:.1f}"] if serving else []),
        f"{row.typical(lambda it: it.predict.core_ms):.1f}",
        f"{row.typical(lambda it: it.storing.core_ms):.1f}",
    ]
    together = [
        f"{row.typical(lambda it: it.click.studio_core_ms):.1f}",
        f"{row.typical(lambda it: it.click.backend_core_ms):.1f}",
    ]
    return [
        f"{row.size}, {row.tasks:,} tasks",
        row.weights,
        row.database,
        str(row.processes),
        row.way,
        f"{row.typical(lambda it: it.click.images_per_s):.1f}{_late(row)}",
        _rounds(row),
        f"{row.typical(lambda it: it.of_predict):.0%} of {row.typical(lambda it: it.predict.images_per_s):.1f}",
        f"{row.typical(lambda it: it.of_cores):.0%} of {row.typical(lambda it: it.cores_allow):.1f}",
        f"{row.typical(lambda it: it.click.images_per_s) / row.processes_allow:.0%} of {row.processes_allow:.1f}",
        f"{served:.1f}" if serving else "",
        f"{row.typical(lambda it: it.storing.images_per_s):.0f}",
        f"{row.typical(lambda it: it.model_images_per_s):.1f}",
        " + ".join(alone),
        " + ".join(together),
    ]


def draw(results: Results, path: Path = PLOT) -> None:
    """Draw the clicks' images per second, and over each what bounds it."""
    figure = Figure(figsize=(9, 1.5 + 0.4 * len(results.rows)), layout="constrained")
    axes = figure.subplots()
    rows = results.rows[::-1]
    drawn = axes.barh(
        [str(row) for row in rows],
        [row.typical(lambda it: it.click.images_per_s) for row in rows],
        color=BLUE,
        height=0.6,
    )
    axes.bar_label(drawn, fmt="%.1f", label_type="center", color="white", fontsize=8)
    marks = {
        "/predict alone": (ORANGE, [row.typical(lambda it: it.predict.images_per_s) for row in rows]),
        "what the cores allow": (GREY, [row.typical(lambda it: it.cores_allow) for row in rows]),
    }
    for name, (color, rates) in marks.items():
        axes.plot(rates, range(len(rows)), "|", color=color, markersize=16, markeredgewidth=3, label=name)
    axes.set_xlim(left=0)
    axes.set_xlabel("images per second")
    axes.tick_params(axis="y", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    figure.savefig(path, dpi=110)


def _late(row: Row) -> str:
    """Of a click that was answered before all was stored, how much was; as all of the row, the rounds' medians."""
    stored = row.typical(lambda it: it.click.stored_when_answered)
    if stored == row.tasks:
        return ""
    return f" ({stored:,.0f} stored when it was answered, after {row.typical(lambda it: it.click.answered_s):.0f} s)"


def _rounds(row: Row) -> str:
    """How many, and the slowest and fastest of their clicks in images per second."""
    rates = [each.click.images_per_s for each in row.rounds]
    return "1" if len(rates) == 1 else f"{len(rates)}: {min(rates):.1f} to {max(rates):.1f}"


def _setting(results: Results) -> str:
    """What else bears on the numbers."""
    quick = f"Label Studio runs with `{QUICK_IMPORTS}=true`, as Compose and the demo start it."
    no_sync = " PostgreSQL runs with `fsync=off`, so it doesn't wait for its disk."
    several = (
        " In several processes, it is served by uwsgi, with the settings of its Docker image's `label-studio-uwsgi`."
    )
    return "".join(
        (
            quick,
            several if any(row.processes > 1 for row in results.rows) else "",
            no_sync if any(row.database == POSTGRESQL for row in results.rows) else "",
        )
    )
