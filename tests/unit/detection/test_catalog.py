"""Weights by name: known as soon as they are read, one file at a time, and switched when another lies there."""

from __future__ import annotations

import gc
import hashlib
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes.engine import FakeEngine, info_of
from tests.fakes.weights import FakeShelf
from yolo_backend.detection import catalog as catalog_module
from yolo_backend.detection import detector as detector_module
from yolo_backend.detection import pool as pool_module
from yolo_backend.detection.catalog import Catalog
from yolo_backend.detection.detections import Letterboxed, Runtime, WeightsInfo
from yolo_backend.detection.detector import BULK
from yolo_backend.detection.pool import ModelPool, Tell, WeightsLoadingError
from yolo_backend.detection.trained import Shelves
from yolo_backend.detection.weights import (
    DownloadError,
    WeightsError,
    WeightsFile,
    WeightsFolder,
    WeightsReplacedError,
)
from yolo_backend.labels.plans import make_plan
from yolo_backend.settings import load_settings

WAIT_S = 5
CAR = Letterboxed(np.full((2, 2, 3), 7, np.uint8), (2, 2))


class House:
    """A catalog of files in a folder: what a file says is the class that its model finds; "broken" can't be loaded.

    With an `exporting` gate a model's file is known before it, and the model comes when the gate opens.
    """

    def __init__(self, max_models: int = 2) -> None:
        self.shelf = FakeShelf()
        self.pool = ModelPool(self.load, max_models=max_models, batch_size=4)
        self.catalog = Catalog(self.shelf, self.pool)
        self.exporting: threading.Event | None = None
        self.reading = threading.Event()
        self.reading.set()
        self.hanging = threading.Event()
        self.fallback: str | None = None
        self.fails: str | None = None
        self.raises: BaseException | None = None
        self.loaded: list[str] = []
        self.engines: list[weakref.ref[FakeEngine]] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    def load(self, file: WeightsFile, tell: Tell) -> FakeEngine:
        with self.lock:
            self.loaded.append(file.path.read_text())
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            assert self.reading.wait(WAIT_S)
            if file.name.startswith("hangs"):
                assert self.hanging.wait(2 * WAIT_S)
            said = file.path.read_text()
            info = replace(
                info_of(file.path.name), class_names={0: said}, fingerprint=hashlib.sha256(said.encode()).hexdigest()
            )
            if said == "broken":
                raise WeightsError("this file is broken")
            if self.exporting:
                tell(info)
                assert self.exporting.wait(WAIT_S)
            if self.raises:
                raise self.raises
            if self.fails:
                raise WeightsError(self.fails)
            engine = FakeEngine(info, runtime=Runtime("cpu", "torch", fallback=self.fallback))
            engine.gate.set()
            self.engines.append(weakref.ref(engine))
            return engine
        finally:
            with self.lock:
                self.at_once -= 1

    def put(self, name: str, said: str) -> None:
        """As whoever trains does it: a finished file in the place of the one before."""
        new = self.shelf.folder / f"{name}.new"
        new.write_text(said)
        new.replace(self.shelf.folder / name)

    def classes(self, name: str = "a.pt") -> dict[int, str]:
        return dict(self.catalog.wait_for_info(name, WAIT_S).class_names)

    def fingerprint(self, name: str = "a.pt") -> str:
        return self.catalog.wait_for_info(name, WAIT_S).fingerprint

    def detect(self, fingerprint: str) -> int:
        return len(self.pool.detect(fingerprint, CAR, 0.5, BULK))

    def look_twice(self) -> None:
        """What is seen twice alike is written no longer."""
        self.catalog.look()
        self.catalog.look()

    def in_memory(self) -> int:
        """How many models somebody holds."""
        gc.collect()
        return sum(engine() is not None for engine in self.engines)


@pytest.fixture(autouse=True)
def _no_other_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "_LOOK_EVERY_S", 1000)


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.reading.set()
    made.hanging.set()
    if made.exporting:
        made.exporting.set()
    made.catalog.close(WAIT_S)


