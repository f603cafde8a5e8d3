"""The snapshot: all submitted work of a project, and a sentence for whatever isn't in it."""

from __future__ import annotations

import base64
from http.server import BaseHTTPRequestHandler
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from tests.harness.http_server import RecordingServer, StartServer, reply
from tests.harness.snapshots import CONFIG, LabelStudio, Take, picture, submitted, task
from yolo_backend.detection.masks import Mask
from yolo_backend.label_studio.errors import StudioError
from yolo_backend.labels.rle import encode_rle
from yolo_backend.training.labelled import Snapshot
from yolo_backend.training.snapshot import SnapshotError, manifest_rows

pytestmark = pytest.mark.usefixtures("clean_environment")

PAGES = CONFIG.replace('value="$image"', 'valueList="$pages"')
TWO_IMAGES = """<View><Image name="left" value="$left"/><Image name="right" value="$right"/>
<RectangleLabels name="label" toName="left,right"><Label value="car"/></RectangleLabels></View>"""


def region(label: str = "car", x: float = 10, **more: Any) -> dict[str, Any]:
    return {
        "id": f"{label}{x}",
        "from_name": "label",
        "to_name": "image",
        "type": "rectanglelabels",
        "value": {"x": x, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": [label]},
        "original_width": 40,
        "original_height": 20,
        "image_rotation": 0,
        **more,
    }


def boxes_of(snapshot: Snapshot) -> dict[tuple[int, int | None], list[str]]:
    return {(image.task_id, image.page): [box.label for box in image.boxes] for image in snapshot.images}


def test_what_was_submitted_is_in_it(take: Take) -> None:
    tasks = [
        task(1, submitted(region("car"), region("cat", 50))),
        task(2, submitted()),  # an image of nothing
        task(3, submitted(region(), was_cancelled=True)),
        task(4, submitted(region("car"), minute=2), submitted(region("cat"), minute=1)),
        task(5, submitted(region("car"), ground_truth=True), submitted(region("cat"), minute=1)),
        task(6),
        task(7, submitted(region("car")), submitted(was_cancelled=True, minute=5)),
    ]
    heard: list[tuple[int, int]] = []
    snapshot = take(tasks, told=lambda done, total: heard.append((done, total)))
    assert boxes_of(snapshot) == {
        (1, None): ["car", "cat"],
        (2, None): [],
        (4, None): ["car"],
        (5, None): ["car"],
        (7, None): ["car"],
    }
    assert snapshot.labels == ("car", "cat")
    assert snapshot.remarks == ()
    assert heard == [(number, 5) for number in range(6)]
    first = snapshot.images[0]
    content = base64.b64decode(tasks[0]["data"]["image"].partition(",")[2])
    assert first.digest == blake3(content).hexdigest()
    assert first.file.name == f"{first.digest}.jpg"
    assert first.annotation_id == 1000
    assert first.address.startswith("data: address of")  # and not the image itself
    assert len({image.look for image in snapshot.images}) == 5


def test_many_tasks_come_in_the_order_of_their_ids(take: Take) -> None:
    snapshot = take([task(number, submitted(region())) for number in range(1, 231)])
    assert [image.task_id for image in snapshot.images] == list(range(1, 231))


def test_boxes_are_percent_of_the_upright_image(take: Take) -> None:
    turned = task(1, submitted(region(original_width=20, original_height=40)))
    turned["data"]["image"] = picture(1, orientation_=6)
    (image,) = take([turned]).images
    assert image.size_wh == (20, 40)
    assert image.boxes[0].box_xyxy == pytest.approx((2, 8, 8, 24))


def outline(label: str = "car", **more: Any) -> dict[str, Any]:
    value = {"points": [[10, 20], [40, 20], [10, 60]], "closed": True, "polygonlabels": [label]}
    return region(**more) | {"from_name": "outline", "type": "polygonlabels", "value": value}


def test_segmentation_weights_learn_from_outlines_and_not_from_rectangles(take: Take) -> None:
    """On upright images, and on each page of a list."""
    config = CONFIG.replace(
        "</View>",
        '<PolygonLabels name="outline" toName="image"><Label value="car"/></PolygonLabels>'
        '<BrushLabels name="mask" toName="image"><Label value="road"/></BrushLabels></View>',
    )
    turned = task(1, submitted(region(), outline(original_width=20, original_height=40)))
    turned["data"]["image"] = picture(1, orientation_=6)
    snapshot = take([turned], config, kind="segment")
    (image,) = snapshot.images
    assert snapshot.labels == ("car", "road")
    assert [box.outlines for box in image.boxes] == [(((2, 8), (8, 8), (2, 24)),)]
    assert boxes_of(take([turned], config)) == {(1, None): ["car"]}
    with pytest.raises(SnapshotError, match=r"name detect or obb weights .* which learn from what it has"):
        take([turned], kind="segment")

    paged = config.replace('value="$image"', 'valueList="$pages"')
    drawn = submitted(outline(item_index=0), outline(item_index=2), outline("bus", item_index=2))
    snapshot = take([task(1, drawn, pages=[picture(number) for number in range(3)])], paged, kind="segment")
    assert boxes_of(snapshot) == {(1, 0): ["car"], (1, 1): [], (1, 2): ["car"]}
    assert snapshot.remarks == (
        'Not trained on: 1 region with the label "bus", which the labeling config doesn\'t have (task 1)',
    )


SHAPES = """<View><Image name="image" value="$image"/>
<PolygonLabels name="polygon" toName="image"><Label value="car"/><Label value="cat"/></PolygonLabels>
<RectangleLabels name="label" toName="image"><Label value="car"/><Label value="dog"/></RectangleLabels>
<EllipseLabels name="ellipse" toName="image"><Label value="car"/></EllipseLabels>
<KeyPointLabels name="point" toName="image"><Label value="car"/></KeyPointLabels></View>"""
TAG_AND_SHAPES = """<View><Image name="image" value="$image"/><Rectangle name="rectangle" toName="image"/>
<Polygon name="polygon" toName="image"/><Labels name="label" toName="image"><Label value="car"/></Labels></View>"""


def in_shape(name: str, label: str = "car", **value: Any) -> dict[str, Any]:
    type_ = f"{name}labels"
    return region(label) | {"id": name, "from_name": name, "type": type_, "value": {**value, type_: [label]}}


def test_an_image_whose_things_have_another_shape_is_not_one_of_nothing(take: Take) -> None:
    polygon = in_shape("polygon", points=[[10, 20], [50, 20], [50, 70]])
    ellipse = in_shape("ellipse", x=50, y=50, radiusX=10, radiusY=10, rotation=0)
    tasks = [
        task(1, submitted(region())),
        task(2, submitted(polygon)),
        task(3, submitted(polygon, region(), region(x=60))),
        task(4, submitted(ellipse)),
        task(5, submitted(region("dog"), in_shape("point", x=10, y=10, width=1))),  # the first is no trained label
        task(6, submitted(region(), polygon | {"value": {**polygon["value"], "polygonlabels": ["cat"]}})),
    ]

    snapshot = take(tasks, SHAPES, kind="segment")
    assert [(image.task_id, len(image.boxes)) for image in snapshot.images] == [(2, 1), (5, 0)]
    assert snapshot.remarks == (
        "Not trained on: 4 images (tasks 1, 3, 4, 6): a labelled thing is drawn there only in a shape from which "
        "segment weights don't learn: draw it with PolygonLabels and BrushLabels, too, or begin with weights of "
        "another kind (--base)",
    )

    snapshot = take(tasks, SHAPES, kind="detect")
    assert [(image.task_id, len(image.boxes)) for image in snapshot.images] == [(1, 1), (3, 2), (5, 1), (6, 1)]
    assert snapshot.remarks[0].startswith("Not trained on: 2 images (tasks 2, 4): a labelled thing is drawn there only")
    assert "RectangleLabels" in snapshot.remarks[0]
    assert snapshot.remarks[1] == (
        "Not trained on: 1 box drawn in a shape from which detect weights don't learn, around what is also drawn in "
        "one from which they do (task 3)"
    )


def around(x: float, y: float, width: float, height: float) -> list[list[float]]:
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]


