"""What the numbers are called: the docs tell of all of them."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import REGISTRY

from yolo_backend import metrics

PAGE = Path(__file__).parent.parent.parent / "docs" / "watching.md"


def test_the_page_tells_of_every_metric_and_of_no_other() -> None:
    """By the names that queries use; `_bucket` and the like are of those."""
    page = PAGE.read_text(encoding="utf-8")
    there = {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metric in REGISTRY.collect()
        if metric.name.startswith("yolo_")
    }
    named = re.findall(r"\byolo_(?!backend\b)[a-z_]+", page)
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in named} == there


def test_the_page_tells_of_every_outcome_of_a_delivery() -> None:
    rows = re.findall(r"^\| `([a-z]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == list(metrics.DELIVERY_OUTCOMES)
