"""Predictions reach Label Studio once; it is asked first, and one that spoils all stands alone in the end."""

from __future__ import annotations

import json
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tests.harness.http_server import StartServer, reply
from yolo_backend.label_studio import studio as studio_module
from yolo_backend.label_studio.errors import StudioError, StudioRefusedError, StudioUnreachedError, explain
from yolo_backend.label_studio.storing import (
    Stored,
    UnknownImport,
    UnknownOutcomeError,
    store_predictions,
    surely_stored_after_s,
)
from yolo_backend.label_studio.studio import Studio

PROJECT, VERSION = 7, "yolo26n-3f9a1c2e"
LEGACY = "0123456789abcdef0123456789abcdef01234567"
NOBODY = "http://127.0.0.1:1"


class LabelStudio:
    """Holds predictions by their tasks' ids. An import with a deleted task is refused, or taken but for that task."""

    def __init__(self, serve: StartServer, *, held: set[int], deleted: set[int], drops_deleted: bool) -> None:
        self.held = Counter(held)
        self.deleted = deleted
        self.drops_deleted = drops_deleted
        self.import_status: int | None = None
        self.stores_in_part = False
        self.imports: list[list[int]] = []
        self.server = serve(self.answer)
        self.studio = Studio(self.server.url, LEGACY)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        address = urlsplit(handler.path)
        if address.path == "/api/tasks/":
            included = json.loads(parse_qs(address.query)["query"][0])["selectedItems"]["included"]
            found = [{"id": task_id} for task_id in included if self.held[task_id]]
            reply(json.dumps({"tasks": found}).encode())(handler)
            return
        task_ids = [prediction["task"] for prediction in json.loads(self.server.requests[-1].body)]
        self.imports.append(task_ids)
        taken = [task_id for task_id in task_ids if task_id not in self.deleted]
        if self.stores_in_part:  # and answers as if it had stored none
            self.held.update(taken)
        if self.import_status or (len(taken) < len(task_ids) and not self.drops_deleted):
            reply(b"{}", self.import_status or 400)(handler)
            return
        self.held.update(taken)
        reply(json.dumps({"created": len(taken)}).encode(), 201)(handler)


def predictions(*task_ids: int) -> list[dict[str, Any]]:
    return [{"task": task_id, "result": [], "model_version": VERSION} for task_id in task_ids]


def total(parts: list[Stored]) -> Stored:
    """What became of all of them; no task that is missing is told of twice."""
    created = [task_id for part in parts for task_id in part.created]
    rejected = [task_id for part in parts for task_id in part.rejected]
    assert len(created) + len(rejected) == len({*created, *rejected})
    return Stored(parts[0].held, frozenset(created), frozenset(rejected))


@pytest.mark.parametrize("drops_deleted", [False, True])
@pytest.mark.parametrize(
    ("held", "deleted", "expected"),
    [
        (set(), set(), Stored(created=frozenset({1, 2, 3, 4, 5}))),
        ({1, 2, 3, 4, 5}, set(), Stored(held=frozenset({1, 2, 3, 4, 5}))),
        ({2, 4}, set(), Stored(held=frozenset({2, 4}), created=frozenset({1, 3, 5}))),
        (set(), {3}, Stored(created=frozenset({1, 2, 4, 5}), rejected=frozenset({3}))),
        (set(), {1, 5}, Stored(created=frozenset({2, 3, 4}), rejected=frozenset({1, 5}))),
        ({2}, {1, 3, 4, 5}, Stored(held=frozenset({2}), rejected=frozenset({1, 3, 4, 5}))),
    ],
)
def test_each_is_held_created_or_rejected(
    held: set[int], deleted: set[int], expected: Stored, drops_deleted: bool, serve: StartServer
) -> None:
    label_studio = LabelStudio(serve, held=held, deleted=deleted, drops_deleted=drops_deleted)

    parts = list(store_predictions(label_studio.studio, PROJECT, predictions(1, 2, 3, 4, 5)))

    assert total(parts) == expected
    assert label_studio.held == Counter(expected.held | expected.created)
    assert len(label_studio.imports) == (0 if len(held) == 5 else 1) or not drops_deleted


