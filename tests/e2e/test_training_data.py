"""What people drew in Label Studio and what a model is trained on: the same, to half a pixel."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.harness.coloured_things import COLORS, CONFIG, LABELS, Thing, draw
from tests.harness.studio_client import StudioClient, uploaded_name
from tests.harness.turned_files import orientation
from yolo_backend.label_studio.projects import open_project
from yolo_backend.labels.outlines import mask_of
from yolo_backend.labels.rle import encode_rle
from yolo_backend.serving.request import Predictor
from yolo_backend.settings import load_settings
from yolo_backend.training.classes import choose_classes
from yolo_backend.training.dataset import write_dataset
from yolo_backend.training.image_cache import ImageCache
from yolo_backend.training.kinds import Kind
from yolo_backend.training.labelled import LabelledImage, Snapshot
from yolo_backend.training.snapshot import take_snapshot

OUTLINED = f"""<View><Image name="image" value="$image"/>
<PolygonLabels name="outline" toName="image">{LABELS}</PolygonLabels>
<BrushLabels name="mask" toName="image">{LABELS}</BrushLabels></View>"""
PAGES = CONFIG.replace('value="$image"', 'valueList="$pages"')
WITH_RECTANGLE = f"""<View><Image name="image" value="$image"/><Rectangle name="box" toName="image"/>
<Labels name="label" toName="image">{LABELS}</Labels></View>"""


UPRIGHT = [Thing("red", (80, 60), (100, 40)), Thing("blue", (250, 100), (60, 90))]
ROTATED = [Thing("red", (110, 90), (120, 40), 30), Thing("blue", (250, 80), (40, 90), 300)]


def photograph(things: Sequence[Thing], image_wh: tuple[int, int], kind: str) -> bytes:
    """A file that shows these things, as the page shows it."""
    picture = draw(things, image_wh)
    file = io.BytesIO()
    if kind == "PNG with alpha":
        picture.putalpha(128)
        picture.save(file, "PNG")
    elif kind == "turned JPEG":  # what a phone held upright stores: on its side, with a word about it
        exif = b"Exif\0\0" + orientation(6)
        picture.transpose(Image.Transpose.ROTATE_90).save(file, "JPEG", quality=98, subsampling=0, exif=exif)
    else:
        picture.save(file, "JPEG", quality=98, subsampling=0)
    return file.getvalue()


FILES = {
    "plain.jpg": (UPRIGHT, (320, 180), "JPEG"),
    "turned.jpg": (UPRIGHT, (320, 180), "turned JPEG"),
    "turned-high.jpg": ([Thing("red", (60, 200), (50, 120))], (120, 400), "turned JPEG"),
    "alpha.png": (UPRIGHT, (320, 180), "PNG with alpha"),
    "rotated.jpg": (ROTATED, (320, 180), "JPEG"),
    "rotated-turned.jpg": (ROTATED, (320, 180), "turned JPEG"),
    "nothing.jpg": ([], (320, 180), "JPEG"),
}


@contextmanager
def closing_predictor(environment: dict[str, str]) -> Iterator[Predictor]:
    settings = load_settings(
        label_studio_url=environment["LABEL_STUDIO_URL"],
        label_studio_api_key=environment["LABEL_STUDIO_API_KEY"],
        model_name=environment["MODEL_NAME"],
        model_root=environment["MODEL_ROOT"],
        model_dir=environment["MODEL_DIR"],
    )
    predictor = Predictor(settings)
    try:
        yield predictor
    finally:
        predictor.close()


@pytest.fixture(scope="module")
def predictor(command_environment: dict[str, str]) -> Iterator[Predictor]:
    with closing_predictor(command_environment) as predictor:
        yield predictor


def snapshot_of(predictor: Predictor, project_id: int, folder: Path, kind: str = "detect") -> Snapshot:
    studio = predictor.studios.of_project(str(project_id))
    assert studio is not None
    return take_snapshot(
        open_project(studio, project_id),
        lambda task, controls: predictor.files(task, controls, str(project_id)),
        ImageCache(folder / "images", 50),
        None,
        lambda done, total: None,
        kind=kind,
    )


def upload(client: StudioClient, project: int, folder: Path) -> dict[str, dict[str, Any]]:
    """The files as tasks, by their names."""
    paths = []
    for name, content in FILES.items():
        paths.append(folder / name)
        paths[-1].write_bytes(photograph(*content))
    client.upload(project, paths)
    return {uploaded_name(task): task for task in client.tasks(project)}


def submit(client: StudioClient, task: dict[str, Any], regions: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return dict(client.call("POST", f"/api/tasks/{task['id']}/annotations/", json={"result": regions, **more}))


def read(images: Sequence[LabelledImage], snapshot: Snapshot, folder: Path, *, kind: Kind) -> Any:
    """What Ultralytics trains on."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.build import build_yolo_dataset
    from ultralytics.data.utils import check_det_dataset

    classes = choose_classes(images, snapshot.labels, ()).names
    assert classes == ("red", "blue")
    data = check_det_dataset(write_dataset(folder, images, [], classes, kind=kind), autodownload=False)
    found = build_yolo_dataset(get_cfg(overrides={"task": kind, "imgsz": 640}), data["train"], 4, data, mode="val")
    assert len(found.labels) == len(images)
    return found


