"""The status page: what people read of it, what programs read of it, and what strangers can't do to it."""

from __future__ import annotations

import ast
import copy
import hashlib
import json
import pickle
import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import yolo_backend
from yolo_backend.detection.detections import Runtime, WeightsInfo
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.failures import Failure
from yolo_backend.fit_hook import START_TRAINING
from yolo_backend.labels.control import Label
from yolo_backend.labels.controls.rectangles import RectangleControl
from yolo_backend.labels.label_map import LabelMap, map_labels
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.plans import ProjectPlan, ServedControl, ServedLabel
from yolo_backend.messages import Trouble
from yolo_backend.protocol import from_json, to_json
from yolo_backend.server.fitting import Training
from yolo_backend.server.status import (
    PAGE_HEADERS,
    FailureGroup,
    ModelState,
    ModelStatus,
    ProjectStatus,
    Status,
    TrainingStatus,
    as_json,
    group_failures,
    render_page,
    wants_page,
)
from yolo_backend.server.titles import ProjectTitle
from yolo_backend.serving.command_work import CommandWork
from yolo_backend.serving.progress import Progress
from yolo_backend.serving.remarks import Remark

NOON = datetime.fromisoformat("2026-11-22T12:00:00+00:00").timestamp()
CLASSES = {0: "person", 1: "car", 2: "truck", 3: "traffic light", 4: "zebra"}
WEIGHTS = WeightsInfo("yolo26n.pt", "detect", CLASSES, "fingerprint", (480, 640))
RUNTIMES = {"fingerprint": Runtime("cuda:0", "torch")}
STREET = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image" model_score_threshold="0.3">
<Label value="Vehicle" predicted_values="truck, car"/><Label value="Person"/><Label value="Scooter"/>
<Label value="Traffic light" model_score_threshold="0.15"/></RectangleLabels></View>"""
UP = ModelStatus("yolo26n.pt", "UP", WEIGHTS)
WORK = Progress("7", "yolo26n-3f9a1c2e", 200, 90, 10, 97, 3, 60, 20, 17, 12.34, 7.3, None)
CELLS = ProjectTitle("Cells", "https://studio.test/projects/7/data")
PRELABEL = CommandWork("prelabel", "7", NOON - 120, NOON, 154, 294)
HOSTILE = [
    '<script>alert("x")</script>',
    "\"' onmouseover='alert(1)",
    "</style></title><h1>",
    "{{ 7 * 7 }}{% raw %}",
    "x" * 100_000,
    "\u202eright to left\u202d",
    "\x00\x1b[31m\x7f\x85\n",
    "\ud800",
]


def plan(label_config: str = STREET, weights: WeightsInfo = WEIGHTS) -> ProjectPlan:
    controls = tuple(
        ServedControl(control, weights, weights.name, map_labels(control, weights.class_names, 0.25), 0.25)
        for control in parse_labeling_config(label_config).controls
    )
    return ProjectPlan(controls, "yolo26n-3f9a1c2e")


def status(**parts: Any) -> Status:
    return replace(Status("YoloBackend", "0.2.0", UP, started_at=NOON, runtimes=RUNTIMES, at=NOON), **parts)


class Page(HTMLParser):
    """A page as its elements and their text; fails where a tag isn't closed in its turn."""

    VOID = ("meta", "link")
    INLINE = ("bdi", "span", "time", "strong", "code", "a")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag not in self.INLINE:
            self.text += " "

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data

    def attributes(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", True),
        ("text/html", True),
        ("*/*", False),
        (None, False),
        ("", False),
        ("application/json", False),
        ("application/json, text/plain, */*", False),
        ("application/json, text/html;q=0.9", False),
        ("text/html;q=0, */*", False),
        ("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.1", False),
        ("\x00,;;q=,/", False),
    ],
)
def test_browsers_get_the_page_and_programs_get_json(accept: str | None, page: bool) -> None:
    assert wants_page(accept) is page


