"""The `fit` of a model class: the event that asks for it, and whether a class has one of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

START_TRAINING = "START_TRAINING"
"""The event of the button in Settings > Model."""

_Fit = TypeVar("_Fit", bound=Callable[..., Any])
_placeholders: list[Callable[..., Any]] = []


def placeholder(fit: _Fit) -> _Fit:
    """Mark a `fit` that does nothing, and is there to be overridden."""
    _placeholders.append(fit)
    return fit


def trains(backend_class: Callable[..., Any]) -> bool:
    """Returns True if a class has a `fit` of its own, or of a base or mixin that isn't ours or label-studio-ml's."""
    if not isinstance(backend_class, type):
        return True  # what a function makes isn't known before
    owner = next((base for base in backend_class.__mro__ if "fit" in vars(base)), None)
    if owner is None or owner.__module__.partition(".")[0] == "label_studio_ml":
        return False
    fit = getattr(backend_class, "fit", None)
    return callable(fit) and not any(fit is each for each in _placeholders)
