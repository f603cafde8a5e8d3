"""The results of a project at one version: each given away once, on lease until Label Studio surely holds it."""

from __future__ import annotations

import sys
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from yolo_backend import metrics
from yolo_backend.label_studio.storing import MAX_IMPORT_BYTES
from yolo_backend.protocol import Prediction, Task
from yolo_backend.serving.delivered import RecentDeliveries
from yolo_backend.serving.held import HeldBytes
from yolo_backend.serving.kept import size_of
from yolo_backend.serving.tickets import Ask, Lease, Ticket, TicketState, Way, pack

_T = TypeVar("_T")

_AT_ONCE = 500  # tasks of a request or a job; then other threads may have the lock
_COMPRESS_AFTER_S = 3.0


@dataclass(frozen=True)
class Importable:
    """How many are to be imported together, since when the first of them is, and whether a request waits for any.

    `is_full` says that more wouldn't go with them.
    """

    count: int
    oldest_at: float
    is_waited_for: bool
    is_full: bool


class Ledger:
    """One for each project and version. Safe to share between threads; none waits in it for long."""

    def __init__(self, held: HeldBytes | None = None, keep: Callable[[Task], Task] = lambda task: task) -> None:
        """`held` counts what is kept. `keep` returns what is needed of a task after its request has gone."""
        self._held = held or HeldBytes(sys.maxsize)
        self._keep = keep
        self.counts: Counter[str] = Counter()
        self._tickets: dict[int, Ticket] = {}
        self._nameless = 0
        self._pending = 0
        self._at_work: set[Ticket] = set()  # with a worker, including those that nobody wants any more
        self._ready: dict[Ticket, None] = {}
        self._whole: deque[Ticket] = deque()  # not compressed yet, the oldest first
        self._leases: dict[Lease, None] = {}
        self._delivered = RecentDeliveries()
        self._asks: set[Ask] = set()
        self._lock = threading.RLock()

    # For those who ask

    def ask(self, fresh: Sequence[Ticket], room: int) -> Ask:
        """Join the work on these tasks by a new ticket for each. Up to `room` of the tasks that are new are taken.

        A ticket that brings its prediction needs no work. The ask's `new` tickets need some.
        """
        ask = Ask()
        with self._lock:
            self._asks.add(ask)
        mine: set[int] = set()
        for piece in _pieces(fresh):
            with self._lock:
                for ticket in piece:
                    joined = self._join(ticket, mine, room)
                    ask.tickets.append(joined)
                    room -= joined is ticket
                    if joined is ticket and joined.state is TicketState.PENDING:
                        ask.new.append(joined)
                    if joined:
                        joined.asks.append(ask)
                        ask.open += ask.is_open(joined)
                    else:
                        ask.left_out += not self._was_delivered(ticket)
        with self._lock:
            self._tell(ask)
        return ask

    def decide(self, ask: Ask, *, by_import: bool) -> None:
        """Say by which way a request's results leave. Until then, only its answer may bring them."""
        with self._lock:
            ask.by_import = by_import
            ask.open = sum(ask.is_open(ticket) for ticket in ask.tickets if ticket)
            self._tell(ask)

    def decide_all_by_answer(self) -> None:
        """No import is possible: all requests answer their results."""
        for ask in list(self._asks):
            self.decide(ask, by_import=False)

    def claim(
        self, ask: Ask, limit: int, when_over: Callable[[], None] | None = None, *, is_final: bool = False
    ) -> list[Prediction | None]:
        """What this request answers: up to `limit` of what is ready and leaves by no other way, on one lease.

        `is_final` says that nobody can be asked later what became of it, so it counts as arrived.
        """
        # While `is_sending`, the lease can't be settled or over before all results are on it.
        lease = Lease(Way.ANSWER, time.monotonic(), is_sending=True, when_over=when_over)
        mine: list[Ticket | None] = []
        for piece in _pieces(ask.tickets):
            with self._lock:
                for ticket in piece:
                    if ticket is None or ticket.state is not TicketState.READY or ticket.was_imported:
                        mine.append(None)
                    elif ticket.task_id is None or (is_final and not ask.by_import):
                        mine.append(ticket)
                        self._arrived(ticket, time.monotonic(), len(ask.tickets))
                    elif ask.by_import or lease.count >= limit:
                        mine.append(None)
                    else:
                        mine.append(ticket)
                        self._lend(ticket, lease)
        with self._lock:
            self.counts["answered"] += sum(ticket is not None for ticket in mine)
            lease.is_sending = False
            self._close(lease)
        return [ticket.prediction if ticket else None for ticket in mine]

    def has_to_answer(self, ask: Ask) -> bool:
        """Returns True if there is anything that this request's answer brings."""
        with self._lock:
            ready = (ticket for ticket in ask.tickets if ticket and ticket.state is TicketState.READY)
            return not ask.by_import and any(not ticket.was_imported for ticket in ready)

    def leave(self, ask: Ask) -> tuple[int, int]:
        """Ask no more. Returns how many tasks go on without this request, and for how many there is no memory."""
        left = without_room = 0
        with self._lock:
            self._asks.discard(ask)
        for piece in _pieces(ask.tickets):
            with self._lock:
                for ticket in piece:
                    if ticket is None:
                        continue
                    ticket.asks.remove(ask)
                    if ticket.task_id is None:
                        self._move(ticket, TicketState.GONE)
                    elif ticket.state is TicketState.PENDING and not self._keep_task(ticket):
                        self._move(ticket, TicketState.GONE)
                        without_room += 1
                    left += ticket.state is TicketState.PENDING
        return left, without_room

    def known(self, fresh: Ticket) -> Ticket | None:
        """The ticket that exists for this task, with the same data."""
        with self._lock:
            ticket = self._tickets.get(fresh.task_id) if fresh.task_id is not None else None
            return ticket if ticket and ticket.fingerprint == fresh.fingerprint else None

    def claim_alone(
        self, fresh: Ticket, prediction: Prediction, *, is_asked: bool = False, lost_after_s: float = float("inf")
    ) -> bool:
        """Answer one person with this prediction. Returns False if the task's prediction leaves or left by another way.

        An answer that was lost is given again. It counts as lost with `is_asked`, because Label Studio was just asked
        and doesn't hold it. If nobody can be asked, it counts as lost after `lost_after_s`.
        """
        now = time.monotonic()
        with self._lock:
            self._forget_old(now)
            if fresh.task_id is None:
                return True
            ticket = self.known(fresh)
            if ticket is None:
                if self._was_delivered(fresh):
                    return False
                self._register(fresh)
                fresh.packed = pack(prediction)
                self._lend(fresh, Lease(Way.ANSWER, now, is_lone=True, is_counted=False))
                return True
            lease = ticket.lease
            is_old = lease is not None and lease.is_lone and now >= lease.since + lost_after_s
            is_lost = is_old or (is_asked and lease is not None and lease.is_lost(now))
            if ticket.was_imported or (ticket.state is TicketState.LEASED and not is_lost):
                return False
            self.counts["predicted"] += ticket.state is TicketState.PENDING
            self.counts["answered"] += ticket.state is not TicketState.LEASED
            if not ticket.packed:
                ticket.packed = pack(prediction)
            self._lend(ticket, Lease(Way.ANSWER, now, is_lone=True))
            return True

    # Those who know what Label Studio holds

    def doubtful(self, fresh: Sequence[Ticket]) -> list[int]:
        """The tasks of which Label Studio has to be asked before an answer brings them."""
        doubtful: list[int] = []
        for piece in _pieces(fresh):
            with self._lock:
                doubtful += [
                    ticket.task_id
                    for ticket in piece
                    if ticket.task_id is not None
                    and (
                        ((known := self.known(ticket)) and (known.state is TicketState.LEASED or known.was_imported))
                        or self._delivered.has(ticket.task_id, ticket.fingerprint)
                    )
                ]
        return doubtful

    def learn(self, asked: Collection[int], held: Collection[int], since: float) -> None:
        """Label Studio was asked at `since` which of these it holds. It holds `held`: those have arrived."""
        now = time.monotonic()
        outcomes = Counter[tuple[str, str]]()
        for piece in _pieces(list(asked)):
            with self._lock:
                for task_id in piece:
                    ticket = self._tickets.get(task_id)
                    if task_id not in held:
                        self._delivered.refute(task_id, since)
                    elif ticket and ticket.state in {TicketState.LEASED, TicketState.READY}:
                        is_answer = ticket.lease is not None and ticket.lease.way is Way.ANSWER
                        outcome = "stored" if is_answer or ticket.was_imported else "held"
                        outcomes["answer" if is_answer else "import", outcome] += 1
                        self._arrived(ticket, now, len(held))
                    else:
                        self._delivered.confirm(task_id, now, len(held))
        for (way, outcome), count in outcomes.items():
            metrics.DELIVERIES.labels(way, outcome).inc(count)

    def tell_imported(self, tickets: Collection[Ticket]) -> None:
        """An import was answered: Label Studio holds these now."""
        with self._lock:
            self.counts["pushed"] += len(tickets)
            metrics.DELIVERIES.labels("import", "stored").inc(len(tickets))
            for ticket in tickets:  # they are one chunk at most
                self._arrived(ticket, time.monotonic(), len(tickets))

    def leases(self) -> list[Lease]:
        """What was given away, and may not have arrived yet."""
        with self._lock:
            return list(self._leases)

    def set_adrift(self, lease: Lease) -> None:
        """Nobody has to wait for these any more, because only time will tell."""
        with self._lock:
            if not lease.is_adrift and not lease.is_lone:  # otherwise nobody waits for them
                for ask, count in Counter(ask for ticket in lease.tickets for ask in ticket.asks).items():
                    ask.open -= count
                    self._tell(ask)
            lease.is_adrift = True

    def end(self, lease: Lease, *, is_unsent: bool = False) -> int:
        """End a lease: what is left on it is ready again, or gone if one person had asked for it. Returns how many.

        `is_unsent` says that it never reached Label Studio, so any way is open to it again.
        """
        count = 0
        with self._lock:
            lease.is_sending = False
            tickets = list(lease.tickets)
        for piece in _pieces(tickets):
            with self._lock:
                left = [ticket for ticket in piece if ticket.lease is lease]  # without those that arrived meanwhile
                for ticket in left:
                    if is_unsent:
                        ticket.was_imported = False
                    self._move(ticket, TicketState.READY if ticket.asks or not lease.is_lone else TicketState.GONE)
                self.counts["answered"] -= len(left) if lease.way is Way.ANSWER and lease.is_counted else 0
            count += len(left)
        if not lease.is_lone and (lease.way is Way.ANSWER or (lease.is_sent and not is_unsent)):
            metrics.DELIVERIES.labels(lease.way.name.lower(), "lost").inc(count)
        return count

    # Those who import

    def importable(self, limit: int) -> Importable:
        """What is to be imported now, up to `limit` of them."""
        with self._lock:
            ready, is_full = self._importable(limit)
            oldest_at = min((ticket.ready_at for ticket in ready), default=0.0)
            return Importable(len(ready), oldest_at, any(ticket.asks for ticket in ready), is_full)

    def lend_for_import(self, limit: int, when_over: Callable[[], None] | None = None) -> Lease:
        """Put up to so many of what is to be imported on a lease, until `sent`. What was tried before comes last."""
        lease = Lease(Way.IMPORT, time.monotonic(), is_sending=True, when_over=when_over)
        with self._lock:
            for ticket in self._importable(limit)[0]:
                self._lend(ticket, lease)
            lease.is_sending = bool(lease.count)
            self._close(lease)
        return lease

    def send(self, lease: Lease) -> None:
        """This lease is about to be sent. From now on no answer brings what is on it."""
        with self._lock:
            lease.is_sent = True
            for ticket in lease.tickets:
                ticket.was_imported = True

    def sent(self, lease: Lease) -> None:
        """The import ended, with or without an answer; Label Studio may store it for a while from now."""
        with self._lock:
            lease.is_sending = False
            lease.since = time.monotonic()
            self._close(lease)

    # Those who work

    def begin(self, ticket: Ticket) -> bool:
        """It is being worked on, until `done` or `release`. Returns False if nobody wants it any more."""
        with self._lock:
            if ticket.state is not TicketState.PENDING:
                return False
            self._at_work.add(ticket)
            return True

    def release(self, ticket: Ticket) -> bool:
        """It has to be begun again later. Returns False if nobody wants it any more."""
        with self._lock:
            self._at_work.discard(ticket)
            return ticket.state is TicketState.PENDING

    def done(self, ticket: Ticket, packed: bytes) -> bool:
        """Take a task's prediction, or b"" if there is none. Returns False if nobody wants it any more."""
        with self._lock:
            self._at_work.discard(ticket)
            if ticket.state is not TicketState.PENDING:
                return False
            self.counts["predicted" if packed else "failed"] += 1
            ticket.packed = packed
            self._move(ticket, TicketState.READY if packed else TicketState.GONE)
            return True

    def drop(self, ticket: Ticket) -> None:
        """There will be no result."""
        with self._lock:
            self._at_work.discard(ticket)
            self._move(ticket, TicketState.GONE)

    def give_up(self, *states: TicketState, is_begun: bool = True) -> int:
        """Forget what is in these states; the next click asks for it. Returns how many."""
        count = 0
        with self._lock:
            tickets = list(self._tickets.values())
        for piece in _pieces(tickets):
            with self._lock:
                for ticket in piece:
                    if ticket.state in states and (is_begun or ticket not in self._at_work):
                        self._move(ticket, TicketState.GONE)
                        count += 1
        return count

    def give_up_older_than(self, age_s: float) -> None:
        """Forget results that nobody asked for in so long."""
        old = time.monotonic() - age_s
        with self._lock:
            self._forget_old(time.monotonic())
            tickets = [*self._ready, *(ticket for lease in self._leases for ticket in lease.tickets)]
        for piece in _pieces(tickets):
            with self._lock:
                for ticket in piece:
                    if ticket.ready_at < old and not ticket.asks:
                        self._move(ticket, TicketState.GONE)

    def compress(self) -> None:
        """Compress what isn't delivered soon, to a quarter of the memory."""
        old = time.monotonic() - _COMPRESS_AFTER_S
        while self._whole and (self._whole[0].is_gone or self._whole[0].ready_at <= old):
            ticket = self._whole.popleft()
            if not ticket.is_gone:
                compressed = zlib.compress(ticket.packed, 1)  # without the lock, because it takes a while
                with self._lock:
                    if not ticket.is_gone:
                        ticket.packed = compressed
                        self._count(ticket, len(compressed))

    @property
    def size(self) -> int:
        """The number of tasks that it knows, those without an id among them."""
        return len(self._tickets) + self._nameless

    def numbers(self) -> tuple[int, int, int]:
        """How many wait to be begun, how many are being worked on, and how many are predicted but not delivered yet."""
        with self._lock:
            begun = sum(ticket.state is TicketState.PENDING for ticket in self._at_work)
            lent = sum(len(lease.tickets) for lease in self._leases if lease.way is Way.IMPORT)
            return self._pending - begun, begun, len(self._ready) + lent

    @property
    def left(self) -> int:
        """How many tasks have no prediction yet."""
        return self._pending

    @property
    def is_at_rest(self) -> bool:
        """Returns True if nothing waits to be worked on, and nothing is being worked on."""
        return not self._at_work and not self._pending

    @property
    def is_idle(self) -> bool:
        """Returns True if nothing is being worked on, and nobody waits for an answer."""
        with self._lock:
            return not self._at_work and not self._asks

    @property
    def is_empty(self) -> bool:
        """Returns True if there is nothing to do or to deliver. What one person was answered doesn't count."""
        with self._lock:
            return self.is_idle and not self._ready and all(lease.is_lone for lease in self._leases) and self.is_at_rest

    def clear_counts(self) -> None:
        """Begin to count anew. Call it when all is done."""
        with self._lock:
            self.counts.clear()
            self._whole.clear()

    def is_unused(self, now: float) -> bool:
        """Returns True if there is nothing left that is worth remembering."""
        with self._lock:
            self._forget_old(now)
            return self.is_empty and not self._leases and not self._delivered

    # Inside, with the lock

    def _join(self, fresh: Ticket, mine: set[int], room: int) -> Ticket | None:
        if fresh.task_id in mine:
            fresh.task_id = None  # the second of one id in a request is worked on, but never delivered later
        if fresh.task_id is not None:
            mine.add(fresh.task_id)
        if known := self.known(fresh):
            return known
        if self._was_delivered(fresh) or room <= 0:
            return None
        self._register(fresh)
        self.counts["asked"] += 1
        if fresh.packed:
            self.counts["predicted"] += 1
            self._move(fresh, TicketState.READY)
        return fresh

    def _register(self, fresh: Ticket) -> None:
        self._pending += 1
        if fresh.task_id is None:
            self._nameless += 1
            return
        if other := self._tickets.get(fresh.task_id):  # its data changed since
            self._move(other, TicketState.GONE)
        self._tickets[fresh.task_id] = fresh

    def _keep_task(self, ticket: Ticket) -> bool:
        """Keep what is needed of its task, which its request has held so far. Returns False if there is no room."""
        if ticket.held_bytes or ticket.task is None:
            return True
        ticket.task = self._keep(ticket.task)
        size_bytes = size_of(ticket.task)
        if ticket.asks or ticket in self._at_work:
            self._held.count(size_bytes)
        elif not self._held.take(size_bytes):
            return False
        ticket.held_bytes = size_bytes
        return True

    def _count(self, ticket: Ticket, held_bytes: int) -> None:
        self._held.count(held_bytes - ticket.held_bytes)
        ticket.held_bytes = held_bytes

    def _was_delivered(self, fresh: Ticket) -> bool:
        if fresh.task_id is None:
            return False
        return self._delivered.is_trusted(fresh.task_id, fresh.fingerprint, time.monotonic())

    def _importable(self, limit: int) -> tuple[list[Ticket], bool]:
        """Those to be imported together, and whether there is no room for more."""
        answered = {ask for ask in self._asks if not ask.by_import}
        chosen: list[Ticket] = []
        size_bytes = 0
        for ticket in self._ready:
            if ticket.task_id is None or not answered.isdisjoint(ticket.asks):
                continue
            size_bytes += ticket.json_bytes
            if chosen and size_bytes > MAX_IMPORT_BYTES:
                return chosen, True
            chosen.append(ticket)
            if len(chosen) >= limit:
                return chosen, True
        return chosen, False

    def _close(self, lease: Lease) -> None:
        if not lease.tickets and not lease.is_sending:
            self._leases.pop(lease, None)
            when_over, lease.when_over = lease.when_over, None
            if when_over:
                when_over()

    def _lend(self, ticket: Ticket, lease: Lease) -> None:
        lease.count += 1
        lease.tickets[ticket] = None
        self._leases[lease] = None
        self._move(ticket, TicketState.LEASED, lease)

    def _arrived(self, ticket: Ticket, now: float, together: int) -> None:
        self._move(ticket, TicketState.GONE)
        if ticket.task_id is not None:
            self._delivered.add(ticket.task_id, ticket.fingerprint, now, together)

    def _forget_old(self, now: float) -> None:
        self._delivered.forget_old(now)
        for lease in [lease for lease in self._leases if lease.is_lone and lease.ends_at < now]:
            if not any(ticket.asks for ticket in lease.tickets):  # else Label Studio is asked about it first
                for ticket in list(lease.tickets):
                    self._move(ticket, TicketState.GONE)

    def _move(self, ticket: Ticket, state: TicketState, lease: Lease | None = None) -> None:
        was_open = [ask.is_open(ticket) for ask in ticket.asks]
        was, before = ticket.state, ticket.lease
        if was is TicketState.GONE:
            return
        ticket.state, ticket.lease = state, lease
        ticket.task = None  # only what is pending needs it
        self._count(ticket, 0 if state is TicketState.GONE else len(ticket.packed))
        if was is TicketState.PENDING:
            self._pending -= 1
            ticket.ready_at = time.monotonic()
            if state is TicketState.READY:
                self._whole.append(ticket)
        if was is TicketState.READY:
            del self._ready[ticket]
        if state is TicketState.READY:
            self._ready[ticket] = None
        if before:
            before.tickets.pop(ticket, None)
            self._close(before)
        if state is TicketState.GONE:
            if ticket.task_id is None:
                self._nameless -= 1
            elif self._tickets.get(ticket.task_id) is ticket:
                del self._tickets[ticket.task_id]
        for ask, was_it in zip(ticket.asks, was_open, strict=True):
            ask.open += ask.is_open(ticket) - was_it
            self._tell(ask)

    def _tell(self, ask: Ask) -> None:
        if ask.open:
            ask.is_settled.clear()
        else:
            ask.is_settled.set()


def _pieces(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """The items in pieces. Take the lock for each piece, so that other threads get it in between."""
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]
        time.sleep(0)  # other threads never get a lock that is taken again at once
