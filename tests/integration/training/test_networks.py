"""With what a network begins: held against the base by what both say of the same image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel, OBBModel, PoseModel, SegmentationModel, WorldModel, yaml_model_load

from yolo_backend.demo.train import NARROW_DEPTH_WIDTH_MAXCHANNELS
from yolo_backend.detection.weights import WeightsError
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.training.base import known_classes
from yolo_backend.training.classes import choose_classes
from yolo_backend.training.drawable import DrawableClasses
from yolo_backend.training.kinds import kind_of_file
from yolo_backend.training.labelled import LabelledBox, LabelledImage
from yolo_backend.training.networks import read_base, set_class_rows


def architecture(name: str, classes: int) -> dict[str, Any]:
    described: dict[str, Any] = yaml_model_load(f"{name}.yaml")
    described["scales"] = {"n": list(NARROW_DEPTH_WIDTH_MAXCHANNELS)}
    described["nc"] = classes
    return {key: value for key, value in described.items() if key not in {"scale", "yaml_file"}}


def network(name: str, classes: int, *, seed: int = 0) -> Any:
    """A network of this kind whose rows all differ."""
    torch.manual_seed(seed)
    kinds = {"obb": OBBModel, "seg": SegmentationModel, "pose": PoseModel}
    made = kinds.get(name.partition("-")[2], DetectionModel)(architecture(name, classes), verbose=False)
    with torch.no_grad():
        for branch in (made.model[-1].cv3, getattr(made.model[-1], "one2one_cv3", None) or ()):
            for layers in branch:
                layers[-1].bias.copy_(torch.randn(classes))
    return made.eval()


def begun(base: Any, classes: int, known: Mapping[int, Sequence[int]]) -> Any:
    """The network that begins with the base, as a fitting makes it."""
    torch.manual_seed(1)
    made = type(base)(deepcopy(base.yaml), nc=classes, verbose=False)
    made.load(base, verbose=False)
    set_class_rows(made, base, known)
    return made.eval()


def logits(made: Any) -> list[torch.Tensor]:
    """What it says of each class at each place, (classes, places), from each of its branches."""
    torch.manual_seed(2)
    with torch.no_grad():
        made.train()
        for module in made.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        said = made(torch.rand(1, 3, 64, 64))
        made.eval()
    branches = [said["one2many"], said["one2one"]] if "one2many" in said else [said]
    return [branch["scores"][0] for branch in branches]


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n", "yolo11n-obb", "yolo26n-seg", "yolov8n"])
@pytest.mark.parametrize(
    ("base_classes", "known"),
    [
        (3, {0: [2], 1: [0], 2: [1]}),  # as many, in another order
        (3, {0: [0], 1: [1], 2: [2], 3: []}),  # one more
        (80, {0: [17], 1: [3]}),  # of many: the layers before the last have another width, too
        (80, {1: [2, 5, 7]}),  # several become one
        (2, {0: [1]}),
    ],
)
def test_classes_begin_with_what_the_base_knows_of_them(
    name: str, base_classes: int, known: dict[int, list[int]]
) -> None:
    base = network(name, base_classes)
    wanted = {row: class_ids for row, class_ids in known.items() if class_ids}
    made = begun(base, max(2, *(row + 1 for row in known)), wanted)
    for ours, theirs in zip(logits(made), logits(base), strict=True):
        for row, class_ids in wanted.items():
            torch.testing.assert_close(ours[row], theirs[class_ids].mean(0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n"])
def test_a_class_that_the_base_doesn_t_know_begins_anew(name: str) -> None:
    base = network(name, 3)
    made = begun(base, 3, {1: [0]})  # as many classes, which Ultralytics would copy by position
    for ours, theirs in zip(logits(made), logits(base), strict=True):
        for row in (0, 2):
            differences = (ours[row] - theirs).abs().amax(1)
            assert differences.min() > 0.5, "it begins as another class"
            assert ours[row].max() < -3, "it is said to be everywhere"


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n"])
def test_a_label_that_comes_or_goes_leaves_the_others_their_rows(name: str) -> None:
    """In the order that was fixed when the labels were first seen, wherever the labeling config has the new one."""
    base = network(name, 2)
    base.names = {0: "nut", 1: "bolt"}
    names, rows = rows_for(["washer", "bolt", "nut"], ("nut", "bolt"), base)
    assert (names, rows) == (("nut", "bolt", "washer"), {0: (0,), 1: (1,)})
    with_more = begun(base, 3, rows)
    for ours, theirs in zip(logits(with_more), logits(base), strict=True):
        torch.testing.assert_close(ours[:2], theirs, atol=1e-4, rtol=1e-4)
    with_more.names = dict(enumerate(names))
    # The first one is taken out: the places of the others change.
    names, rows = rows_for(["washer", "bolt"], names, with_more)
    assert (names, rows) == (("bolt", "washer"), {0: (1,), 1: (2,)})
    for ours, theirs in zip(logits(begun(with_more, 2, rows)), logits(with_more), strict=True):
        torch.testing.assert_close(ours, theirs[1:], atol=1e-4, rtol=1e-4)


def rows_for(
    labels: Sequence[str], known: Sequence[str], base: Any
) -> tuple[tuple[str, ...], dict[int, tuple[int, ...]]]:
    """The classes of a training with this labeling config, and with which rows of the base each begins, as in a run."""
    tags = "".join(f'<Label value="{label}"/>' for label in labels)
    config = f"""<View><Image name="image" value="$image"/>
    <RectangleLabels name="label" toName="image">{tags}</RectangleLabels></View>"""
    boxes = tuple(LabelledBox(label, (0, 0, 9, 9), (4.5, 4.5, 9, 9, 0)) for label in ("washer", "bolt", "nut"))
    image = LabelledImage(1, 1, "a.jpg", "d", 0, Path("a.jpg"), (10, 10), boxes)
    names = choose_classes([image], labels, known).names
    begins_with = known_classes(parse_labeling_config(config).controls, base.names)
    return names, {number: begins_with[name] for number, name in enumerate(names) if name in begins_with}


@pytest.mark.parametrize("known", [{0: [2], 1: [0, 1]}, {1: [3]}])
def test_what_a_pixel_shows_begins_with_what_the_base_knows_of_the_class(known: dict[int, list[int]]) -> None:
    """YOLO26's masks learn it beside; Ultralytics would copy rows by position where there are as many."""
    base = network("yolo26n-seg", 4)
    made = begun(base, 4, known)
    ours, theirs = (each.model[-1].proto.semseg[-1] for each in (made, base))
    for row in range(4):
        if row in known:
            torch.testing.assert_close(ours.weight[row], theirs.weight[known[row]].mean(0))
            torch.testing.assert_close(ours.bias[row], theirs.bias[known[row]].mean())
        else:
            assert not torch.equal(ours.weight[row], theirs.weight[row])


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n"])
def test_boxes_begin_where_the_base_finds_them(name: str) -> None:
    base = network(name, 80)
    made = begun(base, 2, {0: [3]})
    for ours, theirs in zip(made.model[-1].cv2.parameters(), base.model[-1].cv2.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def save(made: Any, path: Path, **more: Any) -> Path:
    torch.save({"model": made, "train_args": {"imgsz": 96}, **more}, path)
    return path


def test_a_base_says_what_it_is(bccd_weights: Path, tmp_path: Path) -> None:
    base = read_base(bccd_weights)
    assert (base.kind, base.image_size, sorted(base.class_names.values())) == (
        "detect",
        320,
        ["Platelets", "RBC", "WBC"],
    )
    obb = network("yolo11n-obb", 2)
    obb.names = {0: "ship", 1: "plane"}
    assert read_base(save(obb, tmp_path / "obb.pt")).kind == "obb"
    assert read_base(tmp_path / "obb.pt").image_size == 96
    segment = network("yolo26n-seg", 2)
    segment.names = {0: "ship", 1: "plane"}
    assert read_base(save(segment, tmp_path / "segment.pt")).kind == "segment"
    pose = read_base(save(network("yolo26n-pose", 1), tmp_path / "pose.pt"))
    assert (pose.kind, pose.points) == ("pose", 17)


def test_fused_weights_are_refused(bccd_weights: Path, tmp_path: Path) -> None:
    fused = YOLO(bccd_weights).model.fuse(verbose=False)
    with pytest.raises(WeightsError, match=r"fused\.pt is fused for predicting, .* name the best\.pt"):
        read_base(save(fused, tmp_path / "fused.pt"))


@pytest.mark.parametrize(("name", "task"), [("yolo26n-depth", "depth"), ("yolo26n-sem", "semantic")])
def test_weights_for_something_else_are_refused_with_what_is_needed(name: str, task: str, tmp_path: Path) -> None:
    YOLO(f"{name}.yaml").save(tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=rf"other\.pt are weights for {task}, .* yolo26n\.pt"):
        read_base(tmp_path / "other.pt")


def test_a_network_that_finds_boxes_another_way_is_refused_as_that(tmp_path: Path) -> None:
    world = WorldModel(architecture("yolov8n-world", 80), verbose=False)
    with pytest.raises(
        WeightsError, match=r"^world\.pt can't be trained here, because .* a WorldModel: .* yolo26n\.pt"
    ):
        read_base(save(world, tmp_path / "world.pt"))
    assert kind_of_file(tmp_path / "world.pt") == "detect"


def test_what_is_no_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.zeros(3)}}, tmp_path / "numbers.pt")
    with pytest.raises(WeightsError, match=r"numbers\.pt can't be opened"):
        read_base(tmp_path / "numbers.pt")