BRUSH = SHAPES.replace(
    "<EllipseLabels", '<BrushLabels name="brush" toName="image"><Label value="car"/></BrushLabels><EllipseLabels'
)
BOX = (10, 20, 30, 40)  # region's own, in percent
MASK = encode_rle(Mask.of_bitmap(np.ones((8, 12), np.bool_), (4, 4)), (40, 20))


@pytest.mark.parametrize(
    ("others", "is_trained_on"),
    [
        ([in_shape("polygon", points=around(*BOX))], True),
        ([in_shape("polygon", points=around(12, 24, 26, 30))], True),
        ([in_shape("polygon", points=around(60, 20, 30, 40))], False),
        ([in_shape("polygon", points=around(30, 20, 30, 40))], False),
        ([in_shape("polygon", points=around(*BOX)), in_shape("polygon", points=around(60, 20, 30, 40))], False),
        ([in_shape("polygon", "cat", points=around(*BOX))], False),
        ([in_shape("polygon", "tree", points=around(60, 20, 30, 40))], True),
        ([in_shape("polygon", points=around(60, 20, 1, 40))], True),
        ([in_shape("polygon", points=around(150, 20, 30, 40))], True),
        ([in_shape("ellipse", x=25, y=40, radiusX=15, radiusY=20, rotation=0)], True),
        ([in_shape("ellipse", x=75, y=40, radiusX=15, radiusY=20, rotation=0)], False),
        ([in_shape("ellipse", x=75, y=40, radiusX="12", radiusY=20, rotation=0)], True),
        ([in_shape("brush", format="rle", rle=MASK)], True),
        ([in_shape("brush", format="rle", rle=[1, 2, 3])], False),
    ],
    ids=[
        "the same", "much the same", "elsewhere", "half beside", "one is elsewhere", "another label",
        "a label that isn't trained", "a slip of the hand", "off the image", "an ellipse", "an ellipse elsewhere",
        "an ellipse that is none", "a mask", "a mask that can't be read",
    ],
)  # fmt: skip
def test_what_is_drawn_in_two_shapes_is_trained_on_and_what_is_not_costs_its_image(
    take: Take, others: list[dict[str, Any]], is_trained_on: bool
) -> None:
    """One rectangle beside five polygons of its label would teach that five things aren't there."""
    labelled = [{**other, "id": f"{number}"} for number, other in enumerate(others)]

    snapshot = take([task(1, submitted(region(), *labelled))], BRUSH.replace('"dog"', '"cat"'), kind="detect")

    assert [len(image.boxes) for image in snapshot.images] == ([1] if is_trained_on else [])
    assert ("a labelled thing is drawn there only in" in "".join(snapshot.remarks)) != is_trained_on


