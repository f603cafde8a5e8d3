"""A backend whose engine misbehaves on images of certain colours: the real one, with faults on command.

Run as a script, it serves as `yolo-backend serve` does, with the same flags.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from tests.faults.images import data_address, flat_file
from tests.faults.kinds import NO_ANSWER, PREDICTED, TIMES, Fault, image_task
from yolo_backend.detection import engine
from yolo_backend.detection.detections import Detections, Letterboxed
from yolo_backend.server.startup import serve

DETECT_TIMEOUT_S = 3.0
_HANG_S = 2 * DETECT_TIMEOUT_S
_MARK_RGB = (250, -1, 5)  # green is the number of the misbehaviour

Detect = Callable[[Sequence[Letterboxed], float], list[Detections]]
Misbehaviour = Callable[[Detect, Sequence[Letterboxed], float], list[Detections]]


class FaultyEngine(engine.Engine):
    """The real engine, but for batches that hold an image of a marked colour."""

    def _detect(self, batch: Sequence[Letterboxed], score_threshold: float, *, for_person: bool) -> list[Detections]:
        detect = partial(super()._detect, for_person=for_person)
        for image in batch:
            red, green, blue = (int(value) for value in image.pixels[image.pixels.shape[0] // 2, 0])
            if (red, blue) == (_MARK_RGB[0], _MARK_RGB[2]) and green < len(_MISBEHAVIOURS):
                return _MISBEHAVIOURS[green](detect, batch, score_threshold)
        return detect(batch, score_threshold)


def _raise(make_error: Callable[[], BaseException]) -> Misbehaviour:
    def misbehave(detect: Detect, batch: Sequence[Letterboxed], score_threshold: float) -> list[Detections]:
        raise make_error()

    return misbehave


def _raise_together(make_error: Callable[[], BaseException]) -> Misbehaviour:
    def misbehave(detect: Detect, batch: Sequence[Letterboxed], score_threshold: float) -> list[Detections]:
        if len(batch) > 1:
            raise make_error()
        return detect(batch, score_threshold)

    return misbehave


def _give_too_few(detect: Detect, batch: Sequence[Letterboxed], score_threshold: float) -> list[Detections]:
    return detect(batch, score_threshold)[1:]


def _spoil(value: float) -> Misbehaviour:
    def misbehave(detect: Detect, batch: Sequence[Letterboxed], score_threshold: float) -> list[Detections]:
        # A good image's boxes are left alone: they stand in the same batch.
        found = detect(batch, score_threshold)
        spoiled = Detections(np.full((3, 4), value, np.float32), np.ones(3, np.float32), np.zeros(3, np.int64))
        return [spoiled if len(boxes) == 0 else boxes for boxes in found]

    return misbehave


def _name_an_unknown_class(detect: Detect, batch: Sequence[Letterboxed], score_threshold: float) -> list[Detections]:
    box = np.array([[1, 1, 50, 50]], np.float32)
    unknown = Detections(box, np.ones(1, np.float32), np.full(1, 999, np.int64))
    return [unknown if len(boxes) == 0 else boxes for boxes in detect(batch, score_threshold)]


def _hang(detect: Detect, batch: Sequence[Letterboxed], score_threshold: float) -> list[Detections]:
    time.sleep(_HANG_S)
    return detect(batch, score_threshold)


def _be_slow(detect: Detect, batch: Sequence[Letterboxed], score_threshold: float) -> list[Detections]:
    time.sleep(DETECT_TIMEOUT_S / 3)
    return detect(batch, score_threshold)


def _die(detect: Detect, batch: Sequence[Letterboxed], score_threshold: float) -> list[Detections]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process goes on")


def _error() -> Exception:
    return RuntimeError("a fault on command")


def _out_of_memory() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB (a fault on command)")


@dataclass(frozen=True)
class _Kind:
    """A misbehaviour, what may come out of it, and how often it is injected."""

    name: str
    misbehave: Misbehaviour
    outcome: str
    times: int = TIMES
    spreads: bool = False


_KINDS = [
    _Kind("raises an error for one image", _raise(_error), "detector"),
    _Kind("raises an error for that image beside others, not alone", _raise_together(_error), PREDICTED),
    _Kind("has memory for one image at a time only", _raise_together(_out_of_memory), PREDICTED),
    _Kind("has no memory for the image at all", _raise(_out_of_memory), "detector"),
    _Kind("raises MemoryError", _raise(MemoryError), "detector"),
    _Kind("raises SystemExit", _raise(SystemExit), "detector"),
    _Kind("raises KeyboardInterrupt", _raise(KeyboardInterrupt), "detector"),
    _Kind("gives fewer outputs than images", _give_too_few, "detector"),
    _Kind("gives boxes that are not numbers", _spoil(float("nan")), PREDICTED),
    _Kind("gives boxes that are infinite", _spoil(float("inf")), PREDICTED),
    _Kind("gives a class that the weights don't have", _name_an_unknown_class, PREDICTED),
    _Kind("is slow: a second for each batch", _be_slow, PREDICTED, times=8),
    _Kind("hangs", _hang, "detector", times=5, spreads=True),
    _Kind("kills its process, as a crash or the kernel does", _die, NO_ANSWER, times=3, spreads=True),
]
_MISBEHAVIOURS = [kind.misbehave for kind in _KINDS]


def _fault(number: int, kind: _Kind) -> Fault:
    address = data_address(flat_file((_MARK_RGB[0], number, _MARK_RGB[2])))
    return Fault(
        f"the engine {kind.name}",
        lambda world, task_id: image_task(address, task_id),
        frozenset({kind.outcome}),
        times=kind.times,
        spreads=kind.spreads,
    )


ENGINE_FAULTS = [_fault(number, kind) for number, kind in enumerate(_KINDS)]
HANGING, KILLING = (fault for fault in ENGINE_FAULTS if fault.spreads)


def main() -> None:
    """Serve with the faulty engine."""
    engine.Engine = FaultyEngine  # type: ignore[misc]
    serve(sys.argv[1:])


if __name__ == "__main__":
    main()
