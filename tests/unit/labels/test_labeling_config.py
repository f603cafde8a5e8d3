"""Labeling configs: which controls are served, which class becomes which label, at which threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_backend.labels.control import Control, Label
from yolo_backend.labels.controls.rectangles import RectangleControl
from yolo_backend.labels.controls.shapes import ShapeControl
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.label_map import LabelMap, map_labels
from yolo_backend.labels.labeling_config import LabelingConfig, parse_labeling_config
from yolo_backend.labels.tags import labels_of_task
from yolo_backend.messages import to_latin1


def config(labels: str = '<Label value="Car"/>', control: str = "", image: str = 'value="$image"') -> str:
    return (
        f'<View><Image name="image" {image}/>'
        f'<RectangleLabels name="label" toName="image" {control}>{labels}</RectangleLabels></View>'
    )


def parse_one_shape(label_config: str) -> ShapeControl:
    (control,) = parse_labeling_config(label_config).controls
    assert isinstance(control, ShapeControl)
    return control


# About a region, of all tasks, or a number of anything: nobody asks for predictions of these.
PEOPLES_OWN = (
    '<Choices name="c" toName="image" perRegion="true" model_presence="true"><Choice value="Car"/></Choices>'
    '<Taxonomy name="t" toName="image" perRegion="true"><Choice value="Car"/></Taxonomy>'
    '<Choices name="of_task" toName="image" value="$choices"/><Number name="n" toName="image"/>'
    '<Taxonomy name="elsewhere" toName="image" apiUrl="https://example.com/tree"/>'
    '<Choices name="nested" toName="image" allowNested="true"><Choice value="Car"/></Choices>'
)


def parse_one(label_config: str) -> RectangleControl:
    (control,) = parse_labeling_config(label_config).controls
    assert isinstance(control, RectangleControl)
    return control


def mapped(labels: str, class_names: Sequence[str], *, control: str = "", default_threshold: float = 0.25) -> LabelMap:
    return map_labels(parse_one(config(labels, control)), dict(enumerate(class_names)), default_threshold)


def labels_by_class(labels: str, class_names: Sequence[str]) -> dict[str, str]:
    label_of_class = mapped(labels, class_names).label_of_class
    return {class_names[number]: label for number, label in label_of_class.items()}


# What can't be served


@pytest.mark.parametrize(
    "label_config",
    [
        "",
        "   ",
        "no XML",
        "{}",
        "<View>",
        "<View></Wiev>",
        "<View/>",
        "<View><Image name='i' value='$image'/></View>",
        "<View>" * 300 + "</View>" * 300,
        config(image='value="image"'),
        config(image='value=""'),
        config(image=""),
        config().replace('toName="image"', 'toName="other"'),
        config().replace(' toName="image"', ""),
        config().replace('name="label"', ""),
        config(control='model_skip="true"'),
        config('<Label value="\ud800"/>'),
        config('<Label value="\x00"/>'),
        '<View><Text name="t" value="$text"/><RectangleLabels name="l" toName="t"><Label value="a"/>'
        "</RectangleLabels></View>",
        '<View><Video name="v" value="$video"/><VideoRectangle name="box" toName="v"/></View>',
        '<View><Image name="i" value="$image"/><VectorLabels name="l" toName="i"><Label value="a"/></VectorLabels>'
        "</View>",
        '<View><Image name="i" value="$image"/><Rectangle name="l" toName="i"/></View>',
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(label_config: str) -> None:
    with pytest.raises(LabelingConfigError) as raised:
        parse_labeling_config(label_config)
    assert str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "model_path",
    [
        "../x.pt",
        "/etc/x.pt",
        "folder/x.pt",
        "folder\\x.pt",
        "C:\\x.pt",
        "https://example.com/x.pt",
        "..",
        ".hidden.pt",
        "-x.pt",
        "~/x.pt",
        "$HOME.pt",
        "x.pt?y",
        "x&#9;.pt",
        "two&#10;lines.pt",
    ],
)
def test_a_model_path_is_a_bare_file_name(model_path: str) -> None:
    with pytest.raises(LabelingConfigError, match="model_path") as raised:
        parse_labeling_config(config(control=f'model_path="{model_path}"'))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("model_path", "name"),
    [
        ("runs/detect/train/weights/best.pt", "best.pt"),
        ("C:\\models\\my best.pt", "my best.pt"),
        ("https://me:s3cret@example.com/cells.onnx?X-Amz-Signature=s3cret", "cells.onnx"),
        ("../", "best.pt"),
        ("x" * 5000 + "/", "best.pt"),
    ],
)
def test_a_path_as_model_path_is_told_with_what_to_write(model_path: str, name: str) -> None:
    with pytest.raises(LabelingConfigError) as raised:
        parse_labeling_config(config(control=f'model_path="{model_path.replace("&", "&amp;")}"'))
    assert str(raised.value) == (
        "model_path should be the bare name of a file in MODEL_ROOT, no path and no address: put the file there, "
        f'and write model_path="{name}"'
    )


@pytest.mark.parametrize(
    "model_path", ["x.pt", "yolo11n-obb.pt", "my model 2.pt", "größe_1.onnx", "a+b.pt", "best (1).pt"]
)
def test_a_bare_model_path_is_kept(model_path: str) -> None:
    assert parse_one(config(control=f'model_path="{model_path}"')).model_path == model_path


@pytest.mark.parametrize("attribute", ["model_score_threshold", "score_threshold"])
@pytest.mark.parametrize("text", ["-0.1", "1.1", "nan", "inf", "0,5", "half", "50%"])
@pytest.mark.parametrize("place", ["control", "label"])
def test_a_bad_threshold_is_told_with_its_name_and_place(attribute: str, text: str, place: str) -> None:
    bad = f'{attribute}="{text}"'
    label_config = config(control=bad) if place == "control" else config(f'<Label value="Car" {bad}/>')
    with pytest.raises(LabelingConfigError) as raised:
        parse_labeling_config(label_config)
    message = str(raised.value)
    assert attribute in message
    assert text in message
    assert ("Car" if place == "label" else "label") in message
    assert "\n" not in message


# What is served


def test_a_plain_config() -> None:
    assert parse_labeling_config(config()) == LabelingConfig(
        (RectangleControl("label", "image", "$image", is_list=False, labels=(Label("Car", ("Car",)),)),)
    )


@pytest.mark.parametrize(
    "label_config",
    [
        config().replace("<View>", "<View><!-- a remark --><Header value='Cars'/>"),
        config().replace("<View>", "\n\n<View>\n  ").replace("/><", "/>\n\t<"),
        config('<View className="row"><View><Label value="Car"/></View></View>'),
        "<View><View><View>" + config() + "</View></View></View>",
        config().replace("</View>", PEOPLES_OWN + "</View>"),
        config().replace("RectangleLabels", "rectanglelabels"),
    ],
)
def test_what_does_not_matter_changes_nothing(label_config: str) -> None:
    assert parse_labeling_config(label_config).controls == parse_labeling_config(config()).controls


def test_an_xml_declaration_is_no_obstacle() -> None:
    assert parse_labeling_config('<?xml version="1.0"?>' + config()) == parse_labeling_config(config())


def test_labels_keep_their_order_and_their_letters() -> None:
    control = parse_one(config('<Label value="Straße &amp; &quot;Weg&quot;"/><Label value=" b "/><Label value="猫"/>'))
    assert [label.value for label in control.labels] == ['Straße & "Weg"', " b ", "猫"]


def test_with_an_alias_the_alias_goes_into_regions_and_both_are_names() -> None:
    (label,) = parse_one(config('<Label value="Car" alias="c1"/>')).labels
    assert label.value == "c1"
    assert set(label.names) == {"Car", "c1"}


def test_several_controls_on_several_images() -> None:
    config = parse_labeling_config(
        """<View>
          <Image name="left" value="$left_url"/><Image name="right" value="$right_url"/>
          <RectangleLabels name="cars" toName="left" model_path="cars.pt"><Label value="Car"/></RectangleLabels>
          <RectangleLabels name="cats" toName="right" score_threshold="0.5"><Label value="Cat"/></RectangleLabels>
          <RectangleLabels name="own" toName="left" model_skip="true"><Label value="Hand-made"/></RectangleLabels>
          <RectangleLabels name="dogs" toName="left"><Label value="Dog"/></RectangleLabels>
        </View>"""
    )
    assert {(c.from_name, c.to_name, c.value, c.model_path, c.score_threshold) for c in config.controls} == {
        ("cars", "left", "$left_url", "cars.pt", None),
        ("cats", "right", "$right_url", None, 0.5),
        ("dogs", "left", "$left_url", None, None),
    }


@pytest.mark.parametrize(("image", "is_list"), [('valueList="$pages"', True), ('value="$pages"', False)])
def test_a_value_list_is_a_list_of_images(image: str, is_list: bool) -> None:
    control = parse_one(config(image=image))
    assert (control.value, control.is_list) == ("$pages", is_list)


@pytest.mark.parametrize(
    ("text", "skipped"), [("true", True), ("True", True), (" TRUE ", True), ("false", False), ("", False)]
)
def test_model_skip(text: str, skipped: bool) -> None:
    second = '<RectangleLabels name="second" toName="image"><Label value="Car"/></RectangleLabels></View>'
    controls = parse_labeling_config(config(control=f'model_skip="{text}"').replace("</View>", second)).controls
    assert ("label" not in {control.from_name for control in controls}) is skipped


def test_a_broken_control_that_is_skipped_does_no_harm() -> None:
    second = '<RectangleLabels name="second" toName="image"><Label value="Car"/></RectangleLabels></View>'
    skipped = config(control='model_skip="true" model_path="../x.pt" model_score_threshold="9"')
    assert parse_one(skipped.replace("</View>", second)).from_name == "second"


@pytest.mark.parametrize(("text", "needed"), [("true", True), ("false", False)])
def test_model_obb(text: str, needed: bool) -> None:
    assert parse_one(config(control=f'model_obb="{text}"')).needs_obb is needed


def test_the_attributes_of_human_signals_example() -> None:
    control = parse_one(
        """<View>
          <Image name="image" value="$image"/>
          <RectangleLabels name="label" toName="image" score_threshold="0.25" opacity="0.1" model_path="yolov8m.pt"
                           model_score_threshold="0.3" model_obb="true">
            <Label value="Person" background="red" predicted_values="person"/>
            <Label value="Animal" background="green" predicted_values="cat, dog,  horse ,, "/>
            <Label value="Airplane" model_score_threshold="0.9"/>
          </RectangleLabels>
        </View>"""
    )
    assert control == RectangleControl(
        "label",
        "image",
        "$image",
        is_list=False,
        labels=(
            Label("Person", ("Person",), ("person",)),
            Label("Animal", ("Animal",), ("cat", "dog", "horse")),
            Label("Airplane", ("Airplane",), (), 0.9),
        ),
        score_threshold=0.3,
        model_path="yolov8m.pt",
        needs_obb=True,
    )


# Classes to labels


@pytest.mark.parametrize(
    ("label", "class_name"),
    [
        ("car", "car"),
        ("Car", "car"),
        ("CAR", "car"),
        ("traffic light", "traffic_light"),
        ("Traffic-Light", "traffic light"),
        ("trafficlight", "traffic light"),
        ("  car ", "car"),
        ("STRASSE", "straße"),
        ("É", "é"),
    ],
)
def test_names_that_are_the_same(label: str, class_name: str) -> None:
    assert labels_by_class(f'<Label value="{label}"/>', [class_name]) == {class_name: label}


@pytest.mark.parametrize(
    ("label", "class_name"),
    [
        ("cars", "car"),
        ("car", "cart"),
        ("truck", "car"),
        ("c.ar", "car"),
        ("e", "é"),
        ("person 1", "person 2"),
        ("cat", "category"),
    ],
)
def test_names_that_are_not_the_same_are_reported_not_guessed(label: str, class_name: str) -> None:
    label_map = mapped(f'<Label value="{label}"/>', [class_name])
    assert label_map.label_of_class == {}
    assert label_map.labels_without_class == (label,)
    assert label_map.classes_without_label == (class_name,)


def test_nothing_at_all_maps_to_nothing() -> None:
    label_map = mapped("", [])
    assert (label_map.label_of_class, label_map.threshold_of_class) == ({}, {})
    assert (label_map.labels_without_class, label_map.classes_without_label) == ((), ())
    assert label_map.lowest_threshold == 1.0


def test_predicted_values_come_before_names() -> None:
    labels = '<Label value="car"/><Label value="Vehicle" predicted_values="Car, truck"/>'
    assert labels_by_class(labels, ["car", "truck"]) == {"car": "Vehicle", "truck": "Vehicle"}


def test_an_exact_name_comes_before_one_that_is_alike() -> None:
    assert labels_by_class('<Label value="CAR"/><Label value="car"/>', ["car", "Car"]) == {"car": "car", "Car": "CAR"}


@pytest.mark.parametrize(
    ("labels", "class_names", "expected"),
    [
        ('<Label value="x"/>', ["x", "x-"], {"x": "x"}),
        ('<Label value="a"/>', ["a", "A"], {"a": "a"}),
        ('<Label value="Car" alias="c1"/>', ["c1", "car"], {"c1": "c1"}),
        ('<Label value="traffic light"/>', ["traffic_light", "traffic light"], {"traffic light": "traffic light"}),
        ('<Label value="x"/><Label value="X-"/>', ["x", "x-"], {"x": "x", "x-": "X-"}),
        ('<Label value="Any" predicted_values="x"/>', ["x", "x-"], {"x": "Any"}),
        ('<Label value="Any" predicted_values="x, Y"/>', ["x", "x-", "y"], {"x": "Any", "y": "Any"}),
        ('<Label value="x"/>', ["X", "x-"], {"X": "x", "x-": "x"}),  # none is it exactly, so both are as near
    ],
)
def test_who_has_a_class_of_the_very_name_takes_no_other_that_is_alike(
    labels: str, class_names: list[str], expected: dict[str, str]
) -> None:
    assert labels_by_class(labels, class_names) == expected


@pytest.mark.parametrize(
    ("labels", "class_name"),
    [('<Label value="-"/>', ""), ('<Label value="-"/>', "_"), ('<Label value="A" predicted_values="-"/>', "__")],
)
def test_nothing_but_signs_is_like_nothing(labels: str, class_name: str) -> None:
    assert labels_by_class(labels, [class_name]) == {}


def test_predicted_values_do_not_take_a_labels_own_name_away() -> None:
    labels = '<Label value="Car" predicted_values="truck"/>'
    assert labels_by_class(labels, ["car", "truck", "bus"]) == {"car": "Car", "truck": "Car"}


@pytest.mark.parametrize("predicted", ["Traffic Light", "traffic_light", "TRAFFIC-LIGHT"])
def test_predicted_values_are_blind_to_the_same_things(predicted: str) -> None:
    labels = f'<Label value="Lamp" predicted_values="{predicted}"/>'
    assert labels_by_class(labels, ["traffic light"]) == {"traffic light": "Lamp"}


def test_the_first_of_two_labels_wins() -> None:
    labels = '<Label value="A" predicted_values="car"/><Label value="B" predicted_values="car"/>'
    assert labels_by_class(labels, ["car"]) == {"car": "A"}


@pytest.mark.parametrize("class_name", ["Car", "c1", "C-1"])
def test_a_class_finds_a_label_by_value_and_by_alias(class_name: str) -> None:
    assert labels_by_class('<Label value="Car" alias="c1"/>', [class_name]) == {class_name: "c1"}


def test_two_classes_may_share_a_label_and_numbers_need_no_order() -> None:
    control = parse_one(config('<Label value="Cat"/><Label value="Dog"/><Label value="Eel"/>'))
    label_map = map_labels(control, {7: "cat", 2: "bird", 0: "CAT", 5: "dog"}, 0.25)
    assert label_map.label_of_class == {0: "Cat", 5: "Dog", 7: "Cat"}
    assert label_map.labels_without_class == ("Eel",)
    assert label_map.classes_without_label == ("bird",)


# Thresholds


@pytest.mark.parametrize(
    ("label", "control", "expected"),
    [
        ("", "", 0.25),
        ("", 'model_score_threshold="0.6"', 0.6),
        ("", 'score_threshold="0.6"', 0.6),
        ("", 'model_score_threshold="0.6" score_threshold="0.7"', 0.6),
        ('model_score_threshold="0.1"', "", 0.1),
        ('score_threshold="0.1"', "", 0.1),
        ('model_score_threshold="0.1"', 'model_score_threshold="0.6"', 0.1),
        ('model_score_threshold="0"', 'model_score_threshold="0.6"', 0.0),
        ('model_score_threshold=""', 'model_score_threshold="0.6"', 0.6),
        ("", 'model_score_threshold="0"', 0.0),
        ("", 'model_score_threshold="1"', 1.0),
        ("", 'model_score_threshold=".5"', 0.5),
    ],
)
def test_a_threshold_is_the_labels_then_the_controls_then_the_default(
    label: str, control: str, expected: float
) -> None:
    label_map = mapped(f'<Label value="Car" {label}/>', ["car"], control=control)
    assert label_map.threshold_of_class == {0: expected}
    assert label_map.lowest_threshold == expected


def test_the_lowest_threshold_is_that_of_the_classes_in_use() -> None:
    labels = (
        '<Label value="Car" model_score_threshold="0.4"/><Label value="Cat"/>'
        '<Label value="Unicorn" model_score_threshold="0.01"/>'
    )
    label_map = mapped(labels, ["car", "cat"], control='model_score_threshold="0.7"')
    assert label_map.threshold_of_class == {0: 0.4, 1: 0.7}
    assert label_map.lowest_threshold == 0.4


# Whatever people paste


_NAMES = st.sampled_from(["", "image", "label", "$image", "image,label", "a b", "0", "ü", "&#10;"])
_ATTRIBUTES = st.dictionaries(
    st.sampled_from(
        ["name", "toName", "value", "valueList", "alias", "model_path", "model_score_threshold", "predicted_values"]
    ),
    _NAMES,
    max_size=5,
)
_TAGS = st.sampled_from(["View", "Image", "RectangleLabels", "Label", "Choices", "Choice", "Text", "Repeater", "x"])


@st.composite
def xml_trees(draw: st.DrawFn, depth: int = 3) -> str:
    tag = draw(_TAGS)
    attributes = "".join(f' {name}="{value}"' for name, value in draw(_ATTRIBUTES).items())
    children = draw(st.lists(xml_trees(depth - 1), max_size=4)) if depth else []
    return f"<{tag}{attributes}>{''.join(children)}</{tag}>"


def outcome_of(label_config: str) -> str:
    try:
        controls = parse_labeling_config(label_config).controls
    except LabelingConfigError as error:
        return f"told in {len(str(error).splitlines())} line"
    return "served" if controls else "nothing is served"


@given(st.one_of(st.text(), st.text(alphabet='<>/="&; $ViewImageRectangleLabelsname'), xml_trees()))
def test_any_text_is_parsed_or_told_in_one_line(label_config: str) -> None:
    assert outcome_of(label_config) in {"served", "told in 1 line"}


# What of a config isn't served is said, and the rest is served


PLAIN = """<Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image"><Label value="RBC"/></RectangleLabels>"""
REPEATED = """<Repeater on="$pages" indexFlag="{{idx}}"><Image name="page_{{idx}}" value="$pages[{{idx}}].url"/>
<RectangleLabels name="on_{{idx}}" toName="page_{{idx}}"><Label value="RBC"/></RectangleLabels></Repeater>"""
LABELS = '<Labels name="kind" toName="image"><Label value="RBC"/></Labels>'


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            REPEATED,
            "inside a Repeater, which takes no predictions: use one Image with valueList and one RectangleLabels",
        ),
        (REPEATED.replace("{{idx}}", "%i%"), 'RectangleLabels "on_%i%" is inside a Repeater'),
        (
            LABELS,
            'Labels "kind" has no Rectangle on "image" beside it, nor a Polygon, Brush or Ellipse: add one, or write '
            "RectangleLabels",
        ),
        (
            '<VectorLabels name="cells" toName="image"><Label value="a"/></VectorLabels>',
            'VectorLabels "cells" isn\'t predicted: write RectangleLabels, or another control that is, instead',
        ),
        (
            '<Brush name="brush" toName="image"/>',
            'Brush "brush" has no Labels beside it: add them, or write BrushLabels',
        ),
        (
            '<PolygonLabels name="p" toName="image" model_parts="some"><Label value="a"/></PolygonLabels>',
            'model_parts="some" of PolygonLabels "p" should be largest or all',
        ),
        (
            '<PolygonLabels name="p" toName="image" model_polygon_tolerance="-1"><Label value="a"/></PolygonLabels>',
            'model_polygon_tolerance="-1" of PolygonLabels "p" should be a number of pixels from 0 to 1000',
        ),
        (
            '<PolygonLabels name="p" toName="image" model_polygon_tolerance="nan"><Label value="a"/></PolygonLabels>',
            'model_polygon_tolerance="nan" of PolygonLabels "p" should be a number of pixels from 0 to 1000',
        ),
        (
            '<BitmaskLabels name="k" toName="image"><Label value="a"/></BitmaskLabels>',
            'BitmaskLabels "k" isn\'t predicted',
        ),
        (
            '<Choices name="c" toName="image" allowNested="true"><Choice value="a" predicted_values="b"/></Choices>',
            'Choices "c" has allowNested="true", and Label Studio takes no predictions of such: write Taxonomy',
        ),
        (
            '<Taxonomy name="t" toName="image" apiUrl="https://example.com/tree" model_presence="true"/>',
            'Taxonomy "t" has no Choice inside, and other paths aren\'t known here: write them into the config',
        ),
        (
            '<Video name="v" value="$video"/><VideoRectangle name="track" toName="v"/>',
            'VideoRectangle "track" is for videos, which are not predicted',
        ),
        (
            '<Text name="t" value="$text"/><RectangleLabels name="l" toName="t"><Label value="a"/></RectangleLabels>',
            'RectangleLabels "l" is on the Text "t": only an Image is looked at',
        ),
        (
            '<RectangleLabels name="l" toName="image" model_score_threshold="2"><Label value="a"/></RectangleLabels>',
            'model_score_threshold="2" of RectangleLabels "l" should be a number from 0 to 1',
        ),
        (
            '<RectangleLabels name="l" toName="image" model_path="a/b.pt"><Label value="a"/></RectangleLabels>',
            "model_path should be the bare name of a file in MODEL_ROOT, no path and no address: put the file there, "
            'and write model_path="b.pt"',
        ),
        (
            '<Image name="i" value="photo.jpg"/><RectangleLabels name="l" toName="i"><Label value="a"/>'
            "</RectangleLabels>",
            'Image "i" should have a value such as "$image", not "photo.jpg"',
        ),
    ],
)
def test_one_that_is_served_is_served_beside_one_that_is_not(more: str, sentence: str) -> None:
    config = parse_labeling_config(f"<View>{PLAIN}{more}</View>")
    assert config.controls == parse_labeling_config(f"<View>{PLAIN}</View>").controls
    (said,) = config.not_served
    assert sentence in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "more",
    [
        '<TextArea name="t" toName="image"/>',
        '<Rating name="r" toName="image"/>',
        "<Relations><Relation value='is'/></Relations>",
        '<Text name="t" value="$text"/><Labels name="words" toName="t"><Label value="a"/></Labels>',
        '<PolygonLabels name="cells" toName="image" model_skip="true"><Label value="a"/></PolygonLabels>',
        '<Rectangle name="box" toName="image"/>',
    ],
)
def test_of_what_holds_no_regions_of_images_nothing_is_said(more: str) -> None:
    assert parse_labeling_config(f"<View>{PLAIN}{more}</View>").not_served == ()


