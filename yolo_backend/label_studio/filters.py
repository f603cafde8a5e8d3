"""Filters of Label Studio's Data Manager, for tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Filter = Mapping[str, Any]


def task_filter(column: str, operator: str, value: Any, value_type: str) -> Filter:
    """A filter of the Data Manager, such as `task_filter("total_predictions", "equal", 0, "Number")`."""
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": value_type, "value": value}


def holds(model_version: str) -> Filter:
    """The filter for tasks that hold a prediction of this version."""
    # The filter compares a part of the text. That is enough, because a version ends in a digest of its name, too.
    return task_filter("predictions_model_versions", "contains", [model_version], "List")


def lacks(model_version: str) -> Filter:
    """The filter for tasks that hold none of this version."""
    return task_filter("predictions_model_versions", "not_contains", [model_version], "List")
