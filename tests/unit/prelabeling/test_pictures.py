"""Pictures of what was predicted: their names, what can't be drawn, and that the outcomes come through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from yolo_backend.failure_kinds import FailureKind
from yolo_backend.failures import Failure
from yolo_backend.images.errors import ImageError
from yolo_backend.label_studio.errors import StudioError
from yolo_backend.prelabeling.pictures import PictureError, with_pictures
from yolo_backend.protocol import Task
from yolo_backend.serving.request import Outcome
from yolo_backend.serving.task import TaskImage

ADDRESS = "https://images.test/cells/a.jpg?signature=secret"
PREDICTION: Any = {
    "result": [
        {
            "type": "rectanglelabels",
            "to_name": "image",
            "value": {"x": 10, "y": 10, "width": 80, "height": 80, "rectanglelabels": ["car"]},
        }
    ],
    "score": 0.5,
    "model_version": "a",
}


def grey(address: str = ADDRESS, item_index: int | None = None) -> TaskImage:
    return TaskImage(address, np.full((60, 100, 3), 128, np.uint8), frozenset({"image"}), item_index)


class House:
    """Draws the outcomes of tasks that have these images, or can't be had."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images: dict[int, list[TaskImage] | Exception] = {}
        self.remarks: list[str] = []

    def images_of(self, task: Task) -> list[TaskImage]:
        images = self.images.get(task["id"], [grey()])
        if isinstance(images, Exception):
            raise images
        return images

    def draw(self, *outcomes: tuple[int, Outcome]) -> list[tuple[Task, Outcome]]:
        pairs: Iterator[tuple[Task, Outcome]] = (({"id": task_id}, outcome) for task_id, outcome in outcomes)
        return list(with_pictures(pairs, self.folder, self.images_of, ["bus", "car"], self.remarks.append))

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_each_prediction_is_drawn_and_each_outcome_comes_through(house: House) -> None:
    failure = Failure("7", 2, FailureKind.NOT_FOUND, "no such image")
    outcomes: list[tuple[int, Outcome]] = [(1, PREDICTION), (2, failure), (3, PREDICTION | {"result": []})]
    drawn = house.draw(*outcomes)
    assert sorted(((task["id"], outcome) for task, outcome in drawn), key=lambda pair: pair[0]) == outcomes
    assert house.names() == ["1-a.jpg", "3-a.jpg"]
    changed = [np.abs(np.asarray(Image.open(house.folder / name)).astype(int) - 128).max() for name in house.names()]
    assert changed[0] > 50
    assert changed[1] < 10


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (ADDRESS, "1-a.jpg"),
        ("/data/upload/3/0123abcd-photo_1.PNG", "1-photo_1.jpg"),
        ("/data/local-files/?d=day%202/my%20photo.jpg", "1-my_photo.jpg"),
        ("s3://bucket/a/b.c.jpeg", "1-b.c.jpg"),
        ("https://images.test/ph%C3%B6t%C3%B6.jpg", "1-phötö.jpg"),
        ("https://images.test/..%2F..%2Fetc%2Fpasswd", "1-passwd.jpg"),
        ("https://images.test/", "1-image.jpg"),
        ("data:image/png;base64,AAAA/BBBB", "1-image.jpg"),
        (f"https://images.test/{'x' * 500}.jpg", f"1-{'x' * 80}.jpg"),
    ],
)
def test_a_picture_is_named_by_its_task_and_image(address: str, name: str, house: House) -> None:
    house.images[1] = [grey(address)]
    house.draw((1, PREDICTION))
    assert house.names() == [name]


def test_a_task_of_several_images_gets_a_sheet_of_them(house: House) -> None:
    house.images[1] = [grey(f"https://images.test/page{page}.jpg", page) for page in range(5)]
    regions: list[dict[str, Any]] = [{**PREDICTION["result"][0], "item_index": 4}]
    house.draw((1, PREDICTION | {"result": regions}))
    assert house.names() == ["1-page0.jpg"]
    with Image.open(house.folder / "1-page0.jpg") as sheet:
        pixels = np.asarray(sheet).astype(int)
    assert pixels.shape[0] == 2 * 322
    is_colored = (pixels.max(axis=2) - pixels.min(axis=2)) > 80
    assert not is_colored[:322].any()
    assert is_colored[322:, :400].any()


@pytest.mark.parametrize(
    "error", [ImageError(FailureKind.NOT_FOUND, "no such image"), StudioError("Label Studio is away")]
)
def test_what_cant_be_drawn_is_remarked_and_stored_all_the_same(error: Exception, house: House) -> None:
    house.images[2] = error
    assert len(house.draw((1, PREDICTION), (2, PREDICTION))) == 2
    assert house.names() == ["1-a.jpg"]
    assert house.remarks == [f"Task 2 is not drawn: {error}"]


def test_a_folder_that_takes_no_picture_ends_it(house: House) -> None:
    house.folder /= "missing"
    with pytest.raises(PictureError, match=r"1-a\.jpg can't be written: No such file or directory"):
        house.draw((1, PREDICTION))
