"""Classifiers are fitted to what was chosen, judged, and serve the control that it was chosen with."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ultralytics import YOLO
from ultralytics.cfg import get_cfg

from tests.fakes.chosen_label_studio import CHOICES, CONFIG, ChosenLabelStudio, scene
from tests.fakes.labelled_label_studio import CREATED_AT, PROJECT
from tests.harness.http_server import StartServer
from tests.harness.shapes import CLASS_NAMES, shapes_weights
from tests.harness.training_house import House
from yolo_backend.detection.contents import content_problem
from yolo_backend.detection.engine import Engine
from yolo_backend.detection.heads.classify import transforms_problem
from yolo_backend.labels.plans import UNTRAINED
from yolo_backend.protocol import sent_project
from yolo_backend.serving.request import Predictor
from yolo_backend.settings import load_settings
from yolo_backend.training import fitting
from yolo_backend.training.class_folders import write_class_folders
from yolo_backend.training.finding import find_boxes
from yolo_backend.training.fitting import FitSpec, Fitted, fit
from yolo_backend.training.labelled import LabelledBox, LabelledImage
from yolo_backend.training.launch import Order
from yolo_backend.training.networks import Base, read_base, set_class_rows
from yolo_backend.training.pictures import Pictures
from yolo_backend.training.records import Options, Run
from yolo_backend.training.run import begin_run
from yolo_backend.training.stages import work

SIZE_WH = (160, 160)
WHOLE = LabelledBox("", (0.0, 0.0, 160.0, 160.0), (80.0, 80.0, 160.0, 160.0, 0.0))


@pytest.fixture(scope="module")
def base() -> Base:
    """Weights that tell bars, rings and arrows apart."""
    return read_base(shapes_weights("classify"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledImage]:
    """24 images with what was chosen for each, in words that the weights don't know."""
    folder = tmp_path_factory.mktemp("images")
    found = []
    for number in range(24):
        content, class_id = scene(number)
        (file := folder / f"{number}.png").write_bytes(content)
        box = replace(WHOLE, label=CHOICES[class_id])
        found.append(LabelledImage(number, number, "a.png", str(number), number, file, SIZE_WH, (box,)))
    return found


def spec(data: Path, base: Base, folder: Path, **more: Any) -> FitSpec:
    values: dict[str, Any] = {"known": {}, "weights": folder / "weights.pt", "budget_s": 600, "image_size": 96}
    return FitSpec(data=data, base=base, **values | more)


