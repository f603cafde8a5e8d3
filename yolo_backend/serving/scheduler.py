"""Whose turn it is: bulk work's slots, shared out between projects and between image hosts."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

log = logging.getLogger(__name__)

_HOSTS_LOOKED_AT = 32
_HOSTS_KEPT = 1000


class Work(Protocol):
    """What waits for a slot."""

    def begin(self) -> bool:
        """It gets a slot now. Returns False if it needn't be done any more. It may not call the scheduler."""

    def run(self, slot: Slot) -> None:
        """Do it; in a thread of its own."""

    def drop(self) -> None:
        """It won't be done: the process is ending."""


@dataclass(eq=False)
class Slot:
    """Where one piece of work is done. It counts for its project, and for the host that is being talked to."""

    project: Hashable
    host: str
    _scheduler: Scheduler
    _named: str

    def talks_to(self, host: str) -> None:
        """Another host is asked now, because of a redirect, or because another image is there.

        A folder on the disk ("/data/upload/7") is no host. It counts only for work that was added under its name; other
        work of the same host would count for the disk from then on, and still wait for that host.
        """
        if host == self.host == self._scheduler._host(self._named):
            return  # as mostly: without the lock, which each task needs
        if not host.startswith("/") or host == self._named:
            self._scheduler._moves(self, host)


@dataclass(eq=False)
class _Queue:
    limit: int
    waiting: OrderedDict[str, deque[tuple[float, Work]]] = field(default_factory=OrderedDict)
    running: int = 0
    held_until: float = float("-inf")


class Scheduler:
    """Begins what waits, as long as there are slots: as many as the largest `limit` of those at work.

    If all slots are taken, a project or a host with less than its fair share gets one more, because the work of others
    can't be called back, and work that takes long waits for a network. So a project has up to twice its share, and n
    projects never have more than slots x 2 (1 + ln n), and two for each beyond the slots. For any thread. `submit`
    hands a function to a thread at once.
    """

    def __init__(self, submit: Callable[[Callable[[], None]], object]) -> None:
        self._submit = submit
        self._queues: OrderedDict[Hashable, _Queue] = OrderedDict()
        self._running_on: Counter[str] = Counter()
        self._leads_to: OrderedDict[str, str] = OrderedDict()  # where a host's images came from after redirects
        self._lock = threading.Lock()

    def add(self, project: Hashable, host: str, work: Work, limit: int, *, is_first: bool = False) -> None:
        """Let work wait for its turn; its project has up to `limit` slots. `resume` begins it."""
        with self._lock:
            queue = self._queues.setdefault(project, _Queue(limit))
            waiting = queue.waiting.setdefault(host, deque())
            if is_first:  # it has waited at least as long as those behind it
                waiting.appendleft((waiting[0][0] if waiting else time.monotonic(), work))
            else:
                waiting.append((time.monotonic(), work))

    def hold(self, project: Hashable, until: float) -> None:
        """Begin nothing of this project before this time; then `resume` does."""
        with self._lock:
            if queue := self._queues.get(project):
                queue.held_until = until

    def resume(self) -> None:
        """Begin what there are slots for."""
        self._begin(None)

    def _begin(self, left: Slot | None) -> None:
        """Begin what there are slots for; one that was left is among them."""
        while begun := self._next(left):
            left = None
            slot, work = begun
            try:
                self._submit(partial(self._run, slot, work))
            except RuntimeError as error:
                if "shutdown" in str(error):  # the process is ending; otherwise it was queued
                    with self._lock:
                        self._leave(slot)
                    work.drop()

    def waiting(self) -> tuple[int, float]:
        """How many wait for a slot, and for how long the first of them has."""
        with self._lock:
            lines = [line for queue in self._queues.values() for line in queue.waiting.values() if line]
            now = time.monotonic()
            return sum(map(len, lines)), now - min((line[0][0] for line in lines), default=now)

    def _run(self, slot: Slot, work: Work) -> None:
        try:
            work.run(slot)
        except BaseException:  # whatever it is, others get its slot
            log.exception("Project %s: work failed", slot.project)
        finally:
            self._begin(slot)

    def _next(self, left: Slot | None) -> tuple[Slot, Work] | None:
        """What begins now: of the project with the least under way, of its host with the least, what waits longest."""
        with self._lock:
            if left:
                self._leave(left)
            while found := self._choose():
                project, host = found
                queue = self._queues[project]
                _, work = queue.waiting[host].popleft()
                if not queue.waiting[host]:
                    del queue.waiting[host]
                else:
                    queue.waiting.move_to_end(host)
                if work.begin():
                    self._queues.move_to_end(project)
                    slot = Slot(project, self._host(host), self, host)
                    queue.running += 1
                    self._running_on[slot.host] += 1
                    return slot, work
            return None

    def _choose(self) -> tuple[Hashable, str] | None:
        now = time.monotonic()
        slots = max((queue.limit for queue in self._queues.values()), default=0)
        is_full = sum(queue.running for queue in self._queues.values()) >= slots
        share = max(1, slots // max(1, len(self._queues)))
        waiting = [
            (queue.running, order, project, queue)
            for order, (project, queue) in enumerate(self._queues.items())
            if queue.waiting and now >= queue.held_until
        ]
        for running, _, project, queue in sorted(waiting, key=lambda each: each[:2]):
            hosts = [
                (self._running_on[self._host(host)], order, host)
                for order, host in enumerate(itertools.islice(queue.waiting, _HOSTS_LOOKED_AT))
            ]
            on_host, _, host = min(hosts)
            if not is_full and running < queue.limit:
                return project, host
            of_hosts = max(1, slots // max(1, len(self._running_on)))
            if running < share or (on_host < of_hosts and running < 2 * share):
                return project, host
        return None

    def _host(self, named: str) -> str:
        return self._leads_to.get(named, named)

    def _moves(self, slot: Slot, host: str) -> None:
        with self._lock:
            self._count(slot.host, -1)
            self._count(host, 1)
            slot.host = host
            self._leads_to[slot._named] = host
            self._leads_to.move_to_end(slot._named)
            if len(self._leads_to) > _HOSTS_KEPT:
                self._leads_to.popitem(last=False)

    def _leave(self, slot: Slot) -> None:
        queue = self._queues[slot.project]
        queue.running -= 1
        self._count(slot.host, -1)
        if not queue.running and not queue.waiting:
            del self._queues[slot.project]

    def _count(self, host: str, change: int) -> None:
        self._running_on[host] += change
        if not self._running_on[host]:
            del self._running_on[host]
