"""Iterators whose work is done beside: several items at a time, or ahead of whoever takes them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")
Result = TypeVar("Result")

_LOOK_EVERY_S = 0.2


def in_parallel(
    work: Callable[[T], Result], items: Iterable[T], parallel: int, thread_name: str = "task"
) -> Iterator[tuple[T, Result]]:
    """Each item with what `work` makes of it, as they are done; no more are taken from `items` than are under way."""
    under_way: dict[Future[Result], T] = {}
    with ThreadPoolExecutor(parallel, thread_name_prefix=thread_name) as workers:
        try:
            for item in items:
                under_way[workers.submit(work, item)] = item
                if len(under_way) >= parallel:
                    done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                    yield from ((under_way.pop(future), future.result()) for future in done)
            yield from ((under_way.pop(future), future.result()) for future in as_completed(list(under_way)))
        finally:
            for future in under_way:
                future.cancel()


class ReadAhead(Generic[T]):
    """Takes items in a thread of its own, up to `max_items` ahead of whoever asks; a context, which ends the thread."""

    def __init__(self, items: Iterable[T], max_items: int) -> None:
        self._items = items
        self._max_items = max_items
        self._ready: list[T] = []
        self._error: Exception | None = None
        self._is_over = False
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, name="read-ahead", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def batches(self, max_wait_s: float, stop: threading.Event) -> Iterator[list[T]]:
        """What is ready: `max_items` of it, or all after `max_wait_s`, at the end, or at once with `stop`, the last.

        Raises what the items' iterator raised, after what came before it.
        """
        is_last = False
        while not is_last:
            is_over = self._wait(max_wait_s, stop)
            is_last = is_over or stop.is_set()
            with self._changed:
                batch, self._ready = self._ready, []
                self._changed.notify_all()
            if batch:
                yield batch
        if self._error:
            raise self._error

    def _wait(self, max_wait_s: float, stop: threading.Event) -> bool:
        ends_at = time.monotonic() + max_wait_s
        with self._changed:
            while not stop.is_set() and time.monotonic() < ends_at:
                if self._changed.wait_for(lambda: self._is_over or len(self._ready) >= self._max_items, _LOOK_EVERY_S):
                    break
            return self._is_over

    def _read(self) -> None:
        try:
            for item in self._items:
                with self._changed:
                    self._changed.wait_for(lambda: self._is_closed or len(self._ready) < self._max_items)
                    if self._is_closed:
                        return
                    self._ready.append(item)
                    self._changed.notify_all()
        except Exception as error:  # for whoever takes the items
            self._error = error
        finally:
            if isinstance(self._items, Generator):  # here, where it ran
                self._items.close()
            with self._changed:
                self._is_over = True
                self._changed.notify_all()