@pytest.fixture(scope="module")
def data(images: list[LabelledImage], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_class_folders(tmp_path_factory.mktemp("data") / "data", images[:18], images[18:], CHOICES)


@pytest.fixture(scope="module")
def fitted(data: Path, base: Base, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """Three steps, to look at what comes out."""
    return fit(spec(data, base, tmp_path_factory.mktemp("fitted"), steps=3))


def test_a_classifier_can_be_a_base(base: Base) -> None:
    assert (base.kind, base.image_size) == ("classify", 160)
    assert sorted(base.class_names.values()) == sorted(CLASS_NAMES)


def test_the_candidate_is_weights_as_ultralytics_saves_them(fitted: Fitted) -> None:
    assert content_problem(fitted.weights) is None
    yolo = YOLO(fitted.weights)
    assert (yolo.task, yolo.overrides["imgsz"]) == ("classify", 96)
    assert yolo.names == dict(enumerate(CHOICES))
    assert transforms_problem(yolo.model.transforms) is None
    again = read_base(fitted.weights)  # which another training may begin with
    assert (again.image_size, again.kind) == (96, "classify")


def test_it_serves_what_ultralytics_predicts_with_it(
    fitted: Fitted, images: list[LabelledImage], tmp_path: Path
) -> None:
    settings = load_settings(model_dir=tmp_path, device="cpu", engine="torch")
    engine = Engine.as_set(fitted.weights, settings)
    found = find_boxes(engine, images[:3], {number: (name,) for number, name in enumerate(CHOICES)}, max_megapixels=10)
    yolo = YOLO(fitted.weights)
    for image, each in zip(images, found.images, strict=False):
        probabilities = yolo.predict(image.file, verbose=False)[0].probs.data.tolist()
        ours = dict(zip(each.labels, each.scores.tolist(), strict=True))
        assert ours == pytest.approx(dict(zip(CHOICES, probabilities, strict=True)), abs=1e-4)
        assert each.boxes.tolist() == [list(WHOLE.box_xyxy)] * 3


def test_the_same_numbers_make_the_same_weights(fitted: Fitted, data: Path, base: Base, tmp_path: Path) -> None:
    assert fit(spec(data, base, tmp_path, steps=3)).fingerprint == fitted.fingerprint


def test_what_the_base_knows_is_there_from_the_first_step(
    data: Path, base: Base, images: list[LabelledImage], tmp_path: Path
) -> None:
    """Its classes have other numbers."""
    number_of = {name: number for number, name in base.class_names.items()}
    known = {label: (number_of[name],) for label, name in zip(CHOICES, CLASS_NAMES, strict=True)}
    made = fit(spec(data, base, tmp_path, known=known, steps=1, image_size=160))
    settings = load_settings(model_dir=tmp_path, device="cpu", engine="torch")
    labels = {number: (name,) for number, name in enumerate(CHOICES)}
    found = find_boxes(Engine.as_set(made.weights, settings), images, labels, max_megapixels=10)
    right = [each.labels[0] == image.boxes[0].label for each, image in zip(found.images, images, strict=True)]
    assert np.mean(right) > 0.8


def test_rows_begin_with_what_the_base_knows_and_others_anew(base: Base) -> None:
    """As many classes, which Ultralytics would copy by position."""
    torch.manual_seed(1)
    made = type(base.network)(dict(base.network.yaml), nc=3, verbose=False)
    made.load(base.network, verbose=False)
    set_class_rows(made, base.network, {0: [2], 2: [0, 1]})
    ours, theirs = made.model[-1].linear, base.network.model[-1].linear
    torch.testing.assert_close(ours.weight[0], theirs.weight[2].float())
    torch.testing.assert_close(ours.weight[2], theirs.weight[:2].float().mean(0))
    torch.testing.assert_close(ours.bias[2], theirs.bias[:2].float().mean())
    assert all((ours.weight[1] - row).abs().max() > 0.02 for row in theirs.weight.float())


@pytest.mark.parametrize(("name", "is_mirrored"), [("Stab", True), ("Stab links left", False)])
def test_images_are_mirrored_unless_a_choice_tells_sides(
    name: str,
    is_mirrored: bool,
    base: Base,
    images: list[LabelledImage],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = [
        replace(
            image, boxes=tuple(replace(box, label=name if box.label == "Stab" else box.label) for box in image.boxes)
        )
        for image in images[:6]
    ]
    data = write_class_folders(tmp_path / "data", named, [], (name, *CHOICES[1:]))
    flips = []

    def step(trainer: Any, batch: Any, pace: Any) -> None:
        steps = [type(each).__name__ for each in trainer.train_loader.dataset.torch_transforms.transforms]
        flips.append("RandomHorizontalFlip" in steps)

    monkeypatch.setattr(fitting, "_step", step)
    fit(spec(data, base, tmp_path, steps=1))  # without validation images, too
    assert flips == [is_mirrored]


def test_images_keep_their_classes_and_are_no_larger_than_is_of_use(
    images: list[LabelledImage], tmp_path: Path
) -> None:
    """Labels may be called what folders are, or what ImageNet's are."""
    names = ("class 000001", "n01440764", "class 000000")
    large = tmp_path / "large.jpg"
    Image.fromarray(np.full((900, 1200, 3), (250, 120, 10), np.uint8)).save(large)
    of = [replace(images[0], file=large, boxes=(replace(WHOLE, label=name),)) for name in names]
    write_class_folders(tmp_path / "data", of, [], names)
    arguments = get_cfg(overrides={"task": "classify", "imgsz": 64, "cache": "ram", "auto_augment": None})
    pictures = Pictures(str(tmp_path / "data" / "train"), arguments, is_trained_on=True, classes=names)
    assert [Path(sample[0]).stem[:6] for sample in pictures.samples] == ["000000", "000001", "000002"]
    assert [sample[1] for sample in pictures.samples] == [0, 1, 2]
    assert pictures.img_cache[0].shape == (91, 121, 3)  # of which half is cut out, and is 64 x 64 at least
    pictures = Pictures(str(tmp_path / "data" / "train"), arguments, is_trained_on=False, classes=names)
    assert pictures.img_cache[0].shape == (64, 85, 3)
    item = pictures[1]
    assert item["cls"] == 1
    assert item["img"].shape == (3, 64, 64)
    np.testing.assert_allclose(item["img"].amax((1, 2)) * 255, (250, 120, 10), atol=4)


# A whole run


@pytest.fixture
def studio() -> ChosenLabelStudio:
    return ChosenLabelStudio(scenes=160)


@pytest.fixture
def house(serve: StartServer, tmp_path: Path, studio: ChosenLabelStudio) -> House:
    """With TRAINING=on, and weights that know none of the choices."""
    weights = tmp_path / "weights" / "shapes-classify.pt"
    weights.parent.mkdir()
    shutil.copyfile(shapes_weights("classify"), weights)
    house = House(serve, weights, tmp_path, studio)
    house.settings = house.settings.model_copy(update={"training": "on"})
    return house


def train(house: House, **options: Any) -> Run:
    """A run as it ended, in this process: one of its own would come last on a machine that is busy with something."""
    values: dict[str, Any] = {"minutes": 0.5, "image_size": 96}
    with begin_run(Order(PROJECT, Options("shapes-classify.pt", **values | options), {}), house.settings) as run:
        work(run)
        return run.diary.run


def ended(house: House, **options: Any) -> Run:
    run = train(house, **options)
    assert run.state == "ended", run.failure
    return run


def chosen_for(house: House, numbers: Iterable[int]) -> tuple[list[Any], str]:
    """What the server chooses for the tasks with these numbers, and the model_version that it names."""
    project = sent_project(PROJECT, CREATED_AT)
    with closing(Predictor(house.settings)) as predictor:
        version = predictor.plan(CONFIG, None, project=project).model_version
        answers = [
            predictor.predict([{"id": number, "data": house.studio.task(number)["data"]}], CONFIG, project=project)[0]
            for number in numbers
        ]
    chosen = []
    for answer in answers:
        assert answer == [] or answer["model_version"] == version
        chosen.append([region["value"]["choices"] for region in answer["result"]] if answer else None)
    return chosen, version


@pytest.mark.timeout(600)
def test_a_run_ends_with_a_model_that_serves_what_no_weights_knew(house: House, studio: ChosenLabelStudio) -> None:
    """A hasty one, that is promoted in any case."""
    studio.scenes = 14
    assert chosen_for(house, [1, 2]) == ([None, None], UNTRAINED)
    run = ended(house, minutes=0.05, promote="always")
    assert (run.kind, run.verdict) == ("classify", "promote")
    assert run.result
    assert run.result.images.train + run.result.images.val == 14
    (choices,), version = chosen_for(house, [20])
    assert version == run.result.model_version
    assert choices == [] or (len(choices) == 1 and choices[0][0] in CHOICES)


@pytest.mark.proof
@pytest.mark.training_proof
@pytest.mark.timeout(3600)
def test_classifiers_are_judged_swapped_and_refused(house: House, studio: ChosenLabelStudio) -> None:
    first = ended(house)
    assert first.verdict == "promote", first.result
    assert first.result
    assert first.result.reason.startswith(
        "Nothing else serves these labels, and it finds more than chance does: mAP50 "
    )
    assert (first.result.images.train, first.result.images.val) == (120, 40)
    assert set(first.result.labels) == set(CHOICES)
    assert first.remarks == () or all("box" not in remark for remark in first.remarks)

    unseen = range(300, 340)
    chosen, version = chosen_for(house, unseen)
    assert version == first.result.model_version
    right = [each == [[CHOICES[scene(number)[1]]]] for number, each in zip(unseen, chosen, strict=True)]
    assert np.mean(right) > 0.6

    studio.scenes = 200
    second = ended(house, seed=1)
    assert second.result
    scores = second.result.map50
    assert scores.current is not None
    assert scores.interval is not None
    assert second.result.reason.startswith("It is ")
    served = second if second.verdict == "promote" else first
    assert served.result
    assert chosen_for(house, [])[1] == served.result.model_version

    studio.shuffled_by = 0
    third = ended(house)
    assert third.verdict == "refuse"
    assert third.result
    assert " validation images changed; the serving model fell from " in third.result.reason
    assert chosen_for(house, [])[1] == served.result.model_version


@pytest.mark.proof
@pytest.mark.training_proof
@pytest.mark.timeout(3600)
def test_a_classifier_of_shuffled_choices_never_serves(house: House, studio: ChosenLabelStudio) -> None:
    studio.shuffled_by = 1
    run = ended(house)
    assert run.verdict == "refuse"
    assert run.result
    assert "choices of other images" in run.result.reason
    assert chosen_for(house, [1]) == ([None], UNTRAINED)


def test_a_project_with_too_little_says_what_it_needs(house: House, studio: ChosenLabelStudio) -> None:
    studio.scenes = 9
    run = train(house)
    assert run.failure == (
        f"A training needs at least 10 labelled images with choices, and project {PROJECT} has 9: label and submit 1 "
        "more, and train again"
    )


@pytest.mark.parametrize(
    ("always", "failure"),
    [
        (("Stab",), "all that it could be trained on are Stab: label images of others, too"),
        (("Stab", "Pfeil"), "None of the images has a single choice, and a classifier learns from such only"),
    ],
)
def test_without_two_choices_to_tell_apart_nothing_is_trained(
    always: tuple[str, ...], failure: str, house: House, studio: ChosenLabelStudio
) -> None:
    studio.scenes, studio.always = 12, always
    run = train(house)
    assert run.state == "failed"
    assert run.failure
    assert failure in run.failure
