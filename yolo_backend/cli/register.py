"""`register`: images to tasks, perhaps with labels."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from yolo_backend.cli.common import (
    FAILED,
    INTERRUPTED,
    AsJson,
    CommandError,
    ProjectName,
    Token,
    Url,
    err,
    find_project,
    open_studio,
    out,
    print_json,
    progress_bar,
    read_settings,
)
from yolo_backend.label_studio.projects import Project
from yolo_backend.labels.control import Control
from yolo_backend.labels.regions import count_boxes
from yolo_backend.prelabeling.model_versions import is_own
from yolo_backend.registering.converting import Converted, convert, made_of
from yolo_backend.registering.finding import SHOWN_SUFFIXES, TAKEN_SUFFIXES, find_images, left_alone, readable
from yolo_backend.registering.imported_labels import Labelled, add_labels, told_of
from yolo_backend.registering.items import RUN_IT_AGAIN, RUN_IT_AGAIN_LATER, Item, by_local_files, check_files
from yolo_backend.registering.label_files import read_labels
from yolo_backend.registering.registration import Registered
from yolo_backend.registering.registration import register as register_items
from yolo_backend.registering.target import choose_controls
from yolo_backend.registering.unfit import set_apart, set_broken_apart

_SHOWN_BOXES = 5
_SHOWN_FILES = 3
_BOX_TYPES = {"rectanglelabels", "rectangle", "labels"}


def register(
    *,
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Folders, globs, images, addresses, lists of images or addresses, or - for standard input."
        ),
    ],
    project_name: ProjectName,
    how: Annotated[
        Literal["upload", "local-files"],
        typer.Option(help="What becomes of files; an address goes as it is."),
    ] = "upload",
    document_root: Annotated[
        Path | None,
        typer.Option(
            help="With local-files: Label Studio's document root, as it is here.",
            show_default="LOCAL_FILES_DOCUMENT_ROOT",
        ),
    ] = None,
    labels_path: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="A file or a folder of labels: YOLO, COCO, Pascal VOC, labelme, CreateML, Label Studio's JSON, JSON "
            "lines.",
            rich_help_panel="Labels",
        ),
    ] = None,
    classes_path: Annotated[
        Path | None,
        typer.Option(
            "--classes",
            help="YOLO's class names: a classes.txt, a data.yaml or an obj.names.",
            show_default="beside the labels",
            rich_help_panel="Labels",
        ),
    ] = None,
    becoming: Annotated[
        Literal["predictions", "annotations"],
        typer.Option("--as", help="What labels become.", rich_help_panel="Labels"),
    ] = "predictions",
    model_version: Annotated[
        str | None,
        typer.Option(
            help="The predictions' version.",
            show_default="the name of --labels, and (imported)",
            rich_help_panel="Labels",
        ),
    ] = None,
    control_name: Annotated[
        str | None,
        typer.Option(
            "--control",
            help="The control that gets all labels.",
            show_default="the one that holds an object best",
            rich_help_panel="Labels",
        ),
    ] = None,
    convert_to: Annotated[
        Path | None,
        typer.Option(
            "--convert",
            help="A folder, into which PNGs and JPEGs are made of the images that the page can't show.",
            show_default="they are left out",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all, and register nothing.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Register images as tasks; those that are there already are left out.

    Run it as often as you like: it goes on where it was, and takes what is new. Files that are no images for Label
    Studio's page, by their names or by what is in them, are told and left out.

    Examples:

    - `register photos/ -p 3`
    - `register 'photos/**/*.jpg' -p Cells --how local-files --document-root /data`
    - `aws s3 ls ... | register - -p Cells` with an address such as `s3://bucket/a.jpg` a line
    - `register images/ -p Cells --labels labels/ --classes data.yaml --model-version old-model`
    - `register images/ -p Cells --labels result.json --as annotations`
    - `register scans/ -p Cells --convert converted/`
    """
    if model_version and is_own(model_version):
        raise CommandError(
            f"--model-version {model_version} would be taken for this backend's own predictions, which "
            "`prelabel --replace` deletes: choose another"
        )
    settings = read_settings(url, token)
    with ExitStack() as made:
        found = Converted(find_images(sources, sys.stdin))
        if convert_to is not None:
            aside = Path(made.enter_context(TemporaryDirectory())) if dry_run else None
            with err.status("Converting images"):
                found = convert(
                    found.images,
                    convert_to,
                    settings.max_image_megapixels,
                    uploaded=how == "upload",
                    written_to=aside,
                )
        else:
            found.images, found.unfit = set_apart(found.images, uploaded=how == "upload")
        if labels_path:
            with err.status("Looking at the images"):
                found.images, broken = set_broken_apart(found.images, settings.max_image_megapixels)
            for image, why in broken.items():
                found.unfit.setdefault(why, []).append(Path(found.originals.get(image, image)))
        alone = left_alone(sources, [path for path in (labels_path, classes_path, convert_to) if path])
        _tell_files(found, alone, convert_to, dry_run=dry_run)
        check_files(found.images, suffixes=TAKEN_SUFFIXES if how == "upload" else SHOWN_SUFFIXES)
        project = find_project(open_studio(settings), project_name)
        controls = choose_controls(project.label_config, control_name, for_labels=labels_path is not None)
        labelled = Labelled([Item(image) for image in found.images], [], 0)
        if labels_path:
            with err.status("Reading the labels"):
                labelled = add_labels(
                    found.images,
                    read_labels(labels_path, classes_path),
                    controls[0],
                    None if becoming == "annotations" else model_version or _version_of(labels_path.resolve()),
                    others=controls[1:],
                    label_config="" if control_name else project.label_config,
                    originals=found.originals,
                    unfit=found.unfit,
                )
        items = labelled.items
        if how == "local-files":
            root = document_root or settings.local_files_document_root
            if root is None:
                raise CommandError(
                    "Give --document-root: the folder that Label Studio serves as Local Files, as it is here"
                )
            items = by_local_files(items, root, found.targets)
        parts = _register(project, items, controls[0], dry_run=dry_run)

    told = {"project": project.id, "url": project.url, "dry_run": dry_run, **_summary(parts, labelled)}
    told["no_images"] = {why: [readable(file) for file in files] for why, files in found.unfit.items()}
    told["left_alone"] = alone
    told["converted"] = len(found.originals)
    if as_json:
        print_json(told)
    else:
        _tell(told, f"{project.title} ({project.url})", becoming)
    is_left_out = labelled.without_area or any(item.lost for part in parts for item in part.items)
    if labelled.odd or labelled.lost or is_left_out:
        raise typer.Exit(FAILED)


