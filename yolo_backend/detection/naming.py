"""Names of weights: which names can't be used, and what a name means that isn't there."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote, urlsplit

DEMO = "demo"
SUFFIXES = (".pt", ".onnx")

_MAX_SHOWN, _MAX_LISTED = 80, 5
_ANY_RATIO, _RELEASE_RATIO = 0.75, 0.9  # because releases have similar names: yolo11n and yolo12n

_BEST = "name the best.pt that Ultralytics wrote while it trained"
_TO_PT = "name the .pt that it was made of"
_TO_ONNX = f'{_TO_PT}, or an export that is served: YOLO("best.pt").export(format="onnx")'
_COMPOSE = " (with Docker Compose, WEIGHTS in place of MODEL_ROOT)"
_UNFINISHED = "is a download that didn't come to its end: download it again, and name the file that comes"
_ARCHIVE = "is an archive: unpack it into MODEL_ROOT, and name the .pt or .onnx file in it"
_FOREIGN = f"is a file of another framework: {_BEST}"
_FORMATS = {
    ".engine": f"is a TensorRT engine, tied to one GPU: {_TO_PT}, and set ENGINE=tensorrt",
    "_openvino_model": f"is an OpenVINO export: {_TO_PT}, and set ENGINE=openvino",
    ".xml": f"is an OpenVINO export, or labels: {_TO_PT}, and set ENGINE=openvino",
    ".torchscript": f"is a TorchScript export: {_TO_ONNX}",
    ".safetensors": f"is a safetensors file, which is numbers without a network: {_BEST}",
    ".pth": f"is no .pt: {_BEST}, or, if Ultralytics wrote it, rename it to end in .pt",
    **dict.fromkeys((".yaml", ".yml"), f"describes a network or a data set, and holds no weights: {_BEST}"),
    **dict.fromkeys(
        (".tflite", ".mlpackage", ".mlmodel", ".aimodel", ".pb", ".mnn", ".rknn", ".pte", "_saved_model", "_web_model",
         "_ncnn_model", "_paddle_model", "_imx_model", "_axelera_model", "_hailo_model", "_deepx_model", "_qnn_model"),
        f"is an export to a format that isn't served: {_TO_ONNX}",
    ),
    **dict.fromkeys((".weights", ".cfg", ".h5", ".hdf5", ".keras", ".ckpt", ".bin", ".pkl", ".caffemodel"), _FOREIGN),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".xz", ".bz2"), _ARCHIVE),
    **dict.fromkeys((".crdownload", ".part", ".partial", ".download", ".tmp", ".aria2"), _UNFINISHED),
}  # fmt: skip

_ENDINGS = (*SUFFIXES, ".txt", *(end for end in _FORMATS if end.startswith(".")))

_TASKS = ("", "-seg", "-pose", "-obb", "-cls")
# What Ultralytics offers and we serve. Its own list needs torch.
RELEASES = frozenset(
    f"{stem}.pt"
    for stem in (
        *(f"yolov{number}u" for number in ("3", "3-spp", "3-tiny")),
        *(f"yolov5{scale}{large}u" for scale in "nsmlx" for large in ("", "6")),
        *(f"yolov8{scale}{task}" for scale in "nsmlx" for task in (*_TASKS, "-oiv7")),
        *(f"yolov9{scale}" for scale in "tsmce"),
        *(f"yolov9{scale}-seg" for scale in "ce"),
        *(f"yolov10{scale}" for scale in "nsmblx"),
        *(f"yolo12{scale}" for scale in "nsmlx"),
        *(f"yolo{number}{scale}{task}" for number in (11, 26) for scale in "nsmlx" for task in _TASKS),
    )
)  # fmt: skip


def name_problem(name: str, model_root: Path, *, may_download: bool) -> str | None:
    """Why this can't be the bare name of a .pt or .onnx file, and what to write; None if it can."""
    if name.startswith("file://"):
        return _path_problem(unquote(urlsplit(name).path), model_root)
    if "://" in name:
        return _address_problem(name)
    if Path(name).name != name or "\\" in name:
        return _path_problem(name, model_root)
    if Path(name).suffix in SUFFIXES:
        return None
    shown, suffix = f'"{shorten(name)}"', Path(name).suffix
    if suffix.lower() in SUFFIXES and _is(Path.is_file, model_root / name):
        return f"{shown} ends in {suffix}: rename the file, so that it ends in {suffix.lower()}"
    meant = _meant(name, model_root, may_download=may_download)
    problem = _format_problem(name)
    if problem is None:
        problem = "is not the name of weights"
        problem += "" if meant else f": name a .pt or .onnx file in MODEL_ROOT, or {DEMO}"
    question = f"; did you mean {meant}?" if meant else ""
    return f"{shown} {problem}{question} {_holds(model_root)}"