def assert_as_drawn(
    found: Any, index: int, things: Sequence[Thing], image_wh: tuple[int, int], *, rotated: bool
) -> None:
    """The labels are those of the things, and in the pixels the things are where the labels are."""
    label = found.labels[index]
    assert label["shape"] == image_wh[::-1]
    assert [int(number) for number in label["cls"].ravel()] == [("red", "blue").index(thing.label) for thing in things]
    pixels = read_pixels(found.im_files[index])
    assert pixels.shape[:2] == image_wh[::-1]
    center, size = label["bboxes"][:, :2] * image_wh, label["bboxes"][:, 2:] * image_wh
    for number, thing in enumerate(things):
        hull = np.concatenate([thing.corners.min(axis=0), thing.corners.max(axis=0)])
        box = np.concatenate([center[number] - size[number] / 2, center[number] + size[number] / 2])
        assert np.abs(box - hull).max() < 0.5
        ys, xs = np.nonzero(np.abs(pixels.astype(int) - COLORS[thing.label]).max(axis=2) < 60)
        seen = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        assert np.abs(box - seen).max() <= 1.5  # what the edges of a polygon, drawn and compressed, leave uncertain
        if rotated:
            corners = np.asarray(label["segments"][number]) * image_wh
            assert np.abs(corners - thing.corners).max() < 0.5


def read_pixels(path: str) -> NDArray[np.uint8]:
    """As the trainer reads an image, in RGB."""
    from ultralytics.utils.patches import imread

    pixels: NDArray[np.uint8] = imread(path)[..., ::-1]
    return pixels


@pytest.mark.parametrize("rotated", [False, True])
def test_what_was_drawn_is_what_is_trained_on(
    client: StudioClient, predictor: Predictor, tmp_path: Path, rotated: bool
) -> None:
    project = client.create_project(f"training data, {rotated}", CONFIG)
    tasks = upload(client, project, tmp_path)
    for name, (things, image_wh, _) in FILES.items():
        submit(client, tasks[name], [thing.region(image_wh) for thing in things])
    snapshot = snapshot_of(predictor, project, tmp_path)
    assert snapshot.remarks == ()
    assert snapshot.labels == ("red", "blue")
    found = read(snapshot.images, snapshot, tmp_path / "dataset", kind="obb" if rotated else "detect")
    names = {int(task["id"]): name for name, task in tasks.items()}
    for index, image in enumerate(snapshot.images):
        things, image_wh, _ = FILES[names[image.task_id]]
        assert_as_drawn(found, index, things, image_wh, rotated=rotated)


def as_polygon(thing: Thing, image_wh: tuple[int, int]) -> dict[str, Any]:
    points = (thing.corners / image_wh * 100).tolist()
    value = {"points": points, "closed": True, "polygonlabels": [thing.label]}
    return {**thing.region(image_wh), "from_name": "outline", "type": "polygonlabels", "value": value}


def as_mask(thing: Thing, image_wh: tuple[int, int]) -> dict[str, Any]:
    rle = encode_rle(mask_of(thing.corners, image_wh), image_wh)
    value = {"format": "rle", "rle": rle, "brushlabels": [thing.label]}
    return {**thing.region(image_wh), "from_name": "mask", "type": "brushlabels", "value": value}