def test_no_import_is_larger_than_it_may_be(serve: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolo_backend.label_studio.storing.MAX_IMPORT_BYTES", 1000)
    label_studio = LabelStudio(serve, held={4}, deleted={3}, drops_deleted=False)
    large = [{**each, "result": ["x" * 600 if each["task"] == 7 else "x" * 200]} for each in predictions(*range(1, 9))]

    parts = list(store_predictions(label_studio.studio, PROJECT, large))

    assert total(parts) == Stored(frozenset({4}), frozenset({1, 2, 5, 6, 7, 8}), frozenset({3}))
    sent = [request.body for request in label_studio.server.requests if request.body]
    assert len(sent) > 3
    assert max(map(len, sent)) < 1100


def test_nothing_to_store_asks_nobody(serve: StartServer) -> None:
    label_studio = LabelStudio(serve, held=set(), deleted=set(), drops_deleted=False)
    assert list(store_predictions(label_studio.studio, PROJECT, [])) == []
    assert label_studio.server.requests == []


def test_each_part_is_asked_for_before_it_is_sent(serve: StartServer) -> None:
    label_studio = LabelStudio(serve, held=set(), deleted={1}, drops_deleted=False)
    answers = iter([True, False, True])
    parts = list(store_predictions(label_studio.studio, PROJECT, predictions(1, 2), lambda: next(answers)))
    assert label_studio.imports == [[1, 2], [2]]
    assert total(parts) == Stored(created=frozenset({2}))


@pytest.mark.parametrize("status", [500, 502])
def test_an_import_without_an_answer_is_of_unknown_outcome(status: int, serve: StartServer) -> None:
    label_studio = LabelStudio(serve, held={1}, deleted=set(), drops_deleted=False)
    label_studio.import_status = status
    parts = store_predictions(label_studio.studio, PROJECT, predictions(1, 2))
    assert next(parts) == Stored(held=frozenset({1}))
    with pytest.raises(UnknownOutcomeError, match=str(status)) as raised:
        next(parts)
    assert raised.value.task_ids == {2}


def test_an_import_that_no_connection_came_about_for_was_surely_not_stored(serve: StartServer) -> None:
    label_studio = LabelStudio(serve, held={1}, deleted=set(), drops_deleted=False)

    def ends() -> bool:
        label_studio.studio.endpoint.url = NOBODY
        return True

    parts = store_predictions(label_studio.studio, PROJECT, predictions(1, 2), ends)
    assert next(parts) == Stored(held=frozenset({1}))
    with pytest.raises(StudioUnreachedError, match="connection refused"):
        next(parts)


def test_that_nobody_is_there_after_an_import_leaves_its_outcome_unknown(serve: StartServer) -> None:
    label_studio = LabelStudio(serve, held=set(), deleted={2}, drops_deleted=False)

    def ending(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "POST":
            label_studio.studio.endpoint.url = NOBODY
        label_studio.answer(handler)

    label_studio.server.answer = ending
    with pytest.raises(UnknownOutcomeError, match="connection refused") as raised:
        list(store_predictions(label_studio.studio, PROJECT, predictions(1, 2)))
    assert raised.value.task_ids == {1, 2}


@pytest.mark.parametrize("deleted", [{1}, {3}, {5}, {1, 2, 3, 4}, {2, 5}, {1, 2, 3, 4, 5}])
def test_what_was_stored_in_part_before_a_400_is_not_sent_again(deleted: set[int], serve: StartServer) -> None:
    label_studio = LabelStudio(serve, held=set(), deleted=deleted, drops_deleted=False)
    label_studio.stores_in_part = True

    parts = list(store_predictions(label_studio.studio, PROJECT, predictions(1, 2, 3, 4, 5)))

    stored = frozenset({1, 2, 3, 4, 5} - deleted)
    assert total(parts) == Stored(created=stored, rejected=frozenset(deleted))
    assert label_studio.held == Counter(stored)
    assert not any(stored.intersection(task_ids) for task_ids in label_studio.imports[1:])


@pytest.mark.parametrize("status", [400, 413])
def test_one_that_is_stored_in_spite_of_a_400_is_not_told_as_rejected(status: int, serve: StartServer) -> None:
    label_studio = LabelStudio(serve, held=set(), deleted=set(), drops_deleted=False)
    label_studio.stores_in_part, label_studio.import_status = True, status
    parts = list(store_predictions(label_studio.studio, PROJECT, predictions(1)))
    assert total(parts) == Stored(created=frozenset({1}))
    assert label_studio.imports == [[1]]


def test_label_studio_that_is_gone_after_a_400_leaves_the_outcome_unknown(serve: StartServer) -> None:
    label_studio = LabelStudio(serve, held=set(), deleted={2}, drops_deleted=False)

    def leaving(handler: BaseHTTPRequestHandler) -> None:
        (reply(b"", 502) if label_studio.imports else label_studio.answer)(handler)

    label_studio.server.answer = leaving
    with pytest.raises(UnknownOutcomeError, match="502") as raised:
        list(store_predictions(label_studio.studio, PROJECT, predictions(1, 2)))
    assert raised.value.task_ids == {1, 2}


def test_of_a_half_without_an_answer_the_rest_is_known(serve: StartServer) -> None:
    label_studio = LabelStudio(serve, held={1}, deleted={3}, drops_deleted=False)

    def failing(handler: BaseHTTPRequestHandler) -> None:
        label_studio.import_status = 500 if len(label_studio.imports) == 1 else None
        label_studio.answer(handler)

    label_studio.server.answer = failing
    with pytest.raises(UnknownOutcomeError) as raised:
        list(store_predictions(label_studio.studio, PROJECT, predictions(1, 2, 3, 4, 5)))
    assert label_studio.imports == [[2, 3, 4, 5], [2, 3]]
    assert raised.value.task_ids == {2, 3}


def test_an_import_that_takes_too_long_is_of_unknown_outcome(
    serve: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studio_module, "_IMPORT_TIMEOUT_S", 0.1)
    label_studio = LabelStudio(serve, held=set(), deleted=set(), drops_deleted=False)

    def slow(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "POST":
            time.sleep(0.3)
        label_studio.answer(handler)

    label_studio.server.answer = slow
    with pytest.raises(UnknownOutcomeError, match="doesn't answer in time") as raised:
        list(store_predictions(label_studio.studio, PROJECT, predictions(1)))
    assert raised.value.task_ids == {1}


# An import of unknown outcome

ENDED_AT = 1000.0
NONE = frozenset[int]()


def test_label_studio_has_a_minute_and_more_for_many() -> None:
    assert [surely_stored_after_s(count) for count in (0, 1, 200, 1000)] == [60, 60.05, 70, 110]
    unknown = UnknownImport(range(200), ENDED_AT)
    assert unknown.left_s(ENDED_AT) == 70
    assert unknown.left_s(ENDED_AT + 100) == 0


def test_it_is_asked_soon_then_more_seldom_and_at_the_end() -> None:
    unknown, now, waited = UnknownImport({1}, ENDED_AT), ENDED_AT, []
    while unknown.task_ids:
        waited.append(round(unknown.pause_s(now), 6))
        now += unknown.pause_s(now)
        unknown.settle((), now)
    assert waited == [1, 2, 4, 8, 15, 15, 15, 0.05]


def test_what_is_held_is_settled_at_once_and_the_rest_when_time_is_over() -> None:
    unknown = UnknownImport({1, 2, 3}, ENDED_AT)
    assert unknown.settle({1, 99}, ENDED_AT + 1) == (frozenset({1}), NONE)
    assert unknown.task_ids == {2, 3}
    assert unknown.settle((), ENDED_AT + 60.14) == (NONE, NONE)
    assert unknown.settle({2}, ENDED_AT + 60.15) == (frozenset({2}), frozenset({3}))
    assert unknown.task_ids == set()


def test_a_question_asked_before_the_end_settles_nothing_that_is_not_held() -> None:
    unknown = UnknownImport({1}, ENDED_AT)
    assert unknown.settle((), asked_at=ENDED_AT + 60) == (NONE, NONE)  # however late the answer comes
    assert unknown.task_ids == {1}
    assert unknown.pause_s(ENDED_AT + 90) == 0


def test_whoever_asks_late_asks_once() -> None:
    unknown = UnknownImport({1, 2}, ENDED_AT)
    assert unknown.pause_s(ENDED_AT + 500) == 0
    assert unknown.settle({2}, ENDED_AT + 500) == (frozenset({2}), frozenset({1}))


def test_a_refused_token_is_told_as_that(serve: StartServer) -> None:
    label_studio = LabelStudio(serve, held=set(), deleted=set(), drops_deleted=False)
    label_studio.import_status = 403
    with pytest.raises(StudioRefusedError):
        list(store_predictions(label_studio.studio, PROJECT, predictions(1)))


def test_a_time_out_is_told_without_the_address() -> None:
    assert explain(requests.Timeout("http://host/api?token=secret")) == "Label Studio doesn't answer in time"
    assert explain(StudioError("what is wrong")) == "what is wrong"


def test_a_refusal_after_something_was_sent_is_an_unknown_outcome(serve: StartServer) -> None:
    """Of two Label Studio has taken one, and then the token ends: which one, nobody knows."""
    label_studio = LabelStudio(serve, held=set(), deleted={2}, drops_deleted=True)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if label_studio.imports:
            reply(b'{"detail": "no"}', 401)(handler)
        else:
            label_studio.answer(handler)

    label_studio.server.answer = answer
    with pytest.raises(UnknownOutcomeError) as raised:
        list(store_predictions(label_studio.studio, PROJECT, predictions(1, 2)))
    assert raised.value.task_ids == {1, 2}
    assert label_studio.imports == [[1, 2]]