@pytest.mark.parametrize(
    ("inside", "sentence"),
    [
        (REPEATED, "no control on an Image that can be served: RectangleLabels"),
        ('<Image name="image" value="$image"/>' + LABELS, 'Labels "kind" has no Rectangle on "image" beside it'),
        (
            '<Image name="image" value="$image"/><Rectangle name="box" toName="image"/>',
            'the Rectangle "box" has no labels, so write RectangleLabels',
        ),
        (PLAIN.replace('name="label"', 'name="label" model_skip="true"'), 'model_skip="true": remove it from one'),
        (
            '<Text name="t" value="$text"/>',
            "The labeling config has no control on an Image that can be served, such as RectangleLabels",
        ),
    ],
)
def test_where_nothing_can_be_served_it_says_what_was_found_and_what_to_write(inside: str, sentence: str) -> None:
    with pytest.raises(LabelingConfigError) as raised:
        parse_labeling_config(f"<View>{inside}</View>")
    assert sentence in str(raised.value)


# Labels with a Rectangle, labels from the task


@pytest.mark.parametrize(
    "rectangle", ['<Rectangle name="box" toName="image"/>', '<RECTANGLE name="box" toName="image"/>']
)
def test_labels_with_a_rectangle(rectangle: str) -> None:
    label_config = (
        f'<View><Image name="image" value="$image"/>{LABELS}{rectangle}<Brush name="b" toName="image"/></View>'
    )
    control = parse_one(label_config)
    assert (control.from_name, control.shape_name, control.to_name) == ("kind", "box", "image")
    assert [label.value for label in control.labels] == ["RBC"]


