"""Which format a file or a folder of labels has, by what is in it, and who reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yolo_backend.registering.finding import files_below
from yolo_backend.registering.formats import yolo
from yolo_backend.registering.formats.coco import coco_entries, result_entries
from yolo_backend.registering.formats.createml import createml_entries
from yolo_backend.registering.formats.json_lines import line_entries
from yolo_backend.registering.formats.label_studio import is_task, label_studio_entries
from yolo_backend.registering.formats.labelme import read_labelme
from yolo_backend.registering.formats.parsing import read_json, read_text
from yolo_backend.registering.formats.voc import read_voc
from yolo_backend.registering.objects import Aside, Entry, ImageLabels, LabelFileError

_JSON, _XML, _TEXT = ".json", ".xml", yolo.SUFFIX
_LINES = (".jsonl", ".ndjson")
_NAMED = "YOLO, COCO, Pascal VOC, labelme, CreateML, Label Studio's JSON, Ultralytics' predictions.json or JSON lines"

# Files that people have, which aren't read, by their endings; and what to do.
_OTHERS = {
    ".csv": "a table: export the labels as COCO, YOLO or Pascal VOC",
    ".tsv": "a table: export the labels as COCO, YOLO or Pascal VOC",
    ".zip": "an archive: unpack it, and give the folder",
    ".tar": "an archive: unpack it, and give the folder",
    ".gz": "an archive: unpack it, and give the folder",
    ".7z": "an archive: unpack it, and give the folder",
    ".tfrecord": "a TFRecord: export the labels as COCO, YOLO or Pascal VOC",
    ".record": "a TFRecord: export the labels as COCO, YOLO or Pascal VOC",
    ".parquet": "a table (Parquet): export the labels as COCO, YOLO or Pascal VOC",
    ".mat": "a MATLAB file: export the labels as COCO, YOLO or Pascal VOC",
    ".png": "an image: masks as images aren't read; export them as COCO or YOLO",
    ".jpg": "an image, not its labels",
    ".yaml": "a file about a data set: give the folder of its labels",
    ".yml": "a file about a data set: give the folder of its labels",
}


@dataclass
class FileLabels:
    """What a file or a folder of labels holds.

    `entries` go by the image's name; with `by_stem`, by that without its ending. `said` are the names that files say,
    where one that lies beside an image is named like it in the first place.
    """

    entries: list[Entry]
    by_stem: bool = False
    said: list[Entry] = field(default_factory=list)
    aside: Aside = field(default_factory=Aside)


def read_format(path: Path, classes_path: Path | None) -> FileLabels:
    """What is in a file or a folder of labels. Raises LabelFileError, FindError, OSError."""
    return _read_folder(path, classes_path) if path.is_dir() else _read_file(path, classes_path)


def _read_file(path: Path, classes_path: Path | None) -> FileLabels:
    suffix = path.suffix.lower()
    if suffix in _LINES:
        return FileLabels(list(line_entries(path, read_text(path))))
    if suffix == _JSON:
        return _read_json(path, classes_path)
    if suffix == _XML:
        return _beside(path, [read_voc(path)])
    if suffix == _TEXT:
        return _yolo([path], yolo.find_classes(path.parent, classes_path))
    if what := _OTHERS.get(suffix):
        raise LabelFileError(f"{path} is {what}")
    if not path.exists():
        raise LabelFileError(f"{path} isn't there: give a file or a folder of labels")
    raise LabelFileError(f"{path} should be {_NAMED}, or a folder of such files")


def _read_folder(folder: Path, classes_path: Path | None) -> FileLabels:
    # The layouts of Ultralytics and of Label Studio's export, and of Pascal VOC.
    inner = (folder / name for name in ("labels", "Annotations", "obj_train_data"))
    root = next((each for each in inner if each.is_dir()), folder)
    files = [file for file in files_below(root) if file.suffix.lower() in {_JSON, _XML, _TEXT}]
    texts = [file for file in files if file.suffix.lower() == _TEXT and not yolo.is_about_the_data(file)]
    markups = [file for file in files if file.suffix.lower() == _XML]
    jsons = [file for file in files if file.suffix.lower() == _JSON and file.name != "notes.json"]
    kinds = [(".txt", texts), (".xml", markups), (".json", jsons)]
    there = [(suffix, each) for suffix, each in kinds if each]
    if len(there) > 1:
        counts = ", ".join(f"{len(each):,} {suffix}" for suffix, each in there)
        raise LabelFileError(f"{root} has labels in several formats ({counts}): give a folder or a file of one of them")
    if texts:
        return _yolo(texts, yolo.find_classes(folder, classes_path))
    if markups:
        return _each(root, markups, read_voc)
    if len(jsons) == 1:
        return _read_json(jsons[0], classes_path)
    if jsons:
        return _each(root, jsons, lambda file: _one_labelme(file, folder))
    if classes_path is None and not files:
        raise LabelFileError(f"{folder} has no labels: no .txt, .xml or .json file")
    yolo.find_classes(folder, classes_path)
    raise LabelFileError(f"No .txt file is in the folder {root}")


def _yolo(files: Sequence[Path], classes: yolo.Classes) -> FileLabels:
    aside = Aside(classes=list(classes.names.values()))
    return FileLabels(list(yolo.entries(files, classes)), by_stem=True, aside=aside)


def _each(root: Path, files: Sequence[Path], read: Callable[[Path], tuple[str, ImageLabels]]) -> FileLabels:
    """A file for each image. One that can't be read costs only its own labels, unless all are like it."""
    read_files: list[tuple[Path, tuple[str, ImageLabels]]] = []
    odd: list[str] = []
    for file in files:
        try:
            read_files.append((file, read(file)))
        except LabelFileError as error:
            odd.append(str(error))
    if not read_files:
        more = f" (and so on: {len(odd):,} files in {root})" if len(odd) > 1 else ""
        raise LabelFileError(odd[0] + more)
    found = FileLabels([], by_stem=True, aside=Aside(odd))
    for file, each in read_files:
        beside = _beside(file, [each])
        found.entries += beside.entries
        found.said += beside.said
    return found


