"""A task in work: its state, and its prediction until that is delivered."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from yolo_backend.protocol import Prediction, Task, from_json, task_id_of, to_json


class State(Enum):
    """What became of a task. Results leave READY for one way of delivery at a time."""

    WAITING = auto()
    RUNNING = auto()
    READY = auto()
    ANSWERED = auto()  # given in an answer; not known yet whether Label Studio stored it
    PUSHING = auto()  # on its way to Label Studio by import
    GONE = auto()  # delivered, failed, or given up


OPEN = frozenset({State.WAITING, State.RUNNING})


@dataclass(eq=False)
class Ticket:
    """A task of a job. `task_id` is None where Label Studio couldn't tell whose prediction it is: it isn't kept."""

    task_id: int | None
    task: Task | None
    fingerprint: int
    state: State = State.WAITING
    since: float = 0.0
    ready_at: float = 0.0
    pushes: int = 0
    asks: list[Ask] = field(default_factory=list)
    packed: bytes = b""

    @property
    def prediction(self) -> Prediction:
        """What was predicted."""
        packed = self.packed
        return dict(from_json(zlib.decompress(packed) if _is_squeezed(packed) else packed))


class Ask:
    """One request's share of a job: its tickets, in the order of its tasks."""

    def __init__(self) -> None:
        self.tickets: list[Ticket | None] = []
        self.unsettled = 0
        self.is_settled = threading.Event()


def tickets_of(tasks: Sequence[Task]) -> list[Ticket]:
    """A new ticket for each task."""
    return [Ticket(task_id_of(task), task, _fingerprint(task)) for task in tasks]


def pack(prediction: Prediction) -> bytes:
    """A prediction to be kept; Ticket.prediction is the way back."""
    # As Python objects it takes four times as much.
    return to_json(prediction)


def squeeze(packed: bytes) -> bytes:
    """The same in a quarter of the memory, for what may have to wait for hours."""
    return packed if _is_squeezed(packed) else zlib.compress(packed, 1)


def _is_squeezed(packed: bytes) -> bool:
    return not packed.startswith(b"{")


def _fingerprint(task: Task) -> int:
    """The same for the same data, as long as the process lives."""
    data = task.get("data")
    if not isinstance(data, Mapping):
        return hash(_as_json(data))
    # Texts as they are, for data: addresses are long, and to write them anew takes longer than all else.
    return hash(
        frozenset((key, value if isinstance(value, str) else (_as_json(value),)) for key, value in data.items())
    )


def _as_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
