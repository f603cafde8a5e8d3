"""The base class of label-studio-ml 2.x, as far as a subclass can tell."""

from __future__ import annotations

from typing import Any

_STORE: dict[tuple[str, str], str] = {}


class LabelStudioMLBase:
    """Takes no further arguments, and has no setter for `label_config` and `model_version`."""

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.project_id = project_id or ""
        if label_config is not None:
            self.set("label_config", label_config)
        if not self.model_version:
            self.set("model_version", "0.0.1")
        self.setup()

    def setup(self) -> None:
        pass

    def get(self, key: str) -> str | None:
        return _STORE.get((self.project_id, key))

    def set(self, key: str, value: str) -> None:
        _STORE[self.project_id, key] = value

    @property
    def label_config(self) -> str | None:
        return self.get("label_config")

    @property
    def model_version(self) -> str | None:
        return self.get("model_version")

    def predict(self, tasks: list[Any], context: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        raise NotImplementedError

    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> Any:
        raise NotImplementedError