def wait_until(is_so: Any) -> None:
    ends_at = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < ends_at
        time.sleep(0.005)


def test_names_and_fingerprint_are_known_while_the_export_is_made(house: House) -> None:
    house.exporting = threading.Event()
    assert house.classes() == {0: "a.pt"}
    assert house.pool.runtimes() == {}
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(house.detect, house.fingerprint())
        time.sleep(0.05)
        assert not waiting.done()
        house.exporting.set()
        assert waiting.result(WAIT_S) == 1
    assert house.pool.runtimes() == {house.fingerprint(): Runtime("cpu", "torch")}


def test_a_file_that_is_not_there_is_told_at_the_first_ask(tmp_path: Path, house: House) -> None:
    class Looking(WeightsFolder):
        def find(self, name: str) -> Path:
            """What takes long: a download, or a look at the file."""
            assert house.hanging.wait(WAIT_S)
            raise WeightsError("it came to nothing")

    catalog = Catalog(Looking(tmp_path, ("yolo11n.pt",)), house.pool)
    for name in ("missing.pt", "../missing.pt", "what.zip"):
        with pytest.raises(WeightsError, match=r"missing\.pt|what\.zip"):
            catalog.info(name)
    with pytest.raises(WeightsLoadingError):
        catalog.info("yolo11n.pt")
    assert house.loaded == []