def test_a_rectangle_of_another_image_is_none_of_its_own() -> None:
    other = '<Image name="other" value="$other"/><Rectangle name="box" toName="other"/>'
    with pytest.raises(LabelingConfigError, match='has no Rectangle on "image"'):
        parse_labeling_config(f'<View><Image name="image" value="$image"/>{LABELS}{other}</View>')


@pytest.mark.parametrize("shape", ["Rectangle", "Polygon", "Brush", "Ellipse"])
def test_labels_with_a_shape_are_read_as_the_tag_that_is_both(shape: str) -> None:
    attributes = 'model_score_threshold="0.4" model_path="x.pt" model_polygon_tolerance="2" model_parts="all"'
    image = '<Image name="image" value="$image"/>'
    apart = parse_one_shape(f'<View>{image}{LABELS}<{shape} name="place" toName="image" {attributes}/></View>')
    both = f'<{shape}Labels name="kind" toName="image" {attributes}><Label value="RBC"/></{shape}Labels>'
    at_once = parse_one_shape(f"<View>{image}{both}</View>")
    assert apart == replace(at_once, tag="labels", shape_name="place")
    assert (at_once.score_threshold, at_once.model_path) == (0.4, "x.pt")


@pytest.mark.parametrize(
    ("shapes", "chosen"),
    [
        ("Ellipse Brush Polygon Rectangle", "Rectangle"),
        ("Ellipse Brush Polygon", "Polygon"),
        ("Ellipse Brush", "Brush"),
        ("Rectangle-skipped Ellipse", "Ellipse"),
    ],
)
def test_of_several_shapes_beside_labels_one_is_predicted_and_the_others_are_told(shapes: str, chosen: str) -> None:
    skipped = ' model_skip="true"'
    tags = [
        f'<{name.removesuffix("-skipped")} name="{name}" toName="image"{skipped if "skipped" in name else ""}/>'
        for name in shapes.split()
    ]
    config = parse_labeling_config(f'<View><Image name="image" value="$image"/>{LABELS}{"".join(tags)}</View>')
    (control,) = config.controls
    assert isinstance(control, ShapeControl)
    assert control.shape_name == chosen
    said = 'is left to people, because Labels "kind" is predicted with the ' + chosen
    assert list(config.not_served) == [
        f'{name} "{name}" {said}' for name in shapes.split() if name not in {chosen, "Rectangle-skipped"}
    ]


