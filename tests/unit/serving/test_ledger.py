"""The same data is known again, and other data isn't taken for it; each result is given away once, on lease."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prometheus_client import REGISTRY

from tests.fakes.clock import Clock
from yolo_backend.protocol import Prediction, Task, from_json
from yolo_backend.serving import ledger as ledger_module
from yolo_backend.serving.held import HeldBytes
from yolo_backend.serving.ledger import Ledger
from yolo_backend.serving.tickets import Ask, Lease, Ticket, TicketState, pack, tickets_of


def fingerprint(data: str) -> int:
    """Of a task whose data came as this JSON."""
    (ticket,) = tickets_of([from_json(f'{{"id": 1, "data": {data}}}'.encode())])
    return ticket.fingerprint


@pytest.mark.parametrize(
    ("data", "same"),
    [
        ('{"image": "a.jpg", "n": 1}', '{"n": 1, "image": "a.jpg"}'),
        ('{"image": "a.jpg", "more": {"x": 1, "y": [2]}}', '{"image": "a.jpg", "more": {"y": [2], "x": 1}}'),
        ('{"image": "a.jpg", "n": NaN}', '{"image": "a.jpg", "n": NaN}'),
        ('{"image": "\\ud800"}', '{"image": "\\ud800"}'),
        ('["a.jpg"]', '["a.jpg"]'),
        ("null", "null"),
    ],
)
def test_the_same_data_is_known_again(data: str, same: str) -> None:
    assert fingerprint(data) == fingerprint(same)


@pytest.mark.parametrize(
    ("data", "other"),
    [
        ('{"image": "a.jpg"}', '{"image": "b.jpg"}'),
        ('{"image": "a.jpg"}', '{"photo": "a.jpg"}'),
        ('{"image": "a.jpg"}', '{"image": "a.jpg", "n": null}'),
        ('{"image": "a.jpg", "more": {"x": [1, 2]}}', '{"image": "a.jpg", "more": {"x": [2, 1]}}'),
        ('{"image": "1"}', '{"image": 1}'),
        ('{"image": 1}', '{"image": true}'),
        ('{"image": 1}', '{"image": 1.0}'),
        ('{"images": ["a.jpg"]}', '{"images": "[\\"a.jpg\\"]"}'),
        ('["a.jpg"]', '["b.jpg"]'),
        ("null", "{}"),
    ],
)
def test_other_data_is_not_taken_for_it(data: str, other: str) -> None:
    assert fingerprint(data) != fingerprint(other)


@pytest.mark.parametrize("task", [{}, {"id": 1, "data": None}, {"id": "1", "data": {"image": {1, 2}}}])
def test_any_task_has_a_ticket(task: Any) -> None:
    assert len(tickets_of([task])) == 1


# Given away once, on lease


def task(task_id: Any, image: str = "a.jpg") -> Task:
    return {"id": task_id, "data": {"image": image}}


def tickets(*task_ids: int) -> list[Ticket]:
    return tickets_of([task(task_id) for task_id in task_ids])


def prediction(score: float = 0.5) -> Prediction:
    return {"result": [], "score": score, "model_version": "v"}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(ledger_module, "time", clock)
    return clock


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    return Ledger()


def number(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def predicted(ledger: Ledger, *task_ids: int) -> Ask:
    """A request for these tasks, all of which are predicted."""
    ask = ledger.ask(tickets(*task_ids), 10_000)
    for ticket in ask.new:
        assert ledger.begin(ticket)
        assert ledger.done(ticket, pack(prediction(ticket.task_id or 0)))
    return ask


def given(ledger: Ledger, ask: Ask, limit: int = 1000) -> list[int]:
    """The scores that its answer brings."""
    return [int(each["score"]) for each in ledger.claim(ask, limit) if each]


def test_what_was_answered_is_nobody_elses_until_its_lease_ends(ledger: Ledger) -> None:
    first = predicted(ledger, 1, 2)
    second = ledger.ask(tickets(2, 1), 1000)
    assert given(ledger, first) == [1, 2]
    assert given(ledger, second) == []
    assert second.open == 2  # it waits to see whether they arrive
    (lease,) = ledger.leases()
    ledger.end(lease)
    assert given(ledger, second) == [2, 1]


def test_a_lease_is_over_when_all_has_arrived(ledger: Ledger) -> None:
    over: list[int] = []
    ask = predicted(ledger, 1, 2, 3)
    assert len(ledger.claim(ask, 1000, lambda: over.append(1))) == 3
    ledger.learn([1, 2, 3], {1, 3}, 1000.0)
    assert not over
    ledger.learn([2], {2}, 1000.0)
    assert over == [1]
    assert not ledger.leases()
    ledger.leave(ask)
    assert ledger.is_empty


def test_what_nobody_can_be_asked_about_has_arrived(ledger: Ledger, clock: Clock) -> None:
    over: list[int] = []
    ask = predicted(ledger, *range(1, 101))
    assert all(ledger.claim(ask, 1000, lambda: over.append(1), is_final=True))
    assert over == [1]
    ledger.leave(ask)
    assert ledger.is_empty
    clock.now_s += 6.9  # who asks now, asked before it was stored: within 5 s, and 0.02 s for each
    assert ledger.ask(tickets(1), 1000).new == []
    clock.now_s += 0.2
    assert len(ledger.ask(tickets(1), 1000).new) == 1


def test_an_answer_of_nothing_is_over_at_once(ledger: Ledger) -> None:
    over: list[int] = []
    ask = ledger.ask(tickets(1), 1000)
    assert ledger.claim(ask, 1000, lambda: over.append(1)) == [None]
    assert over == [1]


@pytest.mark.parametrize(("count", "lasts_s"), [(1, 60.05), (100, 65.0), (2000, 160.0)])
def test_a_lease_lasts_the_longer_the_more_it_is_of(ledger: Ledger, clock: Clock, count: int, lasts_s: float) -> None:
    given(ledger, predicted(ledger, *range(1, count + 1)), 5000)
    (lease,) = ledger.leases()
    assert lease.ends_at == pytest.approx(clock.now_s + lasts_s)


@pytest.mark.parametrize(("count", "lost_after_s"), [(1, 5.1), (100, 15.0)])
def test_an_answer_is_lost_when_none_of_it_is_held_by_then(
    ledger: Ledger, clock: Clock, count: int, lost_after_s: float
) -> None:
    given(ledger, predicted(ledger, *range(1, count + 1)))
    (lease,) = ledger.leases()
    assert not lease.is_lost(clock.now_s + lost_after_s - 0.01)
    assert lease.is_lost(clock.now_s + lost_after_s + 0.01)
    if count > 1:
        ledger.learn([1], {1}, 0.0)  # Label Studio is at it
        assert not lease.is_lost(clock.now_s + lost_after_s + 0.01)


def test_an_answer_brings_no_more_than_its_limit_and_the_rest_is_to_be_imported(ledger: Ledger) -> None:
    ask = predicted(ledger, 1, 2, 3)
    assert given(ledger, ask, 2) == [1, 2]
    assert ledger.importable(10).count == 0  # it could ask for the rest
    ledger.leave(ask)
    assert [ticket.task_id for ticket in ledger.lend_for_import(10).tickets] == [3]


def test_what_was_once_sent_in_an_import_is_in_no_answer(ledger: Ledger) -> None:
    ledger.leave(predicted(ledger, 1, 2))
    lease = ledger.lend_for_import(10)
    ledger.send(lease)
    ledger.end(lease)  # Label Studio said nothing, and doesn't hold them
    ask = ledger.ask(tickets(1, 2), 1000)
    assert not ask.open  # there is nothing to wait for
    assert given(ledger, ask) == []
    (alone,) = tickets(1)
    assert ledger.doubtful([alone]) == [1]
    assert not ledger.claim_alone(alone, prediction(), is_asked=True)
    ledger.leave(ask)
    assert ledger.importable(10).count == 2


def test_what_an_import_surely_did_not_bring_may_be_answered(ledger: Ledger) -> None:
    ledger.leave(predicted(ledger, 1, 2))
    lease = ledger.lend_for_import(10)
    ledger.send(lease)
    ledger.end(lease, is_unsent=True)
    assert given(ledger, ledger.ask(tickets(1, 2), 1000)) == [1, 2]


def test_results_leave_by_the_way_that_is_decided(ledger: Ledger) -> None:
    ask = predicted(ledger, 1, 2)
    assert ledger.importable(10).count == 0  # until it is decided, they are the answer's
    assert not ask.open
    ledger.decide(ask, by_import=True)
    assert not ask.is_settled.is_set()
    assert given(ledger, ask) == []
    lease = ledger.lend_for_import(1)
    ledger.tell_imported(list(lease.tickets))
    assert not ask.is_settled.is_set()
    ledger.decide_all_by_answer()
    assert ask.is_settled.is_set()
    assert given(ledger, ask) == [2]


def test_two_requests_of_which_one_is_answered(ledger: Ledger) -> None:
    first = predicted(ledger, 1)
    second = ledger.ask(tickets(1), 1000)
    ledger.decide(second, by_import=True)
    assert ledger.importable(10).count == 0  # the first one's answer is to bring it
    assert given(ledger, first) == [1]


def test_nobody_waits_for_what_only_time_can_tell(ledger: Ledger) -> None:
    ask = predicted(ledger, 1, 2)
    ledger.decide(ask, by_import=True)
    lease = ledger.lend_for_import(10)
    assert ask.open == 2
    ledger.set_adrift(lease)
    assert ask.is_settled.is_set()
    ledger.end(lease)
    assert ask.open == 2  # and now it is imported again


def test_who_comes_second_gets_nothing(ledger: Ledger) -> None:
    first, second = tickets(1)[0], tickets(1)[0]
    assert ledger.claim_alone(first, prediction())
    assert ledger.doubtful([second]) == [1]
    assert not ledger.claim_alone(second, prediction())
    ledger.learn([1], {1}, 0.0)
    assert not ledger.claim_alone(second, prediction())  # Label Studio holds it by now
    assert ledger.claim_alone(tickets_of([task(1, "another.jpg")])[0], prediction())


def test_a_persons_answer_that_was_lost_is_given_again(ledger: Ledger, clock: Clock) -> None:
    assert ledger.claim_alone(tickets(1)[0], prediction())
    clock.now_s += 5.2
    assert not ledger.claim_alone(tickets(1)[0], prediction())  # nobody asked Label Studio
    assert ledger.claim_alone(tickets(1)[0], prediction(), is_asked=True)
    assert not ledger.claim_alone(tickets(1)[0], prediction(), is_asked=True)


def test_a_persons_answer_is_forgotten_in_a_minute(ledger: Ledger, clock: Clock) -> None:
    assert ledger.claim_alone(tickets(1)[0], prediction())
    assert ledger.is_empty  # there is nothing to deliver
    assert not ledger.is_unused(clock.now_s)
    clock.now_s += 61
    lost = number("yolo_deliveries_total", way="answer", outcome="lost")
    assert ledger.is_unused(clock.now_s)
    assert ledger.size == 0
    assert not ledger.counts["answered"]
    assert number("yolo_deliveries_total", way="answer", outcome="lost") == lost  # as far as anybody knows


def test_what_was_delivered_stays_known_for_some_minutes(ledger: Ledger, clock: Clock) -> None:
    ledger.leave(predicted(ledger, 1, 2))
    ledger.tell_imported(list(ledger.lend_for_import(10).tickets))
    clock.now_s += 200
    assert ledger.doubtful(tickets(1, 2, 3)) == [1, 2]
    assert ledger.doubtful(tickets_of([task(1, "another.jpg")])) == []
    ledger.learn([1, 2], {2}, clock.now_s)  # somebody deleted the first
    ask = ledger.ask(tickets(1, 2, 3), 1000)
    assert [ticket.task_id for ticket in ask.new] == [1, 3]
    assert ask.left_out == 0
    clock.now_s += 301
    assert not ledger.is_unused(clock.now_s)  # two are asked for
    assert ledger.doubtful(tickets(2)) == []


def test_an_answer_that_is_older_than_the_import_deletes_nothing(ledger: Ledger, clock: Clock) -> None:
    """Label Studio was asked before the import, and answers after it."""
    ledger.leave(predicted(ledger, 1))
    asked_at = clock.now_s
    clock.now_s += 1
    ledger.tell_imported(list(ledger.lend_for_import(10).tickets))
    ledger.learn([1], set(), asked_at)
    assert ledger.ask(tickets(1), 1000).new == []


def test_compressed_results_are_the_same(ledger: Ledger, clock: Clock) -> None:
    ask = predicted(ledger, 1, 2)
    clock.now_s += 2.9
    ledger.compress()
    assert all(ticket.packed.startswith(b"{") for ticket in ask.new)
    clock.now_s += 0.2
    ledger.compress()
    assert not any(ticket.packed.startswith(b"{") for ticket in ask.new)
    ledger.compress()
    assert given(ledger, ask) == [1, 2]


def test_a_large_request_lets_others_have_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[bool] = []

    class Watching(Clock):
        def sleep(self, seconds: float) -> None:
            with ThreadPoolExecutor(1) as other:
                got.append(other.submit(watched._lock.acquire, blocking=False).result())
                if got[-1]:
                    other.submit(watched._lock.release).result()

    monkeypatch.setattr(ledger_module, "time", Watching())
    monkeypatch.setattr(ledger_module, "_AT_ONCE", 10)
    watched = Ledger()
    ask = watched.ask(tickets(*range(1, 101)), 1000)
    assert got == [True] * 10
    watched.leave(ask)
    assert got == [True] * 20


class BetweenPieces(Clock):
    """Calls `act` where the ledger lets others have the lock."""

    def __init__(self) -> None:
        super().__init__()
        self.act: Callable[[], object] = int

    def sleep(self, seconds: float) -> None:
        self.act()


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> BetweenPieces:
    between = BetweenPieces()
    monkeypatch.setattr(ledger_module, "time", between)
    monkeypatch.setattr(ledger_module, "_AT_ONCE", 10)
    return between


def ready(ledger: Ledger) -> Ask:
    return predicted(ledger, *range(1, 101))


def answered(ledger: Ledger) -> Lease:
    ledger.claim(ready(ledger), 100)
    (lease,) = ledger.leases()
    return lease


def prepare_claim(ledger: Ledger) -> Callable[[], object]:
    ask = ready(ledger)
    return lambda: ledger.claim(ask, 100)


def prepare_claim_of_nothing(ledger: Ledger) -> Callable[[], object]:
    ask = ready(ledger)
    return lambda: ledger.claim(ask, 0)


def prepare_doubtful(ledger: Ledger) -> Callable[[], object]:
    fresh = tickets(*range(1, 101))
    return lambda: ledger.doubtful(fresh)


def prepare_end(ledger: Ledger) -> Callable[[], object]:
    lease = answered(ledger)
    return lambda: ledger.end(lease)


def prepare_give_up(ledger: Ledger) -> Callable[[], object]:
    ready(ledger)
    return lambda: ledger.give_up(TicketState.READY)


def prepare_give_up_older_than(ledger: Ledger) -> Callable[[], object]:
    ledger.leave(ready(ledger))
    return lambda: ledger.give_up_older_than(-1.0)


def prepare_learn(ledger: Ledger) -> Callable[[], object]:
    answered(ledger)
    task_ids = range(1, 101)
    return lambda: ledger.learn(task_ids, set(task_ids), 0.0)


@pytest.mark.parametrize(
    "prepare",
    [
        prepare_claim,
        prepare_claim_of_nothing,
        prepare_doubtful,
        prepare_end,
        prepare_give_up,
        prepare_give_up_older_than,
        prepare_learn,
    ],
)
def test_a_large_job_lets_others_have_the_lock(
    between: BetweenPieces, prepare: Callable[[Ledger], Callable[[], object]]
) -> None:
    ledger = Ledger()
    call = prepare(ledger)
    got: list[bool] = []

    def look() -> None:
        with ThreadPoolExecutor(1) as other:
            got.append(other.submit(ledger._lock.acquire, blocking=False).result())
            if got[-1]:
                other.submit(ledger._lock.release).result()

    between.act = look
    call()
    assert got == [True] * 10


def test_an_answer_is_not_over_before_all_of_it_is_given(between: BetweenPieces) -> None:
    """Label Studio is asked meanwhile, and another answer has brought what was given so far."""
    ledger = Ledger()
    over: list[int] = []
    ask = predicted(ledger, *range(1, 31))
    arrived: list[int] = []

    def learn() -> None:
        between.act = int
        arrived.extend(ticket.task_id or 0 for lease in ledger.leases() for ticket in lease.tickets)
        ledger.learn(arrived, set(arrived), 0.0)
        assert not over

    between.act = learn
    assert len([each for each in ledger.claim(ask, 1000, lambda: over.append(1)) if each]) == 30
    assert arrived == list(range(1, 11))
    assert not over
    (lease,) = ledger.leases()
    assert not lease.is_sending
    ledger.learn(range(11, 31), set(range(11, 31)), 0.0)
    assert over == [1]


def test_two_requests_that_claim_at_once_are_not_given_the_same(between: BetweenPieces) -> None:
    ledger = Ledger()
    first = predicted(ledger, *range(1, 31))
    second = ledger.ask(tickets(*range(30, 0, -1)), 1000)
    others: list[int] = []

    def claim() -> None:
        between.act = int
        others.extend(given(ledger, second))

    between.act = claim
    mine = given(ledger, first)
    assert mine == list(range(1, 11))
    assert others == list(range(30, 10, -1))
    assert ledger.counts["answered"] == 30


def test_what_arrives_while_its_lease_ends_is_not_ready_again(between: BetweenPieces) -> None:
    ledger = Ledger()
    ledger.claim(ask := predicted(ledger, *range(1, 31)), 1000)
    ledger.leave(ask)
    (lease,) = ledger.leases()
    lost = number("yolo_deliveries_total", way="answer", outcome="lost")

    def learn() -> None:
        between.act = int
        ledger.learn(range(21, 31), set(range(21, 31)), 0.0)

    between.act = learn
    assert ledger.end(lease) == 20
    assert number("yolo_deliveries_total", way="answer", outcome="lost") == lost + 20
    assert ledger.counts["answered"] == 10
    assert ledger.importable(1000).count == 20
    assert not ledger.leases()


def test_what_is_claimed_while_it_is_given_up_stays(between: BetweenPieces) -> None:
    ledger = Ledger()
    ask = predicted(ledger, *range(1, 31))

    def claim() -> None:
        between.act = int
        assert given(ledger, ask) == list(range(11, 31))

    between.act = claim
    assert ledger.give_up(TicketState.READY) == 10
    (lease,) = ledger.leases()
    assert len(lease.tickets) == 20


def test_a_lease_is_set_adrift_once_for_each_who_waits(ledger: Ledger) -> None:
    first, second = predicted(ledger, 1, 2, 3), ledger.ask(tickets(2, 3, 4), 1000)
    ledger.decide(second, by_import=True)
    assert given(ledger, first) == [1, 2, 3]
    (lease,) = ledger.leases()
    ledger.learn([3], {3}, 0.0)
    assert (first.open, second.open) == (2, 2)
    ledger.set_adrift(lease)
    assert (first.open, second.open) == (0, 1)
    ledger.set_adrift(lease)
    assert (first.open, second.open) == (0, 1)
    assert first.is_settled.is_set()
    assert not second.is_settled.is_set()


def test_nobody_waits_for_one_persons_answer_so_none_need_be_told_when_it_is_adrift(ledger: Ledger) -> None:
    ask = predicted(ledger, 1)
    assert ledger.claim_alone(tickets(1)[0], prediction())
    assert ask.open == 0
    (lease,) = ledger.leases()
    ledger.set_adrift(lease)
    assert ask.open == 0


# What it holds


def test_what_is_kept_is_counted_until_it_is_gone(clock: Clock) -> None:
    held = HeldBytes(1_000_000)
    ledger = Ledger(held, lambda task: {"id": task["id"]})
    tasks: list[Any] = [{**task(number), "more": "x" * 100_000} for number in (1, 2)]
    large = tickets_of(tasks)
    ask = ledger.ask(large, 1000)
    assert held.held_bytes == 0  # its request holds them
    assert ledger.leave(ask) == (2, 0)
    waiting_bytes = held.held_bytes
    assert 100 < waiting_bytes < 2000
    long: Any = {"result": [{"value": {"x": 1}}] * 300, "score": 0.5}
    for ticket in ask.new:
        assert ledger.begin(ticket)
        assert ledger.done(ticket, pack(long))
    assert held.held_bytes == 2 * len(pack(long))
    clock.now_s += 4
    ledger.compress()
    assert 0 < held.held_bytes < len(pack(long))
    lease = ledger.lend_for_import(10)
    assert held.held_bytes
    ledger.tell_imported(list(lease.tickets))
    assert held.held_bytes == 0


def test_tasks_that_there_is_no_room_for_are_left_to_the_next_click(clock: Clock) -> None:
    held = HeldBytes(3000)
    ledger = Ledger(held)
    ask = ledger.ask(tickets_of([task(number, "x" * 1000) for number in range(1, 6)]), 1000)
    left, without_room = ledger.leave(ask)
    assert left + without_room == 5
    assert left in {1, 2}
    assert held.held_bytes <= 3000
    assert ledger.give_up(TicketState.PENDING) == left
    assert held.held_bytes == 0


def test_a_failed_task_holds_nothing(clock: Clock) -> None:
    held = HeldBytes(10_000)
    ledger = Ledger(held)
    ask = ledger.ask(tickets(1, 2), 1000)
    ledger.leave(ask)
    for ticket in ask.new:
        ledger.begin(ticket)
        ledger.done(ticket, b"")
    assert held.held_bytes == 0
    assert ledger.is_empty


def test_an_import_is_over_when_it_has_ended_whatever_has_arrived_before(ledger: Ledger, clock: Clock) -> None:
    """Label Studio shows what it has stored, and is still counting; or the data changed meanwhile."""
    over: list[int] = []
    ledger.leave(predicted(ledger, 1, 2))
    lease = ledger.lend_for_import(10, lambda: over.append(1))
    ledger.send(lease)
    ledger.learn([1], {1}, 0.0)
    ledger.ask(tickets_of([task(2, "another.jpg")]), 10)
    assert not lease.tickets
    assert not over
    ledger.sent(lease)
    assert over == [1]
    assert not ledger.leases()


def test_an_import_without_an_answer_has_time_from_its_end(ledger: Ledger, clock: Clock) -> None:
    ledger.leave(predicted(ledger, 1))
    lease = ledger.lend_for_import(10)
    ledger.send(lease)
    clock.now_s += 300
    ledger.sent(lease)
    assert lease.ends_at == pytest.approx(clock.now_s + 60.05)


def test_a_task_that_is_rejected_while_a_worker_has_it_counts_once(ledger: Ledger) -> None:
    ask = ledger.ask(tickets(1), 10)
    (ticket,) = ask.new
    assert ledger.begin(ticket)
    assert ledger.claim_alone(tickets(1)[0], prediction())
    ledger.drop(ticket)
    assert not ledger.done(ticket, pack(prediction()))
    ledger.leave(ask)
    assert ledger.is_empty


def test_what_was_delivered_takes_no_memory(ledger: Ledger) -> None:
    ledger.leave(predicted(ledger, 1, 2))
    ledger.tell_imported(list(ledger.lend_for_import(10).tickets))
    ledger.clear_counts()
    assert not ledger._whole


def test_a_task_that_two_requests_share_is_counted_when_the_first_has_gone(clock: Clock) -> None:
    held = HeldBytes(10_000_000)
    ledger = Ledger(held)
    large: Any = {**task(1), "more": "x" * 1_000_000}
    first = ledger.ask(tickets_of([large]), 10)
    second = ledger.ask(tickets(1), 10)
    ledger.leave(first)
    assert held.held_bytes > 1_000_000
    ledger.leave(second)
    ledger.give_up(TicketState.PENDING)
    assert held.held_bytes == 0