def test_the_parts_of_a_mask_that_was_predicted_beside_its_box_are_one_thing(take: Take) -> None:
    left, right = (in_shape("polygon", points=around(x, 20, 12, 40)) for x in (10, 28))
    parts = [left | {"id": "a"}, right | {"id": "b", "parentID": "a"}]

    assert take([task(1, submitted(region(), *parts))], SHAPES, kind="detect").images
    assert not take([task(1, submitted(region(), *(part | {"parentID": None} for part in parts)))], SHAPES).images


def test_of_other_proportions_it_is_told_what_to_check(take: Take) -> None:
    drawn = submitted(outline(original_width=20, original_height=40))
    remarks = take([task(1, drawn)], SHAPES.replace('"polygon"', '"outline"'), kind="segment").remarks
    assert any("check whether the regions still fit (task 1)" in remark for remark in remarks)


def test_labels_with_several_shapes_are_looked_at_by_the_shape(take: Take) -> None:
    value = {"points": [[10, 20], [50, 20], [50, 70]], "labels": ["car"]}
    polygon = region() | {"id": "p", "type": "labels", "value": value}
    rectangle = region() | {"type": "labels", "value": {"x": 10, "y": 20, "width": 30, "height": 40, "labels": ["car"]}}
    tasks = [task(1, submitted(polygon)), task(2, submitted(rectangle))]

    of_polygons = TAG_AND_SHAPES.replace('<Rectangle name="rectangle" toName="image"/>', "")
    for kind, config, learnt, other in (("segment", of_polygons, 1, 2), ("detect", TAG_AND_SHAPES, 2, 1)):
        snapshot = take(tasks, config, kind=kind)
        assert [image.task_id for image in snapshot.images] == [learnt]
        assert f"1 image (task {other}): a labelled thing is drawn there only" in snapshot.remarks[0]


