"""A task in work and its prediction, the lease it is on, and the requests that wait for it."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from yolo_backend.label_studio.pauses import Pauses
from yolo_backend.label_studio.storing import surely_stored_after_s
from yolo_backend.protocol import Prediction, Task, from_json, task_id_of, to_json

_ASK_AFTER_S = (1.0, 60.0)
# Label Studio stores an answer's predictions one by one, 12 to 21 a second. An older answer of which it holds nothing
# was lost.
_LOST_AFTER_S, _LOST_AFTER_EACH_S = 5.0, 0.1


class TicketState(Enum):
    """What became of a task."""

    PENDING = auto()  # waits for a worker, or is with one
    READY = auto()
    LEASED = auto()  # given away, by an answer or an import; not known yet whether Label Studio holds it
    GONE = auto()  # arrived, failed, or given up


class Way(Enum):
    """How predictions reach Label Studio."""

    ANSWER = auto()
    IMPORT = auto()


# JSON of boxes is compressed to a quarter of it, that of masks to half.
_COMPRESSED_TO = 4


@dataclass(eq=False)
class Lease:
    """Results that were given away together. The lease is over when each of them has arrived or is ready again.

    `is_adrift` says that only time will tell: an import without an answer, or an answer that should be stored by now.
    """

    way: Way
    since: float
    tickets: dict[Ticket, None] = field(default_factory=dict)
    count: int = 0
    is_adrift: bool = False
    is_lone: bool = False
    is_counted: bool = True
    look_at: float = 0.0
    pauses: Pauses = field(default_factory=lambda: Pauses(*_ASK_AFTER_S))
    is_sent: bool = False
    is_sending: bool = False  # even if all have arrived, Label Studio is still busy with it
    when_over: Callable[[], None] | None = None

    @property
    def ends_at(self) -> float:
        """When results that Label Studio doesn't hold count as never received."""
        return self.since + surely_stored_after_s(self.count)

    def is_lost(self, now: float) -> bool:
        """Returns True if this is an answer of which Label Studio should hold some by now, and holds nothing."""
        is_whole = len(self.tickets) == self.count
        return (
            self.way is Way.ANSWER and is_whole and now > self.since + _LOST_AFTER_S + _LOST_AFTER_EACH_S * self.count
        )


@dataclass(eq=False)
class Ticket:
    """A task and its prediction. `task_id` is None if Label Studio couldn't know whose it is; then it isn't kept.

    What `was_imported` is never put into an answer, because it may still arrive.
    """

    task_id: int | None
    task: Task | None
    fingerprint: int
    state: TicketState = TicketState.PENDING
    lease: Lease | None = None
    ready_at: float = 0.0
    was_imported: bool = False
    asks: list[Ask] = field(default_factory=list)
    packed: bytes = b""
    held_bytes: int = 0

    @property
    def is_gone(self) -> bool:
        """Returns True if there is nothing left to do for it."""
        return self.state is TicketState.GONE

    @property
    def json_bytes(self) -> int:
        """About how many bytes it is as JSON."""
        return len(self.packed) * (_COMPRESSED_TO if _is_compressed(self.packed) else 1)

    @property
    def prediction(self) -> Prediction:
        """What was predicted."""
        packed = self.packed
        prediction: Prediction = from_json(zlib.decompress(packed) if _is_compressed(packed) else packed)
        return prediction


class Ask:
    """One request's tickets, in the order of its tasks; None for a task that is left out.

    Its results leave by the answer, or with `by_import` by imports. What is to be imported is open until it has
    arrived.
    """

    def __init__(self) -> None:
        self.tickets: list[Ticket | None] = []
        self.new: list[Ticket] = []
        self.left_out = 0
        self.by_import = False
        self.open = 0
        self.is_settled = threading.Event()

    def is_open(self, ticket: Ticket) -> bool:
        """Returns True if this request may get more of this ticket."""
        if ticket.state is TicketState.READY:
            return self.by_import and ticket.task_id is not None
        lease = ticket.lease
        return ticket.state is TicketState.PENDING or (lease is not None and not lease.is_adrift and not lease.is_lone)


def tickets_of(tasks: Sequence[Task]) -> list[Ticket]:
    """A new ticket for each task."""
    return [Ticket(task_id_of(task), task, _fingerprint(task)) for task in tasks]


def pack(prediction: Prediction) -> bytes:
    """A prediction as bytes, to be kept. Ticket.prediction turns it back."""
    # As Python objects it takes four times as much.
    return to_json(prediction)


def _is_compressed(packed: bytes) -> bool:
    return not packed.startswith(b"{")


def _fingerprint(task: Task) -> int:
    """A number that is the same for the same data, as long as the process lives."""
    data = task.get("data")
    if not isinstance(data, Mapping):
        return hash(_as_json(data))
    # Texts as they are, because writing a long data: address as JSON takes longer than all else.
    return hash(
        frozenset((key, value if isinstance(value, str) else (_as_json(value),)) for key, value in data.items())
    )


def _as_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
