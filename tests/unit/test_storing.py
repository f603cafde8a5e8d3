"""Predictions reach Label Studio once; it is asked first, and one that spoils all stands alone in the end."""

from __future__ import annotations

import json
from collections import Counter
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tests.harness.http_server import StartServer, reply
from yolo_backend.storing import Stored, UnknownOutcomeError, explain, store_predictions
from yolo_backend.studio import Studio, StudioError, StudioRefusedError

PROJECT, VERSION = 7, "yolo26n-3f9a1c2e"
LEGACY = "0123456789abcdef0123456789abcdef01234567"


class LabelStudio:
    """Holds predictions by their tasks' ids. An import with a deleted task is refused, or taken but for that task."""

    def __init__(self, serve: StartServer, *, held: set[int], deleted: set[int], drops_deleted: bool) -> None:
        self.held = Counter(held)
        self.deleted = deleted
        self.drops_deleted = drops_deleted
        self.import_status: int | None = None
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
    with pytest.raises(UnknownOutcomeError, match=str(status)):
        next(parts)


def test_a_refused_token_is_told_as_that(serve: StartServer) -> None:
    label_studio = LabelStudio(serve, held=set(), deleted=set(), drops_deleted=False)
    label_studio.import_status = 403
    with pytest.raises(StudioRefusedError):
        list(store_predictions(label_studio.studio, PROJECT, predictions(1)))


def test_a_time_out_is_told_without_the_address() -> None:
    assert explain(requests.Timeout("http://host/api?token=secret")) == "Label Studio doesn't answer in time"
    assert explain(StudioError("what is wrong")) == "what is wrong"