@pytest.mark.parametrize("drawn", [as_polygon, as_mask])
def test_polygons_and_masks_are_what_is_trained_on(
    client: StudioClient, predictor: Predictor, tmp_path: Path, drawn: Any
) -> None:
    project = client.create_project(f"training data, {drawn.__name__}", OUTLINED)
    tasks = upload(client, project, tmp_path)
    for name, (things, image_wh, _) in FILES.items():
        submit(client, tasks[name], [drawn(thing, image_wh) for thing in things])
    snapshot = snapshot_of(predictor, project, tmp_path, "segment")
    assert snapshot.remarks == ()
    found = read(snapshot.images, snapshot, tmp_path / "dataset", kind="segment")
    names = {int(task["id"]): name for name, task in tasks.items()}
    for index, image in enumerate(snapshot.images):
        things, image_wh, _ = FILES[names[image.task_id]]
        if drawn is as_polygon:
            assert_as_drawn(found, index, things, image_wh, rotated=True)
        elif things is not ROTATED:  # whose corners are no whole pixels
            assert_as_drawn(found, index, things, image_wh, rotated=False)


def test_the_pages_of_a_list_have_boxes_of_their_own(
    client: StudioClient, predictor: Predictor, tmp_path: Path
) -> None:
    uploads = client.create_project("training data, uploads", CONFIG)
    addresses = {name: task["data"]["image"] for name, task in upload(client, uploads, tmp_path).items()}
    project = client.create_project("training data, pages", PAGES)
    names = ["turned.jpg", "nothing.jpg", "rotated.jpg"]
    client.import_tasks(project, [{"data": {"pages": [addresses[name] for name in names]}}])
    (task,) = client.tasks(project)
    regions = [
        thing.region(FILES[name][1], item_index=page) for page, name in enumerate(names) for thing in FILES[name][0]
    ]
    submit(client, task, regions)
    snapshot = snapshot_of(predictor, project, tmp_path)
    assert [image.page for image in snapshot.images] == [0, 1, 2]
    found = read(snapshot.images, snapshot, tmp_path / "dataset", kind="obb")
    for page, name in enumerate(names):
        assert_as_drawn(found, page, *FILES[name][:2], rotated=True)


def test_labels_with_a_rectangle_beside_them(client: StudioClient, predictor: Predictor, tmp_path: Path) -> None:
    project = client.create_project("training data, labels with a rectangle", WITH_RECTANGLE)
    tasks = upload(client, project, tmp_path)
    things, image_wh, _ = FILES["turned.jpg"]
    regions = []
    for thing in things:
        whole = thing.region(image_wh)
        place = {name: number for name, number in whole["value"].items() if name != "rectanglelabels"}
        regions.append({**whole, "from_name": "box", "type": "rectangle", "value": place})
        regions.append({**whole, "type": "labels", "value": {**place, "labels": [thing.label]}})
    submit(client, tasks["turned.jpg"], regions)
    snapshot = snapshot_of(predictor, project, tmp_path)
    assert snapshot.remarks == ()
    found = read(snapshot.images, snapshot, tmp_path / "dataset", kind="detect")
    assert_as_drawn(found, 0, things, image_wh, rotated=False)


def test_which_annotations_count(client: StudioClient, predictor: Predictor, tmp_path: Path) -> None:
    """As Label Studio itself tells of them: skipped, ground truth, changed later, a draft."""
    project = client.create_project("training data, annotations", CONFIG)
    tasks = upload(client, project, tmp_path)
    image_wh = (320, 180)
    red, blue = (thing.region(image_wh) for thing in UPRIGHT)

    submit(client, tasks["plain.jpg"], [red], was_cancelled=True)
    submit(client, tasks["turned.jpg"], [red], ground_truth=True)
    submit(client, tasks["turned.jpg"], [blue])
    earlier = submit(client, tasks["alpha.png"], [red])
    submit(client, tasks["alpha.png"], [blue, red])
    client.call("PATCH", f"/api/annotations/{earlier['id']}/", json={"result": [blue]})
    client.call("POST", f"/api/tasks/{tasks['rotated.jpg']['id']}/drafts", json={"result": [red], "lead_time": 1})
    submit(client, tasks["nothing.jpg"], [])
    last = submit(client, tasks["rotated-turned.jpg"], [blue])
    draft = {"result": [red, blue], "lead_time": 1}
    client.call("POST", f"/api/tasks/{tasks['rotated-turned.jpg']['id']}/annotations/{last['id']}/drafts", json=draft)

    snapshot = snapshot_of(predictor, project, tmp_path)
    names = {int(task["id"]): name for name, task in tasks.items()}
    assert {names[image.task_id]: [box.label for box in image.boxes] for image in snapshot.images} == {
        "turned.jpg": ["red"],
        "alpha.png": ["blue"],
        "nothing.jpg": [],
        "rotated-turned.jpg": ["blue"],
    }
    assert snapshot.remarks == ()
    assert len({image.digest for image in snapshot.images}) == len(snapshot.images)
    again = snapshot_of(predictor, project, tmp_path)
    assert again == snapshot
