"""The base of `YoloBackend` where label-studio-ml isn't installed: its 1.0.9 can't stand beside a current Flask."""

from __future__ import annotations

from typing import Any


class LabelStudioMLBase:
    """Of the same shape as label-studio-ml's: made with a project and its labeling config."""

    def __init__(self, project_id: str | None = None, label_config: str | None = None, **kwargs: Any) -> None:
        self.project_id = project_id
        self.label_config = label_config
