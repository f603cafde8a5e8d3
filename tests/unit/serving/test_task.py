"""One task to its prediction: what repeats costs nothing, and what changed is detected anew."""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prometheus_client import REGISTRY

from tests.fakes.engine import BROKEN, FakeEngine, info_of
from tests.fakes.weights import FakeShelf, fake_catalog
from tests.harness.http_server import (
    ETAG,
    LONG_AGO,
    Answer,
    RecordingServer,
    StartServer,
    conditional,
    conditions_seen,
    redirect,
    reply,
)
from tests.harness.pictures import encode
from tests.harness.talking_server import be_silent, talking_server
from yolo_backend.detection.catalog import Catalog
from yolo_backend.detection.detections import Detections, Letterboxed
from yolo_backend.detection.detector import BULK, PERSON, AbandonedError
from yolo_backend.detection.views import Whole
from yolo_backend.detection.weights import WeightsError, read_weights_file
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.failures import Failure
from yolo_backend.images.decode import DecodedImage, decode_image
from yolo_backend.images.errors import ImageError
from yolo_backend.images.line import Line
from yolo_backend.images.uploads import uploads_of
from yolo_backend.label_studio.errors import StudioError
from yolo_backend.label_studio.studio import Studio
from yolo_backend.label_studio.studios import Studios
from yolo_backend.labels.controls.rectangles import RectangleLabels
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.plans import ProjectPlan, make_plan
from yolo_backend.labels.sizes import bounded
from yolo_backend.protocol import Prediction, Task
from yolo_backend.sampling.thresholds import as_served, lower_thresholds
from yolo_backend.serving.task import TaskPredictor, host_of
from yolo_backend.settings import load_settings

WAIT_S = 10
UPLOAD = "/data/upload/1/0123abcd-a.png"
IMAGE_TAG = '<Image name="image" value="$image"/>'
CONFIG = f"""<View>{IMAGE_TAG}
<RectangleLabels name="label" toName="image"><Label value="car"/></RectangleLabels></View>"""
OTHER_LABELS = CONFIG.replace('"car"', '"Vehicle" predicted_values="car"')
OTHER_WEIGHTS = CONFIG.replace("<RectangleLabels", '<RectangleLabels model_path="other.pt"')
BOTH_WEIGHTS = CONFIG.replace(
    "</View>",
    '<RectangleLabels name="b" toName="image" model_path="other.pt"><Label value="car"/></RectangleLabels></View>',
)
pytestmark = pytest.mark.usefixtures("clean_environment")

MakeHouse = Callable[..., "House"]


def photo(number: int) -> bytes:
    """An image that the fake engine finds one box in, with this score."""
    return encode(np.full((4, 6, 3), number, np.uint8))


def inline(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def regions(prediction: Any) -> list[dict[str, Any]]:
    """A prediction's regions without their random ids."""
    assert isinstance(prediction, dict), prediction
    return [{key: value for key, value in region.items() if key != "id"} for region in prediction["result"]]


def score(prediction: Any) -> float:
    assert isinstance(prediction, dict), prediction
    return float(prediction["score"])


def remembered() -> float:
    return REGISTRY.get_sample_value("yolo_remembered_images_total") or 0.0


def number_of_tasks() -> float:
    return REGISTRY.get_sample_value("yolo_tasks_total", {"outcome": "predicted"}) or 0.0


class House:
    """A task predictor whose fake engines count the images that they see."""

    def __init__(self, catalog: Catalog | None = None, **settings: Any) -> None:
        self.engines: list[FakeEngine] = []
        self.missing: set[str] = set()
        self.settings = load_settings(
            model_name="fake.pt", allowed_image_hosts="127.0.0.1", image_timeout_s=WAIT_S, **settings
        )
        self.catalog = catalog or fake_catalog(self.load, detect_timeout_s=WAIT_S)
        self.catalog.wait_for_info("fake.pt", WAIT_S)
        self.tasks = TaskPredictor(self.settings, self.catalog.pool, 4)

    def load(self, name: str) -> FakeEngine:
        if name in self.missing:
            raise WeightsError(f"no {name}")
        engine = FakeEngine(info_of(name))
        engine.gate.set()
        self.engines.append(engine)
        return engine

    def ask(
        self, value: Any, config: str = CONFIG, studio: Studio | None = None, task_id: int = 7, project: str = "1"
    ) -> Any:
        plan = make_plan(config, self.settings, self.catalog, WAIT_S)
        return self.tasks.predict_task({"id": task_id, "data": {"image": value}}, plan, studio, BULK, project=project)

    def recall(self, value: Any, config: str = CONFIG, studio: Studio | None = None, project: str = "1") -> Any:
        return self.recall_task({"id": 7, "data": {"image": value}}, config, studio, project)

    def recall_task(self, task: Any, config: str = CONFIG, studio: Studio | None = None, project: str = "1") -> Any:
        plan = make_plan(config, self.settings, self.catalog, WAIT_S)
        return self.tasks.recall(task, plan, studio, project=project)

    @property
    def detected(self) -> int:
        return sum(len(batch) for engine in self.engines for batch in engine.batches)

    @property
    def loaded(self) -> Counter[str]:
        return Counter(engine.info.name for engine in self.engines)


@pytest.fixture
def make_house() -> Iterator[MakeHouse]:
    """Makes houses that are closed with the test."""
    with ExitStack() as stack:

        def make(catalog: Catalog | None = None, **settings: Any) -> House:
            made = House(catalog, **settings)
            stack.callback(made.catalog.close)
            return made

        yield make


@pytest.fixture
def house(make_house: MakeHouse) -> House:
    return make_house()


def studio_at(server: RecordingServer, prefix: str = "", token: str = "t0ken") -> Studio:
    return Studio(server.url + prefix, token)


# Several images, several weights


@pytest.mark.parametrize(("wanted", "enough_px"), [({"fake.pt": 12, "other.pt": 20}, 20), ({"fake.pt": 12}, None)])
def test_an_image_is_decoded_smaller_only_if_all_of_its_weights_may_see_it_so(
    make_house: MakeHouse, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, int], enough_px: int | None
) -> None:
    asked: list[int | None] = []

    def decode(content: bytes, max_megapixels: float, enough_px: int | None = None) -> DecodedImage:
        asked.append(enough_px)
        return decode_image(content, max_megapixels, enough_px)

    monkeypatch.setattr("yolo_backend.serving.image.decode_image", decode)
    monkeypatch.setattr(Whole, "enough_px", lambda _, weights: wanted.get(weights.name))
    assert score(make_house(decode="fast").ask(inline(photo(9)), BOTH_WEIGHTS)) == 9
    assert score(make_house(decode="full").ask(inline(photo(9)), BOTH_WEIGHTS)) == 9
    assert asked == [enough_px, None]