def test_the_attributes_of_a_rectangle_are_those_of_its_labels() -> None:
    rectangle = '<Rectangle name="box" toName="image" model_path="x.pt" model_score_threshold="0.4"/>'
    control = parse_one(f'<View><Image name="image" value="$image"/>{LABELS}{rectangle}</View>')
    assert (control.model_path, control.score_threshold) == ("x.pt", 0.4)


def dynamic(value: str = "$labels", labels: str = "") -> Control:
    return parse_one(config(labels, f'value="{value}"'))


def test_labels_of_the_task() -> None:
    control = dynamic()
    assert (control.labels, control.labels_value) == ((), "$labels")
    labels = [
        {"value": "RBC", "background": "red"},
        {"value": "White", "alias": "WBC", "predicted_values": "cell, wbc"},
        {"value": "Platelets", "model_score_threshold": 0.5},
        "Text",
        {"background": "blue"},
        {"value": None},
    ]
    assert labels_of_task(control, {"labels": labels}) == (
        Label("RBC", ("RBC",)),
        Label("WBC", ("White", "WBC"), ("cell", "wbc")),
        Label("Platelets", ("Platelets",), (), 0.5),
    )
    assert labels_of_task(dynamic("$a.b[0]"), {"a": {"b": [[{"value": "x"}]]}}) == (Label("x", ("x",)),)


