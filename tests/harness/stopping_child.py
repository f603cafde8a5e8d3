"""A training's process that stops where a test wants it to: there it is killed, or goes on beside a disk that is full.

It is the product's own process. Only one function of it waits, the one that the test named, and nothing in the product
knows of that. `serve` starts a server whose trainings are such processes.
"""

from __future__ import annotations

import functools
import importlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from yolo_backend.training import child, launch

CHILD = __spec__.name if __spec__ else __name__
STOP_AT, STOP_IN = "STOP_AT", "STOP_IN"

_STAGES, _REGISTRY = "yolo_backend.training.stages", "yolo_backend.training.registry"


class Point(NamedTuple):
    """A call of a function, where it stops: before it, or with `is_after` when it is done.

    `attribute` is what the module has under this name, `call` which call of it is meant, counted from 1. Of a file
    that takes the place of another, `target` is how that one's name ends.
    """

    module: str
    attribute: str
    call: int = 1
    is_after: bool = False
    target: str | None = None


def _replaced(target: str, call: int = 1) -> Point:
    """When a file is written, and not there yet under its name."""
    return Point("pathlib", "Path.replace", call, target=target)


POINTS = {
    "the base is opened": Point(_STAGES, "read_base"),
    "the snapshot is taken": Point(_STAGES, "take_snapshot"),
    "an image is half-written": _replaced(".jpg", 3),
    "the run is half-written": _replaced("run.json", 3),
    "the sides are half-written": _replaced("split.json"),
    "the manifest is half-written": _replaced("manifest.json"),
    "what serves looks at the images": Point(_STAGES, "find_boxes"),
    "the validation boxes are half-written": _replaced("validation.json"),
    "the dataset is half-written": Point("yolo_backend.training.dataset", "link_file", 5),
    "it fits": Point("yolo_backend.training.fitting", "_step", 3),
    "the candidate is half-written": _replaced("weights.pt"),
    "the candidate looks at the images": Point(_STAGES, "find_boxes", 2),
    "the gate judges": Point(_STAGES, "judge"),
    "the record is in the candidate": Point(_STAGES, "add_record", is_after=True),
    "the export is checked": Point(_STAGES, "_Stages._check_export"),
    "the exporter runs": Point("yolo_backend.detection.exports", "_run_exporter"),
    "it is half-published": _replaced("project-7.pt"),
    "it is published, which is half-noted": _replaced("promotions.json"),
    "it is promoted, which isn't told yet": Point(_REGISTRY, "ProjectModels.promote", is_after=True),
    "the report is written": Point(_STAGES, "write_report"),
    "it has ended, and old weights are removed": Point(_REGISTRY, "ProjectModels.prune"),
}
"""In the order in which a run comes by."""

EXPORTER = "the exporter runs"
"""Not where the engine is torch."""

PUBLISHED = tuple(POINTS)[tuple(POINTS).index("it is published, which is half-noted") :]
"""From here on the new model serves."""


class Stop:
    """Where the processes to come stop, and whether one has: for the test, whose environment they have."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def environment(self, point: str) -> dict[str, str]:
        """What a process needs that is to stop there; nobody has stopped yet."""
        for name in ("stopped", "go"):
            (self.folder / name).unlink(missing_ok=True)
        return {STOP_AT: point, STOP_IN: str(self.folder)}

    @property
    def has_come(self) -> bool:
        """Returns True if a process waits there."""
        return (self.folder / "stopped").exists()

    def let_go(self) -> None:
        """The process that waits goes on."""
        (self.folder / "go").touch()


def serve() -> None:
    """The server, as `python -m yolo_backend serve` starts it."""
    launch.CHILD = CHILD
    from yolo_backend.cli.app import main

    main()


def _main() -> None:
    if point := POINTS.get(os.environ.get(STOP_AT, "")):
        module: Any = child
        give_way = module.give_way

        def give_way_then_stop(*, on_gpu: bool) -> list[str]:
            """From here on the libraries may come that the modules need."""
            remarks: list[str] = give_way(on_gpu=on_gpu)
            _stop_at(point, Path(os.environ[STOP_IN]))
            return remarks

        module.give_way = give_way_then_stop
    child.main()


def function_at(point: Point) -> tuple[Any, str, Callable[..., Any]]:
    """Who has the function, its name there, and itself. Raises AttributeError if the product has no such function."""
    holder: Any = importlib.import_module(point.module)
    *owners, name = point.attribute.split(".")
    for owner in owners:
        holder = getattr(holder, owner)
    return holder, name, getattr(holder, name)


def _stop_at(point: Point, folder: Path) -> None:
    holder, name, function = function_at(point)
    calls = 0

    @functools.wraps(function)
    def stopping(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        is_meant = point.target is None or str(arguments[1]).endswith(point.target)
        calls += is_meant
        if not is_meant or calls != point.call:
            return function(*arguments, **named)
        if not point.is_after:
            _wait(folder)
        answer = function(*arguments, **named)
        if point.is_after:
            _wait(folder)
        return answer

    setattr(holder, name, stopping)


def _wait(folder: Path) -> None:
    """Without an end of its own: the other threads of the process see whether its parent is there."""
    (folder / "stopped").touch()
    while not (folder / "go").exists():
        time.sleep(0.02)


if __name__ == "__main__":
    _main()
