"""The split: nothing leaks, nothing moves, and it is the same in any order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from yolo_backend.training.labelled import LabelledImage
from yolo_backend.training.looks import MOST_BITS
from yolo_backend.training.records import Side
from yolo_backend.training.remarks import left_out_remarks, why_few_validate
from yolo_backend.training.split import LOOKS_ALIKE, SAME_GROUP, LeftOut, Split, split_images


def digest(number: int) -> str:
    return blake3(str(number).encode()).hexdigest()


def far_look(number: int) -> int:
    """One that is like no other's."""
    return int.from_bytes(blake3(f"look {number}".encode()).digest(8), "big")


def image(
    number: int, *, same_as: int | None = None, look: int | None = None, group: str | None = None
) -> LabelledImage:
    of = number if same_as is None else same_as
    look = far_look(of) if look is None else look
    return LabelledImage(number, number, f"{number}.jpg", digest(of), look, Path("a.jpg"), (10, 10), (), group=group)


def images(count: int, first: int = 0) -> list[LabelledImage]:
    return [image(number) for number in range(first, first + count)]


def tasks(found: Sequence[LabelledImage]) -> list[int]:
    return [one.task_id for one in found]


@st.composite
def projects(draw: st.DrawFn, first: int = 0) -> list[LabelledImage]:
    """Images some of which have the same bytes, look the same, or are of one group."""
    count = draw(st.integers(0, 60))
    found: list[LabelledImage] = []
    for number in range(first, first + count):
        kind = draw(st.sampled_from(["alone", "alone", "alone", "same", "alike", "group"]))
        earlier = draw(st.sampled_from(found)) if found and kind in {"same", "alike"} else None
        if kind == "group":
            found.append(image(number, group=f"group {draw(st.integers(0, 3))}"))
        elif earlier is None:
            found.append(image(number))
        elif kind == "same":
            found.append(image(number, same_as=next(n for n in range(number) if digest(n) == earlier.digest)))
        else:
            found.append(image(number, look=earlier.look ^ (1 << draw(st.integers(0, 63)))))
    return found


def assert_nothing_leaks(split: Split) -> None:
    for one in split.train:
        for other in split.val:
            assert one.digest != other.digest
            assert (one.look ^ other.look).bit_count() > MOST_BITS
            assert one.group is None or one.group != other.group


@given(projects(), st.integers())
def test_nothing_leaks_and_the_order_does_not_matter(project: list[LabelledImage], seed: int) -> None:
    split = split_images(project, {})
    assert_nothing_leaks(split)
    assert split.left_out == ()
    assert sorted(tasks([*split.train, *split.val])) == sorted(tasks(project))
    assert {one.digest: split.sides[one.digest] for one in project} == split.sides
    shuffled = random.Random(seed).sample(project, len(project))
    again = split_images(shuffled, {})
    assert (set(tasks(again.train)), set(tasks(again.val))) == (set(tasks(split.train)), set(tasks(split.val)))
    assert again.sides == split.sides


@given(projects(), st.data())
def test_nothing_moves_and_nothing_leaks_when_a_project_grows(
    project: list[LabelledImage], data: st.DataObject
) -> None:
    """Also where images are deleted, and where what comes joins what was apart."""
    known: dict[str, Side] = {}
    parts = sorted(data.draw(st.lists(st.integers(0, len(project)), max_size=3)))
    for end in [*parts, len(project)]:
        left = [one for one in project[:end] if not data.draw(st.sampled_from([False, False, False, True]))]
        split = split_images(left, known)
        assert split.sides.items() >= known.items()
        for side, found in (("train", split.train), ("val", split.val)):
            assert all(split.sides[one.digest] == side for one in found)
        out = {one.image.digest for one in split.left_out}
        assert not out & {one.digest for one in (*split.train, *split.val)}
        assert all(known.get(digest) == split.sides.get(digest) != "val" for digest in out)
        assert len(split.train) + len(split.val) + len(split.left_out) == len(left)
        assert_nothing_leaks(split)
        known = dict(split.sides)


@given(projects(), projects(first=100))
def test_an_image_that_is_left_out_is_so_for_a_reason(first: list[LabelledImage], then: list[LabelledImage]) -> None:
    known = split_images(first, {}).sides
    split = split_images([*first, *then], known)
    validating = {one.digest for one in [*first, *then] if known.get(one.digest) == "val"}
    for left in split.left_out:
        same = [one for one in [*first, *then] if one.digest == left.image.digest]
        assert any(
            (one.look ^ other.look).bit_count() <= MOST_BITS
            if left.reason == LOOKS_ALIKE
            else one.group is not None and one.group == other.group
            for one in same
            for other in [*first, *then]
            if other.digest in validating
        )


def chain(number: int) -> LabelledImage:
    """An image of a fixed camera: it differs by one bit from the one before, and by more from others."""
    return image(number, look=(1 << min(number, 64)) - 1 ^ (1 << max(number - 64, 0)) - 1)


def test_a_fixed_camera_goes_on_training_on_what_is_not_near_a_validation_image() -> None:
    apart = [chain(number) for number in (0, 10, 20, 30, 40, 50, 60, 70)]
    first = split_images(apart, {})
    assert len(first.val) == 2
    everything = [chain(number) for number in range(0, 100)]
    split = split_images(everything, first.sides)
    assert_nothing_leaks(split)
    near = {
        one.task_id
        for one in everything
        if any(0 < (one.look ^ other.look).bit_count() <= MOST_BITS for other in first.val)
    }
    assert {left.image.task_id for left in split.left_out} == near
    assert {left.reason for left in split.left_out} == {LOOKS_ALIKE}
    assert len(split.train) == 100 - 2 - len(near) >= 80
    assert not {digest(number) for number in near} & split.sides.keys()