def test_a_download_may_take_longer_than_a_load(
    tmp_path: Path, house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Downloading(WeightsFolder):
        def find(self, name: str) -> Path:
            """What takes long, and fails."""
            assert house.hanging.wait(WAIT_S)
            raise DownloadError("no network")

    monkeypatch.setattr(catalog_module, "LOAD_TIMEOUT_S", 0.0)
    catalog = Catalog(Downloading(tmp_path, ("yolo11n.pt",)), house.pool)
    with pytest.raises(WeightsLoadingError):
        catalog.info("yolo11n.pt")
    assert catalog.down_reason("yolo11n.pt") is None
    house.hanging.set()
    with pytest.raises(DownloadError, match="no network"):
        catalog.wait_for_info("yolo11n.pt", WAIT_S)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["no network"]


def test_of_many_names_few_are_read_at_a_time_and_few_stay_in_memory(house: House) -> None:
    names = [f"{number}.pt" for number in range(20)]
    house.reading.clear()
    for name in names:
        with pytest.raises(WeightsLoadingError):
            house.catalog.info(name)
    wait_until(lambda: house.at_once == 2)
    house.reading.set()
    assert [house.classes(name) for name in names] == [{0: name} for name in names]
    wait_until(lambda: len(house.pool.runtimes()) == 20)
    assert house.most_at_once == 2
    wait_until(lambda: house.in_memory() == 2)


def test_loads_that_hang_hold_up_others_for_a_while_only(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "LOAD_TIMEOUT_S", 0.2)
    for name in ("hangs.pt", "hangs-too.pt"):
        with pytest.raises(WeightsLoadingError):
            house.catalog.info(name)
    wait_until(lambda: house.at_once == 2)
    assert house.classes("c.pt") == {0: "c.pt"}


def test_a_file_that_was_written_when_it_was_first_read_is_read_anew(house: House) -> None:
    house.reading.clear()
    with pytest.raises(WeightsLoadingError):
        house.catalog.info("a.pt")
    wait_until(lambda: house.at_once == 1)
    house.put("a.pt", "dog")
    house.reading.set()
    with pytest.raises(WeightsReplacedError):
        house.catalog.wait_for_info("a.pt", WAIT_S)
    assert house.classes() == {0: "dog"}


def test_what_replaced_weights_never_answers_in_their_name(house: House) -> None:
    old = house.fingerprint()
    assert house.detect(old) == 1
    for name in ("b.pt", "c.pt"):  # which puts the first away
        assert house.detect(house.fingerprint(name)) == 1
    house.put("a.pt", "dog")
    with pytest.raises(WeightsReplacedError, match="replaced"):
        house.detect(old)
    assert house.classes() == {0: "a.pt"}, "until it is seen"


def test_a_new_file_serves_once_it_is_read_and_the_old_one_as_long_as_somebody_needs_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = house.fingerprint()
    house.detect(old)
    with house.pool.using([old]):
        house.put("a.pt", "dog")
        assert house.classes() == {0: "a.pt"}
        house.look_twice()
        assert house.classes() == {0: "dog"}
        new = house.fingerprint()
        assert house.loaded == ["a.pt", "dog"]
        monkeypatch.setattr(pool_module, "_RETIRED_FOR_S", -1)
        house.catalog.look()
        assert (house.detect(old), house.detect(new)) == (1, 1)
    house.catalog.look()
    assert house.detect(new) == 1
    with pytest.raises(WeightsReplacedError):
        house.detect(old)


def test_with_one_place_the_new_model_stands_beside_the_old_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = House(max_models=1)
    old = house.fingerprint()
    house.detect(old)
    house.exporting = threading.Event()
    house.put("a.pt", "dog")
    with ThreadPoolExecutor(1) as threads:
        house.catalog.look()
        switching = threads.submit(house.catalog.look)
        wait_until(lambda: house.loaded == ["a.pt", "dog"])
        assert house.detect(old) == 1
        assert house.classes() == {0: "a.pt"}
        house.exporting.set()
        switching.result(WAIT_S)
    assert (house.detect(old), house.detect(house.fingerprint())) == (1, 1)
    assert house.loaded == ["a.pt", "dog"]
    monkeypatch.setattr(pool_module, "_RETIRED_FOR_S", -1)
    assert house.in_memory() == 2
    house.catalog.look()
    wait_until(lambda: house.in_memory() == 1)
    house.catalog.close(WAIT_S)


def test_a_file_that_is_written_still_is_not_read(house: House) -> None:
    house.fingerprint()
    for said in ("d", "do", "dog"):
        (house.shelf.folder / "a.pt").write_text(said)
        house.catalog.look()
    assert house.loaded == ["a.pt"]
    house.catalog.look()
    assert house.classes() == {0: "dog"}
    assert house.loaded == ["a.pt", "dog"]


def test_a_new_file_that_cannot_be_used_changes_nothing(house: House) -> None:
    old = house.fingerprint()
    house.put("a.pt", "broken")
    for _ in range(3):
        house.look_twice()
    assert house.classes() == {0: "a.pt"}
    assert house.detect(old) == 1
    assert house.loaded == ["a.pt", "broken"], "once is enough"
    reason = "A new file a.pt can't be used, so the one before it serves: this file is broken"
    assert house.catalog.refused() == [reason]
    house.put("a.pt", "dog")
    house.look_twice()
    assert (house.classes(), house.catalog.refused()) == ({0: "dog"}, [])


def test_a_new_file_whose_export_fails_changes_nothing_where_that_of_the_old_one_did_not(house: House) -> None:
    house.detect(house.fingerprint())
    house.fallback = "a.pt runs in torch, because it can't be exported"
    house.put("a.pt", "dog")
    house.look_twice()
    assert house.classes() == {0: "a.pt"}
    assert "can't be exported" in str(house.catalog.refused())
    house.detect(house.fingerprint("b.pt"))
    house.put("b.pt", "cat")
    house.look_twice()
    assert house.classes("b.pt") == {0: "cat"}, "where none can be exported, torch runs the new one, too"


def test_the_same_bytes_anew_and_a_file_that_is_gone_change_nothing(house: House) -> None:
    old = house.fingerprint()
    house.put("a.pt", "a.pt")
    house.look_twice()
    (house.shelf.folder / "a.pt").unlink()
    house.look_twice()
    assert house.fingerprint() == old
    assert house.detect(old) == 1
    assert house.loaded == ["a.pt"]


def test_the_file_before_may_come_back(house: House) -> None:
    old = house.fingerprint()
    house.detect(old)
    for said in ("dog", "a.pt", "dog"):
        house.put("a.pt", said)
        house.look_twice()
        assert house.classes() == {0: said}
        assert house.detect(house.fingerprint()) == 1
    assert house.fingerprint() != old
    assert house.loaded == ["a.pt", "dog"], "both are in memory still"


def test_weights_of_two_names_are_put_away_when_neither_serves(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.pt", "b.pt"):
        (house.shelf.folder / name).write_text("same")
    same = house.fingerprint("a.pt")
    assert house.fingerprint("b.pt") == same
    assert house.catalog.info("b.pt").name == "b.pt"
    house.detect(same)
    monkeypatch.setattr(pool_module, "_RETIRED_FOR_S", -1)
    house.put("a.pt", "dog")
    house.look_twice()
    house.catalog.look()
    assert house.detect(house.fingerprint("b.pt")) == 1
    assert house.loaded == ["same", "dog"]


def test_under_load_each_answer_is_of_one_file_and_none_is_lost(house: House) -> None:
    house.fingerprint()
    stop = threading.Event()

    def ask() -> int:
        count = 0
        while not stop.is_set():
            info = house.catalog.wait_for_info("a.pt", WAIT_S)
            with house.pool.using([info.fingerprint]):
                assert house.detect(info.fingerprint) == 1
            count += 1
        return count

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask) for _ in range(4)]
        for number in range(50):
            house.put("a.pt", f"class {number}")
            house.look_twice()
            assert house.classes() == {0: f"class {number}"}
        stop.set()
        assert all(each.result(WAIT_S) > 10 for each in asking)


