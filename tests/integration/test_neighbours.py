"""Neighbours whose image server hangs, with the time-outs that people have: they cost nobody's work but their own."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.fakes.engine import FakeEngine, info_of
from tests.fakes.weights import fake_catalog
from tests.harness.pictures import encode
from tests.harness.talking_server import TalkingServer, be_silent, talking_server
from yolo_backend.protocol import Task
from yolo_backend.serving.request import Predictor
from yolo_backend.settings import load_settings

CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image"><Label value="car"/></RectangleLabels></View>"""
pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture
def silent() -> Iterator[TalkingServer]:
    with talking_server(be_silent) as server:
        yield server


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine(info_of("fake.pt"))
    engine.gate.set()
    return engine


@pytest.fixture
def predictor(silent: TalkingServer, engine: FakeEngine) -> Iterator[Predictor]:
    settings = load_settings(model_name="fake.pt", allowed_image_hosts="127.0.0.1")
    catalog = fake_catalog(lambda name: engine, max_models=2)
    catalog.wait_for_info("fake.pt", 10)
    made = Predictor(settings, catalog)
    yield made
    made._jobs.stop()
    threading.Thread(target=made.close, daemon=True).start()  # it waits for what hangs, and that ends with its server


def inline(number: int) -> Task:
    """A task with an image of its own, so that none is remembered."""
    pixels = np.full((4, 4, 3), (number % 250, number // 250, 0), np.uint8)
    photo = base64.b64encode(encode(pixels)).decode()
    return {"id": number, "data": {"image": f"data:image/png;base64,{photo}"}}


def hanging(silent: TalkingServer, numbers: range) -> list[Task]:
    return [{"id": number, "data": {"image": f"{silent.url}/{number}.jpg"}} for number in numbers]


@pytest.mark.parametrize("is_first", [True, False], ids=["the one that hangs came first", "it came second"])
def test_a_project_whose_images_hang_costs_its_neighbours_nothing(
    predictor: Predictor, engine: FakeEngine, silent: TalkingServer, is_first: bool
) -> None:
    alone_s = _took_s(predictor, range(10_000, 10_300), "2.1")
    with ThreadPoolExecutor(2) as clients:
        if is_first:
            clients.submit(predictor.predict, hanging(silent, range(300)), CONFIG, project="1.1", deadline_s=5)
            for _ in range(16):
                assert silent.opened.acquire(timeout=10)
            beside_s = _took_s(predictor, range(20_000, 20_300), "3.1")
        else:
            engine.started.clear()
            engine.gate.clear()  # the work is under way, and waits here until the others have come
            beside = clients.submit(_took_s, predictor, range(20_000, 20_300), "3.1")
            try:
                assert engine.started.wait(10)
                clients.submit(predictor.predict, hanging(silent, range(300)), CONFIG, project="1.1", deadline_s=5)
                for _ in range(8):  # half of the places, which the second of two projects gets though all are taken
                    assert silent.opened.acquire(timeout=10)
            finally:
                engine.gate.set()
            beside_s = beside.result()
        assert beside_s < 2 * alone_s + 2


def _took_s(predictor: Predictor, numbers: range, project: str) -> float:
    began = time.monotonic()
    answer = predictor.predict([inline(number) for number in numbers], CONFIG, project=project)
    assert all(answer)
    return time.monotonic() - began


def test_a_host_that_hangs_costs_its_own_project_only_what_lies_there(
    predictor: Predictor, silent: TalkingServer
) -> None:
    tasks = [
        task for number in range(100) for task in (*hanging(silent, range(number, number + 1)), inline(1000 + number))
    ]
    answer = predictor.predict(tasks, CONFIG, project="1.1", deadline_s=8)
    assert [bool(entry) for entry in answer] == [False, True] * 100


def test_people_who_left_pictures_that_hang_keep_nobody_waiting(predictor: Predictor, silent: TalkingServer) -> None:
    def leave(number: int) -> None:
        gone_at = time.monotonic() + 0.3
        (task,) = hanging(silent, range(number, number + 1))
        assert predictor.predict([task], CONFIG, project="1.1", is_abandoned=lambda: time.monotonic() > gone_at) == [[]]

    count = 3 * predictor.settings.threads
    with ThreadPoolExecutor(count) as people:
        list(people.map(leave, range(count)))
    began = time.monotonic()
    assert all(predictor.predict([inline(1)], CONFIG, project="2.1"))
    assert time.monotonic() - began < 1.5
    for _ in range(count):
        assert silent.closed.acquire(timeout=10)