@pytest.mark.parametrize(
    "data",
    [{}, {"labels": None}, {"labels": []}, {"labels": "RBC"}, {"labels": ["RBC"]}, {"labels": {"value": "a"}}, None],
)
def test_a_task_without_labels_is_told_what_they_should_be(data: Any) -> None:
    with pytest.raises(
        LabelingConfigError, match=r'no labels in its "labels": it should be a list such as \[\{"value"'
    ):
        labels_of_task(dynamic(), data)


def test_beside_labels_of_its_own_a_control_takes_none_of_the_task() -> None:
    control = dynamic(labels='<Label value="RBC"/>')
    assert control.labels_value is None
    assert [label.value for label in control.labels] == ["RBC"]


def test_predicted_values_of_a_tasks_label_may_be_a_list() -> None:
    (label,) = labels_of_task(dynamic(), {"labels": [{"value": "Lorry", "predicted_values": ["truck", "bus"]}]})
    assert label.predicted_values == ("truck", "bus")


@pytest.mark.parametrize("place", ["Labels", "Rectangle"])
def test_what_is_said_of_labels_may_stand_on_their_rectangle(place: str) -> None:
    both = f'{LABELS}<Rectangle name="box" toName="image"/>'
    image = '<Image name="image" value="$image"/>'
    rotated = both.replace(f"<{place} ", f'<{place} model_obb="true" ')
    assert parse_one(f"<View>{image}{rotated}</View>").needs_obb
    skipped = both.replace(f"<{place} ", f'<{place} model_skip="true" ')
    assert (
        parse_labeling_config(f"<View>{PLAIN}{skipped}</View>").controls
        == parse_labeling_config(f"<View>{PLAIN}</View>").controls
    )