def test_the_page_says_what_is_served() -> None:
    text = Page(render_page(status(started_at=NOON - 90_000))).text

    assert "YOLO backend Ready Version 0.2.0, started 25 h ago" in text
    assert (
        "Weights yolo26n.pt Device cuda:0 Engine torch Task detect Image size 640 × 480 5 classes person, car," in text
    )


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        (ModelStatus("mine.pt", "LOADING"), "Loading"),
        (ModelStatus("mine.pt", "DOWN", reason="There is no mine.pt in models"), "There is no mine.pt in models"),
        (ModelStatus("mine.pt", "STOPPING", WEIGHTS), "The next Retrieve Predictions asks for the rest"),
    ],
)
def test_the_page_says_what_is_the_matter_with_the_model(model: ModelStatus, shown: str) -> None:
    text = Page(render_page(status(model=model))).text

    assert shown in text
    assert "Weights mine.pt" in text
    assert "Ready" not in text


def test_a_project_is_shown_with_labels_classes_thresholds_and_names_without_a_partner() -> None:
    text = Page(render_page(status(projects=[ProjectStatus("7", plan(), NOON - 200)]))).text

    assert "Project 7 yolo26n-3f9a1c2e seen 3 min ago" in text
    assert "Vehicle car, truck 0.3 Person person 0.3 Traffic light traffic light 0.15" in text
    assert "Never predicted, for no class of yolo26n.pt has the name: Scooter." in text
    assert "Classes without a label, left out: zebra" in text


def test_controls_with_weights_of_their_own_say_so() -> None:
    other = replace(WEIGHTS, name="mine.onnx", fingerprint="other")

    told = status(projects=[ProjectStatus("7", plan(weights=other), NOON)], runtimes={"other": Runtime("cpu", "onnx")})
    text = Page(render_page(told)).text

    assert "label on image: mine.onnx, cpu, onnx" in text


def test_labels_come_in_the_order_of_the_labeling_config() -> None:
    assert plan().controls[0].served_labels == [
        ServedLabel("Vehicle", ("car", "truck"), 0.3),
        ServedLabel("Person", ("person",), 0.3),
        ServedLabel("Traffic light", ("traffic light",), 0.15),
    ]


@pytest.mark.parametrize(
    ("work", "shown"),
    [
        (WORK, "100 of 200 tasks · 10 in work, 90 waiting · 12.3 a second · about 7 s left 97 predicted, 3 failed · "
         "80 stored in Label Studio, 17 waiting to be stored"),
        (replace(WORK, rate_per_s=0.05, left_s=1800.0), "90 waiting · 3.0 a minute · about 30 min left"),
        (replace(WORK, rate_per_s=0.0, left_s=None), "10 in work, 90 waiting 97 predicted"),
        (replace(WORK, waiting=0, running=0), "100 of 200 tasks · ended early"),
        (replace(WORK, asked=100, waiting=0, running=0), "100% 100 of 100 tasks · finished 97"),
        (replace(WORK, asked=100, waiting=0, running=0, finished_at=NOON - 120), "· finished 2 min ago"),
        (replace(WORK, asked=0, waiting=0, running=0, predicted=0, failed=0), "0 of 0 tasks · finished 0 predicted"),
        (replace(WORK, answered=0, pushed=0), "97 predicted, 3 failed · 17 waiting to be stored"),
        (replace(WORK, project=""), "Unknown project yolo26n-3f9a1c2e"),
        (replace(WORK, last_error="Label Studio refuses the token (401)"), "refuses the token"),
    ],
)  # fmt: skip
def test_work_is_shown_with_progress_and_rate(work: Progress, shown: str) -> None:
    page = Page(render_page(status(work=[work])))

    assert shown in page.text
    (bar,) = page.attributes("progress")
    assert 0 <= int(bar["value"]) <= int(bar["max"])
    assert int(bar["max"]) > 0
    assert bar["aria-label"]