def missing_problem(name: str, model_root: Path, *, may_download: bool) -> str:
    """The message that there is no such file: what there is, and what was probably meant."""
    link = model_root / name
    if _is(Path.is_file, model_root):
        return f"MODEL_ROOT is a folder, no file: set MODEL_ROOT={model_root.parent} and MODEL_NAME={model_root.name}"
    if _is(Path.is_symlink, link):
        return (
            f"Weights {shorten(name)} are a link to a file that isn't there, or isn't mounted into this container: "
            f"put the file itself there ({link} to {link.readlink()})"
        )
    if meant := _meant(name, model_root, may_download=may_download):
        advice = f"did you mean {meant}? Or put the file there"
    else:
        advice = "put the file there, or name another file"
    return f"Weights {shorten(name)} are not in MODEL_ROOT: {advice} {_holds(model_root)}"


def shorten(name: str) -> str:
    """A name as it can stand in one line."""
    printable = "".join(letter if letter.isprintable() else " " for letter in name)
    return printable if len(printable) <= _MAX_SHOWN else f"{printable[:_MAX_SHOWN]}..."


def _address_problem(address: str) -> str:
    """An address may hold a login or a signature, so only the file's name is told."""
    file = shorten(PurePosixPath(unquote(urlsplit(address).path)).name)
    named = file if file.endswith(SUFFIXES) else "best.pt"
    return f"MODEL_NAME is an address: download the file into MODEL_ROOT, and set MODEL_NAME={named}"


def _path_problem(path: str, model_root: Path) -> str:
    pure = PureWindowsPath(path) if "\\" in path else PurePosixPath(path)
    if problem := _format_problem(pure.name):
        return f"{shorten(pure.name)} {problem}"
    file = _expanded(path) if isinstance(pure, PurePosixPath) else None
    if file is not None and not _is(Path.exists, file) and _is(Path.exists, model_root / pure):
        file = model_root / pure
    if file is not None and _is(Path.is_dir, file):
        nested = file / "weights" / "best.pt"  # below a training's own folder
        file = nested if _is(Path.is_file, nested) else file / "best.pt"
    folder, name = (file.parent, file.name) if file is not None else (pure.parent, pure.name)
    if not name.endswith(SUFFIXES):
        name = f"{name}.pt" if _is(Path.is_file, Path(folder, f"{name}.pt")) else "the name of its .pt or .onnx file"
    is_there = file is not None and file.parent.resolve() == model_root.resolve()
    values = f"MODEL_NAME={name}" if is_there else f"MODEL_ROOT={folder} and MODEL_NAME={name}{_COMPOSE}"
    return f"MODEL_NAME is a bare file name in MODEL_ROOT: set {values}"


def _is(question: Callable[[Path], bool], path: Path) -> bool:
    """The answer; False if the path can't be looked at."""
    try:
        return question(path)
    except OSError:
        return False


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # nobody's home
        return Path(path)


def _format_problem(name: str) -> str | None:
    return next((problem for end, problem in _FORMATS.items() if name.lower().endswith(end)), None)


def _meant(name: str, model_root: Path, *, may_download: bool) -> str | None:
    """A file that is there, or a release if one may be downloaded, whose name is almost this one."""
    name = name.strip(" \t\"'")
    if name.casefold() in {DEMO, f"{DEMO}.pt"}:
        return DEMO
    files = _weights_in(model_root)
    known = {_key(file): file for file in reversed(files)}
    key = _key(name)
    if meant := known.get(key):
        return meant
    if may_download and (release := _RELEASE_OF_KEY.get(key) or _RELEASE_OF_KEY.get(f"{key}n")):  # the smallest
        return f"{release} (a release of Ultralytics, downloaded by itself)"
    close = get_close_matches(name, files, 1, _ANY_RATIO) or (
        get_close_matches(name.lower(), RELEASES, 1, _RELEASE_RATIO) if may_download else []
    )
    return close[0] if close else None


def _key(name: str) -> str:
    """The same for names that people mix up: best.pt, Best.PT, best and best.onnx."""
    while name.lower().endswith(_ENDINGS):
        name = name.rpartition(".")[0]
    return "".join(letter for letter in name.casefold() if letter not in " _-").replace("yolov", "yolo")


_RELEASE_OF_KEY = {
    **{_key(release).removesuffix("u"): release for release in RELEASES},
    **{_key(release): release for release in RELEASES},
}


def _weights_in(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    except OSError:
        return []


def _holds(model_root: Path) -> str:
    """The files to choose from."""
    where = f"MODEL_ROOT={model_root.resolve()}"
    if not model_root.is_dir():
        return f"({where}: there is no such folder)"
    files = _weights_in(model_root)
    if not files:
        return f"({where} holds no weights)"
    more = f" and {len(files) - _MAX_LISTED} more" if len(files) > _MAX_LISTED else ""
    return f"({where} holds {', '.join(shorten(file) for file in files[:_MAX_LISTED])}{more})"
