"""The class that serves, by its name: from where it is imported, when, and what is said where it can't be."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from yolo_backend.model_class import ModelClass, ModelClassError

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
    with pytest.raises(ModelClassError, match="--model should look like module:Class, not"):
        ModelClass.named(name)


def test_a_module_that_is_not_there_is_told_before_the_start(folder: Path) -> None:
    with pytest.raises(ModelClassError, match=f"--model nowhere:X: no module nowhere is installed, or in {folder}"):
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
    (folder / "colorsys.py").write_text("raise AssertionError('this one was not asked for')")
    ModelClass.named("mine_2:Mine").load()
    import colorsys

    assert Path(str(colorsys.__file__)).parent != folder


def test_nothing_of_the_current_folder_is_imported_unasked(folder: Path) -> None:
    (folder / "yolo_backend.py").write_text("raise AssertionError('this one was not asked for')")
    ModelClass.named()
    assert str(folder) not in sys.path


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("class Mine(", "SyntaxError: '[(]' was never closed"),
        ("Yours = 1", "AttributeError: module 'mine_3' has no attribute 'Mine'"),
    ],
)
def test_what_cannot_be_imported_is_told_in_one_line_each_time(folder: Path, source: str, reason: str) -> None:
    (folder / "mine_3.py").write_text(source)
    model_class = ModelClass.named("mine_3:Mine")
    for _ in range(2):
        with pytest.raises(ModelClassError, match=f"The class Mine can't be imported: {reason}"):
            model_class.load()
    assert model_class.error is not None
    assert "\n" not in model_class.error