def test_what_can_not_be_drawn_on_an_image_is_not_said_to_be_absent_there(take: Take) -> None:
    config = """<View><Image name="left" value="$left"/><Image name="right" value="$right"/>
    <RectangleLabels name="cars" toName="left"><Label value="car"/></RectangleLabels>
    <RectangleLabels name="both" toName="right"><Label value="car"/><Label value="cat"/></RectangleLabels></View>"""
    one = {"id": 1, "data": {"left": picture(1), "right": picture(2)}, "annotations": [submitted()]}
    left, right = take([one], config).images
    assert (left.labels, right.labels) == (frozenset({"car"}), None)
    (same,) = take(
        [{"id": 1, "data": {"left": picture(1), "right": picture(1)}, "annotations": [submitted()]}],
        config.replace("$right", "$left"),
    ).images
    assert same.labels is None, "one image under two names"
    assert all(image.labels is None for image in take([one], TWO_IMAGES).images)


def test_each_page_and_each_image_counts(take: Take) -> None:
    pages = submitted(region("car", item_index=0), region("cat", item_index=2), region("cat", 50, item_index=7))
    snapshot = take([task(1, pages, pages=[picture(number) for number in range(3)])], PAGES)
    assert boxes_of(snapshot) == {(1, 0): ["car"], (1, 1): [], (1, 2): ["cat"]}
    assert snapshot.remarks == ("Not trained on: 1 box on an image that their task doesn't have (task 1)",)

    both = submitted(region("car", to_name="right"))
    snapshot = take([task(1, both, left=picture(1), right=picture(2))], TWO_IMAGES)
    assert [[box.label for box in image.boxes] for image in snapshot.images] == [[], ["car"]]
    assert len({image.digest for image in snapshot.images}) == 2


def test_two_controls_with_the_same_label_are_one_class_and_others_weights_are_not_ours(take: Take) -> None:
    more = CONFIG.replace(
        "</View>",
        '<RectangleLabels name="b" toName="image"><Label value="bus"/><Label value="car"/></RectangleLabels>'
        '<RectangleLabels name="c" toName="image" model_path="c.pt"><Label value="man"/></RectangleLabels></View>',
    )
    drawn = submitted(region("car"), region("car", 50, from_name="b"), region("man", 60, from_name="c"))
    snapshot = take([task(1, drawn)], more)
    assert boxes_of(snapshot) == {(1, None): ["car", "car"]}
    assert snapshot.labels == ("car", "cat", "bus")
    assert snapshot.remarks == ()


def test_labels_that_come_with_tasks_are_labels(take: Take) -> None:
    config = CONFIG.replace('<Label value="car"/><Label value="cat"/>', "").replace(
        'toName="image"', 'toName="image" value="$kinds"'
    )
    tasks = [
        task(1, submitted(region("bus")), kinds=[{"value": "bus"}]),
        task(2, submitted(region("car")), kinds=[{"value": "car"}, {"value": "bus"}]),
    ]
    snapshot = take(tasks, config)
    assert snapshot.labels == ("bus", "car")
    assert boxes_of(snapshot) == {(1, None): ["bus"], (2, None): ["car"]}


def test_what_is_not_trained_on_is_said(take: Take) -> None:
    tasks = [
        task(1, submitted(region("dog"), region("dog", 50), region("car"))),
        *[task(number, submitted(region("dog"))) for number in range(2, 9)],
        task(9, submitted(region(x=200))),
        task(10, submitted(region()), image="data:image/png;base64,AAAA"),
        task(11, submitted(region()), image=picture(11, (40, 9))),
        task(12, submitted(region(image_rotation=90))),
        task(13, submitted(region(original_width=20, original_height=40))),
    ]
    tasks.append({**task(14, submitted(region())), "data": {"text": "no image"}})
    snapshot = take(tasks)
    assert [image.task_id for image in snapshot.images] == [*range(1, 10), 13]
    assert [remark for remark in snapshot.remarks if "the label" in remark] == [
        'Not trained on: 9 boxes with the label "dog", which the labeling config doesn\'t have '
        "(tasks 1, 2, 3, 4, 5 and 3 more)"
    ]
    assert "Not trained on: 1 box outside their image (task 9)" in snapshot.remarks
    assert "Not trained on: 1 image (task 11): the image has fewer than 10 pixels on a side" in snapshot.remarks
    assert any(remark.startswith("Not trained on: 1 image (task 10): ") for remark in snapshot.remarks)
    assert any(remark.startswith("Not trained on: 1 image (task 12): it was turned") for remark in snapshot.remarks)
    assert any("(task 14): the task's data has no" in remark for remark in snapshot.remarks)
    assert any("1 task had an image of other proportions" in remark for remark in snapshot.remarks)
    assert any("check whether the boxes still fit" in remark for remark in snapshot.remarks)
    assert len(snapshot.remarks) == 7


