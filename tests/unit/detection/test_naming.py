"""Names of weights: what isn't one is told with what to write instead; what is almost one, with what was meant."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.plain_user import as_a_plain_user
from yolo_backend.detection.naming import RELEASES, missing_problem, name_problem
from yolo_backend.detection.weights import WeightsError, find_weights


@pytest.fixture
def root(tmp_path: Path, bccd_weights: Path) -> Path:
    """A MODEL_ROOT with best.pt, cells-v2.pt and size.onnx in it; the current folder is beside it."""
    root = tmp_path / "models"
    root.mkdir()
    for name in ("best.pt", "cells-v2.pt", "größe.onnx"):
        (root / name).symlink_to(bccd_weights)
    (root / "notes.txt").write_text("no weights")
    (root / "folder.pt").mkdir()
    return root


def told(name: str, root: Path, *, may_download: bool = True) -> str:
    """What a person reads; find_weights may ask Ultralytics for its releases first."""
    problem = name_problem(name, root, may_download=may_download) or missing_problem(
        name, root, may_download=may_download
    )
    assert problem.isprintable()
    return problem


RELEASE = " (a release of Ultralytics, downloaded by itself)"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("yolov11n.pt", "yolo11n.pt"),
        ("yolo8n.pt", "yolov8n.pt"),
        ("yolov12n", "yolo12n.pt"),
        ("yolo-11n", "yolo11n.pt"),
        ("yolo11n", "yolo11n.pt"),
        ("yolov8n.onnx", "yolov8n.pt"),
        ("yolov26s-seg.pt", "yolo26s-seg.pt"),
        ("YOLO11n.pt", "yolo11n.pt"),
        ("YOLOv8 X.pt", "yolov8x.pt"),
        ("yolo_11_m_obb.pt", "yolo11m-obb.pt"),
        ("yolo11.pt", "yolo11n.pt"),
        ("yolov5s.pt", "yolov5su.pt"),
        ("yolov3.pt", "yolov3u.pt"),
        ("yolo10b", "yolov10b.pt"),
        ("yolo9c.pt", "yolov9c.pt"),
        ("yolo11n.yaml", "yolo11n.pt"),
        ("yolo11nn.pt", "yolo11n.pt"),
    ],
)
def test_a_release_by_almost_its_name(root: Path, name: str, meant: str) -> None:
    assert meant in RELEASES
    assert f"did you mean {meant}" in told(name, root)[:240]
    assert "did you mean" not in told(name, root, may_download=False)  # nothing is downloaded for a labeling config


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Best.pt", "best.pt"),
        ("BEST.PT", "best.pt"),
        ("best", "best.pt"),
        ("best.pt ", "best.pt"),
        ("'best.pt'", "best.pt"),
        ("best.onnx", "best.pt"),
        ("best.pt.txt", "best.pt"),
        ("best.pt.crdownload", "best.pt"),
        ("bestt.pt", "best.pt"),
        ("cells_v2.pt", "cells-v2.pt"),
        ("cells.pt", "cells-v2.pt"),
        ("GRÖSSE.onnx", "größe.onnx"),
        ("Demo", "demo"),
        ("demo.pt", "demo"),
    ],
)
@pytest.mark.parametrize("may_download", [True, False])
def test_a_file_by_almost_its_name(root: Path, name: str, meant: str, may_download: bool) -> None:
    message = told(name, root, may_download=may_download)
    assert f"did you mean {meant}?" in message
    assert f"(MODEL_ROOT={root} holds best.pt, cells-v2.pt, größe.onnx)" in message


@pytest.mark.parametrize("name", ["last.pt", "yolo99n.pt", "yolov7.pt", "x.onnx", "models.pt"])
def test_nothing_is_guessed_where_nothing_is_near(root: Path, name: str) -> None:
    assert told(name, root) == (
        f"Weights {name} are not in MODEL_ROOT: put the file there, or name another file "
        f"(MODEL_ROOT={root} holds best.pt, cells-v2.pt, größe.onnx)"
    )


def test_what_there_is_is_told_in_short(tmp_path: Path) -> None:
    assert told("x.pt", tmp_path / "none").endswith(f"(MODEL_ROOT={tmp_path / 'none'}: there is no such folder)")
    assert told("x.pt", tmp_path).endswith(f"(MODEL_ROOT={tmp_path} holds no weights)")
    for number in range(8):
        (tmp_path / f"{number}.pt").touch()
    assert told("x.pt", tmp_path).endswith("holds 0.pt, 1.pt, 2.pt, 3.pt, 4.pt and 3 more)")


def test_a_file_as_model_root(root: Path) -> None:
    assert told("best.pt", root / "best.pt") == (
        f"MODEL_ROOT is a folder, no file: set MODEL_ROOT={root} and MODEL_NAME=best.pt"
    )


COMPOSE = " (with Docker Compose, WEIGHTS in place of MODEL_ROOT)"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("runs/detect/train/weights/best.pt", f"MODEL_ROOT=runs/detect/train/weights and MODEL_NAME=best.pt{COMPOSE}"),
        ("/app/models/best.onnx", f"MODEL_ROOT=/app/models and MODEL_NAME=best.onnx{COMPOSE}"),
        ("/best.pt", f"MODEL_ROOT=/ and MODEL_NAME=best.pt{COMPOSE}"),
        ("../x.pt", f"MODEL_ROOT=.. and MODEL_NAME=x.pt{COMPOSE}"),
        ("C:\\models\\best.pt", f"MODEL_ROOT=C:\\models and MODEL_NAME=best.pt{COMPOSE}"),
        ("C:/models/best.pt", f"MODEL_ROOT=C:/models and MODEL_NAME=best.pt{COMPOSE}"),
        ("\\\\nas\\weights\\my best.pt", f"MODEL_ROOT=\\\\nas\\weights\\ and MODEL_NAME=my best.pt{COMPOSE}"),
        ("~/best.pt", f"MODEL_ROOT=/home/me and MODEL_NAME=best.pt{COMPOSE}"),
        ("file:///app/my%20models/best.pt", f"MODEL_ROOT=/app/my models and MODEL_NAME=best.pt{COMPOSE}"),
        ("./best.pt", "MODEL_NAME=best.pt"),
        ("models/best.pt", "MODEL_NAME=best.pt"),
        ("models/best", "MODEL_NAME=best.pt"),
        ("train", f"MODEL_ROOT=train/weights and MODEL_NAME=best.pt{COMPOSE}"),
        ("old/x.pt", f"MODEL_ROOT=models/old and MODEL_NAME=x.pt{COMPOSE}"),
    ],
)
def test_a_path_is_told_with_the_values_to_write(
    root: Path, bccd_weights: Path, monkeypatch: pytest.MonkeyPatch, name: str, values: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(root.parent)
    for folder in (root.parent / "train" / "weights", root / "old"):
        folder.mkdir(parents=True)
        for file in ("best.pt", "x.pt"):
            (folder / file).symlink_to(bccd_weights)
    path = f"{name}/" if name == "train" else name
    with pytest.raises(WeightsError) as raised:
        find_weights(path, Path("models"), may_download=True)
    assert str(raised.value) == f"MODEL_NAME is a bare file name in MODEL_ROOT: set {values}"


@pytest.mark.parametrize(
    ("address", "file"),
    [
        ("https://example.com/weights/cells.pt", "cells.pt"),
        ("https://me:s3cret@example.com/cells.onnx?X-Amz-Signature=s3cret#s3cret", "cells.onnx"),
        ("s3://bucket/key/cells.pt", "cells.pt"),
        ("https://hub.ultralytics.com/models/s3cret", "best.pt"),
        ("ul://me/project/s3cret", "best.pt"),
    ],
)
def test_an_address_is_told_without_its_login_and_signature(root: Path, address: str, file: str) -> None:
    message = told(address, root)
    assert message == f"MODEL_NAME is an address: download the file into MODEL_ROOT, and set MODEL_NAME={file}"


@pytest.mark.parametrize(
    ("name", "what", "remedy"),
    [
        ("cells.engine", "is a TensorRT engine", "set ENGINE=tensorrt"),
        ("cells_openvino_model", "is an OpenVINO export", "set ENGINE=openvino"),
        ("cells.xml", "is an OpenVINO export", "set ENGINE=openvino"),
        ("cells.torchscript", "is a TorchScript export", 'export(format="onnx")'),
        ("cells.tflite", "isn't served", 'export(format="onnx")'),
        ("cells.mlpackage", "isn't served", 'export(format="onnx")'),
        ("cells_ncnn_model", "isn't served", 'export(format="onnx")'),
        ("cells.safetensors", "numbers without a network", "name the best.pt"),
        ("cells.pth", "is no .pt", "rename it to end in .pt"),
        ("cells.yaml", "holds no weights", "name the best.pt"),
        ("yolov4.weights", "of another framework", "name the best.pt"),
        ("cells.h5", "of another framework", "name the best.pt"),
        ("cells.zip", "is an archive", "unpack it"),
        ("cells.PT.PART", "download that didn't come to its end", "download it again"),
        ("models/cells.engine", "is a TensorRT engine", "set ENGINE=tensorrt"),
    ],
)
def test_another_format_is_named(root: Path, name: str, what: str, remedy: str) -> None:
    message = told(name, root)
    assert what in message[:240]
    assert remedy in message[:240]


def test_a_suffix_in_capitals_is_told(root: Path, bccd_weights: Path) -> None:
    (root / "OLD.PT").symlink_to(bccd_weights)
    assert told("OLD.PT", root) == '"OLD.PT" ends in .PT: rename the file, so that it ends in .pt'


@pytest.mark.parametrize("name", ["", "..", ".pt", "last", "a\nb", "best.pt\x00", "x" * 5000])
def test_anything_else_is_told_with_what_there_is(root: Path, name: str) -> None:
    message = told(name, root)
    assert "is not the name of weights" in message[:200]
    assert f"MODEL_ROOT={root} holds best.pt" in message


# The file itself


def failure(name: str, root: Path) -> str:
    with pytest.raises(WeightsError) as raised:
        find_weights(name, root)
    assert str(raised.value).isprintable()
    return str(raised.value)


def test_a_folder_is_no_file(root: Path) -> None:
    assert failure("folder.pt", root) == (
        f"Weights folder.pt are a folder, not a file: name the file of weights itself ({root / 'folder.pt'})"
    )


def test_a_link_to_nowhere_is_told(root: Path) -> None:
    (root / "gone.pt").symlink_to("/nowhere/x.pt")
    assert failure("gone.pt", root) == (
        "Weights gone.pt are a link to a file that isn't there, or isn't mounted into this container: "
        f"put the file itself there ({root / 'gone.pt'} to /nowhere/x.pt)"
    )


def test_a_link_to_itself_is_told(root: Path) -> None:
    (root / "loop.pt").symlink_to(root / "loop.pt")
    assert "Weights loop.pt can't be read" in failure("loop.pt", root)


def test_a_name_that_no_disk_takes_is_told(root: Path) -> None:
    message = failure("x" * 300 + ".pt", root)
    assert message.startswith(f"Weights {'x' * 80}... can't be read (File name too long): ")


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder; the test is run by a user who may read it, but is not root, who may read everything."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with as_a_plain_user():
            yield Path(folder)
        for path in (Path(folder), *Path(folder).iterdir()):
            path.chmod(0o755)


def test_a_file_that_may_not_be_read_is_told(nobody: Path, bccd_weights: Path) -> None:
    me = os.geteuid()
    os.seteuid(os.getuid())
    (nobody / "mine.pt").write_bytes(b"PK")
    (nobody / "mine.pt").chmod(0o600 if me != os.getuid() else 0)
    os.seteuid(me)
    assert failure("mine.pt", nobody) == (
        f"Weights mine.pt can't be read (Permission denied): let the server's user ({me}) read the file and its "
        f"folder, such as by chmod -R a+rX {nobody}"
    )


def test_a_folder_that_may_not_be_looked_into_is_told(nobody: Path) -> None:
    me = os.geteuid()
    os.seteuid(os.getuid())
    nobody.chmod(0o700 if me != os.getuid() else 0)
    os.seteuid(me)
    message = failure("mine.pt", nobody)
    assert message.startswith(f"Weights mine.pt can't be read (Permission denied): let the server's user ({me}) read")