def _tell_files(found: Converted, alone: Mapping[str, int], convert_to: Path | None, *, dry_run: bool) -> None:
    """Say which files are no images, or made into others. Raises CommandError where no image is left."""
    if not found.images:
        raise CommandError("; ".join(f"{_named(files)}: {why}" for why, files in found.unfit.items()))
    for why, files in found.unfit.items():
        _print(err, f"Not registered, {len(files):,} {'file' if len(files) == 1 else 'files'}: {_named(files)}: {why}")
    if count := sum(alone.values()):
        _print(err, f"{count:,} {'file' if count == 1 else 'files'} left alone: {', '.join(alone)}")
    if convert_to and (made := made_of(found, convert_to, dry_run=dry_run)):
        _print(err, made)
    for remark in found.remarks:
        _print(err, remark)


def _register(project: Project, items: Sequence[Item], control: Control, *, dry_run: bool) -> list[Registered]:
    """Register them, with a bar. Raises typer.Exit at Ctrl-C, after saying how far it is."""
    parts: list[Registered] = []
    try:
        with progress_bar() as progress:
            bar = progress.add_task("Registering", total=len(items))
            for part in register_items(project, items, control, dry_run=dry_run):
                parts.append(part)
                progress.advance(bar, len(part.items) + len(part.left_out))
    except KeyboardInterrupt:
        count = 0 if dry_run else sum(len(part.items) for part in parts)
        more = "" if dry_run else ", perhaps some more"
        again = RUN_IT_AGAIN if dry_run else RUN_IT_AGAIN_LATER
        _print(err, f"Interrupted: {count:,} of {len(items):,} were registered{more}. {again} for the rest")
        raise typer.Exit(INTERRUPTED) from None
    return parts


