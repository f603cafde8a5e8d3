"""The class that serves, by its name: from where it is imported, when, and what is said where it can't be."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from yolo_backend.server.model_class import ModelClass, ModelClassError, ModelClassLoadingError
from yolo_backend.settings import Settings

SOURCE = """
import builtins
builtins.times_imported = getattr(builtins, "times_imported", 0) + 1
class Mine:
    pass
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, an empty one; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    "name", ["model", "model.YoloBackend", "model:", ":YoloBackend", "model:a b", "../x:Y", "a:b:c"]
)
def test_a_name_of_another_form_is_told(name: str) -> None:
    with pytest.raises(ModelClassError, match=r"MODEL_CLASS \(--model\) should look like module:Class, not"):
        ModelClass.named(name)


def test_a_module_that_is_not_there_is_told_before_the_start(folder: Path) -> None:
    with pytest.raises(
        ModelClassError, match=rf"MODEL_CLASS \(--model\) nowhere:X: no module nowhere is installed, or in {folder}"
    ):
        ModelClass.named("nowhere:X")


def test_it_is_imported_once_when_it_is_needed_by_whoever_needs_it(folder: Path) -> None:
    (folder / "mine_1.py").write_text(SOURCE)
    model_class = ModelClass.named("mine_1:Mine")
    assert "mine_1" not in sys.modules
    assert model_class.name == "Mine"
    gate = threading.Barrier(8)

    def load(_: int) -> object:
        gate.wait()
        return model_class.load()

    with ThreadPoolExecutor(8) as pool:
        loaded = set(pool.map(load, range(8)))
    assert loaded == {sys.modules["mine_1"].Mine}
    assert model_class.error is None


def test_the_current_folder_hides_no_installed_module(folder: Path) -> None:
    (folder / "mine_2.py").write_text(SOURCE)
    (folder / "wave.py").write_text("raise AssertionError('this one was not asked for')")
    ModelClass.named("mine_2:Mine").load()
    sys.modules.pop("wave", None)
    import wave

    assert Path(str(wave.__file__)).parent != folder


def test_nothing_of_the_current_folder_is_imported_unasked(folder: Path) -> None:
    (folder / "yolo_backend.py").write_text("raise AssertionError('this one was not asked for')")
    ModelClass.named(Settings(_env_file=None).model_class)  # type: ignore[call-arg]
    assert str(folder) not in sys.path


@pytest.mark.parametrize(
    ("source", "kind", "line"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError", "No module named 'no_such_module_anywhere'"),
        ("class Mine(", "SyntaxError", "'(' was never closed"),
        ("Yours = 1", "AttributeError", "module 'mine_3' has no attribute 'Mine'"),
        ("raise SystemExit('a database at user:secret@host')", "SystemExit", "a database at user:secret@host"),
    ],
)
def test_what_cannot_be_imported_is_told_in_one_line_each_time(
    folder: Path, caplog: pytest.LogCaptureFixture, source: str, kind: str, line: str
) -> None:
    (folder / "mine_3.py").write_text(source)
    model_class = ModelClass.named("mine_3:Mine")
    told = f"The class Mine can't be imported ({kind}): see the backend's log"
    for _ in range(3):
        with pytest.raises(ModelClassError) as raised:
            model_class.load()
        assert str(raised.value) == told
        assert len(raised.traceback) == 2  # here and there: what it holds doesn't grow with each who asks
    assert model_class.error == told
    assert caplog.text.count("The class Mine can't be imported") == 1
    assert line in caplog.text


def test_who_cannot_wait_for_the_import_is_told() -> None:
    gate = threading.Event()

    def load() -> type:
        assert gate.wait(10)
        return SomeClass

    model_class = ModelClass("Mine", load)
    with ThreadPoolExecutor(1) as pool:
        importing = pool.submit(model_class.load)
        while not model_class._lock.locked():
            time.sleep(0.01)
        with pytest.raises(ModelClassLoadingError, match="The class Mine is being imported"):
            model_class.load(timeout_s=0.05)
        assert model_class.loaded is None
        gate.set()
        assert importing.result() is SomeClass
    assert model_class.load(timeout_s=0.05) is SomeClass
    assert model_class.loaded is SomeClass


def test_whether_it_is_there_can_be_asked_without_importing_it() -> None:
    def load() -> type:
        raise NameError

    assert ModelClass.of(SomeClass).loaded is SomeClass
    model_class = ModelClass("Mine", load)
    assert model_class.loaded is None
    for ask in (model_class.load, lambda: model_class.loaded):
        with pytest.raises(ModelClassError, match="can't be imported"):
            ask()


class SomeClass:
    """Not asked for anything."""

    def __init__(self, **_: Any) -> None: ...

    def predict(self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **kwargs: Any) -> Any: ...

    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> Any: ...