def _beside(file: Path, read: Sequence[tuple[str, ImageLabels]]) -> FileLabels:
    """Labels of the image that has the file's name, and if there is none, of the one that the file names."""
    entries = [(str(file.with_suffix("")), labels) for _, labels in read]
    return FileLabels(entries, by_stem=True, said=[(name, labels) for name, labels in read if name])


def _read_json(path: Path, classes_path: Path | None) -> FileLabels:
    content = read_json(read_text(path), str(path))
    if isinstance(content, list):
        return _read_list(path, content, classes_path)
    if isinstance(content, Mapping) and _is_labelme(content):
        return _beside(path, [read_labelme(path, content)])
    if isinstance(content, Mapping) and (what := _what_it_seems(content)):
        raise LabelFileError(f"{path} is {what}")
    found = FileLabels([])
    found.entries = list(coco_entries(path, content, found.aside))
    return found


def _read_list(path: Path, content: Sequence[Any], classes_path: Path | None) -> FileLabels:
    """A list of tasks, images or results. It is what most of its entries are, so an odd one is told."""
    found = FileLabels([])
    match Counter(map(_kind_of_entry, content)).most_common(1):
        case [("task", _)]:
            found.entries = list(label_studio_entries(path, content, found.aside))
        case [("createml", _)]:
            found.entries = list(createml_entries(path, content, found.aside))
        case [("result", _)]:
            classes = yolo.find_classes(path.parent, classes_path)
            found.entries = list(result_entries(path, content, classes, found.aside))
            found.by_stem = True
        case [("short", _)]:
            raise LabelFileError(f"{path} is Label Studio's JSON-MIN, which lacks what tasks are: export JSON instead")
        case [("coco", _)]:
            raise LabelFileError(f"{path} is a list of COCO results: it needs images and categories, too")
        case []:
            raise LabelFileError(f"{path} is an empty list: it has no labels")
        case _:
            raise LabelFileError(f"{path} is a list of something else than labels: it should be {_NAMED}")
    return found


def _kind_of_entry(said: Any) -> str:
    if not isinstance(said, Mapping):
        return ""
    if is_task(said):
        return "task"
    if ("image" in said or "imagefilename" in said) and ("annotations" in said or "annotation" in said):
        return "createml"
    if "image_id" in said:
        return "result" if "file_name" in said or isinstance(said["image_id"], str) else "coco"
    return "short" if "annotation_id" in said or "annotator" in said else ""


def _is_labelme(content: Mapping[str, Any]) -> bool:
    return isinstance(content.get("shapes"), list)


def _one_labelme(file: Path, folder: Path) -> tuple[str, ImageLabels]:
    content = read_json(read_text(file), str(file))
    if not (isinstance(content, Mapping) and _is_labelme(content)):
        raise LabelFileError(f"{file} isn't labelme's, of which a folder may have many: give one file of {folder}")
    return read_labelme(file, content)


def _what_it_seems(content: Mapping[str, Any]) -> str | None:
    """What an object in JSON is that isn't read, and what to do; None for COCO, and what is nothing known."""
    if "_via_img_metadata" in content or any(
        isinstance(each, Mapping) and "regions" in each and "filename" in each for each in content.values()
    ):
        return "of the VGG Image Annotator (VIA): export it as COCO"
    if isinstance(content.get("objects"), list) and isinstance(content.get("size"), Mapping):
        return "Supervisely's: export it as COCO or Pascal VOC"
    if ("labels" in content and "frames" in content) or "openlabel" in content:
        return "OpenLABEL, or labels of a video: export it as COCO"
    if isinstance(content.get("features"), list):
        return "GeoJSON, which counts in places on earth: export it as COCO"
    if is_task(content):
        return "one of Label Studio's tasks: put it in a list, as its export does"
    if "names" in content or set(content) == {"categories"}:
        return "a list of classes, and no labels: give it with --classes"
    return None