def test_weights_that_cannot_detect_after_all_are_told_so_and_read_anew(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the file says was known, and then its model couldn't be made."""
    house.exporting = threading.Event()
    house.fails = "no memory on this device"
    assert house.classes() == {0: "a.pt"}
    house.exporting.set()
    wait_until(lambda: house.at_once == 0)
    with pytest.raises(WeightsError, match="no memory on this device"):
        wait_until(lambda: house.catalog.info("a.pt") is None)
    house.fails = None
    with pytest.raises(WeightsError, match="no memory on this device"):
        house.catalog.info("a.pt")
    for module in (catalog_module, detector_module):
        monkeypatch.setattr(module, "_RETRY_AFTER_S", -1)
    assert house.classes() == {0: "a.pt"}
    assert house.detect(house.fingerprint()) == 1


def test_a_backup_of_weights_that_were_replaced_may_serve_while_they_are_put_away(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = house.fingerprint()
    house.detect(old)
    (house.shelf.folder / "old.pt").write_text("a.pt")
    house.put("a.pt", "dog")
    house.look_twice()
    assert house.fingerprint("old.pt") == old
    monkeypatch.setattr(pool_module, "_RETIRED_FOR_S", -1)
    house.catalog.look()
    house.detect(house.fingerprint("b.pt"))
    house.detect(house.fingerprint("c.pt"))
    assert house.detect(old) == 1, "from the backup, for its model was put away"


def test_weights_of_two_names_are_read_again_from_the_file_that_has_them_still(house: House) -> None:
    for name in ("a.pt", "b.pt"):
        (house.shelf.folder / name).write_text("same")
    same = house.fingerprint("a.pt")
    assert house.fingerprint("b.pt") == same
    house.put("b.pt", "dog")
    for name in ("b.pt", "c.pt", "d.pt"):  # which puts it away
        house.look_twice()
        house.detect(house.fingerprint(name))
    assert house.detect(same) == 1
    assert house.loaded.count("same") == 2


def test_who_waits_for_the_turn_of_an_export_is_not_late(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.exporting = threading.Event()
    fingerprints = [house.fingerprint(name) for name in ("a.pt", "b.pt")]
    monkeypatch.setattr(detector_module, "LOAD_TIMEOUT_S", 0.1)
    time.sleep(0.3)
    late = [house.pool.down_reason(each) for each in fingerprints]
    assert sorted(map(bool, late)) == [False, True], "one exports for too long, the other one waits"
    assert "not loaded after" in str(next(filter(None, late)))


def test_a_plan_asks_once_for_each_name(house: House) -> None:
    """Or a switch between two of its controls would let one answer mix two weights."""
    controls = "".join(
        f'<RectangleLabels name="r{number}" toName="i"><Label value="x" predicted_values="a.pt, dog"/>'
        "</RectangleLabels>"
        for number in range(2)
    )
    config = f'<View><Image name="i" value="$image"/>{controls}</View>'
    asked: list[str] = []

    class Switching(Catalog):
        def wait_for_info(self, name: str, timeout_s: float | None) -> WeightsInfo:
            asked.append(name)
            info = super().wait_for_info(name, WAIT_S)
            house.put("a.pt", "dog")
            self.look()
            self.look()
            return info

    plan = make_plan(config, load_settings(model_name="a.pt"), Switching(house.shelf, house.pool), WAIT_S)
    assert asked == ["a.pt"]
    assert len({served.weights.fingerprint for served in plan.controls}) == 1


def test_what_passes_is_tried_again_and_rights_are_seen(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.fingerprint()
    house.fails = "no memory on this device"
    house.put("a.pt", "dog")
    house.look_twice()
    assert "no memory" in house.catalog.refused()[0]
    house.fails = None
    house.look_twice()
    assert house.classes() == {0: "a.pt"}, "not at once"
    (house.shelf.folder / "a.pt").chmod(0o644)
    house.look_twice()
    assert (house.classes(), house.catalog.refused()) == ({0: "dog"}, [])
    house.fails = "no memory on this device"
    house.put("a.pt", "cat")
    house.look_twice()
    house.fails = None
    monkeypatch.setattr(catalog_module, "_REFUSED_FOR_S", -1)
    house.look_twice()
    assert house.classes() == {0: "cat"}


def test_a_fault_of_ours_is_told_once_like_any_other(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.fingerprint()
    house.raises = ValueError("an odd one")
    house.put("a.pt", "dog")
    for _ in range(4):
        house.catalog.look()
    assert house.catalog.refused() == [
        "A new file a.pt can't be used, so the one before it serves: Weights a.pt: an odd one"
    ]
    assert sum(record.levelname == "ERROR" for record in caplog.records) <= 2
    house.raises = SystemExit(1)
    with pytest.raises(WeightsError, match=r"b\.pt"):
        house.catalog.wait_for_info("b.pt", WAIT_S)


def test_a_file_that_is_gone_is_told_while_what_was_read_of_it_serves(house: House) -> None:
    old = house.fingerprint()
    (house.shelf.folder / "a.pt").unlink()
    house.shelf.makes = False
    house.look_twice()
    assert house.catalog.refused() == [
        "The file a.pt is gone: what was read of it serves, until the backend is restarted"
    ]
    assert house.detect(old) == 1


def test_closing_ends_a_switch_under_way(house: House) -> None:
    house.fingerprint()
    house.exporting = threading.Event()
    house.put("a.pt", "dog")
    house.catalog.look()
    with ThreadPoolExecutor(1) as threads:
        switching = threads.submit(house.catalog.look)
        wait_until(lambda: house.loaded == ["a.pt", "dog"])
        house.catalog.close()
        assert switching.result(1) is None
    assert house.classes() == {0: "a.pt"}
    assert house.loaded == ["a.pt", "dog"]


def test_weights_that_nobody_used_for_long_stay_for_a_plan_that_was_made_before_the_switch(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_RETIRED_FOR_S", 0.5)
    old = house.fingerprint()
    house.detect(old)
    time.sleep(0.6)
    house.put("a.pt", "dog")
    house.look_twice()
    assert house.detect(old) == 1
    assert house.loaded == ["a.pt", "dog"]


def test_a_first_load_that_fails_late_does_not_take_the_new_file_away(house: House) -> None:
    house.exporting = late = threading.Event()
    old = house.fingerprint()
    wait_until(lambda: house.at_once == 1)
    house.exporting = None
    house.put("a.pt", "dog")
    house.look_twice()
    assert house.classes() == {0: "dog"}
    house.fails = "no memory on this device"
    late.set()
    with pytest.raises(WeightsError, match="no memory"):
        house.pool.load(old)
    wait_until(lambda: not any(thread.name == "read a.pt" for thread in threading.enumerate()))
    assert house.classes() == {0: "dog"}
    assert house.detect(house.fingerprint()) == 1


def test_weights_that_failed_late_and_then_were_replaced_are_put_away(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan that was made before may load them after all, but they serve under no name any more."""
    house.exporting = threading.Event()
    house.fails = "no memory on this device"
    old = house.fingerprint()
    house.exporting.set()
    with pytest.raises(WeightsError, match="no memory"):
        wait_until(lambda: house.catalog.info("a.pt") is None)
    house.fails = None
    for module in (catalog_module, detector_module):
        monkeypatch.setattr(module, "_RETRY_AFTER_S", -1)
    assert house.detect(old) == 1
    house.put("a.pt", "dog")
    assert house.classes() == {0: "dog"}
    assert house.detect(house.fingerprint()) == 1
    assert house.in_memory() == 2
    monkeypatch.setattr(pool_module, "_RETIRED_FOR_S", -1)
    house.catalog.look()
    wait_until(lambda: house.in_memory() == 1)


def test_it_watches_where_somebody_asks_and_not_before(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server makes it before its workers are forked, which have none of its threads."""

    def watchers() -> int:
        return sum(thread.name == "new weights" for thread in threading.enumerate())

    before = watchers()
    monkeypatch.setattr(catalog_module, "_LOOK_EVERY_S", 0.02)
    house.catalog.watch()
    assert watchers() == before
    assert house.classes() == {0: "a.pt"}
    assert watchers() == before + 1
    house.put("a.pt", "dog")
    wait_until(lambda: house.classes() == {0: "dog"})
    house.catalog.close()
    wait_until(lambda: watchers() == before)


# Weights that others serve instead of

BASE, OWN = "base.pt", "trained/7-00c0ffee/project-7.pt"


@pytest.fixture
def own(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """A house with a shelf for projects; what its files say needs to be no weights."""
    monkeypatch.setattr("yolo_backend.detection.weights.content_problem", lambda path: None)
    folder = house.shelf.folder
    (folder / OWN).parent.mkdir(parents=True)
    (folder / BASE).write_text("base")
    house.catalog = Catalog(Shelves(WeightsFolder(folder), folder), house.pool)
    return house


def serving(house: House) -> str:
    """The class that the weights find which serve the project."""
    return house.classes(house.catalog.serving(OWN, BASE))[0]


def test_a_file_that_comes_takes_the_place_of_those_that_serve_instead(own: House) -> None:
    assert serving(own) == "base"
    before = own.fingerprint(BASE)
    own.put(OWN, "own")
    assert serving(own) == "base", "nobody has looked"
    own.catalog.look()
    assert serving(own) == "base", "it may be written still"
    own.catalog.look()
    assert serving(own) == "own"
    assert own.detect(own.fingerprint(OWN)) == 1, "it was loaded before"
    assert own.loaded == ["base", "own"]
    assert own.detect(before) == 1, "plans of before go on"


def test_until_the_new_file_is_exported_the_others_serve(own: House) -> None:
    assert serving(own) == "base"
    own.exporting = threading.Event()
    own.put(OWN, "own")
    with ThreadPoolExecutor(1) as watcher:
        looks = watcher.submit(own.look_twice)
        wait_until(lambda: "own" in own.loaded)
        assert serving(own) == "base"
        own.exporting.set()
        looks.result()
    assert serving(own) == "own"


def test_a_file_that_is_there_from_the_start_is_waited_for(own: House) -> None:
    own.put(OWN, "own")
    own.reading.clear()
    name = own.catalog.serving(OWN, BASE)
    assert name == OWN
    with pytest.raises(WeightsLoadingError):
        own.catalog.info(name)
    own.reading.set()
    assert serving(own) == "own"
    assert "base" not in own.loaded


def test_a_second_file_takes_the_place_of_the_first(own: House) -> None:
    own.put(OWN, "own")
    assert serving(own) == "own"
    own.put(OWN, "newer")
    own.look_twice()
    assert serving(own) == "newer"


def test_a_file_that_goes_gives_its_place_back_and_may_come_again(own: House) -> None:
    assert serving(own) == "base"
    for said in ("own", "newer", "own"):
        own.put(OWN, said)
        own.look_twice()
        assert serving(own) == said
        (own.shelf.folder / OWN).unlink()
        own.catalog.look()
        assert serving(own) == said, "a share that is away for a moment takes nothing away"
        own.catalog.look()
        assert serving(own) == "base"
    assert own.catalog.refused() == []


def test_the_model_of_a_file_that_went_is_put_away(own: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_RETIRED_FOR_S", -1)
    assert serving(own) == "base"
    for _ in range(2):
        own.put(OWN, "own")
        own.look_twice()
        assert serving(own) == "own"
        (own.shelf.folder / OWN).unlink()
        own.look_twice()
        assert serving(own) == "base"
        own.catalog.look()
    assert own.loaded == ["base", "own", "own"]


def test_a_file_that_cannot_be_used_leaves_the_others_and_says_why(own: House, monkeypatch: pytest.MonkeyPatch) -> None:
    assert serving(own) == "base"
    own.put(OWN, "broken")
    own.look_twice()
    assert serving(own) == "base"
    assert own.catalog.refused() == [f"A new file {OWN} can't be used, so {BASE} serves: this file is broken"]
    own.look_twice()
    assert own.loaded == ["base", "broken"], "it isn't tried over and over"
    own.put(OWN, "own")
    own.look_twice()
    assert serving(own) == "own"
    assert own.catalog.refused() == []


def test_a_file_that_is_no_weights_leaves_the_others_and_says_why(own: House, monkeypatch: pytest.MonkeyPatch) -> None:
    assert serving(own) == "base"
    with monkeypatch.context() as patched:
        patched.setattr("yolo_backend.detection.weights.content_problem", lambda path: "is half a file")
        own.put(OWN, "own")
        own.look_twice()
        assert serving(own) == "base"
        (reason,) = own.catalog.refused()
        assert reason.startswith(f"A new file {OWN} can't be used, so {BASE} serves: project-7.pt is half a file")
    own.look_twice()
    assert serving(own) == "own"
    assert own.catalog.refused() == []


def test_a_file_without_an_export_leaves_others_that_have_one(own: House) -> None:
    assert serving(own) == "base"
    own.fallback = "its export failed"
    own.put(OWN, "own")
    own.look_twice()
    assert serving(own) == "base"
    assert "its export failed" in own.catalog.refused()[0]


def test_a_broken_file_from_the_start_is_told_and_goes_by_the_way_back(own: House) -> None:
    own.put(OWN, "broken")
    with pytest.raises(WeightsError, match="this file is broken"):
        serving(own)
    (own.shelf.folder / OWN).unlink()
    assert serving(own) == "base"
    own.put(OWN, "own")
    own.look_twice()
    assert serving(own) == "own"


def test_names_without_a_file_are_kept_in_bounds(own: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "_AWAITED_KEPT", 3)
    for number in range(1, 9):
        assert own.catalog.serving(f"trained/{number}-00c0ffee/project-{number}.pt", BASE) == BASE
        assert own.catalog.serving(OWN, BASE) == BASE
    assert len(own.catalog._awaited) == 3
    own.put(OWN, "own")
    own.look_twice()
    assert serving(own) == "own"
