"""By what a project is known: without asking, or where only its id is told, by asking Label Studio once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.harness.http_server import Answer, StartServer, reply
from yolo_backend.detection.pool import WeightsLoadingError
from yolo_backend.label_studio.errors import StudioError
from yolo_backend.label_studio.studios import Studios
from yolo_backend.protocol import project_key
from yolo_backend.serving.project_keys import ProjectKeys
from yolo_backend.settings import load_settings

TOKEN = "0" * 40
SENT = "7.1700000000"
SAYS_WHEN = reply(json.dumps({"created_at": "2023-11-14T22:13:20.987654Z"}).encode())

pytestmark = pytest.mark.usefixtures("clean_environment")


def keys_of(url: str | None, model_dir: Path) -> ProjectKeys:
    settings = load_settings(label_studio_url=url, label_studio_api_key=TOKEN if url else None)
    return ProjectKeys(Studios(settings), model_dir)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    (tmp_path / "trained" / "7-00c0ffee").mkdir(parents=True)
    return tmp_path


def test_what_label_studio_sends_says_it_all(serve: StartServer, tmp_path: Path) -> None:
    server = serve(reply(b"", 500))
    keys = keys_of(server.url, tmp_path)
    assert keys.known(SENT) == keys.of(SENT) == project_key(server.url, SENT)
    assert server.requests == []


def test_where_only_the_id_is_told_label_studio_is_asked_once(serve: StartServer, trained: Path) -> None:
    server = serve(SAYS_WHEN)
    keys = keys_of(server.url, trained)
    for _ in range(3):
        assert keys.known("7") == project_key(server.url, SENT)
    assert [request.path for request in server.requests] == ["/api/projects/7/?include=created_at"]


def test_it_is_not_asked_where_nothing_was_trained_for_the_id(serve: StartServer, trained: Path) -> None:
    server = serve(SAYS_WHEN)
    keys = keys_of(server.url, trained)
    for project in ("70", "00", "8", "", None, "\N{SUPERSCRIPT TWO}"):
        assert keys.known(project) is None
    assert server.requests == []
    assert keys.of("8") == project_key(server.url, "8.1700000000"), "but for who is to have weights"


@pytest.mark.parametrize("answer", [reply(b'{"detail": "Not found."}', 404), reply(b'{"detail": "no"}', 403)])
def test_a_project_that_the_token_does_not_see_has_none(serve: StartServer, trained: Path, answer: Answer) -> None:
    server = serve(answer)
    keys = keys_of(server.url, trained)
    assert keys.known("7") is keys.known("7") is None
    assert len(server.requests) == 1


def test_while_label_studio_is_away_it_is_not_guessed(serve: StartServer, trained: Path) -> None:
    server = serve(reply(b"Bad Gateway", 502))
    keys = keys_of(server.url, trained)
    with pytest.raises(WeightsLoadingError, match="Label Studio doesn't say which project 7 is"):
        keys.known("7")
    with pytest.raises(StudioError):
        keys.of("7")
    server.answer = SAYS_WHEN
    assert keys.known("7") == project_key(server.url, SENT)


def test_without_a_label_studio_nothing_is_known(trained: Path) -> None:
    keys = keys_of(None, trained)
    assert keys.known(SENT) is keys.known("7") is keys.of(SENT) is keys.of("7") is None