def test_failures_are_grouped_and_say_what_to_do() -> None:
    failures = [
        Failure("7", 12, FailureKind.BROKEN, "the image is broken", "http://host/12.jpg", NOON - 30),
        Failure("9", 3, FailureKind.NOT_FOUND, "the server has no such image (404)", None, NOON - 60),
        Failure("8", 11, FailureKind.BROKEN, "the image is broken", "http://host/11.jpg", NOON - 90),
        Failure("8", None, FailureKind.BROKEN, "the image is broken", None, NOON - 90),
    ]

    groups = group_failures(failures)
    text = Page(render_page(status(failures=failures))).text

    assert groups == [
        FailureGroup(
            FailureKind.BROKEN,
            "the image is broken",
            FailureKind.BROKEN.advice,
            3,
            ("7", "8"),
            (12, 11),
            "http://host/12.jpg",
            NOON - 30,
        ),
        FailureGroup(
            FailureKind.NOT_FOUND,
            "the server has no such image (404)",
            FailureKind.NOT_FOUND.advice,
            1,
            ("9",),
            (3,),
            None,
            NOON - 60,
        ),
    ]
    assert (
        f"The image is broken {FailureKind.BROKEN.advice} 3 tasks (12, 11, …) · project 7, 8 · 30 s ago · broken"
        in text
    )
    assert f"{FailureKind.NOT_FOUND.advice} 1 task (3) · project 9 · 1 min ago" in text


def test_what_was_predicted_in_part_is_told() -> None:
    remark = Remark("7", 12, "the prediction would have 9.1 MB", NOON)
    told = status(remarks=[remark])
    text = Page(render_page(told)).text
    assert "Predicted in part The prediction would have 9.1 MB. task 12 · project 7" in text
    assert as_json(told)["remarks"] == [
        {"project": "7", "task_id": 12, "text": remark.text, "at": "2026-11-22T12:00:00+00:00"}
    ]
    assert "Predicted in part" not in Page(render_page(status())).text


def test_each_kind_of_failure_has_advice_and_is_told_somewhere() -> None:
    assert all(kind.advice.endswith(".") for kind in FailureKind)
    assert set(FailureKind) == set(kinds_in_the_sources())


