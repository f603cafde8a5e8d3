"""Which classes a model learns of key points, and that a model with these serves the same control."""

from __future__ import annotations

import pytest

from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.labels.controls.keypoint_classes import ONLY_CLASS, LearntPoints
from yolo_backend.labels.controls.keypoints import KeyPointControl
from yolo_backend.labels.controls.table import kind_of
from yolo_backend.labels.labeling_config import parse_labeling_config


def point(value: str, index: int | None, classes: str | None = None, **more: str) -> str:
    attributes = {"predicted_values": classes, "model_index": index, **more}
    said = "".join(f' {name}="{text}"' for name, text in attributes.items() if text is not None)
    return f'<Label value="{value}"{said}/>'


def control(*points: str, boxes: str | None = None, **attributes: str) -> KeyPointControl:
    said = "".join(f' {name}="{text}"' for name, text in attributes.items())
    boxed = f'<RectangleLabels name="kp_bbox" toName="image">{boxes}</RectangleLabels>' if boxes else ""
    config = (
        f'<View><Image name="image" value="$image"/>{boxed}'
        f'<KeyPointLabels name="kp" toName="image"{said}>{"".join(points)}</KeyPointLabels></View>'
    )
    (found,) = (each for each in parse_labeling_config(config).controls if isinstance(each, KeyPointControl))
    return found


def classes_of(learnt: LearntPoints) -> dict[str, tuple[str, ...]]:
    return {label.value: label.predicted_values for label in learnt.classes}


def check_it_serves(those: KeyPointControl, learnt: LearntPoints) -> None:
    """A model with these classes and points, as it was trained, has each label at the point that it was learnt as."""
    names = dict(enumerate(label.value for label in learnt.classes))
    weights = WeightsInfo("t", "pose", names, "f", (160, 160), thresholds={"x": 0.5}, points=learnt.points)
    kind = kind_of(those)
    label_map = kind.map_labels(kind.as_trained(those), weights, 0.25)
    assert set(label_map.label_of_class) == set(names)
    served = {(names[number], index): found.label for (number, index), found in label_map.label_of_point.items()}
    assert served == {
        (name, number): label
        for label, number in learnt.number_of_point.items()
        for name in learnt.classes_of_point[label]
    }
    for number, label in label_map.label_of_class.items():
        assert learnt.class_of_box.get(label, names[number]) == names[number]


def test_classes_are_those_that_the_points_name_in_their_order() -> None:
    those = control(
        point("beak", 0, "bird"), point("nose", 0, "dog, cat"), point("tail", 2, "cat,dog,bird"),
        boxes='<Label value="Dog"/><Label value="cat"/><Label value="Bird"/>',
    )  # fmt: skip
    learnt = LearntPoints.of(those)
    assert classes_of(learnt) == {"bird": ("bird",), "dog": ("dog",), "cat": ("cat",)}
    assert learnt.class_of_box == {"Bird": "bird", "Dog": "dog", "cat": "cat"}
    assert learnt.classes_of_point == {
        "beak": {"bird"}, "nose": {"dog", "cat"}, "tail": {"bird", "dog", "cat"},
    }  # fmt: skip
    assert learnt.number_of_point == {"beak": 0, "nose": 0, "tail": 2}
    assert learnt.points == 3
    check_it_serves(those, learnt)


def test_what_a_control_says_is_read_once() -> None:
    """It is asked for each image, and with many points takes a while."""
    one, same = (control(point("nose", 0, "dog"), point("tail", 999)) for _ in range(2))
    assert LearntPoints.of(one) is LearntPoints.of(same)
    assert LearntPoints.of(one) is not LearntPoints.of(control(point("nose", 0, "dog"), point("tail", 998)))


def test_classes_that_nothing_tells_apart_are_one() -> None:
    those = control(
        point("nose", 0, "person, man"), point("tail", 1, "man,person,horse"),
        boxes='<Label value="Mensch" predicted_values="person,man"/><Label value="horse"/>',
    )  # fmt: skip
    learnt = LearntPoints.of(those)
    assert classes_of(learnt) == {"person": ("person", "man"), "horse": ("horse",)}
    assert learnt.class_of_box == {"Mensch": "person", "horse": "horse"}
    check_it_serves(those, learnt)
    alone = LearntPoints.of(control(point("nose", 0, "person, man")))
    assert classes_of(alone) == {"person": ("person", "man")}


def test_a_name_in_two_spellings_is_one_class() -> None:
    those = control(point("nose", 0, "Traffic Light"), point("tail", 1, "traffic_light"))
    learnt = LearntPoints.of(those)
    assert classes_of(learnt) == {"Traffic Light": ("Traffic Light",)}
    check_it_serves(those, learnt)


def test_points_that_name_no_class_are_of_all_boxes() -> None:
    those = control(point("a", 0), point("b", 1), boxes='<Label value="cat"/><Label value="dog" alias="hound"/>')
    learnt = LearntPoints.of(those)
    assert [label.value for label in learnt.classes] == ["cat", "hound"]
    assert learnt.class_of_box == {"cat": "cat", "hound": "hound"}
    assert learnt.classes_of_point == {"a": {"cat", "hound"}, "b": {"cat", "hound"}}
    check_it_serves(those, learnt)


@pytest.mark.parametrize(("boxes", "name"), [(None, ONLY_CLASS), ('<Label value="cell"/>', "cell")])
def test_the_only_class_is_all_classes_of_other_weights(boxes: str | None, name: str) -> None:
    those = control(point("a", 0), boxes=boxes)
    learnt = LearntPoints.of(those)
    assert [(label.value, label.names) for label in learnt.classes] == [(name, ())]
    assert learnt.class_of_box == ({name: name} if boxes else {})
    check_it_serves(those, learnt)


def test_a_label_without_a_number_is_no_point() -> None:
    learnt = LearntPoints.of(control(point("a", 0, "cat"), point("b", None, "dog")))
    assert list(classes_of(learnt)) == ["cat"]
    assert learnt.number_of_point == {"a": 0}


def test_a_thing_has_the_lowest_threshold_of_its_points() -> None:
    def thresholds(*points: str, **attributes: str) -> list[float | None]:
        return [label.score_threshold for label in LearntPoints.of(control(*points, **attributes)).classes]

    low, high = ({"model_score_threshold": text} for text in ("0.2", "0.6"))
    assert thresholds(point("a", 0, "cat", **high), point("b", 1, "cat", **low), point("c", 0, "dog")) == [0.2, None]
    assert thresholds(point("a", 0, "cat", **high), point("b", 1, "cat")) == [None]
    assert thresholds(point("a", 0, "cat", **high), point("b", 1, "cat"), model_score_threshold="0.4") == [0.4]


@pytest.mark.parametrize(
    ("those", "kinds"),
    [
        (control(point("a", 0)), {"pose"}),
        (control(point("a", None)), set()),
        (control(value="$labels"), set()),  # they come with the tasks
    ],
)
def test_what_it_is_trained_with(those: KeyPointControl, kinds: set[str]) -> None:
    assert kind_of(those).trained_with(those) == kinds