def test_one_page_that_fails_costs_no_other(take: Take) -> None:
    pages = submitted(region("car", item_index=0), region("cat", item_index=2))
    snapshot = take([task(1, pages, pages=[picture(1), "data:,", picture(3)])], PAGES)
    assert boxes_of(snapshot) == {(1, 0): ["car"], (1, 2): ["cat"]}
    assert len(snapshot.remarks) == 1


def test_of_many_reasons_the_most_frequent_are_told(take: Take) -> None:
    labels = [f"label {number}" for number in range(15)]
    tasks = [task(1, submitted(*[region(label) for label in labels])), task(2, submitted(region(labels[14])))]
    remarks = take(tasks).remarks
    assert len(remarks) == 11
    assert remarks[0].startswith('Not trained on: 2 boxes with the label "label 14"')
    assert remarks[-1] == "Not trained on: 5 boxes for other reasons"


@pytest.mark.parametrize(
    ("first_used", "told"),
    [
        (0, None),
        (1, None),  # as well by chance
        (2, "2 tasks submitted before may lack it"),
        (30, "30 tasks submitted before may lack it"),
        (39, "39 tasks submitted before may lack it"),
    ],
)
def test_of_a_label_that_came_late_it_is_said_how_many_may_lack_it(
    take: Take, first_used: int, told: str | None
) -> None:
    tasks = [
        task(number, submitted(region("car"), *([region("cat", 60)] if number > first_used else []), minute=number))
        for number in range(1, 41)
    ]
    remarks = take(tasks).remarks
    assert len(remarks) == (told is not None)
    assert all(str(told) in remark for remark in remarks)


def test_a_rare_label_did_not_come_late(take: Take) -> None:
    tasks = [
        task(number, submitted(*([region("cat")] if number in {17, 31} else []), minute=number))
        for number in range(1, 41)
    ]
    assert take(tasks).remarks == ()


def test_a_field_of_the_data_keeps_images_together(take: Take) -> None:
    tasks = [
        task(1, submitted(), patient="a"),
        task(2, submitted(), patient=7),
        task(3, submitted(), patient={"b": 1, "a": [2]}),
        task(4, submitted()),
    ]
    groups = [image.group for image in take(tasks, group_field="patient").images]
    assert groups == ["a", "7", '{"a": [2], "b": 1}', None]
    assert [image.group for image in take(tasks).images] == [None] * 4
    with pytest.raises(SnapshotError, match='No labelled task has a field "pation" in its data'):
        take(tasks, group_field="pation")


def test_a_project_without_submitted_work_is_empty(take: Take) -> None:
    assert take([task(1)]) == Snapshot((), ("car", "cat"), ())


def test_where_each_control_names_its_weights_there_is_nothing_to_train(take: Take) -> None:
    with pytest.raises(SnapshotError, match="remove model_path from one of them"):
        take([], CONFIG.replace("<RectangleLabels", '<RectangleLabels model_path="a.pt"'))


def test_a_label_studio_that_is_away_is_an_error_for_people(take: Take, serve: StartServer) -> None:
    answer = LabelStudio([])
    answer.is_away = True
    with pytest.raises(StudioError, match="502"):
        take([], server=serve(answer))


def test_a_label_studio_that_goes_away_meanwhile_is_no_fault_of_the_images(take: Take, serve: StartServer) -> None:
    """Else a model would be trained on the few that were read before."""
    tasks = [task(number, submitted(), image=f"/data/upload/7/0123abcd-{number}.png") for number in range(1, 9)]
    answer = LabelStudio(tasks)

    def until_listed(handler: BaseHTTPRequestHandler) -> None:
        answer.is_away = "/data/upload" in handler.path or answer.is_away
        answer(handler)

    with pytest.raises(StudioError, match="is away"):
        take([], server=serve(until_listed))


def test_an_image_that_label_studio_does_not_have_is_a_remark(take: Take) -> None:
    tasks = [task(1, submitted(), image="/data/upload/7/0123abcd-a.png"), task(2, submitted())]
    snapshot = take(tasks)
    assert [image.task_id for image in snapshot.images] == [2]
    assert len(snapshot.remarks) == 1