def kinds_in_the_sources() -> Iterator[FailureKind]:
    """Each `FailureKind.NAME` outside of the file that has them all."""
    for path in Path(yolo_backend.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Attribute(value=ast.Name(id="FailureKind"), attr=name):
                    yield FailureKind[name]


def test_a_kind_is_its_name_wherever_it_is_written() -> None:
    kind = FailureKind.NOT_FOUND

    assert (str(kind), f"{kind}", f"{kind:>10}") == ("not_found", "not_found", " not_found")
    assert FailureKind("not_found") is kind
    assert json.loads(json.dumps({kind: kind})) == from_json(to_json({kind: kind})) == {"not_found": "not_found"}
    assert pickle.loads(pickle.dumps(kind)) is copy.deepcopy(kind) is kind


@pytest.mark.parametrize(
    ("training", "shown"),
    [
        (
            Training("7", START_TRAINING, NOON - 180, "waiting"),
            "Start Training of Project 7, asked 3 min ago, waits for",
        ),
        (Training("7", START_TRAINING, NOON - 5, "running"), "Start Training of Project 7, asked 5 s ago, is running."),
        (
            Training("7", START_TRAINING, NOON - 3600, "done", None, NOON - 3480),
            "Start Training of Project 7, asked 1 h ago, ended well after 2 min.",
        ),
        (
            Training("7", START_TRAINING, NOON - 60, "failed", "ValueError: no labels", NOON - 58),
            "asked 1 min ago, failed after 2 s: ValueError: no labels. The backend's log has more.",
        ),
        (
            Training("7", START_TRAINING, NOON, "ignored", "why", NOON),
            "Start Training of Project 7, asked 0 s ago, did nothing.",
        ),
        (
            Training("7", "ANNOTATION_CREATED", NOON, "dropped", "fit is 100 events behind", NOON),
            "ANNOTATION_CREATED of Project 7, asked 0 s ago, was dropped: fit is 100 events behind.",
        ),
        (Training("", START_TRAINING, NOON, "running"), "Start Training of Unknown project, asked"),
    ],
)
def test_what_became_of_a_training_is_shown(training: Training, shown: str) -> None:
    told = status(training=TrainingStatus([training], trains=True))
    assert shown in Page(render_page(told)).text
    [read] = as_json(told)["training"]["told"]
    assert (read["state"], read["reason"], read["project"]) == (training.state, training.reason, training.project)
    assert datetime.fromisoformat(read["asked_at"]).timestamp() == training.asked_at
    assert (read["ended_at"] is None) == (training.ended_at is None)


@pytest.mark.parametrize(("trains", "is_told"), [(False, True), (True, False), (None, False)])
def test_that_a_class_does_not_train_stands_there(trains: bool | None, is_told: bool) -> None:
    told = status(training=TrainingStatus((), trains))
    fact = "Start Training: the class YoloBackend doesn't train; set TRAINING=on or override fit, see docs/training.md"
    assert (f"{fact}." in Page(render_page(told)).text) is is_told
    assert as_json(told)["training"] == {"trains": trains, "remark": fact if is_told else None, "told": []}


def test_an_empty_page_says_what_to_do() -> None:
    text = Page(render_page(status())).text

    assert "Settings > Model > Connect Model, with this backend's address as Label Studio reaches it" in text
    assert (
        "Nothing is under way. In Label Studio's Data Manager, tick tasks, then Actions > Retrieve Predictions" in text
    )
    assert "Last errors None." in text


def test_one_of_several_workers_says_that_it_is_one() -> None:
    assert "This page shows one of 3 workers" in Page(render_page(status(workers=3))).text
    assert "worker" not in Page(render_page(status())).text


@pytest.mark.parametrize(
    ("work", "refreshes", "expected"),
    [([WORK], True, "5"), ([replace(WORK, waiting=0, running=0)], True, "30"), ([], True, "30"), ([WORK], False, None)],
)
def test_the_page_refreshes_itself(work: list[Progress], refreshes: bool, expected: str | None) -> None:
    page = Page(render_page(status(work=work), refreshes=refreshes))

    assert next((meta["content"] for meta in page.attributes("meta") if meta.get("http-equiv") == "refresh"), None) == (
        expected
    )


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0 s ago"),
        (0, "0 s ago"),
        (59.9, "59 s ago"),
        (60, "1 min ago"),
        (3600, "1 h ago"),
        (172_800, "2 days ago"),
    ],
)
def test_times_are_told_from_now(seconds: float, shown: str) -> None:
    page = Page(render_page(status(started_at=NOON - seconds)))

    assert f"started {shown}" in page.text
    told = datetime.fromisoformat(page.attributes("time")[0]["datetime"]).timestamp()
    assert told == pytest.approx(NOON - seconds, abs=1)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_strangers_write_stays_text(text: str) -> None:
    html = render_page(full_of(text))

    assert shape(html) == shape(render_page(full_of("word")))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", html)
    assert len(html) < 30_000
    json.dumps(as_json(full_of(text))).encode("ascii")


def full_of(text: str) -> Status:
    """A status with this text wherever a stranger may write."""
    weights = WeightsInfo(text, text, {0: text}, text, (640, 640))
    control = RectangleControl(
        text, text, text, False, (Label(text, (text,)), Label(f"other {text}", ())), labels_value=text
    )
    served = ServedControl(control, weights, "other.pt", LabelMap({0: text}, {0: 0.5}, (text,), (text,)), 0.25)
    return status(
        model=ModelStatus(text, "DOWN", weights, text),
        refused=[text],
        runtimes={text: Runtime(text, text)},
        projects=[
            ProjectStatus(text, ProjectPlan((served,), text, (text,)), NOON),
            ProjectStatus(text, None, NOON, text),
        ],
        work=[replace(WORK, project=text, model_version=text, last_error=text)],
        failures=[Failure(text, 1, FailureKind.BROKEN, text, text)],
        training=TrainingStatus([Training(text, text, NOON, "failed", text, NOON)], trains=False),
        model_class=text,
    )


def shape(html: str) -> list[tuple[str, list[str]]]:
    """The elements of a page, with the names of their attributes."""
    return [(tag, list(attributes)) for tag, attributes in Page(html).elements]


