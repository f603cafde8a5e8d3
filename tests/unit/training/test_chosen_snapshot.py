"""A snapshot of what was chosen: an image that nobody said anything of isn't one of nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.harness.snapshots import Take, picture, submitted, task
from yolo_backend.training.chosen import OF_SEVERAL
from yolo_backend.training.collected import Collected
from yolo_backend.training.snapshot import trained_controls

pytestmark = pytest.mark.usefixtures("clean_environment")

CONFIG = """<View><Image name="image" value="$image"/>
<Choices name="kind" toName="image" choice="multiple"><Choice value="cat"/><Choice value="dog"/><Choice value="cow"/>
</Choices></View>"""
PAGES = CONFIG.replace('value="$image"', 'valueList="$pages"')
EACH = PAGES.replace("<Choices", '<Choices perItem="true"')


def choice(*labels: str, **more: Any) -> dict[str, Any]:
    return {
        "id": "".join(labels),
        "from_name": "kind",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": list(labels)},
        "origin": "manual",
        **more,
    }


def labels_of(take: Take, tasks: list[dict[str, Any]], config: str = CONFIG) -> dict[tuple[int, int | None], list[str]]:
    images = take(tasks, config, kind="classify").images
    return {(image.task_id, image.page): [box.label for box in image.boxes] for image in images}


def test_images_without_a_choice_are_left_out_and_told(take: Take) -> None:
    tasks = [
        task(1, submitted(choice("cat"))),
        task(2, submitted()),
        task(3, submitted(choice("dog", "cow"))),
        task(4, submitted(choice("bird"))),
        task(5, submitted(choice("bird", "cat"))),
        task(6, submitted(choice("cat"), was_cancelled=True)),
    ]
    snapshot = take(tasks, CONFIG, kind="classify")
    assert {image.task_id: [box.label for box in image.boxes] for image in snapshot.images} == {
        1: ["cat"],
        3: ["dog", "cow"],
        5: ["cat"],
    }
    assert snapshot.images[0].boxes[0].box_xyxy == (0, 0, 40, 20)
    assert snapshot.labels == ("cat", "dog", "cow")
    assert snapshot.remarks == (
        "Not trained on: 1 image (task 2): nothing was chosen",
        'Not trained on: 2 choices with the label "bird", which the labeling config doesn\'t have (tasks 4, 5)',
    )


def test_the_upright_image_is_what_was_chosen_for(take: Take) -> None:
    turned = task(1, submitted(choice("cat")), image=picture(1, orientation_=6))
    (image,) = take([turned], CONFIG, kind="classify").images
    assert image.size_wh == (20, 40)
    assert image.boxes[0].box_xyxy == (0, 0, 20, 40)


def test_pages_that_are_chosen_for_one_by_one(take: Take) -> None:
    pages = [picture(number) for number in range(3)]
    chosen = submitted(choice("cat", item_index=0), choice("dog", item_index=2), choice("cow"))
    snapshot = take([task(1, chosen, pages=pages)], EACH, kind="classify")
    assert {image.page: [box.label for box in image.boxes] for image in snapshot.images} == {0: ["cat"], 2: ["dog"]}
    assert snapshot.remarks == (
        "Not trained on: 1 image (task 1): nothing was chosen",
        "Not trained on: 1 choice for no single image of their task (task 1)",
    )


def test_a_choice_for_several_images_together_is_told_with_what_to_do(take: Take) -> None:
    tasks = [
        task(1, submitted(choice("cat")), pages=[picture(1), picture(2)]),
        task(2, submitted(choice("dog")), pages=[picture(3)]),
        task(3, submitted(choice("dog")), pages=["no address", picture(5), picture(6)]),
    ]
    snapshot = take(tasks, PAGES, kind="classify")
    assert [(image.task_id, image.page) for image in snapshot.images] == [(2, 0)]
    assert snapshot.remarks == (f"Not trained on: 5 images (tasks 1, 3): {OF_SEVERAL}",)


def test_two_images_of_a_task_may_each_have_a_choice_of_their_own(take: Take) -> None:
    config = """<View><Image name="left" value="$left"/><Image name="right" value="$right"/>
    <Choices name="kind" toName="left"><Choice value="cat"/><Choice value="dog"/></Choices>
    <Choices name="other" toName="right"><Choice value="cat"/><Choice value="cow"/></Choices></View>"""
    chosen = submitted(choice("cat", to_name="left"), choice("cow", from_name="other", to_name="right"))
    one = {"id": 1, "data": {"left": picture(1), "right": picture(2)}, "annotations": [chosen]}
    left, right = take([one], config, kind="classify").images
    assert [box.label for image in (left, right) for box in image.boxes] == ["cat", "cow"]
    assert (left.labels, right.labels) == (frozenset({"cat", "dog"}), frozenset({"cat", "cow"}))


def test_images_of_several_choices_are_judged_by_and_not_trained_on(take: Take) -> None:
    tasks = [task(number, submitted(choice(*(["cat", "cow"] if number % 4 else ["dog"])))) for number in range(1, 41)]
    snapshot = take(tasks, CONFIG, kind="classify")
    collected = Collected.of(snapshot, trained_controls(CONFIG, "classify"), {}, (), "classify")
    assert {len(image.boxes) for image in collected.split.train} == {1}
    assert {len(image.boxes) for image in collected.split.val} == {1, 2}
    assert collected.classes.names == ("dog",)
    assert collected.labels == ("cat", "dog", "cow")
    left_out = 40 - len(collected.split.train) - len(collected.split.val)
    told = list(collected.remarks())
    assert told[0].startswith(f"Not trained on: {left_out} images (tasks 1, 2, 5, 6, 7 and ")
    assert told[0].endswith(
        "): several choices, of which a classifier can learn only one; it is judged by them all the same"
    )
    assert told[1] == "No training image has a choice with these labels, so the model won't know them: cat, cow"


def test_of_many_labels_without_an_image_some_are_named(take: Take) -> None:
    """A labeling config may have hundreds."""
    choices = "".join(f'<Choice value="{number}"/>' for number in range(80))
    config = f'<View><Image name="image" value="$image"/><Choices name="kind" toName="image">{choices}</Choices></View>'
    snapshot = take([task(number, submitted(choice("0"))) for number in range(1, 11)], config, kind="classify")
    told = list(Collected.of(snapshot, trained_controls(config, "classify"), {}, (), "classify").remarks())
    assert told == [
        "No training image has a choice with these labels, so the model won't know them: 1, 2, 3, 4, 5, 6, 7, 8 and 71 "
        "more"
    ]
