"""The report of a run, and the history's picture: whole, escaped, and of themselves."""

from __future__ import annotations

import base64
import io
import re
import tracemalloc
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from tests.harness.findings import LABELS, Recorded, labelled, recorded, with_labels
from yolo_backend.detection.masks import Mask
from yolo_backend.labels.drawing import LabelColors
from yolo_backend.training.found import Findings, FoundBoxes
from yolo_backend.training.gate import Judgement, judge
from yolo_backend.training.history import HistoryPoint, draw_history
from yolo_backend.training.labelled import LabelledImage
from yolo_backend.training.matching import TrueBoxes
from yolo_backend.training.report import _worst, label_tags, write_report
from yolo_backend.training.things import things_of
from yolo_backend.training.thresholds import ThresholdRule

NASTY = "<script>alert(\"RBC\")</script> & 'co'"
_VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """A page's tags, and its text; tags that are closed in another order than they were opened are a fault."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert self.opened == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def those(bccd_files: list[Path]) -> Recorded:
    """The dozen photographs that are there, as people labelled them, with the labels under a nasty name."""
    files = {file.stem: file for file in bccd_files[:12]}
    everything = recorded()
    chosen = [number for number, image in enumerate(everything.images) if image.digest in files]
    assert len(chosen) == 12
    images = [everything.images[number] for number in chosen]
    images = [
        replace(
            image,
            file=files[image.digest],
            boxes=tuple(replace(each, label=NASTY if each.label == "RBC" else each.label) for each in image.boxes),
        )
        for image in images
    ]
    named = {"RBC": NASTY}
    return Recorded(
        images, with_labels(everything.better.at(chosen), named), with_labels(everything.worse.at(chosen), named)
    )


def judged(images: list[LabelledImage], candidate: Findings, current: Findings | None = None) -> Judgement:
    return judge(
        images, [NASTY, *LABELS[1:]], candidate, current, is_first=current is None, rule=ThresholdRule(),
        may_have_seen="<b>base</b>.pt",
    )  # fmt: skip


def written(path: Path, judgement: Judgement, images: list[LabelledImage], candidate: Findings) -> str:
    facts = {"Project": "7 <i>", "Base": "demo.pt"}
    write_report(path, judgement, images, candidate, title="Run 3 of <project>", facts=facts, max_megapixels=10)
    return path.read_text(encoding="utf-8")


@pytest.mark.long
def test_it_is_whole_and_escaped(those: Recorded, tmp_path: Path) -> None:
    judgement = judged(those.images, those.worse, those.better)
    html = written(tmp_path / "report.html", judgement, those.images, those.worse)
    page = Page(html)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "b", "i", "iframe", "object"})
    addresses = [value for _, attributes in page.tags for name, value in attributes.items() if name in {"src", "href"}]
    assert all(str(address).startswith("data:") for address in addresses)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    text = " ".join(page.text.split())
    assert text.index(judgement.reason) < text.index("7 <i>") < text.index("Thresholds")
    for said in ("Run 3 of <project>", "<b>base</b>.pt may have seen", NASTY, "Refused", "mAP50-95"):
        assert said in text
    assert len(html) < 2_000_000


def test_a_model_that_was_to_serve_and_could_not_is_not_told_as_promoted(tmp_path: Path) -> None:
    nothing = Findings(frozenset(), [])
    judgement = judged([], nothing)
    assert judgement.verdict == "promote"
    path = tmp_path / "report.html"
    write_report(path, judgement, [], nothing, title="t", facts={}, max_megapixels=1, failure="No <b>room</b> is left")
    text = " ".join(Page(path.read_text(encoding="utf-8")).text.split())
    assert "Failed No <b>room</b> is left. It was to serve: " + judgement.reason in text
    assert "Promoted" not in text


@pytest.mark.long
def test_the_worst_images_come_first_as_labelled_and_as_found(those: Recorded, tmp_path: Path) -> None:
    judgement = judged(those.images, those.worse, those.better)
    page = Page(written(tmp_path / "report.html", judgement, those.images, those.worse))
    mistakes = [int(missed) + int(wrong) for missed, wrong in re.findall(r"(\d+) missed, (\d+) wrong", page.text)]
    assert mistakes == sorted(mistakes, reverse=True)
    assert mistakes[0] > 3
    pictures = [str(attributes["src"]) for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 2 * len(mistakes)
    for picture in pictures:
        head, _, content = picture.partition(",")
        assert head == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            assert image.size == (420, 315)
            assert np.asarray(image).std() > 10


@pytest.mark.long
def test_what_is_missed_is_told_from_what_is_wrong(those: Recorded, tmp_path: Path) -> None:
    """Of a model that finds nothing, and of images in which nothing was drawn."""
    nothing = [found.above(dict.fromkeys(LABELS, 1.0)) for found in those.better.images]
    empty = [replace(image, boxes=()) for image in those.images]
    for images, candidate in ((those.images, replace(those.better, images=nothing)), (empty, those.better)):
        judgement = judged(images, candidate)
        page = Page(written(tmp_path / "report.html", judgement, images, candidate))
        told = [(int(missed), int(wrong)) for missed, wrong in re.findall(r"(\d+) missed, (\d+) wrong", page.text)]
        assert len(told) == 12
        assert all((missed > 0, wrong > 0) == (images is not empty, images is empty) for missed, wrong in told)


@pytest.mark.long
def test_a_curve_for_each_label(those: Recorded, tmp_path: Path) -> None:
    page = Page(written(tmp_path / "report.html", judged(those.images, those.better), those.images, those.better))
    curves = [str(attributes["points"]) for tag, attributes in page.tags if tag == "polyline"]
    assert len(curves) == 3
    for curve in curves:
        points = [tuple(map(float, point.split(","))) for point in curve.split()]
        assert all(0 <= number <= 100 for point in points for number in point)
        assert [x for x, _ in points] == sorted(x for x, _ in points)
        assert [y for _, y in points] == sorted(y for _, y in points)


def test_an_image_that_is_gone_is_left_out(those: Recorded, tmp_path: Path) -> None:
    images = [replace(image, file=tmp_path / "gone.jpg") for image in those.images]
    page = Page(written(tmp_path / "report.html", judged(images, those.worse), images, those.worse))
    assert [tag for tag, _ in page.tags if tag == "img"] == []


def test_thousands_of_labels_take_no_memory_for_each_image() -> None:
    """Each image would have a table of them all: two megabytes with 500."""
    labels = [f"species {number}" for number in range(500)]
    images = [labelled(number, [(labels[number], (10, 10, 90, 90))]) for number in range(20)]
    truths = [TrueBoxes.of(image.boxes, image.size_wh, labels) for image in images]
    none = FoundBoxes(np.zeros((0, 4)), np.zeros(0), ())
    colors = LabelColors()
    for label in labels:
        colors[label]
    tracemalloc.start()
    try:
        assert _worst(images, truths, [none] * len(images), colors, 1) == []  # whose files aren't there
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1_000_000


def test_without_images_it_says_so(tmp_path: Path) -> None:
    nothing = Findings(frozenset(), [])
    page = Page(written(tmp_path / "report.html", judged([], nothing), [], nothing))
    assert "there are 0 validation images, and 10 are needed" in page.text
    assert "No image has a missed box" in page.text


def test_rotated_boxes_are_drawn(tmp_path: Path) -> None:
    file = tmp_path / "black.png"
    Image.new("RGB", (200, 100)).save(file)
    image = labelled(0, [(NASTY, (50, 40, 150, 60))], size_wh=(200, 100), file=file)
    found = Findings(frozenset({NASTY}), [FoundBoxes(np.array([[100.0, 50, 80, 20, 0.5]]), np.array([0.9]), (NASTY,))])
    page = Page(written(tmp_path / "report.html", judged([image], found), [image], found))
    pictures = [str(attributes["src"]).partition(",")[2] for tag, attributes in page.tags if tag == "img"]
    drawn = [np.asarray(Image.open(io.BytesIO(base64.b64decode(picture)))).max(axis=2) > 60 for picture in pictures]
    # The upright box ends 10 px below the middle, the one that is turned by half a radian about 28.
    assert [int(np.flatnonzero(each.any(axis=1)).max()) for each in drawn] == [60, 77]


@pytest.mark.parametrize(
    ("kind", "said", "wrong"),
    [
        ("detect", "Boxes above the thresholds that overlap a drawn one by half", "A box that was found with another"),
        ("segment", "Regions above the thresholds that overlap a drawn one by", "A region that was found with another"),
        ("pose", "Boxes above the thresholds that have their points where", "A box that was found with another"),
    ],
)
def test_it_speaks_of_what_was_drawn(kind: str, said: str, wrong: str, those: Recorded, tmp_path: Path) -> None:
    images, found = those.images[:2], those.better.at([0, 1])
    path, judgement = tmp_path / "report.html", judged(images, found)
    write_report(path, judgement, images, found, title="Run 1", facts={}, max_megapixels=10, things=things_of(kind))
    text = Page(path.read_text(encoding="utf-8")).text
    assert said in text
    assert wrong in text


def test_thresholds_are_tags_to_paste() -> None:
    tags = label_tags({NASTY: 0.35, "日本": 0.05})
    assert [
        (tag.attrib["value"], tag.attrib["model_score_threshold"]) for tag in ElementTree.fromstring(f"<V>{tags}</V>")
    ] == [
        (NASTY, "0.35"),
        ("日本", "0.05"),
    ]


def test_the_thresholds_of_key_points_belong_into_the_labels_of_the_points() -> None:
    assert label_tags({"a & b": 0.35}, things_of("pose")) == 'a & b: model_score_threshold="0.35"'
    assert "class's points" in things_of("pose").fix
    assert "last Choice" in things_of("classify").fix
    assert {things_of(kind).fix for kind in ("detect", "segment")} == {"paste them into the labeling config"}


# The history


def test_the_history_is_a_picture_without_styles() -> None:
    points = [
        HistoryPoint("1", 40, 0.35, is_promoted=True),
        HistoryPoint("2", 80, 0.2, is_promoted=False),
        HistoryPoint("3 <x>", 120, 0.6, is_promoted=True),
    ]
    svg = draw_history(points)
    root = ElementTree.fromstring(svg)
    dots = [each for each in root if each.tag.endswith("circle")]
    places = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in dots]
    assert places == [(110.0, 59.4), (210.0, 70.8), (310.0, 40.4)]
    assert [dot.attrib["fill"] for dot in dots] == ["currentColor", "none", "currentColor"]
    assert dots[2][0].text == "Run 3 <x>: mAP50 0.60 with 120 labelled images, promoted"
    assert [each.attrib["points"].split() for each in root if each.tag.endswith("polyline")] == [
        ["110.0,59.4", "310.0,40.4"]
    ]
    assert "style" not in svg
    assert root.attrib["aria-label"] == "mAP50 of 3 runs over labelled images, up to 120"


def test_one_run_is_a_dot_and_none_is_nothing() -> None:
    assert draw_history([]) == ""
    root = ElementTree.fromstring(draw_history([HistoryPoint("1", 0, 0.5, is_promoted=True)]))
    assert [each.tag.rpartition("}")[2] for each in root] == ["path", "circle"]


def test_masks_are_drawn_by_their_outlines(tmp_path: Path) -> None:
    """A triangle that is labelled, and a square that is found: the pictures have these lines, and no boxes around."""
    file = tmp_path / "white.jpg"
    Image.new("RGB", (200, 100), (255, 255, 255)).save(file)
    triangle = ((20.0, 10.0), (180.0, 10.0), (20.0, 90.0))
    image = labelled(1, [("RBC", (20, 10, 180, 90))], size_wh=(200, 100), file=file)
    image = replace(image, boxes=(replace(image.boxes[0], outlines=(triangle,)),))
    mask = Mask.of_bitmap(np.ones((20, 20), np.bool_), (70, 20))
    those = FoundBoxes(np.array([[140.0, 40, 180, 80]]), np.array([0.9]), ("RBC",), masks=(mask,), masks_wh=(100, 50))
    found = Findings(frozenset({"RBC"}), [those])
    judgement = judge([image], ["RBC"], found, None, is_first=True, rule=ThresholdRule())
    write_report(tmp_path / "r.html", judgement, [image], found, title="t", facts={}, max_megapixels=1)
    pictures = re.findall(r"data:image/jpeg;base64,([^\"]+)", (tmp_path / "r.html").read_text())
    drawn, shown = (np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))).min(axis=2) < 200 for each in pictures)
    assert drawn[85, 18:23].any(), "the triangle's left side"
    assert not drawn[60:90, 120:].any(), "nothing is in the other half of its box"
    assert shown[60, 138:143].any()
    assert not shown[:, :100].any()
