"""The `fit` of a model class: the event that asks for it, and whether a class has one of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

START_TRAINING = "START_TRAINING"
"""The event of the button in Settings > Model."""

_Fit = TypeVar("_Fit", bound=Callable[..., Any])
_placeholders: list[Callable[..., Any]] = []


def placeholder(fit: _Fit) -> _Fit:
    """Mark a `fit` that is there to be overridden: as it is, it trains at Start Training alone, if TRAINING is on."""
    _placeholders.append(fit)
    return fit


def trains(backend_class: Callable[..., Any]) -> bool:
    """Returns True if a class has a `fit` of its own, or of a base or mixin that isn't ours or label-studio-ml's."""
    if not isinstance(backend_class, type):
        return True  # what a function makes isn't known before
    owner = next((base for base in backend_class.__mro__ if "fit" in vars(base)), None)
    if owner is None or owner.__module__.partition(".")[0] == "label_studio_ml":
        return False
    return callable(getattr(backend_class, "fit", None)) and not _has_placeholder(backend_class)


def trains_at(backend_class: Callable[..., Any], event: str, *, training_is_on: bool) -> bool:
    """Returns True if something is trained at this event: by a class's own `fit`, or by ours where TRAINING is on."""
    is_ours = training_is_on and event == START_TRAINING and _has_placeholder(backend_class)
    return is_ours or trains(backend_class)


def _has_placeholder(backend_class: Callable[..., Any]) -> bool:
    fit = getattr(backend_class, "fit", None)
    return any(fit is each for each in _placeholders)