def test_a_control_of_several_images_is_served_on_each() -> None:
    config = parse_labeling_config(
        """<View><Image name="a" value="$a"/><Image name="b" value="$b"/><Text name="t" value="$t"/>
        <RectangleLabels name="label" toName="a,t,b"><Label value="car"/></RectangleLabels></View>"""
    )
    assert [(control.from_name, control.to_name, control.value) for control in config.controls] == [
        ("label", "a", "$a"),
        ("label", "b", "$b"),
    ]


def test_a_skipped_control_does_not_hide_why_another_cannot_be_served() -> None:
    skipped = PLAIN.replace('name="label"', 'name="label" model_skip="true"')
    with pytest.raises(LabelingConfigError, match='Labels "kind" has no Rectangle on "image" beside it'):
        parse_labeling_config(f"<View>{skipped}{LABELS}</View>")


@pytest.mark.parametrize(
    "inside",
    [
        REPEATED.replace("on_{{idx}}", "bounding_boxes_of_the_page_{{idx}}"),
        PLAIN.replace('name="label"', f'name="{"n" * 300}" model_score_threshold="{"9" * 300}"'),
        PLAIN.replace('value="RBC"', f'value="{"L" * 300}" score_threshold="x"'),
        PLAIN.replace("$image", "p" * 300),
        '<Image name="image" value="$image"/>' + LABELS.replace("kind", "k" * 300),
        '<Image name="i" value="$image"/><VectorLabels name="'
        + "n" * 300
        + '" toName="i"><Label value="a"/></VectorLabels>',
        '<Image name="i" value="$image"/><Polygon name="' + "n" * 300 + '" toName="i"/>',
        '<Image name="i" value="$image"/><PolygonLabels model_parts="all of them" model_polygon_tolerance="0" name="'
        + "n" * 300
        + '" toName="i"><Label value="a"/></PolygonLabels>',
    ],
)
def test_long_names_leave_room_for_what_to_do(inside: str) -> None:
    """Settings > Model cuts at 240 characters."""
    with pytest.raises(LabelingConfigError) as raised:
        parse_labeling_config(f"<View>{inside}</View>")
    assert len(to_latin1(str(raised.value))) <= 240


@pytest.mark.parametrize("name", ["valueList", "valuelist", "VALUELIST"])
def test_a_list_of_images_goes_before_one_and_is_blind_to_case_as_on_the_page(name: str) -> None:
    control = parse_one(config(image=f'{name}="$pages" value="$page"'))
    assert (control.value, control.is_list) == ("$pages", True)