@pytest.mark.parametrize("name", ["yolo11", "yolo26", "yolo11-obb", "yolo26-seg", "yolo11-pose"])
def test_a_class_learns_nothing_of_images_on_which_it_can_not_be_drawn(name: str) -> None:
    """An image is one of nothing for those classes only that somebody could have drawn there."""

    def what_the_rows_learn(drawable: Mapping[str, Sequence[int]]) -> list[list[bool]]:
        made = network(name, 3)
        made.args = get_cfg()
        made.train()
        classes = DrawableClasses(drawable, 3)
        classes.hear(made)
        classes.hear(made)  # twice is once
        classes.now(["/images/some.jpg", "/images/other.jpg"])
        count = 5 if "obb" in name else 4
        batch = {
            "img": torch.rand(2, 3, 64, 64),
            "batch_idx": torch.tensor([0.0]),
            "cls": torch.tensor([[0.0]]),
            "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4, 0.1][:count]]),
            "masks": torch.ones(2, 16, 16),
            "sem_masks": torch.zeros(2, 16, 16),
            "keypoints": torch.full((1, 17, 3), 0.5),
        }
        made(batch)[0].sum().backward()
        head = made.model[-1]
        branches = [branch for branch in (head.cv3, getattr(head, "one2one_cv3", None)) if branch is not None]
        last = [layers[-1] for branch in branches for layers in branch]
        if "seg" in name:
            last.append(head.proto.semseg[-1])
        return [[bool(layer.bias.grad[row]) for row in range(3)] for layer in last]

    everything = what_the_rows_learn({})
    assert all(learns == [True, True, True] for learns in everything)
    of_one = what_the_rows_learn({"some": [0, 1]})
    assert of_one == everything, "the other image teaches it"
    of_both = what_the_rows_learn({"some": [0, 1], "other": [0]})
    assert all(learns == [True, True, False] for learns in of_both)