def test_the_manifest_tells_one_snapshot_from_another(take: Take) -> None:
    def rows(*annotations: dict[str, Any]) -> list[dict[str, Any]]:
        return manifest_rows(take([task(1, *annotations)]).images)

    (row,) = rows(submitted(region("car"), region("cat", 50)))
    assert row.keys() == {"task", "annotation", "page", "image", "labels"}
    assert (row["task"], row["annotation"], row["page"]) == (1, 1000, None)
    assert rows(submitted(region("cat", 50), region("car"))) == [row]  # in another order, the same
    for other in (submitted(region("car")), submitted(region("car"), region("cat", 51)), submitted()):
        assert rows(other)[0]["labels"] != row["labels"]
        assert rows(other)[0]["image"] == row["image"]


def test_the_manifest_tells_one_outline_from_another_in_the_same_box(take: Take) -> None:
    config = CONFIG.replace("RectangleLabels", "PolygonLabels").replace('name="label"', 'name="outline"')
    other = outline()
    other["value"] = other["value"] | {"points": [[10, 20], [40, 20], [40, 60], [10, 60]]}
    digests = {
        manifest_rows(take([task(1, submitted(each))], config, kind="segment").images)[0]["labels"]
        for each in (outline(), other)
    }
    assert len(digests) == 2


POSES = """<View><Image name="image" value="$image"/>
<RectangleLabels name="points_bbox" toName="image"><Label value="Mensch" predicted_values="person"/></RectangleLabels>
<KeyPointLabels name="points" toName="image"><Label value="nose" predicted_values="person" model_index="0"/>
<Label value="ear" predicted_values="person" model_index="2"/></KeyPointLabels></View>"""


def key_point(label: str, x: float, y: float, **more: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 1, "keypointlabels": [label]}
    return region(**more) | {"id": label, "from_name": "points", "type": "keypointlabels", "value": value}


def test_key_points_are_percent_of_the_upright_image_and_belong_to_their_box(take: Take) -> None:
    box = region("Mensch") | {"from_name": "points_bbox"}
    odd = [key_point("nose", 95, 50), key_point("wing", 20, 30)]
    tasks = [
        task(1, submitted(box, key_point("nose", 15, 25), key_point("ear", 90, 90, parentID=box["id"]))),
        task(2, submitted(box, *odd), image=picture(2, (20, 40), orientation_=6)),
        task(3, submitted()),
    ]
    snapshot = take(tasks, POSES, kind="pose")
    assert snapshot.labels == ("person",)
    first, second, nothing = snapshot.images
    assert first.size_wh == second.size_wh == (40, 20)
    assert [box.label for box in (*first.boxes, *second.boxes, *nothing.boxes)] == ["person", "person"]
    assert [point and pytest.approx(point) for point in first.boxes[0].points] == [(6, 5), None, (36, 18)]
    assert second.boxes[0].points == (None, None, None)
    assert snapshot.remarks == (
        'Not trained on: 1 key point with the label "wing", which the labeling config doesn\'t have (task 2)',
        "Not trained on: 1 key point outside of all boxes (task 2)",
    )
    digests = {row["task"]: row["labels"] for row in manifest_rows(snapshot.images)}
    assert digests[1] != digests[2]
    assert first.labels is None


@pytest.fixture
def refusing(serve: StartServer, monkeypatch: pytest.MonkeyPatch) -> RecordingServer:
    """An images' server that gives none."""
    monkeypatch.setenv("ALLOWED_IMAGE_HOSTS", "127.0.0.1")
    return serve(reply(b"", 403))


def on(server: RecordingServer, tasks: int) -> list[dict[str, Any]]:
    return [
        {**task(number, submitted(region())), "data": {"image": f"{server.url}/{number}.jpg"}}
        for number in range(1, tasks + 1)
    ]


def test_where_no_image_can_be_had_the_first_reason_is_told(take: Take, refusing: RecordingServer) -> None:
    with pytest.raises(SnapshotError, match=r"None of 3 labelled images can be read\. Of the first: .*403.*train"):
        take(on(refusing, 3))
    assert len(take([task(4, submitted(region())), *on(refusing, 3)]).images) == 1


def test_a_server_without_any_of_the_images_is_not_asked_for_thousands(take: Take, refusing: RecordingServer) -> None:
    with pytest.raises(SnapshotError, match=r"None of 5[0-9] labelled images can be read"):
        take(on(refusing, 300))
    assert len(refusing.requests) < 70
