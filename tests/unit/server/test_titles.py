"""The titles of projects: known a little later, and nobody waits for them."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler

import pytest

from tests.harness.http_server import StartServer, reply
from yolo_backend.label_studio.studio import Studio
from yolo_backend.server.titles import ProjectTitle, ProjectTitles

TOKEN = "0123456789abcdef0123456789abcdef01234567"


def known(titles: ProjectTitles, project: str) -> ProjectTitle | None:
    ends_at = time.monotonic() + 10
    while time.monotonic() < ends_at:
        if found := titles.of([project]).get(project):
            return found
        time.sleep(0.01)
    return None


def test_a_title_comes_from_label_studio_and_is_asked_for_once(serve: StartServer) -> None:
    server = serve(reply(b'{"title": "Cells"}'))
    titles = ProjectTitles(lambda project: Studio(server.url, TOKEN, outside_url="https://studio.test/ls"))
    titles.of(["7.1700000000", None, "", "odd"])
    assert known(titles, "7") == ProjectTitle("Cells", "https://studio.test/ls/projects/7/data")
    assert [request.path for request in server.requests] == ["/api/projects/7/?include=title"]
    assert server.requests[0].headers["authorization"] == f"Token {TOKEN}"


def test_a_label_studio_that_hangs_or_refuses_holds_no_page_up(serve: StartServer) -> None:
    def hang(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(1)
        reply(b"{}", 404)(handler)

    server = serve(hang)
    titles = ProjectTitles(lambda project: Studio(server.url, TOKEN))
    began_at = time.monotonic()
    assert titles.of(["7"]) == titles.of(["7"]) == {}
    assert time.monotonic() < began_at + 0.9


def test_the_title_of_a_project_that_is_forgotten_meanwhile_is_not_kept(
    serve: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yolo_backend.server.titles._MAX_PROJECTS", 2)
    may_answer = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        assert may_answer.wait(10)
        reply(b'{"title": "Cells"}')(handler)

    server = serve(answer)
    titles = ProjectTitles(lambda project: Studio(server.url, TOKEN))
    titles.of(["1", "2", "3"])
    may_answer.set()
    assert known(titles, "3") is not None  # which was asked for last
    assert set(titles.of([])) == {"2", "3"}


def test_without_a_token_nobody_is_asked(serve: StartServer) -> None:
    server = serve(reply(b'{"title": "Cells"}'))
    titles = ProjectTitles(lambda project: Studio(server.url, None) if project == "7" else None)
    titles.of(["7", "8"])
    time.sleep(0.3)
    assert (titles.of(["7", "8"]), server.requests) == ({}, [])


def test_projects_of_two_label_studios_with_one_id_are_told_by_the_id(serve: StartServer) -> None:
    server = serve(reply(b'{"title": "Cells"}'))
    titles = ProjectTitles(lambda project: Studio(server.url, TOKEN))
    assert known(titles, "7") == ProjectTitle("Cells", f"{server.url}/projects/7/data")
    assert titles.of(["7.1700000000", "7.1800000000"]) == {}


def test_who_it_is_is_asked_with_all_that_label_studio_sent(serve: StartServer) -> None:
    """Without a configured token, its own is known by the project's id and time only."""
    server = serve(reply(b'{"title": "Cells"}'))
    titles = ProjectTitles(lambda project: Studio(server.url, TOKEN) if project == "7.1700000000" else None)
    titles.of(["7.1700000000", "7"])
    assert known(titles, "7") is not None