def _named(files: Sequence[Path]) -> str:
    """The first of these files, and how many more there are."""
    more = f" and {len(files) - _SHOWN_FILES:,} more" if len(files) > _SHOWN_FILES else ""
    return ", ".join(map(readable, files[:_SHOWN_FILES])) + more


def _version_of(labels_path: Path) -> str:
    """What the predictions of labels are called by default; never as this backend calls its own."""
    name = labels_path.name if labels_path.is_dir() else labels_path.stem
    return f"{name} (imported)"


def _summary(parts: Sequence[Registered], labelled: Labelled) -> dict[str, Any]:
    registered = [item for part in parts for item in part.items]
    because: Counter[str] = Counter()
    for part in parts:
        because.update({part.because: len(part.left_out)} if part.left_out else {})
    labels = [(*item.predictions, *item.annotations) for item in registered]
    types = {region.get("type") for several in labels for one in several for region in one["result"]}
    return {
        "registered": len(registered),
        "left_out": because.total(),
        "left_out_because": dict(because),
        "labelled": sum(map(bool, labels)),
        "boxes": sum(count_boxes(one["result"]) for several in labels for one in several),
        "are_boxes": types <= _BOX_TYPES,
        "boxes_without_area": [box.where for box in labelled.without_area],
        "odd": labelled.odd,
        "changed": dict(told_of(registered)),
        "labels_of_registered": sum(
            bool(item.predictions or item.annotations) for part in parts for item in part.left_out
        ),
        "labels_without_image": labelled.unused,
        "labels_not_registered": labelled.lost,
        "task_ids": [task_id for part in parts for task_id in part.task_ids],
    }


def _tell(told: dict[str, Any], project: str, becoming: str) -> None:
    verb = "Would register" if told["dry_run"] else "Registered"
    things = ("box" if told["boxes"] == 1 else "boxes") if told["are_boxes"] else "objects"
    labels = f", {told['labelled']:,} of them with {told['boxes']:,} {things} as {becoming}" if told["labelled"] else ""
    count, left_out = told["registered"], told["left_out"]
    _print(out, f"{verb} {count:,} of {count + left_out:,} images in {project}{labels}")
    if left_out:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in told["left_out_because"].items())
        _print(out, f"Left out: {reasons}")
    if count := told["labels_of_registered"]:
        _print(err, f"Images that are registered already, and so get no labels: {count:,}")
    if boxes := told["boxes_without_area"]:
        shown = ", ".join(boxes[:_SHOWN_BOXES]) + (", ..." if len(boxes) > _SHOWN_BOXES else "")
        _print(err, f"Boxes left out because they have no area on their image: {len(boxes):,} ({shown})")
    for sentence, count in told["changed"].items():
        _print(err, f"{count:,} {sentence}")
    _tell_list("Lines or entries left out because they can't be read", told["odd"])
    _tell_list("Images left out with their labels", told["labels_not_registered"])
    if count := told["labels_without_image"]:
        _print(err, f"Labels without one of the images: {count:,}")


def _tell_list(what: str, sentences: Sequence[str]) -> None:
    """How many there are, and the first of them."""
    if not sentences:
        return
    _print(err, f"{what}: {len(sentences):,}")
    for sentence in sentences[:_SHOWN_BOXES]:
        _print(err, f"  {sentence}")
    if len(sentences) > _SHOWN_BOXES:
        _print(err, f"  and {len(sentences) - _SHOWN_BOXES:,} more: --json lists all")


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)
