"""Label Studio's address and token, against servers that answer as Label Studio does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tests.fakes.token_label_studio import LEGACY, PERSONAL, FakeLabelStudio, signed
from tests.harness.http_server import Answer, RecordingServer, StartServer, reply
from yolo_backend.label_studio import access as access_module
from yolo_backend.label_studio import endpoint as endpoint_module
from yolo_backend.label_studio import outside as outside_module
from yolo_backend.label_studio import studio as studio_module
from yolo_backend.label_studio.errors import (
    StudioError,
    StudioMissingError,
    StudioRefusedError,
    StudioRejectedError,
    StudioUnreachedError,
)
from yolo_backend.label_studio.studio import Studio
from yolo_backend.label_studio.studios import Studios
from yolo_backend.settings import load_settings

pytestmark = pytest.mark.usefixtures("clean_environment")

LEGACY_REFUSED = {"detail": "Authentication token no longer valid: legacy token authentication has been disabled"}


def paths(server: RecordingServer) -> list[str]:
    return [request.path for request in server.requests]


def test_a_legacy_token_goes_as_it_is() -> None:
    assert Studio("http://127.0.0.1:9", LEGACY).authorization() == f"Token {LEGACY}"
    assert Studio("http://127.0.0.1:9", LEGACY).authorization(renew=True) is None
    assert Studio("http://127.0.0.1:9", None).authorization() is None


@pytest.mark.parametrize("prefix", ["", "/label-studio"])
def test_a_personal_access_token_is_exchanged_once_while_it_lives(serve: StartServer, prefix: str) -> None:
    server = serve(FakeLabelStudio(prefix=prefix))
    studio = Studio(server.url + prefix + "/", PERSONAL)
    first, second, renewed = studio.authorization(), studio.authorization(), studio.authorization(renew=True)
    assert first == second != renewed
    assert first is not None
    assert first.startswith("Bearer ")
    assert PERSONAL not in first
    assert paths(server) == [f"{prefix}/api/token/refresh/"] * 2
    assert json.loads(server.requests[0].body) == {"refresh": PERSONAL}


def test_an_access_token_about_to_end_is_renewed(serve: StartServer) -> None:
    server = serve(FakeLabelStudio(access_lives_s=20))
    studio = Studio(server.url, PERSONAL)
    assert studio.authorization() != studio.authorization()


@pytest.mark.long
def test_threads_whose_access_token_ended_renew_it_once(serve: StartServer) -> None:
    label_studio = FakeLabelStudio()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.5)  # meanwhile, all have come
        label_studio(handler)

    server = serve(answer)
    studio = Studio(server.url, PERSONAL)
    ended = studio.authorization()
    with ThreadPoolExecutor(4) as threads:
        renewed = set(threads.map(lambda _: studio.authorization(renew=True), range(4)))
    assert len(renewed - {ended}) == len(renewed) == 1
    assert len(server.requests) == 2


@pytest.mark.parametrize("token", [LEGACY, PERSONAL])
def test_a_good_check_is_reused(serve: StartServer, token: str) -> None:
    server = serve(FakeLabelStudio())
    studio = Studio(server.url, token)
    studio.check()
    asked = len(server.requests)
    studio.check()
    assert len(server.requests) == asked
    assert paths(server)[-1] == "/api/current-user/whoami"


def test_a_check_renews_an_access_token_that_label_studio_forgot(serve: StartServer) -> None:
    label_studio = FakeLabelStudio()
    server = serve(label_studio)
    studio = Studio(server.url, PERSONAL)
    studio.authorization()
    label_studio.valid.clear()  # as after a restart with another key
    studio.check()
    assert paths(server).count("/api/token/refresh/") == 2


def test_a_refused_legacy_token_is_told_with_what_to_do(serve: StartServer) -> None:
    label_studio = FakeLabelStudio()
    label_studio.valid.clear()
    label_studio.refusal = LEGACY_REFUSED
    studio = Studio(serve(label_studio).url, LEGACY)
    for _ in range(2):  # the second time from what is kept
        with pytest.raises(StudioError) as raised:
            studio.check()
        assert str(raised.value) == (
            "Label Studio refuses the token: legacy tokens are disabled, use a Personal Access Token"
        )


@pytest.mark.parametrize("token", [LEGACY, PERSONAL])
@pytest.mark.parametrize("status", [401, 403])
def test_another_refusal_names_the_setting(serve: StartServer, token: str, status: int) -> None:
    studio = Studio(serve(reply(b'{"detail": "Invalid token."}', status)).url, token)
    with pytest.raises(StudioError, match=rf"refuses the token \({status}\): check LABEL_STUDIO_API_KEY"):
        studio.check()


@pytest.mark.parametrize("token", [LEGACY, PERSONAL])
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (reply(b"<html>", 404), r" isn't Label Studio's address \(404\): set LABEL_STUDIO_URL to "),
        (reply(b"<html>", 500), r" answers 500: see the logs of Label Studio and of a proxy before it$"),
        (reply(b"", 302, Location="/"), r" leads to another page there: set LABEL_STUDIO_URL to "),
        (reply(b"<html>"), r" answers with a web page, and not as Label Studio does: set LABEL_STUDIO_URL to "),
    ],
)
def test_something_else_at_the_address_is_told(
    serve: StartServer, token: str, answer: Callable[[BaseHTTPRequestHandler], None], told: str
) -> None:
    server = serve(answer)
    with pytest.raises(StudioError, match=f"^{server.url}{told}"):
        Studio(server.url, token).check()


def test_nobody_at_the_address_is_told() -> None:
    with pytest.raises(StudioError, match=r"doesn't answer at http://127\.0\.0\.1:9 \(connection refused\)"):
        Studio("http://127.0.0.1:9", LEGACY).check()


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(StudioError, match="unknown host name"):
        Studio("http://nowhere.invalid", LEGACY).check()


@pytest.mark.parametrize("token", ["a\nb", "a b", "tökén", ""])
def test_a_token_that_no_header_can_hold_is_not_taken(token: str) -> None:
    studios = Studios(load_settings())
    studios.introduce("1.1", "http://one", token)
    assert studios.of_project("1.1") is None


def test_its_text_holds_no_token() -> None:
    assert LEGACY not in repr(Studio("http://127.0.0.1:9", LEGACY))


# Which Label Studio a project's images come from


def test_a_configured_key_goes_to_the_configured_address_whatever_setup_says() -> None:
    studios = Studios(load_settings(label_studio_url="http://ours", label_studio_api_key=LEGACY))
    studios.introduce("1.1", "http://theirs", "their-token")
    studio = studios.of_project("1.1")
    assert studio is not None
    assert (studio.url, studio.authorization()) == ("http://ours", f"Token {LEGACY}")


def test_a_token_that_comes_with_setup_goes_to_the_configured_address() -> None:
    studios = Studios(load_settings(label_studio_url="http://ours"))
    studios.introduce("1.1", "http://theirs", LEGACY)
    studio = studios.of_project("1.1")
    assert studio is not None
    assert (studio.url, studio.authorization()) == ("http://ours", f"Token {LEGACY}")
    other = studios.of_project("2.2")
    assert other is not None
    assert (other.url, other.authorization()) == ("http://ours", None)


def test_without_settings_each_project_has_what_its_setup_brought() -> None:
    studios = Studios(load_settings())
    studios.introduce("1.1", "http://one", LEGACY)
    studios.introduce("2.2", "http://two", "another")
    studios.introduce("3.3", "", LEGACY)
    studios.introduce("4.4", "http://four", "")
    known = {project: studios.of_project(project) for project in ("1.1", "2.2", "3.3", "4.4", None)}
    assert {project: studio and (studio.url, studio.token) for project, studio in known.items()} == {
        "1.1": ("http://one", LEGACY),
        "2.2": ("http://two", "another"),
        "3.3": None,
        "4.4": None,
        None: None,
    }


def test_a_new_token_of_a_project_takes_the_place_of_the_old() -> None:
    studios = Studios(load_settings())
    studios.introduce("1.1", "http://one", "old")
    kept = studios.of_project("1.1")
    studios.introduce("1.1", "http://one", "old")
    assert studios.of_project("1.1") is kept
    studios.introduce("1.1", "http://one", "new")
    studio = studios.of_project("1.1")
    assert studio is not None
    assert studio.token == "new"


def test_introductions_are_bounded() -> None:
    studios = Studios(load_settings())
    for number in range(1100):
        studios.introduce(str(number), "http://one", f"token-{number}")
    assert studios.of_project("0") is None
    assert studios.of_project("1099") is not None


def test_only_a_configured_address_is_checked(serve: StartServer) -> None:
    server = serve(FakeLabelStudio())
    unconfigured = Studios(load_settings())
    unconfigured.introduce("1.1", server.url, LEGACY)
    unconfigured.check("1.1")
    assert server.requests == []
    configured = Studios(load_settings(label_studio_url=server.url))
    configured.introduce("1.1", "http://127.0.0.1:9", "wrong")
    with pytest.raises(StudioError, match="check LABEL_STUDIO_API_KEY, which is not set"):
        configured.check("1.1")


# Its address in a browser


def templates(host: str) -> Answer:
    """Label Studio with this LABEL_STUDIO_HOST, which it writes before the pictures of its templates."""
    body = {"templates": [{"title": "Blank"}, {"title": "Boxes", "image": f"{host}/static/templates/boxes.png"}]}

    def answer(handler: BaseHTTPRequestHandler) -> None:
        is_asked = handler.path == "/api/templates" and handler.headers["Authorization"] == f"Token {LEGACY}"
        reply(json.dumps(body if is_asked else {}).encode(), 200 if is_asked else 401)(handler)

    return answer


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("https://localhost:18443", "https://localhost:18443"),
        ("https://x.org/label-studio", "https://x.org/label-studio"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("", None),
        ("javascript:alert(1)//", None),
    ],
)
def test_label_studio_tells_its_address_outside(serve: StartServer, host: str, expected: str | None) -> None:
    server = serve(templates(host))
    studio = Studio(server.url, LEGACY)
    assert studio.known_outside_url is None
    assert [studio.outside_url() for _ in range(3)] == [expected] * 3
    assert studio.known_outside_url == expected
    assert len(server.requests) == 1


def test_threads_that_want_its_address_outside_ask_once(serve: StartServer) -> None:
    server = serve(templates("https://x.org"))
    studio = Studio(server.url, LEGACY)
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: studio.outside_url(), range(32))) == {"https://x.org"}
    assert len(server.requests) == 1


def test_what_it_does_not_tell_is_asked_again_a_minute_later(
    serve: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(reply(b"", 500))
    studio = Studio(server.url, LEGACY, introduced_as="https://introduced.example")
    assert [studio.outside_url() for _ in range(2)] == ["https://introduced.example"] * 2
    assert len(server.requests) == 1
    server.answer = templates("https://x.org")
    monkeypatch.setattr(outside_module, "_IS_FRESH_S", 0.0)
    assert studio.outside_url() == "https://x.org"


@pytest.mark.parametrize("body", [{}, {"templates": {}}, {"templates": 3}, {"templates": [{"image": "a.png"}, 3]}])
def test_what_tells_nothing_leaves_the_word_of_setup(serve: StartServer, body: Any) -> None:
    server = serve(reply(json.dumps(body).encode()))
    assert Studio(server.url, LEGACY, introduced_as="https://x.org").outside_url() == "https://x.org"


@pytest.mark.parametrize("host", ["", "https://x.org"])
def test_label_studios_own_word_is_above_that_of_setup(serve: StartServer, host: str) -> None:
    studio = Studio(serve(templates(host)).url, LEGACY, introduced_as="https://another.example")
    assert studio.outside_url() == (host or None)


@pytest.mark.parametrize("key", [LEGACY, ""])
def test_the_setting_is_above_all_and_nobody_is_asked(
    serve: StartServer, clean_environment: pytest.MonkeyPatch, key: str
) -> None:
    server = serve(templates("https://x.org"))
    clean_environment.setenv("LABEL_STUDIO_URL", server.url)
    clean_environment.setenv("LABEL_STUDIO_HOST", "https://set.example/")
    clean_environment.setenv("LABEL_STUDIO_API_KEY", key)
    studios = Studios(load_settings())
    studios.introduce("1.1", "https://another.example", LEGACY)
    studio = studios.of_project("1.1")
    assert studio is not None
    assert (studio.url, studio.outside_url()) == (server.url, "https://set.example")
    assert server.requests == []


def test_without_a_token_nobody_is_asked(serve: StartServer) -> None:
    server = serve(templates("https://x.org"))
    assert Studio(server.url, None).outside_url() is None
    assert server.requests == []


@pytest.mark.parametrize("key", [LEGACY, None])
def test_each_project_knows_label_studio_by_what_its_own_setup_said(serve: StartServer, key: str | None) -> None:
    server = serve(reply(b"", 404))
    studios = Studios(load_settings(label_studio_url=server.url, label_studio_api_key=key))
    studios.introduce("1.1", "https://one.example/ls/", LEGACY)
    studios.introduce("2.2", "https://two.example", LEGACY)
    studios.introduce("3.3", "http://localhost:8080", LEGACY)  # said by one that doesn't know
    studios.introduce("4.4", "no address", LEGACY)
    studios.introduce("5.5", "https://one.example/ls/", LEGACY)
    known = {project: studios.of_project(project) for project in ("1.1", "2.2", "3.3", "4.4", "5.5")}
    assert {
        project: studio and (studio.url, studio.token, studio.outside_url()) for project, studio in known.items()
    } == {
        "1.1": (server.url, LEGACY, "https://one.example/ls"),
        "2.2": (server.url, LEGACY, "https://two.example"),
        "3.3": (server.url, LEGACY, None),
        "4.4": (server.url, LEGACY, None),
        "5.5": (server.url, LEGACY, "https://one.example/ls"),
    }
    assert known["1.1"] is known["5.5"]  # with one access token
    assert known["3.3"] is known["4.4"]


# The calls for delivering

VERSION = "yolo26n-3f9a1c2e"
CALLS: dict[str, Callable[[Studio], Any]] = {
    "label_config": lambda studio: studio.label_config(7),
    "tasks_holding": lambda studio: studio.tasks_holding(7, VERSION, [1, 2]),
    "import_predictions": lambda studio: studio.import_predictions(7, [{"task": 1, "result": []}]),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


def reply_json(body: Any, status: int = 200) -> Callable[[BaseHTTPRequestHandler], None]:
    return reply(json.dumps(body).encode(), status)


@pytest.mark.parametrize("prefix", ["", "/label-studio"])
def test_the_labeling_config_is_asked_for(serve: StartServer, prefix: str) -> None:
    server = serve(reply_json({"label_config": "<View/>"}))
    assert Studio(server.url + prefix, LEGACY).label_config(7) == "<View/>"
    (request,) = server.requests
    assert (request.method, request.path) == ("GET", f"{prefix}/api/projects/7/?include=label_config")
    assert request.headers["authorization"] == f"Token {LEGACY}"


@pytest.mark.parametrize("prefix", ["", "/label-studio"])
def test_which_tasks_hold_a_version_is_asked_in_groups(serve: StartServer, prefix: str) -> None:
    asked: list[list[int]] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        address = urlsplit(handler.path)
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        selection = json.loads(query.pop("query"))
        ids = selection["selectedItems"].pop("included")
        assert address.path == f"{prefix}/api/tasks/"
        assert query == {"project": "7", "page_size": str(len(ids)), "include": "id", "resolve_uri": "false"}
        assert selection == {
            "filters": {
                "conjunction": "and",
                "items": [
                    {
                        "filter": "filter:tasks:predictions_model_versions",
                        "operator": "contains",
                        "type": "List",
                        "value": [VERSION],
                    }
                ],
            },
            "selectedItems": {"all": False},
        }
        asked.append(ids)
        reply_json({"tasks": [{"id": each} for each in ids if each % 3 == 0]})(handler)

    server = serve(answer)
    task_ids = list(range(2_000_000_000, 2_000_001_200))
    held = Studio(server.url + prefix, LEGACY).tasks_holding(7, VERSION, task_ids)
    assert held == {each for each in task_ids if each % 3 == 0}
    assert asked == [task_ids[:500], task_ids[500:1000], task_ids[1000:]]
    assert max(len(request.path) for request in server.requests) < 8000  # what proxies take


def test_of_no_tasks_nothing_is_asked(serve: StartServer) -> None:
    server = serve(reply(b"", 500))
    assert Studio(server.url, LEGACY).tasks_holding(7, VERSION, []) == set()
    assert server.requests == []


@pytest.mark.parametrize("prefix", ["", "/label-studio"])
def test_predictions_are_imported_in_one_call(serve: StartServer, prefix: str) -> None:
    server = serve(reply_json({"created": 2}, 201))
    predictions = [{"task": 1, "result": [], "score": 0.5}, {"task": 2, "result": [{"value": {"labels": ["Käfer"]}}]}]
    assert Studio(server.url + prefix, LEGACY).import_predictions(7, predictions) == 2
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", f"{prefix}/api/projects/7/import/predictions")
    assert json.loads(request.body) == predictions
    assert request.headers["content-type"] == "application/json"


class ForgetfulLabelStudio(FakeLabelStudio):
    """Knows whom it gave an access token, until it forgets them; `later` is what it tells those it knows."""

    later: tuple[int, Any] = (200, {"label_config": "", "tasks": [], "created": 0})

    def _answer(self, handler: BaseHTTPRequestHandler) -> tuple[int, Any]:
        status, body = super()._answer(handler)
        if status == 404:
            return self.later if handler.headers["Authorization"] in self.valid else (401, self.refusal)
        return status, body


@every_call
def test_an_access_token_that_ended_is_renewed_once(serve: StartServer, call: Callable[[Studio], Any]) -> None:
    label_studio = ForgetfulLabelStudio()
    server = serve(label_studio)
    studio = Studio(server.url, PERSONAL)
    call(studio)
    label_studio.valid.clear()
    call(studio)
    assert paths(server).count("/api/token/refresh/") == 2
    assert len(server.requests) == 5


@every_call
def test_an_access_token_that_is_never_accepted_is_renewed_once(
    serve: StartServer, call: Callable[[Studio], Any]
) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        is_exchange = handler.path == "/api/token/refresh/"
        reply_json({"access": signed("access", 300)} if is_exchange else {}, 200 if is_exchange else 401)(handler)

    server = serve(answer)
    with pytest.raises(StudioRefusedError):
        call(Studio(server.url, PERSONAL))
    assert len(server.requests) == 4


@every_call
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (reply_json({"detail": "Invalid token."}, 401), StudioRefusedError),
        (reply_json(LEGACY_REFUSED, 401), StudioRefusedError),
        (reply_json({"detail": "You do not have permission"}, 403), StudioRefusedError),
        (reply_json({"detail": "Not found."}, 404), StudioMissingError),
        (reply_json({"detail": "Validation error"}, 400), StudioRejectedError),
        (reply(b"<html>", 500), StudioError),
        (reply(b"", 502), StudioError),
        (reply(b"", 504), StudioError),
        (reply(b"", 301, Location="https://elsewhere/"), StudioError),
        (reply(b"", 302, Location="/user/login/?next=/api"), StudioError),
        (reply(b"<html>Back soon</html>"), StudioError),
        (reply_json([]), StudioError),
        (reply_json({}), StudioError),
        (reply(b"", 200, Content_Length="100"), StudioError),
    ],
    ids=["401", "legacy", "403", "404", "400", "500", "502", "504", "301", "302", "page", "list", "empty", "cut"],
)
def test_what_label_studio_answers_instead(
    serve: StartServer,
    call: Callable[[Studio], Any],
    answer: Callable[[BaseHTTPRequestHandler], None],
    error: type[StudioError],
) -> None:
    server = serve(answer)
    with pytest.raises(StudioError) as raised:
        call(Studio(server.url, LEGACY))
    assert type(raised.value) is error
    assert_tells_no_secret(str(raised.value))
    assert len(server.requests) == 1


def assert_tells_no_secret(message: str) -> None:
    assert LEGACY not in message
    assert PERSONAL not in message
    assert "?" not in message.removesuffix("?").replace("organization?", "").replace("address?", "")
    assert len(message) < 200


@every_call
@pytest.mark.parametrize("status", [401, 403])
def test_a_personal_access_token_that_cannot_be_exchanged_is_refused(
    serve: StartServer, call: Callable[[Studio], Any], status: int
) -> None:
    told = (
        rf"^Label Studio refuses the token \({status}\), because it was revoked: make one at Account & Settings > "
        "Personal Access Token, and set it as LABEL_STUDIO_API_KEY$"
    )
    with pytest.raises(StudioRefusedError, match=told):
        call(Studio(serve(reply_json({"detail": "Token is blacklisted"}, status)).url, PERSONAL))


def test_a_refusal_of_a_moment_ago_is_told_without_asking_again(
    serve: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(reply_json({"detail": "Token is blacklisted"}, 401))
    studio = Studio(server.url, PERSONAL)
    for fresh_s, asked in ((5.0, 1), (5.0, 1), (0.0, 2)):
        monkeypatch.setattr(access_module, "_FAILURE_IS_FRESH_S", fresh_s)
        with pytest.raises(StudioRefusedError, match="because it was revoked"):
            studio.authorization()
        assert len(server.requests) == asked


@every_call
def test_nobody_there_is_an_error(call: Callable[[Studio], Any]) -> None:
    with pytest.raises(StudioUnreachedError, match="connection refused") as raised:
        call(Studio("http://127.0.0.1:9", LEGACY))
    assert type(raised.value) is StudioUnreachedError


@every_call
def test_no_answer_in_time_is_a_timeout(
    serve: StartServer, monkeypatch: pytest.MonkeyPatch, call: Callable[[Studio], Any]
) -> None:
    monkeypatch.setattr(studio_module, "_IMPORT_TIMEOUT_S", 0.2)
    monkeypatch.setattr(studio_module, "_READ_TIMEOUT_S", 0.2)
    server = serve(lambda handler: time.sleep(0.5))
    with pytest.raises(requests.Timeout):
        call(Studio(server.url, LEGACY))


# Answers that don't end


def test_an_answer_without_end_is_not_kept(serve: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "_MAX_ANSWER_BYTES", 100_000)

    def flood(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(10_000):
            handler.wfile.write(b" " * 10_000)

    with pytest.raises(StudioError, match="answers more than 0 MB at /api/projects/7/") as raised:
        Studio(serve(flood).url, LEGACY).label_config(7)
    assert raised.value.trouble is not None
    assert raised.value.trouble.lasts  # to ask again brings the same