def test_a_twin_that_was_away_for_a_run_is_not_trained_on_beside_its_validating_one() -> None:
    """Two twins were put on different sides, while something was deleted or its group wasn't asked for."""
    twins = [image(1), image(2, look=far_look(1) ^ 1)]
    known: dict[str, Side] = {digest(1): "val", digest(2): "train"}
    split = split_images([*twins, *images(10, 10)], known)
    assert [(left.image.task_id, left.reason) for left in split.left_out] == [(2, LOOKS_ALIKE)]
    assert 1 in tasks(split.val)
    assert split.sides.items() >= known.items()
    # It is trained on again when the other one is gone.
    assert 2 in tasks(split_images([twins[1], *images(10, 10)], split.sides).train)


def test_a_group_that_is_asked_for_later_is_on_one_side() -> None:
    first = split_images(images(8), {})
    patients = [image(one.task_id, group="a") for one in [*first.train[:2], first.val[0]]]
    split = split_images([*patients, image(50, group="a"), image(51, group="b")], first.sides)
    assert sorted(tasks([left.image for left in split.left_out])) == sorted([*tasks(first.train[:2]), 50])
    assert {left.reason for left in split.left_out} == {SAME_GROUP}
    assert_nothing_leaks(split)


def test_images_that_are_left_out_are_one_sentence_for_each_reason() -> None:
    left_out = [LeftOut(image(number), LOOKS_ALIKE) for number in range(1, 177)]
    assert left_out_remarks([*left_out, LeftOut(image(200), SAME_GROUP)]) == [
        "Not trained on: 176 images (tasks 1, 2, 3, 4, 5 and 171 more): almost the same as a validation image",
        "Not trained on: 1 image (task 200): in the same group as a validation image",
    ]
    assert left_out_remarks([]) == []


def test_why_few_validate_is_told() -> None:
    alike = [image(number, look=7) for number in range(39)]
    split = split_images([*alike, image(50)], {})
    assert why_few_validate(split) == (
        "39 of the 40 images look so alike, or are of one group, that they were kept together: 1 image validates, and "
        "judging a model takes 10. Label images of other scenes"
    )
    assert why_few_validate(split_images(alike, {})) is None  # with fewer than 40 there are never ten
    assert why_few_validate(split_images(images(40), {})) is None
    known: dict[str, Side] = {digest(number): "train" for number in range(40)}
    assert why_few_validate(split_images(images(40), known)) is None


@pytest.mark.parametrize(
    ("count", "validating"),
    [(0, 0), (1, 0), (3, 1), (8, 2), (20, 5), (39, 10), (40, 10), (41, 10), (43, 11), (200, 50)],
)
def test_a_quarter_validates(count: int, validating: int) -> None:
    split = split_images(images(count), {})
    assert (len(split.val), len(split.train)) == (validating, count - validating)


def test_from_40_images_on_there_are_10_to_judge_with() -> None:
    assert all(len(split_images(images(count), {}).val) >= 10 for count in range(40, 120))


def test_what_is_new_fills_up_what_validates() -> None:
    first = split_images(images(40), {})
    second = split_images(images(80), first.sides)
    assert set(tasks(first.val)) < set(tasks(second.val))
    assert (len(first.val), len(second.val)) == (10, 20)
    # Where too much validates already, nothing new does.
    third = split_images([*first.val, *images(10, 100)], first.sides)
    assert tasks(third.val) == tasks(first.val)


def test_large_groups_leave_enough_on_both_sides() -> None:
    lots = [image(number, group=f"patient {number // 20}") for number in range(60)]
    split = split_images(lots, {})
    assert (len(split.train), len(split.val)) == (40, 20)
    one_group = [image(number, group="patient") for number in range(40)]
    assert split_images(one_group, {}).val == ()
    most_of_one = [*one_group[:30], *images(10, 50)]
    assert len(split_images(most_of_one, {}).val) == 10


def test_what_would_join_both_sides_is_used_on_neither() -> None:
    first = split_images(images(8), {})
    in_train, in_val = first.train[0], first.val[0]
    bridge = image(100, group="both")
    joined = [
        LabelledImage(**{**vars(one), "group": "both"}) if one in {in_train, in_val} else one
        for one in [*first.train, *first.val]
    ]
    split = split_images([*joined, bridge, *images(4, 200)], first.sides)
    assert set(tasks([left.image for left in split.left_out])) == {100, in_train.task_id}
    assert bridge.digest not in split.sides
    assert in_val.task_id in tasks(split.val)


def test_a_copy_of_an_image_follows_it() -> None:
    first = split_images(images(8), {})
    copies = [image(100 + side, look=found[0].look ^ 0b1001) for side, found in enumerate((first.train, first.val))]
    split = split_images([*images(8), *copies], first.sides)
    assert 100 in tasks(split.train)
    assert 101 in tasks(split.val)


def test_thousands_of_equal_images_are_one_group() -> None:
    same = [image(number, look=7) for number in range(5000)]
    split = split_images([*same, *images(2000, 10_000)], {})
    assert {one.look for one in split.val} & {7} == set()
    assert len(split.val) == 1750