@pytest.mark.long
def test_thousands_of_everything_leave_the_page_small() -> None:
    names = [f"name-{number}" for number in range(10_000)]
    weights = replace(WEIGHTS, class_names=dict(enumerate(names)))
    labels = "".join(f'<Label value="{name}"/><Label value="other-{name}"/>' for name in names)
    many = plan(
        f'<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">{labels}'
        "</RectangleLabels></View>",
        weights,
    )

    html = render_page(
        status(
            model=ModelStatus("yolo26n.pt", "UP", weights),
            projects=[ProjectStatus("1", many, NOON), *(ProjectStatus(name, plan(), NOON) for name in names)],
            work=[replace(WORK, project=name) for name in names],
            failures=[
                Failure("7", number, FailureKind.BROKEN, f"reason {number}", None, NOON) for number in range(100)
            ],
        )
    )

    text = Page(html).text
    assert "10000 classes name-0, name-1," in text
    assert "name-49 name-49 0.25 and 9950 more labels" in text
    assert "and 9951 more projects" in text
    assert "and 9950 more Projects" in text
    assert len(html) < 250_000


def test_the_page_needs_nothing_but_itself() -> None:
    html = render_page(status(projects=[ProjectStatus("7", plan(), NOON)], work=[WORK]))

    page = Page(html)
    assert "//" not in html
    assert {attributes["href"] for tag, attributes in page.elements if "href" in attributes} == {
        "data:,",
        "?paused",
        "metrics",
    }
    assert not any("src" in attributes or "style" in attributes for _, attributes in page.elements)
    assert "script" not in html


def test_the_headers_let_the_browser_do_no_more_than_the_page_needs() -> None:
    (style,) = re.findall("<style>(.*?)</style>", render_page(status()), re.DOTALL)
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = dict(part.strip().split(" ", 1) for part in PAGE_HEADERS["Content-Security-Policy"].split(";"))

    assert policy == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert PAGE_HEADERS["X-Content-Type-Options"] == "nosniff"
    assert PAGE_HEADERS["Cache-Control"] == "no-store"
    assert PAGE_HEADERS["Vary"] == "Accept"


def test_why_a_new_file_does_not_serve_is_told() -> None:
    told = status(refused=["A new file yolo26n.pt can't be used: it is cut short"])
    assert "A new file yolo26n.pt can't be used: it is cut short" in Page(render_page(told)).text
    assert as_json(told)["refused"] == ["A new file yolo26n.pt can't be used: it is cut short"]


@pytest.mark.parametrize("lasts", [True, False])
def test_why_uploads_are_not_read_from_the_disk_is_told(lasts: bool) -> None:
    told = status(uploads=Trouble("LABEL_STUDIO_MEDIA_ROOT (/<x>) can't be read", "let user 1000 read it", lasts))
    page = render_page(told)
    text = "LABEL_STUDIO_MEDIA_ROOT (/<x>) can't be read: let user 1000 read it"
    # A folder without any yet is all right.
    assert (f"{text}. Meanwhile uploads are fetched from Label Studio." in Page(page).text) == lasts
    assert ('<p class="notice bad">LABEL_STUDIO' in page) == lasts
    assert ("LABEL_STUDIO_MEDIA_ROOT" in page) == lasts
    assert as_json(told)["uploads"] == text


def test_while_the_export_is_made_there_is_no_engine_yet() -> None:
    told = status(runtimes={}, projects=[ProjectStatus("7", plan(), NOON)])
    assert (
        "Weights yolo26n.pt Engine is being made ready: tasks wait for it Task detect" in Page(render_page(told)).text
    )
    read = as_json(told)
    (control,) = read["projects"][0]["controls"]
    assert [(each["device"], each["engine"]) for each in (read, control)] == [(None, None)] * 2


def test_a_project_is_shown_by_its_title_with_a_link() -> None:
    page = render_page(
        status(
            projects=[ProjectStatus("7", plan(), NOON), ProjectStatus("8", plan(), NOON)],
            titles={"7": ProjectTitle("<b>Cells</b>", "https://studio.test/projects/7/data")},
            work=[WORK],
        )
    )
    link = (
        '<a href="https://studio.test/projects/7/data"><bdi>&lt;b&gt;Cells&lt;/b&gt;</bdi></a> (project <bdi>7</bdi>)'
    )
    assert page.count(link) == 2  # its work, and what it is
    assert "Project <bdi>8</bdi>" in page


