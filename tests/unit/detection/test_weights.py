"""Finding weights: by bare name, checked, and one line that says what to do where they can't be had."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from yolo_backend.detection.weights import WeightsError, file_fingerprint, find_weights, put_weights


def failure(name: str, model_root: Path) -> str:
    with pytest.raises(WeightsError) as raised:
        find_weights(name, model_root)
    assert str(raised.value).isprintable()
    return str(raised.value)


@pytest.mark.parametrize("name", ["x.pt", "x.onnx"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty: download or copy it again"),
        (b"<!DOCTYPE html><title>404</title>", "is a web page (HTML)"),
        (b"\n  <html>404</html>", "is a web page (HTML)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5\n", "get that with `git lfs pull`"),
        (b'{"message": "Bad credentials"}', "is a text, perhaps the error that a download ended in"),
        (b"short", "is a text, perhaps the error that a download ended in"),
        (b"\x1f\x8b\x08" + bytes(100), "is a gzip archive: unpack it"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(100), "is a 7z archive: unpack it"),
        (bytes(257) + b"ustar\0" + bytes(249), "is a tar archive: unpack it"),
        ((60).to_bytes(8, "little") + b'{"model.0.conv.weight": {}}' + bytes(60), "is a safetensors file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "is a HDF5 file, as Keras saves weights"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "is a JPEG image"),
        (b"PK\3\4" + bytes(100), "is broken, or only half downloaded"),
        (b"\x00\x01broken", "broken"),
    ],
)
def test_what_a_file_is_is_told_by_its_first_bytes(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    message = failure(name, tmp_path)
    assert message.startswith(f"{name} is ")
    assert what in message
    assert message.endswith(f"({file})")
    assert file.read_bytes() == content


def test_a_release_that_is_broken_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "yolo11n.pt"
    file.write_bytes(b"\0broken, though its name is that of a release")
    assert failure("yolo11n.pt", tmp_path) == (
        f"yolo11n.pt is no file of PyTorch, or it is broken: download or copy it again ({file})"
    )
    assert file.read_bytes().startswith(b"\0broken")


def test_a_half_downloaded_file_is_told(tmp_path: Path, bccd_weights: Path) -> None:
    file = tmp_path / "half.pt"
    content = bccd_weights.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert failure("half.pt", tmp_path) == (
        f"half.pt is broken, or only half downloaded: download or copy it again ({file})"
    )


BROKEN = "is broken, or only half downloaded: download or copy it again"


def zip_of(content: bytes = b"\x80\x02N.") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    return file.getvalue()


def overwritten(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


def _without_directory(content: bytes) -> bytes:
    return overwritten(content, content.rfind(b"PK\1\2"), b"XXXX")


def _without_head(content: bytes) -> bytes:
    return overwritten(content, 0, b"XXXX")


def _second_half(content: bytes) -> bytes:
    return content[content.rfind(b"PK\1\2") - 1 :]


def _encrypted(content: bytes) -> bytes:
    marked = overwritten(content, 6, b"\1")
    return overwritten(marked, content.rfind(b"PK\1\2") + 8, b"\1")


def _compressed_otherwise(content: bytes) -> bytes:
    marked = overwritten(content, 8, b"\x63")
    return overwritten(marked, content.rfind(b"PK\1\2") + 10, b"\x63")


@pytest.mark.parametrize("damage", [_without_directory, _without_head, _second_half, _encrypted, _compressed_otherwise])
def test_a_damaged_archive_is_told(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    (tmp_path / "x.pt").write_bytes(damage(zip_of(bytes(2000))))
    assert failure("x.pt", tmp_path) == f"x.pt {BROKEN} ({tmp_path / 'x.pt'})"


def test_a_damaged_archive_named_onnx_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(_without_directory(zip_of(bytes(2000))))
    assert failure("x.onnx", tmp_path) == f"x.onnx {BROKEN} ({tmp_path / 'x.onnx'})"


# ONNX files, which are protobuf messages


def onnx_message(graph: bytes) -> bytes:
    """A version, who made it, and a graph."""
    return b"\x08\x08\x12\x07pytorch\x3a" + bytes([len(graph)]) + graph


@pytest.mark.parametrize(
    ("content", "is_taken"),
    [
        (onnx_message(b"graph"), True),
        (onnx_message(b"graph") + b"\x09" + bytes(8) + b"\x15" + bytes(4), True),  # fields of fixed length
        (onnx_message(b"graph")[:-1], False),
        (onnx_message(b"graph") + b"\x12", False),
        (onnx_message(b"graph") + b"\x12\x7f", False),
        (onnx_message(b"graph") + b"\x13", False),
        (b"\x08\x09" * 500, False),  # no graph
        (onnx_message(b"graph") + bytes(2), False),  # there is no field 0
        (onnx_message(b"graph") + b"\x08\x09" * 20_000, False),  # more fields than any network has
        (b"\xff" * 500, False),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", False),
    ],
)
def test_an_onnx_file_that_is_cut_off_is_told(tmp_path: Path, content: bytes, is_taken: bool) -> None:
    file = tmp_path / "x.onnx"
    file.write_bytes(content)
    if is_taken:
        assert find_weights("x.onnx", tmp_path) == file
    else:
        assert failure("x.onnx", tmp_path) == (
            f"x.onnx is broken, or only half downloaded: download or copy it again ({file})"
        )


def test_a_file_with_the_suffix_of_the_other_kind_is_told(tmp_path: Path, bccd_weights: Path) -> None:
    (tmp_path / "a.onnx").symlink_to(bccd_weights)
    assert "a.onnx is a file of PyTorch: name it .pt instead of .onnx" in failure("a.onnx", tmp_path)
    (tmp_path / "b.pt").write_bytes(onnx_message(b"graph"))
    assert "b.pt is an ONNX file: name it .onnx instead of .pt" in failure("b.pt", tmp_path)


@pytest.mark.timeout(5)
def test_a_file_of_zeros_is_told_at_once(tmp_path: Path) -> None:
    for name in ("x.onnx", "x.pt"):
        (tmp_path / name).write_bytes(bytes(64 << 20))
        assert "broken" in failure(name, tmp_path)


# What a .pt file holds


def object_of(module: str, name: str) -> bytes:
    """The steps of a pickle that make an object of a class; harmless, for nothing is run of it."""
    return f"c{module}\n{name}\n".encode() + b")\x81"


def dict_with(key: str, value: bytes) -> bytes:
    return b"}X" + len(key).to_bytes(4, "little") + key.encode() + value + b"s"


def saved(path: Path, steps: bytes, *others: str) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + steps + b".")
        for other in others:
            archive.writestr(other, b"")
    return path.name


YOLO = object_of("ultralytics.nn.tasks", "DetectionModel")
CONV = object_of("ultralytics.nn.modules.conv", "Conv")
V5 = object_of("models.yolo", "Model")


@pytest.mark.parametrize(
    "steps",
    [
        dict_with("model", YOLO),
        dict_with("ema", YOLO),
        object_of("ultralytics.models.yolo.model", "YOLO") + YOLO + b"0",
        b"\x93 what torch has to judge",
    ],
)
def test_what_may_be_a_yolo_is_taken(tmp_path: Path, steps: bytes) -> None:
    assert find_weights(saved(tmp_path / "x.pt", steps), tmp_path) == tmp_path / "x.pt"


@pytest.mark.parametrize(
    ("steps", "what", "remedy"),
    [
        (YOLO, "is a network that torch.save wrote as it is", 'YOLO(...).save("best.pt")'),
        (object_of("torch.nn.modules.container", "Sequential") + CONV + b"0", "is a bare Sequential", ".save("),
        (dict_with("ema", object_of("torch.nn.parallel", "DataParallel") + CONV + b"0"), "bare DataParallel", ".save("),
        (dict_with("state_dict", object_of("collections", "OrderedDict")), "numbers without a network", "best.pt"),
        (dict_with("model", b"}"), "numbers without a network", "best.pt"),
        (object_of("collections", "OrderedDict"), "numbers without a network", "best.pt"),
        (dict_with("model", b"N") + YOLO + b"0", 'holds no network under "model" or "ema"', "name the best.pt"),
        (dict_with("model", object_of("models.yolo", "DetectionModel")), "of the YOLOv5 repository", "train anew"),
        (dict_with("model", V5), "of the YOLOv5 repository", "train anew"),
        (V5 + object_of("models.yolo", "IDetect") + b"0", "of the YOLOv7 repository", "train anew"),
        (V5 + object_of("models.yolo", "DDetect") + b"0", "of the YOLOv9 repository", "train anew"),
        (dict_with("model", object_of("yolov6.models.yolo", "Model")), "is a Model of yolov6", "name the best.pt"),
        (dict_with("model", object_of("yolox.models", "YOLOX")), "is a YOLOX of yolox", "name the best.pt"),
        (object_of("torchvision.models.detection.faster_rcnn", "FasterRCNN"), "FasterRCNN of torchvision", "best.pt"),
        (dict_with("meta", object_of("mmengine.config", "ConfigDict")), "is a checkpoint of mmengine", "best.pt"),
        (object_of("__main__", "Net"), "is a Net of a program's own", "best.pt"),
        (dict_with("model", YOLO + object_of("no_package.blocks", "Mine") + b"0"), "module no_package", "make that"),
        (dict_with("model", YOLO + object_of("__main__", "Loss") + b"0"), "module __main__", "make that"),
    ],
)  # fmt: skip
def test_other_objects_are_named_and_never_made(tmp_path: Path, steps: bytes, what: str, remedy: str) -> None:
    message = failure(saved(tmp_path / "x.pt", steps), tmp_path)
    assert message.startswith("x.pt ")
    assert what in message[:240]
    assert remedy in message[:240]
    assert message.endswith(f"({tmp_path / 'x.pt'})")


def test_code_in_a_folder_that_is_no_regular_package_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain_folder" / "deeper").mkdir(parents=True)
    (tmp_path / "plain_folder" / "deeper" / "blocks.py").write_text("raise RuntimeError('it was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for module, is_there in (
        ("plain_folder.deeper.blocks", True),
        ("plain_folder.deeper.others", False),
        ("plain_folder.deeper", False),
        ("plain_folder", False),
    ):
        name = saved(tmp_path / "x.pt", dict_with("model", YOLO + object_of(module, "Mine") + b"0"))
        if is_there:
            assert find_weights(name, tmp_path) == tmp_path / name
        else:
            assert f"(module {module})" in failure(name, tmp_path)
    assert "plain_folder" not in sys.modules


@pytest.mark.parametrize("module", ["__mp_main__", ".blocks"])
def test_a_module_that_nobody_else_has_is_told(tmp_path: Path, module: str) -> None:
    name = saved(tmp_path / "x.pt", dict_with("model", YOLO + object_of(module, "Mine") + b"0"))
    assert f"(module {module})" in failure(name, tmp_path)


# Pickles that crash Python, or fill its memory


def legacy(steps: bytes) -> bytes:
    """As torch before 1.6 wrote it: what it is, three pickles more, and the numbers."""
    pickles = [b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", b"M\xe9\x03", b"}"]
    return b"".join(b"\x80\x02" + each + b"." for each in [*pickles, steps])


DEEP = 300_000


@pytest.mark.long
@pytest.mark.timeout(20)
@pytest.mark.parametrize("is_legacy", [False, True])
@pytest.mark.parametrize(
    "steps",
    [
        b"})" + b"\x85" * DEEP + b"Ns",
        b"})" + b"\x85q\0" * DEEP + b"Ns",
        b"})" + b"N\x86" * DEEP + b"Ns",
        b"})" + b"X\1\0\0\0a0]0NN\x87" * DEEP + b"Ns",
        b"}" + b"(" * DEEP + b"t" * DEEP + b"Ns",
        b"})q\0" + b"0h\0\x85q\0" * DEEP + b"Ns",
        b"Nr\0\0\0\x08",
        b"Np134217728\n",
        b"\x96\0\0\0\0\1\0\0\0",
    ],
    ids=["tuples", "noted", "pairs", "mixed", "marks", "recalled", "note", "textual note", "bytes"],
)
def test_what_crashes_python_is_never_read(tmp_path: Path, steps: bytes, is_legacy: bool) -> None:
    content = legacy(steps) if is_legacy else zip_of(b"\x80\x02" + steps + b".")
    (tmp_path / "x.pt").write_bytes(content)
    assert failure("x.pt", tmp_path) == (
        f"x.pt is no file of PyTorch, or it is broken: download or copy it again ({tmp_path / 'x.pt'})"
    )


def test_as_deep_as_is_taken_python_reads_it_in_any_thread(tmp_path: Path) -> None:
    steps = dict_with("model", YOLO) + b")" + b"\x85" * 20_000 + b"Ns"
    found = []
    name = saved(tmp_path / "x.pt", steps)
    thread = threading.Thread(target=lambda: found.append(find_weights(name, tmp_path)))
    thread.start()
    thread.join()
    assert found == [tmp_path / name]


def test_many_tuples_side_by_side_are_fine(tmp_path: Path) -> None:
    content = pickle.dumps([tuple((number, number + 1) for number in range(30_000)), {"a": (1,)}], protocol=2)
    steps = content.removeprefix(b"\x80\x02").removesuffix(b".") + b"0" + dict_with("model", YOLO)
    assert find_weights(saved(tmp_path / "x.pt", steps), tmp_path) == tmp_path / "x.pt"


@pytest.mark.parametrize("protocol", range(6))
def test_what_python_writes_is_read_in_every_protocol(tmp_path: Path, protocol: int) -> None:
    content = pickle.dumps({"a": [1.5, b"x" * 300, "é" * 300, -(2**80), {3}, (None, True)] * 9}, protocol=protocol)
    (tmp_path / "x.pt").write_bytes(zip_of(content))
    assert "numbers without a network" in failure("x.pt", tmp_path)


def test_nothing_of_a_file_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "run"
    steps = b"cos\nmkdir\nX" + len(str(mark)).to_bytes(4, "little") + str(mark).encode() + b"\x85R"
    assert "is a mkdir of os" in failure(saved(tmp_path / "x.pt", dict_with("model", steps)), tmp_path)
    assert not mark.exists()


def test_archives_are_told_apart(tmp_path: Path) -> None:
    saved(tmp_path / "script.pt", dict_with("model", YOLO), "archive/code/__torch__.py", "archive/constants.pkl")
    assert "script.pt is a TorchScript export" in failure("script.pt", tmp_path)
    for name, member in (("a.pt", "weights/best.pt"), ("b.pt", "readme.txt"), ("c.onnx", "best.onnx")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(member, b"x")
    assert "a.pt is a ZIP archive that holds best.pt: unpack it, and name that" in failure("a.pt", tmp_path)
    assert "b.pt is a ZIP archive, but not of PyTorch" in failure("b.pt", tmp_path)
    assert "c.onnx is a ZIP archive: unpack it" in failure("c.onnx", tmp_path)


def test_a_file_of_torch_before_1_6_is_looked_into_too(tmp_path: Path) -> None:
    for steps, is_taken in ((dict_with("model", YOLO), True), (object_of("models.yolo", "Model"), False)):
        (tmp_path / "old.pt").write_bytes(legacy(steps))
        if is_taken:
            assert find_weights("old.pt", tmp_path) == tmp_path / "old.pt"
        else:
            assert "of the YOLOv5 repository" in failure("old.pt", tmp_path)


def test_a_file_in_the_model_root_is_found(bccd_weights: Path) -> None:
    assert find_weights(bccd_weights.name, bccd_weights.parent) == bccd_weights


@pytest.mark.parametrize("name", ["my weights (2).pt", "größe.pt", "a.b.c.pt"])
def test_odd_names_are_fine(tmp_path: Path, name: str, bccd_weights: Path) -> None:
    (tmp_path / name).symlink_to(bccd_weights)
    assert find_weights(name, tmp_path) == tmp_path / name


def test_the_demo_weights_come_along(tmp_path: Path) -> None:
    path = find_weights("demo", tmp_path)
    assert path.is_file()
    assert path.suffix == ".pt"


@pytest.mark.parametrize("content", [b"", b"a", b"x" * 3_000_000])
def test_the_fingerprint_is_the_files(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.pt"
    file.write_bytes(content)
    assert file_fingerprint(file) == hashlib.sha256(content).hexdigest()


def test_what_a_killed_process_was_copying_goes_and_what_another_copies_now_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yolo_backend.detection.weights.content_problem", lambda path: None)
    new, root = tmp_path / "new.pt", tmp_path / "models"
    new.write_bytes(b"new")
    root.mkdir()
    for name, age_s in ((".best.pt.0123abcd", 7200), (".best.pt.89abcdef", 60), (".other.pt.0123abcd", 7200)):
        (root / name).touch()
        os.utime(root / name, (time.time() - age_s,) * 2)

    assert put_weights(new, "best.pt", root) == hashlib.sha256(b"new").hexdigest()

    assert sorted(file.name for file in root.iterdir()) == [".best.pt.89abcdef", ".other.pt.0123abcd", "best.pt"]