def test_a_task_may_lack_one_of_several_images_but_not_all(house: House) -> None:
    config = CONFIG.replace(
        "</View>",
        '<Image name="other" value="$other"/><RectangleLabels name="b" toName="other"><Label value="car"/>'
        "</RectangleLabels></View>",
    )
    plan = make_plan(config, house.settings, house.catalog, WAIT_S)

    def ask(**data: str) -> Any:
        return house.tasks.predict_task({"id": 7, "data": data}, plan, None, BULK, project="1")

    one, two = inline(photo(9)), inline(photo(5))
    for data, expected in (
        ({"image": one, "other": two}, [("label", "image", 9), ("b", "other", 5)]),
        ({"image": one}, [("label", "image", 9)]),
        ({"image": "", "other": two}, [("b", "other", 5)]),
    ):
        found = regions(ask(**data))
        assert [(region["from_name"], region["to_name"], region["score"]) for region in found] == expected
        assert not any("item_index" in region for region in found)  # for no image is a page of a list
    failure = ask(x=one)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.reason) == (FailureKind.MISSING_KEY, 'the task\'s data has no "image", but "x"')


# The same image


@dataclass
class Case:
    """An image's kind of source: its value, the server's answer, and what a second asking costs."""

    value: str
    answer: Answer | None = None
    prefix: str = ""
    conditions: tuple[str | None, ...] = (None,)

    def begin(self, serve: StartServer) -> tuple[RecordingServer, Studio, str]:
        """Its server, the Label Studio that is there, and a task's value."""
        server = serve(self.answer or reply(photo(9)))
        return server, studio_at(server, self.prefix), self.value.format(url=server.url + self.prefix)


def presigned(handler: BaseHTTPRequestHandler) -> None:
    if handler.path.startswith("/tasks/7/presign/"):
        redirect(f"/bucket/a.png?signature={time.monotonic_ns()}")(handler)
    else:
        conditional(photo(9), ETag=ETAG)(handler)


def written_just_now(handler: BaseHTTPRequestHandler) -> None:
    conditional(photo(9), Last_Modified=formatdate(usegmt=True))(handler)


