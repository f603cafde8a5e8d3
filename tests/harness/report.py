"""The pages of docs/journal/, whose sections the measuring commands rewrite."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from tests.harness.stack import ROOT

REPORT = ROOT / "docs" / "journal" / "reliability.md"


def write_section(name: str, text: str, report: Path = REPORT) -> None:
    """Put the text between `<!-- name -->` and `<!-- /name -->`, which are added at the end where they are missing."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    whole = report.read_text() if report.exists() else f"# {report.stem.capitalize()}\n"
    if begin not in whole:
        whole += f"\n{begin}\n{end}\n"
    head, _, rest = whole.partition(begin)
    _, _, tail = rest.partition(end)
    report.write_text(f"{head}{begin}\n{text}\n{end}{tail}")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def made_by(target: str, took_s: float, command: str | None = None) -> str:
    """How, when and where a measurement was made; `command` is the target's own, by default a benchmark of its name."""
    took = f"{took_s / 60:.0f} minutes," if took_s > 120 else f"{took_s:.0f} seconds,"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "without a GPU"
    return (
        f"Made by `make {target}` (`{command or f'python -m benchmarks.{target}'}`) on {datetime.now(UTC):%Y-%m-%d} in "
        f"{took} with Python {platform.python_version()} and torch {torch.__version__}, "
        f"on {os.cpu_count()} CPU cores, {device}."
    )