@pytest.mark.parametrize(
    ("work", "shown"),
    [
        (PRELABEL, "Cells (project 7) yolo-backend prelabel, begun 2 min ago 52% 52% 154 of 294 done"),
        (CommandWork("sample", "8", NOON, NOON, 3), "Project 8 yolo-backend sample, begun 0 s ago 3 done"),
    ],
)
def test_the_work_of_commands_is_shown(work: CommandWork, shown: str) -> None:
    text = Page(render_page(status(commands=[work], titles={"7": CELLS}))).text
    assert shown in text
    assert "Nothing is under way" not in text


def test_programs_read_the_same() -> None:
    failure = Failure("7", 12, FailureKind.BROKEN, "the image is broken", "http://host/12.jpg", NOON)

    read = json.loads(
        json.dumps(
            as_json(
                status(
                    projects=[ProjectStatus("7", plan(), NOON)],
                    titles={"7": CELLS},
                    work=[WORK],
                    commands=[PRELABEL],
                    failures=[failure],
                )
            )
        )
    )

    (project,) = read.pop("projects")
    (control,) = project.pop("controls")
    assert read == {
        "status": "UP",
        "reason": None,
        "refused": [],
        "uploads": None,
        "model_class": "YoloBackend",
        "version": "0.2.0",
        "started_at": "2026-11-22T12:00:00+00:00",
        "model": "yolo26n.pt",
        "task": "detect",
        "device": "cuda:0",
        "engine": "torch",
        "image_size": [480, 640],
        "classes": ["person", "car", "truck", "traffic light", "zebra"],
        "remark": None,
        "work": [
            {
                "project": "7",
                "model_version": "yolo26n-3f9a1c2e",
                "asked": 200,
                "waiting": 90,
                "running": 10,
                "predicted": 97,
                "failed": 3,
                "answered": 60,
                "pushed": 20,
                "kept": 17,
                "rate_per_s": 12.34,
                "left_s": 7.3,
                "trouble": None,
                "finished_at": None,
            }
        ],
        "commands": [
            {
                "command": "prelabel",
                "project": "7",
                "began_at": "2026-11-22T11:58:00+00:00",
                "at": "2026-11-22T12:00:00+00:00",
                "done": 154,
                "total": 294,
            }
        ],
        "training": {"trains": None, "remark": None, "told": []},
        "trainings": [],
        "remarks": [],
        "failures": [
            {
                "kind": "broken",
                "reason": "the image is broken",
                "advice": FailureKind.BROKEN.advice,
                "count": 1,
                "projects": ["7"],
                "tasks": [12],
                "address": "http://host/12.jpg",
                "last_at": "2026-11-22T12:00:00+00:00",
            }
        ],
    }
    assert project == {
        "project": "7",
        "title": "Cells",
        "url": "https://studio.test/projects/7/data",
        "model_version": "yolo26n-3f9a1c2e",
        "reason": None,
        "seen_at": "2026-11-22T12:00:00+00:00",
        "not_served": [],
    }
    assert control["labels"][0] == {"label": "Vehicle", "classes": ["car", "truck"], "threshold": 0.3}
    assert control["labels_without_class"] == ["Scooter"]
    assert control["classes_without_label"] == ["zebra"]


@pytest.mark.parametrize("state", ["LOADING", "DOWN"])
def test_programs_read_of_weights_that_are_not_there(state: ModelState) -> None:
    read = as_json(status(model=ModelStatus("mine.pt", state, reason="why" if state == "DOWN" else None)))

    assert (read["status"], read["model"], read["classes"], read["device"]) == (state, "mine.pt", [], None)
    assert read["reason"] == ("why" if state == "DOWN" else None)


def test_what_a_person_should_know_of_the_weights_file_is_shown() -> None:
    remark = "NMS is part of <x>.onnx: its own threshold holds"
    known = status(model=ModelStatus("x.onnx", "UP", replace(WEIGHTS, remark=remark)))
    assert "NMS is part of &lt;x&gt;.onnx: its own threshold holds." in render_page(known, refreshes=False)
    assert as_json(known)["remark"] == remark
    assert as_json(status())["remark"] is None