CASES = {
    "inline": Case(inline(photo(9)), conditions=()),
    "upload": Case(UPLOAD),
    "upload below a path": Case(UPLOAD, prefix="/label-studio"),
    "upload below a path, by its whole path": Case("/label-studio" + UPLOAD, prefix="/label-studio"),
    "upload by its address": Case("{url}" + UPLOAD),
    "not quite an upload": Case(UPLOAD + "?x", conditions=(None, None)),
    "etag": Case("{url}/a.png", conditional(photo(9), ETag=ETAG), conditions=(None, ETAG)),
    "date": Case("{url}/a.png", conditional(photo(9), Last_Modified=LONG_AGO), conditions=(None, LONG_AGO)),
    "young date": Case("{url}/a.png", written_just_now, conditions=(None, None)),
    "no validators": Case("{url}/a.png", conditions=(None, None)),
    "no-store": Case(
        "{url}/a.png", conditional(photo(9), ETag=ETAG, Cache_Control="no-store"), conditions=(None, None)
    ),
    "local files": Case("/data/local-files/?d=a.png", conditional(photo(9), ETag=ETAG), conditions=(None, ETAG)),
    "bucket": Case("s3://bucket/a.png", presigned, conditions=(None, None, None, ETAG)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_image_is_detected_once(house: House, serve: StartServer, name: str) -> None:
    case = CASES[name]
    server, studio, value = case.begin(serve)
    before = remembered()
    first, second = (house.ask(value, studio=studio) for _ in range(2))
    assert score(first) == 9
    assert regions(first) == regions(second)
    assert (regions(second)[0]["original_width"], regions(second)[0]["original_height"]) == (6, 4)
    assert house.detected == 1
    assert remembered() - before == 1
    assert conditions_seen(server) == list(case.conditions)


@pytest.mark.parametrize("name", CASES)
def test_what_is_recalled_is_what_is_predicted_and_nobody_is_asked(house: House, serve: StartServer, name: str) -> None:
    case = CASES[name]
    server, studio, value = case.begin(serve)
    assert house.recall(value, studio=studio) is None
    predicted = house.ask(value, studio=studio)
    asked = len(server.requests)
    counts = [number_of_tasks(), remembered()]
    recalled = house.recall(value, studio=studio)
    assert len(server.requests) == asked
    if len(case.conditions) > 1:  # whether it is the same, somebody else has to say
        assert recalled is None
        assert [number_of_tasks(), remembered()] == counts
        return
    assert regions(recalled) == regions(predicted)
    assert recalled == predicted | {"result": recalled["result"]}
    assert [number_of_tasks(), remembered()] == [count + 1 for count in counts]
    assert house.recall(value, studio=Studio(studio.url, "another token")) is None
    assert house.recall(value, OTHER_WEIGHTS, studio=studio) is None
    assert house.recall(value, BOTH_WEIGHTS, studio=studio) is None
    assert house.recall(value, CONFIG.replace('value="car"', 'value="car" score_threshold="0.01"'), studio) is None


@pytest.mark.parametrize(
    "data",
    [None, [], {}, {"image": None}, {"image": ""}, {"image": []}, {"image": {"a": 1}}, {"image": "data:,x"}, {"x": 1}],
)
def test_of_what_cannot_be_predicted_nothing_is_recalled(house: House, data: Any) -> None:
    assert house.recall_task({"id": 7, "data": data}) is None


def test_of_a_prediction_that_is_too_large_a_part_is_sent_and_it_is_told(
    make_house: MakeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here two polygons of four points are too large, and one isn't."""

    def load(name: str) -> FakeEngine:
        engine = FakeEngine(replace(info_of(name), kind="obb"))
        engine.gate.set()
        return engine

    house = make_house(fake_catalog(load, detect_timeout_s=WAIT_S))
    polygons = CONFIG.replace("Rectangle", "Polygon")
    two = polygons.replace("</View>", polygons[polygons.index("<Polygon") :].replace('"label"', '"again"'))
    value = inline(photo(90))
    assert len(regions(house.ask(value, two))) == 2
    assert house.tasks.remarks.last() == []

    monkeypatch.setattr("yolo_backend.serving.task.bounded", partial(bounded, most_bytes=600))
    for ask in (house.ask, house.recall):
        prediction = ask(value, two)
        (region,) = regions(prediction)
        assert score(prediction) == region["score"]
        assert len(region["value"]["points"]) == 4
        (remark,) = house.tasks.remarks.last()
        assert (remark.project, remark.task_id) == ("1", 7)
        assert "1 of 2 shapes, those with the lowest scores, are left out" in remark.text


def test_of_a_prediction_that_is_too_large_a_sample_holds_the_same(
    make_house: MakeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five rotated boxes as polygons, the last two below the threshold; the least sure above it has no room."""
    scores = [0.9, 0.8, 0.7, 0.2, 0.15]
    boxes = np.array([[number, 0, number + 1, 2, 0.1] for number in range(5)], np.float32)

    class Finder(FakeEngine):
        def detect(
            self, batch: Sequence[Letterboxed], score_threshold: float, *, for_person: bool = False
        ) -> list[Detections]:
            kept = [number for number, each in enumerate(scores) if each > score_threshold]
            found = Detections(boxes[kept], np.array(scores, np.float32)[kept], np.zeros(len(kept), np.int64), True)
            return [found] * len(batch)

    house = make_house(fake_catalog(lambda name: Finder(replace(info_of(name), kind="obb")), detect_timeout_s=WAIT_S))
    for module in ("serving.task", "sampling.thresholds"):
        monkeypatch.setattr(f"yolo_backend.{module}.bounded", partial(bounded, most_bytes=800))
    plan = make_plan(CONFIG.replace("Rectangle", "Polygon"), house.settings, house.catalog, WAIT_S)
    task: Any = {"id": 7, "data": {"image": inline(encode(np.zeros((8, 12, 3), np.uint8)))}}

    def predicted(plan: ProjectPlan) -> Prediction:
        prediction = house.tasks.predict_task(task, plan, None, BULK, project="1")
        assert isinstance(prediction, dict)
        return prediction

    lowered = predicted(lower_thresholds(plan, 0.1))
    assert len(lowered["result"]) == 5
    served = predicted(plan)
    assert [round(region["score"], 6) for region in served["result"]] == [0.9, 0.8]
    sampled = as_served(lowered, plan)
    assert regions(sampled) == regions(served)
    assert (sampled["score"], sampled["model_version"]) == (served["score"], served["model_version"])


def test_a_task_is_recalled_with_all_of_its_images(house: House) -> None:
    pages = f"<View>{IMAGE_TAG.replace('value=', 'valueList=')}{CONFIG.partition(IMAGE_TAG)[2]}"
    first, second = inline(photo(8)), inline(photo(9))
    house.ask([first], pages)
    assert house.recall([first, second], pages) is None
    predicted = house.ask([first, second], pages)
    recalled = house.recall([first, second], pages)
    assert [region["item_index"] for region in regions(recalled)] == [0, 1]
    assert regions(recalled) == regions(predicted)


def test_a_file_is_read_once(make_house: MakeHouse, tmp_path: Path) -> None:
    house = make_house(local_files_document_root=tmp_path)
    studio = Studio("http://studio.invalid", None)
    file = tmp_path / "a.png"
    file.write_bytes(photo(9))
    os.utime(file, (1, 1))
    first, second = (house.ask("/data/local-files/?d=a.png", studio=studio) for _ in range(2))
    assert regions(first) == regions(second)
    assert house.detected == 1
    file.write_bytes(photo(8))
    os.utime(file, (1, 1))
    assert score(house.ask("/data/local-files/?d=a.png", studio=studio)) == 8
    file.write_bytes(photo(7))  # of this moment, so it may be written once more without a trace
    assert score(house.ask("/data/local-files/?d=a.png", studio=studio)) == 7
    assert house.detected == 3


# Uploads from the disk


def file_of_upload(media: Path) -> Path:
    return media / UPLOAD.removeprefix("/data/")


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    """Label Studio's media/, with the upload that `UPLOAD` is: of project 1."""
    file = file_of_upload(tmp_path / "media")
    file.parent.mkdir(parents=True)
    file.write_bytes(photo(9))
    return tmp_path / "media"


@pytest.fixture
def house_with_uploads(
    make_house: MakeHouse, serve: StartServer, uploads: Path
) -> tuple[House, RecordingServer, Studio]:
    """A house that reads uploads from the disk, and a Label Studio that would serve others under their names."""
    server = serve(reply(photo(3)))
    studio = studio_at(server)
    made = make_house(label_studio_url=studio.url, label_studio_api_key=studio.token, label_studio_media_root=uploads)
    return made, server, studio


def test_an_upload_is_read_from_the_disk_and_remembered_as_one_that_lasts(
    house_with_uploads: tuple[House, RecordingServer, Studio], uploads: Path
) -> None:
    house, server, studio = house_with_uploads
    for value in (UPLOAD, studio.url + UPLOAD):
        assert house.recall(value, studio=studio) is None
        assert score(house.ask(value, studio=studio)) == 9
        assert score(house.recall(value, studio=studio)) == 9
    file_of_upload(uploads).unlink()  # its address says enough, as with one that came by HTTP
    assert score(house.recall(UPLOAD, studio=studio)) == 9
    assert score(house.ask(UPLOAD, studio=studio)) == 9
    assert house.detected == 1
    assert server.requests == []


def test_the_images_of_a_task_come_from_the_disk(
    house_with_uploads: tuple[House, RecordingServer, Studio],
) -> None:
    house, server, studio = house_with_uploads
    plan = make_plan(CONFIG, house.settings, house.catalog, WAIT_S)
    (image,) = house.tasks.images({"id": 7, "data": {"image": UPLOAD}}, plan, studio, project="1")
    assert image.pixels.max() == 9
    assert server.requests == []


def test_the_files_of_a_task_come_one_by_one_and_a_missing_one_costs_no_other(
    house_with_uploads: tuple[House, RecordingServer, Studio],
) -> None:
    house, server, studio = house_with_uploads
    pages = CONFIG.replace("value=", "valueList=", 1).replace("car", "what no weights know")
    controls = parse_labeling_config(pages).controls
    server.answer = reply(b"", 404)
    task: Task = {"id": 7, "data": {"image": [UPLOAD, "/data/upload/2/0123abcd-b.png", inline(photo(3))]}}
    files = list(house.tasks.files(task, controls, studio, project="1"))
    assert [file.content for file in (files[0], files[2])] == [photo(9), photo(3)]
    assert isinstance(files[1].content, ImageError)
    assert [(file.item_index, file.to_names) for file in files] == [(page, frozenset({"image"})) for page in range(3)]
    assert house.detected == 0
    with pytest.raises(ImageError, match='the task\'s data has no "image"'):
        list(house.tasks.files({"id": 7, "data": {}}, controls, studio, project="1"))


def test_a_label_studio_that_is_away_is_no_fault_of_a_file(
    house_with_uploads: tuple[House, RecordingServer, Studio],
) -> None:
    house, server, studio = house_with_uploads
    server.answer = reply(b"", 502)
    task: Task = {"id": 7, "data": {"image": "/data/upload/2/0123abcd-b.png"}}
    with pytest.raises(StudioError, match="is away"):
        list(house.tasks.files(task, parse_labeling_config(CONFIG).controls, studio, project="1"))


@pytest.mark.parametrize("project", ["2", "", "1x", "01", "+1", " 1", "1/../1", "..", "١", "１", "1" * 30])
def test_of_another_project_label_studio_is_asked_with_the_token(
    house_with_uploads: tuple[House, RecordingServer, Studio], project: str
) -> None:
    house, server, studio = house_with_uploads
    assert score(house.ask(UPLOAD, studio=studio)) == 9
    # Nor is it told what the upload's own project learned without asking.
    assert house.recall(UPLOAD, studio=studio, project=project) is None
    assert score(house.ask(UPLOAD, studio=studio, project=project)) == 3
    assert [(request.path, request.headers["authorization"]) for request in server.requests] == [
        (UPLOAD, f"Token {studio.token}")
    ]
    server.answer = reply(b"", 403)
    another = UPLOAD.replace("abcd-", "abce-")
    (house.settings.label_studio_media_root or Path()).joinpath(another.removeprefix("/data/")).write_bytes(photo(8))
    refused = house.ask(another, studio=studio, project=project)
    assert isinstance(refused, Failure)
    assert refused.kind == "unauthorized"


def test_an_upload_that_is_not_there_comes_from_label_studio_and_its_folder_is_told_of_once(
    house_with_uploads: tuple[House, RecordingServer, Studio], uploads: Path, caplog: pytest.LogCaptureFixture
) -> None:
    house, server, studio = house_with_uploads
    missing = [f"/data/upload/1/0123abc{number}-b.png" for number in range(3)]
    for value in missing:
        assert score(house.ask(value, studio=studio)) == 3
        assert score(house.recall(value, studio=studio)) == 3
    assert [request.path for request in server.requests] == missing
    assert [record.getMessage() for record in caplog.records] == [
        "An upload can't be read below LABEL_STUDIO_MEDIA_ROOT (No such file or directory), so Label Studio is asked "
        "for it. This is said once for each cause; `yolo-backend check` tries one upload"
    ]
    server.answer = reply(b"", 404)
    gone = house.ask("/data/upload/1/0123abc7-b.png", studio=studio)
    assert isinstance(gone, Failure)
    assert (gone.kind, gone.reason[:40]) == ("not_found", "Label Studio has no such upload: it was ")


def test_what_was_learned_over_http_is_found_from_the_disk(
    house_with_uploads: tuple[House, RecordingServer, Studio], uploads: Path
) -> None:
    house, server, studio = house_with_uploads
    server.answer = reply(photo(9))
    assert score(house.ask(UPLOAD, studio=studio, project="2")) == 9
    assert len(server.requests) == 1
    assert score(house.ask(UPLOAD, studio=studio)) == 9
    assert (house.detected, len(server.requests)) == (1, 1)


@pytest.mark.parametrize(
    ("content", "kind"), [(b"", "empty"), (b"x" * 2_000_000, "too_large"), (b"<html>", "not_an_image")]
)
def test_of_a_file_of_the_disk_the_same_is_told(
    make_house: MakeHouse, uploads: Path, serve: StartServer, content: bytes, kind: str
) -> None:
    server = serve(reply(content))
    studio = studio_at(server)
    told = []
    for media_root in (uploads, None):
        house = make_house(label_studio_url=studio.url, label_studio_media_root=media_root, max_image_megabytes=1)
        file_of_upload(uploads).write_bytes(content)
        failure = house.ask(UPLOAD, studio=studio)
        assert isinstance(failure, Failure)
        told.append((failure.kind, failure.reason, failure.address))
        assert not failure.is_passing
        asked = [request.path for request in server.requests]
        assert (UPLOAD in asked) == (media_root is None)
        assert set(asked) <= {UPLOAD, "/health"}, "whether it is away"
        server.requests.clear()
    assert told[0] == told[1]
    assert told[0][0] == kind


def test_what_label_studio_sent_while_it_is_away_is_passing(
    make_house: MakeHouse, serve: StartServer, uploads: Path
) -> None:
    """As a proxy in its stead does, which answers an image with nothing."""
    server = serve(lambda request: reply(b"", 502 if request.path == "/health" else 200)(request))
    studio = studio_at(server)
    for media_root in (uploads, None):
        house = make_house(label_studio_url=studio.url, label_studio_media_root=media_root)
        failure = house.ask(UPLOAD.replace("abcd-", "abce-"), studio=studio)
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.is_passing) == ("empty", True)


def test_uploads_on_the_disk_do_not_wait_for_those_that_ask_label_studio(house: House, tmp_path: Path) -> None:
    studio = Studio("http://studio:8080", None, outside_url="http://labels.example/ls")
    plan = make_plan(CONFIG, house.settings, house.catalog, WAIT_S)
    uploads = uploads_of(tmp_path, "1")

    def host(value: str) -> str:
        return host_of({"data": {"image": value}}, plan, studio, uploads)

    asked = ["/data/local-files/?d=a.png", UPLOAD.replace("/1/", "/2/"), "http://studio:8080/data/upload/2/a.png"]
    assert {host(value) for value in asked} == {"studio:8080"}
    on_disk = [UPLOAD, f" {UPLOAD}\n", "http://studio:8080" + UPLOAD, "http://labels.example/ls" + UPLOAD]
    on_disk += ["//labels.example/ls" + UPLOAD]
    assert {host(value) for value in on_disk} == {"/data/upload/1"}, "each project has its own"
    assert host("http://other" + UPLOAD) == "other"
    assert host("//other" + UPLOAD) != "/data/upload/1"
    assert host("s3://bucket" + UPLOAD) == "s3://bucket"
    assert host("/data/local-files/?d=" + UPLOAD) == "studio:8080"


def test_one_image_by_two_addresses_is_detected_once(house: House, serve: StartServer) -> None:
    server = serve(reply(photo(9)))
    studio = studio_at(server)
    values = [UPLOAD, UPLOAD.replace("/1/", "/2/"), server.url + "/a.png", inline(photo(9))]
    assert [score(house.ask(value, studio=studio)) for value in values] == [9] * 4
    assert house.detected == 1
    assert len(server.requests) == 3


def test_what_is_remembered_needs_no_model(house: House, serve: StartServer) -> None:
    server = serve(conditional(photo(9), ETag=ETAG))
    values = [inline(photo(8)), server.url + "/a.png"]
    first = [house.ask(value) for value in values]
    house.ask(inline(photo(7)), OTHER_WEIGHTS)  # there is room for one model
    assert [regions(house.ask(value)) for value in values] == [regions(prediction) for prediction in first]
    assert house.loaded == {"fake.pt": 1, "other.pt": 1}


def test_a_new_image_is_not_fetched_before_its_model_is_there(house: House, serve: StartServer) -> None:
    server = serve(reply(photo(9)))
    house.ask(inline(photo(7)), OTHER_WEIGHTS)
    house.missing.add("fake.pt")
    failure = house.ask(server.url + "/a.png")
    assert isinstance(failure, Failure)
    assert failure.kind == "weights"
    assert server.requests == []


# Label Studio's own files by its address in a browser


def label_studio(outside_url: str, paths: dict[str, bytes]) -> Answer:
    """Label Studio with this LABEL_STUDIO_HOST and these files, for one token."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.headers["Authorization"] != "Token mine":
            reply(b"", 401)(handler)
        elif handler.path == "/api/templates":
            body = {"templates": [{"image": f"{outside_url}/static/templates/a.png"}]}
            reply(json.dumps(body).encode())(handler)
        else:
            content = paths.get(handler.path)
            reply(content or b"", 200 if content else 404)(handler)

    return answer


def test_own_files_are_read_by_label_studios_address_outside_and_nothing_is_sent_there(
    house: House, serve: StartServer
) -> None:
    outside = serve(reply(photo(1)))  # what isn't Label Studio's path there is another's
    paths = {
        "/data/upload/1/0123abcd-a.png": photo(2),
        "/data/local-files/?d=host/a.png": photo(3),
        "/tasks/7/resolve/?fileuri=czM6Ly9iL2E=": photo(4),
    }
    server = serve(label_studio(outside.url + "/ls", paths))
    studio = Studio(server.url, "mine")
    for number, path in enumerate(paths, 2):
        assert score(house.ask(outside.url + "/ls" + path, studio=studio)) == number
    assert outside.requests == []
    assert score(house.ask(outside.url + "/data/upload/1/0123abcd-a.png", studio=studio)) == 1
    assert ["authorization" in request.headers for request in outside.requests] == [False]
    assert [request.path for request in server.requests] == ["/api/templates", *paths]


def test_a_file_of_another_label_studio_is_not_taken_for_ours(house: House, serve: StartServer) -> None:
    path = "/data/upload/1/0123abcd-a.png"
    theirs = serve(reply(b"", 401))
    server = serve(label_studio("https://ours.example", {path: photo(2)}))
    failure = house.ask(theirs.url + path, studio=Studio(server.url, "mine"))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.address) == ("other_label_studio", theirs.url + path)
    assert ["authorization" in request.headers for request in theirs.requests] == [False]


def test_two_projects_of_two_label_studios_have_their_own_files(house: House, serve: StartServer) -> None:
    path = "/data/upload/1/0123abcd-a.png"
    servers = [
        serve(label_studio(f"https://{name}.example", {path: photo(number)})) for number, name in ((2, "a"), (3, "b"))
    ]
    studios = Studios(house.settings)
    for number, server in enumerate(servers):
        studios.introduce(f"{number}.1", server.url, "mine")
    scores = {
        (number, name): house.ask(f"https://{name}.example{path}", studio=studios.of_project(f"{number}.1"))
        for number, name in ((0, "a"), (1, "b"), (0, "b"))
    }
    assert score(scores[0, "a"]) == 2
    assert score(scores[1, "b"]) == 3
    assert isinstance(scores[0, "b"], Failure)


def test_a_local_file_by_its_address_outside_is_read_from_the_folder(
    make_house: MakeHouse, tmp_path: Path, serve: StartServer
) -> None:
    house = make_house(local_files_document_root=tmp_path)
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "h0.jpg").write_bytes(photo(9))
    server = serve(reply(b"", 404))
    studio = Studio(server.url, "mine", introduced_as="https://localhost:18443")
    value = "https://localhost:18443/data/local-files/?d=host/h0.jpg"
    assert score(house.ask(value, studio=studio)) == 9
    assert [request.path for request in server.requests] == ["/api/templates"]


def test_an_upload_by_its_address_outside_is_recalled(house: House, serve: StartServer) -> None:
    value = "https://localhost:18443" + UPLOAD
    server = serve(label_studio("https://localhost:18443", {UPLOAD: photo(9)}))
    studio = Studio(server.url, "mine")
    for _ in range(2):  # what was met before Label Studio told its address has another key
        assert score(house.ask(value, studio=studio)) == 9
    assert score(house.recall(value, studio=studio)) == 9
    assert house.detected == 1


# What changed


@pytest.mark.parametrize(
    "headers",
    [{}, {"ETag": ETAG}, {"Last_Modified": LONG_AGO}, {"Last_Modified": "now"}],
    ids=["no validators", "etag", "date", "young date"],
)
def test_a_changed_image_is_detected_anew(house: House, serve: StartServer, headers: dict[str, str]) -> None:
    newer = {name: value.replace("v1", "v2").replace("2024", "2025") for name, value in headers.items()}
    if headers == {"Last_Modified": "now"}:  # the next version has the date of the same second
        headers = newer = {"Last_Modified": formatdate(usegmt=True)}
    server = serve(conditional(photo(9), **headers))
    assert score(house.ask(server.url + "/a.png")) == 9
    server.answer = conditional(photo(8), **newer)
    assert [score(house.ask(server.url + "/a.png")) for _ in range(2)] == [8, 8]
    server.answer = conditional(photo(9), **headers)
    assert score(house.ask(server.url + "/a.png")) == 9
    assert house.detected == 2


def test_a_changed_image_waits_for_its_model(house: House, serve: StartServer) -> None:
    server = serve(conditional(photo(9), ETag=ETAG))
    house.ask(server.url + "/a.png")
    house.ask(inline(photo(7)), OTHER_WEIGHTS)
    server.answer = conditional(photo(8), ETag='"v2"')
    assert score(house.ask(server.url + "/a.png")) == 8
    assert house.loaded == {"fake.pt": 2, "other.pt": 1}


def test_other_labels_for_the_same_classes(house: House) -> None:
    first, second = house.ask(inline(photo(9))), house.ask(inline(photo(9)), OTHER_LABELS)
    assert [region["value"]["rectanglelabels"] for region in regions(first) + regions(second)] == [["car"], ["Vehicle"]]
    assert first["model_version"] != second["model_version"]
    assert house.detected == 1


def test_other_weights_look_for_themselves(house: House) -> None:
    for config, detected in ((CONFIG, 1), (OTHER_WEIGHTS, 2), (CONFIG, 2), (OTHER_WEIGHTS, 2), (BOTH_WEIGHTS, 2)):
        prediction = house.ask(inline(photo(9)), config)
        assert house.detected == detected
    assert [region["from_name"] for region in regions(prediction)] == ["label", "b"]


def test_one_of_two_weights_is_missing(house: House) -> None:
    house.ask(inline(photo(9)))
    prediction = house.ask(inline(photo(9)), BOTH_WEIGHTS)
    assert [region["from_name"] for region in regions(prediction)] == ["label", "b"]
    assert {engine.info.name for engine in house.engines if engine.batches} == {"fake.pt", "other.pt"}


def test_weights_that_were_replaced_meanwhile_are_not_taken_for_the_old_ones(house: House) -> None:
    plan = make_plan(CONFIG, house.settings, house.catalog, WAIT_S)
    served = plan.controls[0]
    old = replace(plan, controls=(replace(served, weights=replace(served.weights, fingerprint="of the old file")),))
    task: Task = {"id": 7, "data": {"image": inline(photo(9))}}
    for _ in range(2):
        failure = house.tasks.predict_task(task, old, None, BULK, project="1")
        assert isinstance(failure, Failure)
        assert (failure.kind, "replaced" in failure.reason) == ("weights", True)
    assert house.detected == 0


@pytest.mark.parametrize(("has_costly_boxes", "threshold"), [(False, 0.1), (True, 0.25)])
def test_the_model_is_asked_for_more_where_that_is_cheap(
    make_house: MakeHouse, has_costly_boxes: bool, threshold: float
) -> None:
    engine = FakeEngine(replace(info_of("fake.pt"), has_costly_boxes=has_costly_boxes))
    engine.gate.set()
    house = make_house(fake_catalog(lambda _: engine))
    house.ask(inline(photo(9)))
    assert engine.thresholds == [threshold]


# Masks


@pytest.fixture
def masks_wanted(monkeypatch: pytest.MonkeyPatch) -> str:
    """The labeling config of a control that wants masks."""
    monkeypatch.setattr(RectangleLabels, "wants_masks", lambda _, control, __: control.from_name == "masked")
    return CONFIG.replace('name="label"', 'name="masked"')


def test_masks_are_asked_for_where_a_control_wants_them(house: House, masks_wanted: str) -> None:
    for config in (CONFIG, masks_wanted, CONFIG, masks_wanted):
        assert score(house.ask(inline(photo(9)), config)) == 9
    assert house.engines[0].wants_masks == [False, True]
    for config in (masks_wanted, CONFIG, masks_wanted):
        assert score(house.ask(inline(photo(8)), config)) == 8
    assert house.engines[0].wants_masks == [False, True, True]


def test_masks_are_asked_for_of_those_weights_only(house: House, masks_wanted: str) -> None:
    both = BOTH_WEIGHTS.replace('name="b"', 'name="masked"')
    house.ask(inline(photo(9)), both)
    asked = {engine.info.name: engine.wants_masks for engine in house.engines}
    assert asked == {"fake.pt": [False], "other.pt": [True]}


# Whose image it is


def test_an_upload_is_shown_to_the_token_that_may_see_it(house: House, serve: StartServer) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        may = handler.headers["Authorization"] == "Token mine"
        (reply(photo(9)) if may else reply(b"", 403))(handler)

    server = serve(answer)
    mine, theirs = studio_at(server, token="mine"), studio_at(server, token="theirs")
    for _ in range(2):
        assert score(house.ask(UPLOAD, studio=mine)) == 9
        refused = house.ask(UPLOAD, studio=theirs)
        assert isinstance(refused, Failure)
        assert refused.kind == "unauthorized"
    tokens = [request.headers["authorization"] for request in server.requests if request.path == UPLOAD]
    assert tokens == ["Token mine", "Token theirs", "Token theirs"]


def test_the_same_path_on_another_label_studio_is_another_image(house: House, serve: StartServer) -> None:
    one, other = serve(reply(photo(9))), serve(reply(photo(8)))
    assert score(house.ask(UPLOAD, studio=studio_at(one))) == 9
    assert score(house.ask(UPLOAD, studio=studio_at(other))) == 8


def test_one_bucket_address_in_two_buckets(house: House, serve: StartServer) -> None:
    buckets = [serve(conditional(photo(number), ETag=ETAG)) for number in (9, 8)]

    def presign(handler: BaseHTTPRequestHandler) -> None:
        redirect(buckets[handler.path.startswith("/tasks/2/")].url + "/a.png?signature=x")(handler)

    studio = studio_at(serve(presign))
    for _ in range(2):
        assert [score(house.ask("s3://bucket/a.png", studio=studio, task_id=number)) for number in (1, 2)] == [9, 8]
    assert [set(conditions_seen(bucket)) for bucket in buckets] == [{None}, {None}]


# What is not remembered


def test_failures_are_not_remembered(house: House, serve: StartServer) -> None:
    server = serve(reply(b"not found", 404))
    before = remembered()
    values = [inline(b"no image"), inline(photo(BROKEN)), server.url + "/a.png"]
    for value in values * 2:
        assert isinstance(house.ask(value), Failure)
    server.answer = reply(photo(9))
    assert score(house.ask(values[2])) == 9
    assert remembered() == before
    assert [batch for engine in house.engines for batch in engine.batches].count([BROKEN]) == 2


def test_a_file_that_is_not_what_its_name_says_is_told_by_it(make_house: MakeHouse, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    house = make_house(local_files_document_root=tmp_path)

    failure = house.ask("/data/local-files/?d=a.jpg")

    assert isinstance(failure, Failure)
    assert str(failure) == (
        "Task 7 is not predicted: /data/local-files/?d=a.jpg: is a HEIC, as iPhones make, though named .jpg: "
        "convert it to JPEG or PNG"
    )


def test_an_image_that_is_nearly_black_is_predicted_and_told_once(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    dark = inline(encode(Image.fromarray(np.full((4, 6), 4095, np.uint16))))

    assert regions(house.ask(dark)) is not None
    house.ask(dark)

    assert [record.getMessage() for record in caplog.records if "nearly black" in record.getMessage()] == [
        "Task 7: data: address of 122 characters: it is nearly black, as it is for Ultralytics: its 16 bits are used "
        "to a sixteenth at most. Stretch it to 0 to 65535, or save it with 8 bits"
    ]


def test_an_image_with_too_many_pixels_fails_each_time(make_house: MakeHouse) -> None:
    house = make_house(max_image_megapixels=0.00001)
    before = remembered()
    assert [house.ask(inline(photo(9))).kind for _ in range(2)] == ["too_many_pixels"] * 2
    assert remembered() == before


def test_without_memory_each_image_is_detected_at_its_own_threshold(make_house: MakeHouse, serve: StartServer) -> None:
    house = make_house(cache_megabytes=0)
    server = serve(conditional(photo(8), ETag=ETAG))
    before = remembered()
    for value in [inline(photo(9)), server.url + "/a.png"] * 2:
        house.ask(value)
    assert house.detected == 4
    assert house.engines[0].thresholds == [0.25] * 4
    assert conditions_seen(server) == [None, None]
    assert remembered() == before


def test_with_little_memory_the_oldest_go(make_house: MakeHouse) -> None:
    house = make_house(cache_megabytes=0.005)
    for number in (*range(1, 30), 29, 1):
        assert score(house.ask(inline(photo(number)))) == number
    assert house.detected == 30


def test_detections_that_went_are_fetched_without_condition(house: House, serve: StartServer) -> None:
    server = serve(conditional(photo(9), ETag=ETAG))
    for config in (CONFIG, OTHER_WEIGHTS, CONFIG):
        assert score(house.ask(server.url + "/a.png", config)) == 9
    assert conditions_seen(server) == [None, None, ETAG]


# Side by side


@pytest.mark.long
def test_eight_threads_get_their_own_images(house: House, serve: StartServer) -> None:
    server = serve(lambda handler: conditional(photo(int(handler.path[1:])), ETag=ETAG)(handler))
    numbers = [number for number in range(1, 13) for _ in range(8)]
    together = threading.Barrier(8)

    def ask(number: int) -> float:
        if number == 1:
            together.wait(WAIT_S)
        return score(house.ask(inline(photo(number)) if number % 2 else f"{server.url}/{number}"))

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, numbers)) == numbers
    assert house.detected < len(numbers)
    detected = house.detected
    assert [ask(number) for number in range(2, 13)] == list(range(2, 13))
    assert house.detected == detected


# Hung up


def predict(house: House, value: Any, priority: int = PERSON, studio: Studio | None = None, **how: Any) -> Any:
    plan = make_plan(CONFIG, house.settings, house.catalog, WAIT_S)
    task: Task = {"id": 7, "data": {"image": value}}
    return house.tasks.predict_task(task, plan, studio, priority, project="1", **how)


def stage_count(stage: str) -> float:
    return REGISTRY.get_sample_value("yolo_stage_seconds_count", {"stage": stage}) or 0.0


def failures_counted() -> float:
    return sum(
        sample.value
        for metric in REGISTRY.collect()
        if metric.name == "yolo_image_failures"
        for sample in metric.samples
    )


def test_eight_tasks_whose_server_hangs_are_abandoned_at_once(house: House, caplog: pytest.LogCaptureFixture) -> None:
    lines = [Line() for _ in range(8)]
    failed_before = failures_counted()
    with talking_server(be_silent) as server, ThreadPoolExecutor(8) as threads:
        futures = [threads.submit(predict, house, f"{server.url}/{n}.png", line=line) for n, line in enumerate(lines)]
        for _ in lines:
            assert server.opened.acquire(timeout=WAIT_S)
        started_at = time.monotonic()
        for line in lines:
            line.hang_up()
        assert [type(future.exception(WAIT_S)) for future in futures] == [AbandonedError] * 8
        assert time.monotonic() - started_at < 0.5
        for _ in lines:
            assert server.closed.acquire(timeout=0.5)
        assert score(threads.submit(predict, house, inline(photo(9))).result(WAIT_S)) == 9
    assert failures_counted() == failed_before
    assert [record for record in caplog.records if record.name.startswith("yolo_backend")] == []


def test_a_hung_up_fetch_of_label_studios_asks_nobody_whether_it_is_away(house: House) -> None:
    line = Line()
    with talking_server(be_silent) as server, ThreadPoolExecutor(1) as threads:
        future = threads.submit(predict, house, UPLOAD, studio=Studio(server.url, "t0ken"), line=line)
        assert server.opened.acquire(timeout=WAIT_S)
        time.sleep(0.1)
        line.hang_up()
        assert isinstance(future.exception(WAIT_S), AbandonedError)
        assert not server.opened.acquire(timeout=0.1)


def test_what_failed_while_it_was_hung_up_asks_nobody_either(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line()

    def fail(*_: Any) -> Any:
        line.hang_up()
        raise ImageError(FailureKind.NOT_FOUND, "gone")

    monkeypatch.setattr(house.tasks._images._fetcher, "fetch", fail)
    with talking_server(be_silent) as server:
        with pytest.raises(AbandonedError):
            predict(house, UPLOAD, studio=Studio(server.url, None), line=line)
        assert not server.opened.acquire(timeout=0.1)


def test_whatever_came_of_a_task_that_was_hung_up_is_abandoned(house: House, caplog: pytest.LogCaptureFixture) -> None:
    for value, end in (("no address", lambda *_: None), (inline(photo(9)), None)):
        line = Line()

        def finish(task: Any, prediction: Any, line: Line = line) -> Any:
            line.hang_up()
            raise ValueError

        before = number_of_tasks()
        if end:
            line.hang_up()
        with pytest.raises(AbandonedError):
            predict(house, value, line=line, finish=finish)
        assert number_of_tasks() == before
    assert caplog.records == []


def test_who_waits_for_a_place_to_decode_gets_out_soon(house: House) -> None:
    line = Line()
    slots = house.tasks._images._decoding[PERSON]
    taken = 0
    while slots.acquire(blocking=False):
        taken += 1
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(predict, house, inline(photo(9)), line=line)
        time.sleep(0.1)
        started_at = time.monotonic()
        line.hang_up()
        try:
            assert isinstance(future.exception(1), AbandonedError)
        finally:
            slots.release(taken)
        assert time.monotonic() - started_at < 0.4
    assert score(predict(house, inline(photo(9)))) == 9


@pytest.mark.parametrize("number", [8, 9])
def test_who_waits_for_the_model_gets_out_soon(make_house: MakeHouse, number: int) -> None:
    """In the model (8), and in the queue for it (9)."""
    house, line = make_house(), Line()
    predict(house, inline(photo(1)))
    engine = house.engines[0]
    engine.gate.clear()
    engine.started.clear()
    with ThreadPoolExecutor(2) as threads:
        in_model = threads.submit(predict, house, inline(photo(8)), line=line if number == 8 else None)
        assert engine.started.wait(WAIT_S)
        queued = threads.submit(predict, house, inline(photo(9)), line=line if number == 9 else None)
        time.sleep(0.1)
        started_at = time.monotonic()
        line.hang_up()
        gone, other = (in_model, queued) if number == 8 else (queued, in_model)
        try:
            assert isinstance(gone.exception(1), AbandonedError)
        finally:
            engine.gate.set()
        assert time.monotonic() - started_at < 0.4
        assert score(other.result(WAIT_S)) == 17 - number


def test_who_waits_for_weights_gets_out_soon(house: House) -> None:
    line, gate = Line(), threading.Event()

    def load(name: str) -> FakeEngine:
        assert gate.wait(WAIT_S)
        return house.load(name)

    plan = make_plan(CONFIG, house.settings, house.catalog, WAIT_S)
    shelf = FakeShelf()
    slow = fake_catalog(load).pool
    slow.know(read_weights_file("fake.pt", shelf.find("fake.pt")))
    tasks = TaskPredictor(house.settings, slow, 4)
    task: Task = {"id": 7, "data": {"image": inline(photo(9))}}
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(tasks.predict_task, task, plan, None, PERSON, project="1", line=line)
        time.sleep(0.1)
        started_at = time.monotonic()
        line.hang_up()
        try:
            assert isinstance(future.exception(1), AbandonedError)
        finally:
            gate.set()
        assert time.monotonic() - started_at < 0.4
    slow.close()


# Seconds by stage


def test_each_stage_is_timed_once_and_a_data_address_is_not_fetched(house: House, serve: StartServer) -> None:
    stages = ("fetch", "decode", "queue", "model")
    before = [stage_count(stage) for stage in stages]
    predict(house, inline(photo(9)))
    assert [stage_count(stage) - count for stage, count in zip(stages, before, strict=True)] == [0, 1, 1, 1]
    predict(house, serve(reply(photo(10))).url + "/a.png")
    assert [stage_count(stage) - count for stage, count in zip(stages, before, strict=True)] == [1, 2, 2, 2]
