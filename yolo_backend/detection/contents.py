"""What a file of weights is, by its bytes. Nothing of it is run, because a .pt file is code."""

from __future__ import annotations

import errno
import os
import pickle
import pickletools
import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterable
from importlib.machinery import PathFinder
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any

_HEAD_BYTES = 1024
_MAX_PICKLE_BYTES = 16 << 20  # for large weights it has half a megabyte; their numbers are beside it
_MAX_NESTED_TUPLES = 20_000  # if they are nested deeper, Python hashes them until its stack is full, and crashes
_LEGACY_PICKLE = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # before torch 1.6: a number, then three more pickles

_GRAPH = 7  # of the fields of an ONNX file
_MAX_FIELDS = 10_000  # a graph, metadata, and functions, of which there may be hundreds
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # how a protobuf field is written

_AGAIN = "download or copy it again"
_BROKEN = f"is broken, or only half downloaded: {_AGAIN}"
_NO_TORCH = f"is no file of PyTorch, or it is broken: {_AGAIN}"
_UNPACK = "unpack it, and name the .pt or .onnx file in it"
_FROM_TRAINING = "name the best.pt that Ultralytics wrote while it trained"
_TO_ONNX = f'{_FROM_TRAINING}, or export that: YOLO("best.pt").export(format="onnx")'
_FIRST_BYTES = {
    b"version https://git-lfs": "is a pointer of Git LFS, not the file itself: get that with `git lfs pull`",
    b"\x1f\x8b": f"is a gzip archive: {_UNPACK}",
    b"7z\xbc\xaf\x27\x1c": f"is a 7z archive: {_UNPACK}",
    b"Rar!": f"is a RAR archive: {_UNPACK}",
    b"BZh": f"is a bzip2 archive: {_UNPACK}",
    b"\xfd7zXZ": f"is an xz archive: {_UNPACK}",
    b"\x89HDF": f"is a HDF5 file, as Keras saves weights: {_TO_ONNX}",
    b"\x89PNG": "is a PNG image: name a file of weights",
    b"\xff\xd8\xff": "is a JPEG image: name a file of weights",
    b"%PDF": "is a PDF: name a file of weights",
}


def content_problem(path: Path) -> str | None:
    """What is wrong with a .pt or .onnx file, and what to do; None if it is worth a try. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if problem := _first_bytes_problem(head):
        return problem
    try:
        return (_onnx_problem if path.suffix == ".onnx" else _torch_problem)(path, head)
    except (zipfile.BadZipFile, RuntimeError, ValueError):  # damaged, encrypted, or compressed in an unknown way
        return _BROKEN
    except OSError as error:
        if error.errno == errno.EINVAL:  # the second half of a ZIP file, whose offsets are those of the whole
            return _BROKEN
        raise


def network_class(path: Path) -> str | None:
    """The name of the class of a .pt file's network, such as `SegmentationModel`; None where that can't be told."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = _pickle_name(archive)
            if name is None or archive.getinfo(name).file_size > _MAX_PICKLE_BYTES:
                return None
            content = archive.read(name)
        if _is_absurd(content, 1):
            return None
        network = _network_of(_Reader(BytesIO(content)).load())
    except Exception:  # whatever is wrong with it, or if it isn't there
        return None
    return type(network).__name__ if isinstance(network, _Thing) else None


def _first_bytes_problem(head: bytes) -> str | None:
    if not head:
        return f"is empty: {_AGAIN}"
    for start, problem in _FIRST_BYTES.items():
        if head.startswith(start):
            return problem
    if head[257:262] == b"ustar":
        return f"is a tar archive: {_UNPACK}"
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < _MAX_PICKLE_BYTES:
        return f"is a safetensors file, which is numbers without a network: {_TO_ONNX}"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return "is a web page (HTML), as a wrong address or a login sends it: download the file itself"
    if text and not re.search(rb"[^\t\r\n\x20-\x7e]", text):
        return "is a text, perhaps the error that a download ended in: download the file itself"
    return None


def _onnx_problem(path: Path, head: bytes) -> str | None:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            is_torch = _pickle_name(archive) is not None
        return "is a file of PyTorch: name it .pt instead of .onnx" if is_torch else f"is a ZIP archive: {_UNPACK}"
    with path.open("rb") as file:
        return None if _GRAPH in _fields(file, path.stat().st_size) else _BROKEN


def _fields(file: IO[bytes], size: int) -> set[int]:
    """The numbers of a protobuf message's own fields; empty if it is invalid or has a wrong length."""
    fields: set[int] = set()
    for _ in range(_MAX_FIELDS):
        if file.tell() == size:
            return fields
        tag = _varint(file)
        value = _varint(file) if tag & 7 in {_VARINT, _BYTES} else 0
        length = {_VARINT: 0, _EIGHT_BYTES: 8, _BYTES: value, _FOUR_BYTES: 4}.get(tag & 7, size)
        if tag >> 3 <= 0 or value < 0 or length > size - file.tell():
            return set()
        file.seek(length, os.SEEK_CUR)
        fields.add(tag >> 3)
    return set()


def _varint(file: IO[bytes]) -> int:
    """A number of seven bits a byte, the lowest first; -1 if the file ends within it."""
    number = 0
    for shift in range(0, 70, 7):
        if not (byte := file.read(1)):
            return -1
        number |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            break
    return number


def _torch_problem(path: Path, head: bytes) -> str | None:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return _zip_problem(archive)
    if head.startswith(_LEGACY_PICKLE):
        with path.open("rb") as file:
            return _pickle_problem(file, pickles=4)
    if head.startswith(b"PK\3\4"):
        return _BROKEN
    if head.startswith(b"\x08") and re.match(rb"\x08.(\x12.[\w .-]|:)", head, re.DOTALL):  # version, producer or graph
        return "is an ONNX file: name it .onnx instead of .pt"
    return _NO_TORCH


def _zip_problem(archive: zipfile.ZipFile) -> str | None:
    names = [PurePosixPath(name) for name in archive.namelist()]
    if any(name.parts[1:2] == ("code",) for name in names):
        return f"is a TorchScript export: {_TO_ONNX}"
    pickle_name = _pickle_name(archive)
    if pickle_name is None:
        inside = next((name.name for name in names if name.suffix in {".pt", ".onnx"}), None)
        return f"is a ZIP archive that holds {inside}: unpack it, and name that" if inside else (
            f"is a ZIP archive, but not of PyTorch: {_FROM_TRAINING}"
        )  # fmt: skip
    if archive.getinfo(pickle_name).file_size > _MAX_PICKLE_BYTES:
        return None
    with archive.open(pickle_name) as file:
        return _pickle_problem(file)


def _pickle_name(archive: zipfile.ZipFile) -> str | None:
    """The member of the archive that says what the numbers beside it are."""
    return next((name for name in archive.namelist() if PurePosixPath(name).parts[1:] == ("data.pkl",)), None)


class _Thing:
    """Stands in for an object of any class."""

    def __new__(cls, *_: Any, **__: Any) -> _Thing:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...

    def __setitem__(self, _: Any, __: Any) -> None: ...

    def append(self, _: Any) -> None: ...

    def extend(self, _: Any) -> None: ...

    def add(self, _: Any) -> None: ...


class _Reader(pickle.Unpickler):
    """Reads a pickle, makes a `_Thing` of every object, and notes the classes that it asks for."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.classes: set[tuple[str, str]] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.classes.add((module, name))
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        return type(name, (_Thing,), {"__module__": module})

    def persistent_load(self, what: Any) -> Any:
        """None for numbers, which are beside the pickle. Before torch 1.6, the class if its source comes with it."""
        return what[1] if isinstance(what, tuple) and what[:1] == ("module",) else None


def _network_of(saved: Any) -> Any:
    return (saved.get("ema") or saved.get("model")) if isinstance(saved, dict) else saved


def _pickle_problem(file: IO[bytes], pickles: int = 1) -> str | None:
    try:
        content = file.read(_MAX_PICKLE_BYTES)
        if _is_absurd(content, pickles):
            return _NO_TORCH
        reader = _Reader(BytesIO(content))
        for _ in range(pickles):
            saved = reader.load()
    except Exception:  # whatever is wrong: if torch can't read it either, torch says what it is
        return None
    network = _network_of(saved)
    if not any(module.startswith("ultralytics.nn.") for module, _ in reader.classes):
        return _foreign_problem(network, reader.classes)
    modules = {module for module, _ in reader.classes if _packages([(module, "")])}
    if missing := sorted(module for module in modules if not _is_installed(module)):
        return (
            f"was saved by a program that added code of its own (module {missing[0]}), which isn't here: "
            "make that module importable, or train without it"
        )
    if not isinstance(network, _Thing):
        return f'holds no network under "model" or "ema": {_FROM_TRAINING}'
    package = type(network).__module__
    if package == "ultralytics.nn.tasks" and network is saved:
        return (
            'is a network that torch.save wrote as it is: save it with YOLO(...).save("best.pt"), or put it into a '
            'dict, torch.save({"model": torch.load("m.pt", weights_only=False)}, "best.pt")'
        )
    if package.startswith(("torch.", "ultralytics.nn.modules")):
        layers = f"is a bare {type(network).__name__} with layers of a YOLO"
        return f'{layers}: save the whole YOLO with YOLO(...).save("best.pt")'
    return None


_TUPLE_STEPS = frozenset(b"t\x85\x86\x87")
_PUT, _LONG_BINPUT, _STOP = b"pr."
_CHECKED_STEPS = _TUPLE_STEPS | {_PUT, _LONG_BINPUT, _STOP}
# How many bytes follow each step of a pickle; below zero if the file says how many.
_ARGUMENT_BYTES = {ord(step.code): step.arg.n if step.arg else 0 for step in pickletools.opcodes}
_PLAIN_STEP_BYTES = {
    step: 1 + size for step, size in _ARGUMENT_BYTES.items() if size >= 0 and step not in _CHECKED_STEPS
}
_LENGTH_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_TWO_LINES = frozenset(b"ci")


def _is_absurd(content: bytes, pickles: int) -> bool:
    """Returns True if Python would crash over these pickles, or fill its memory, instead of raising an error.

    It runs over the steps itself because pickletools.genops, which reads their arguments, takes several times as long.
    """
    position = tuples = stops = 0
    end, plain_bytes = len(content), _PLAIN_STEP_BYTES.get  # as local names: this loop runs a hundred thousand times
    while position < end:
        step = content[position]
        if plain := plain_bytes(step):
            position += plain
            continue
        start = position + 1
        if step not in _ARGUMENT_BYTES:  # it is no pickle, and the reader says so
            break
        if step in _TUPLE_STEPS:
            tuples += 1
        elif step == _STOP:
            stops += 1
            if stops == pickles:
                break
        if step in {_PUT, _LONG_BINPUT} and _memo_index(content, step, start) > position:
            return True  # Python makes room for as many objects as the index says
        position = start + _argument_bytes(content, step, start)
    if position > end:  # Python makes room for as many bytes as the file says follow
        return end < _MAX_PICKLE_BYTES
    return tuples > _MAX_NESTED_TUPLES and _is_nested_deep(content, pickles)


def _argument_bytes(content: bytes, step: int, start: int) -> int:
    size = _ARGUMENT_BYTES[step]
    if size >= 0:
        return size
    if size != pickletools.UP_TO_NEWLINE:
        width = _LENGTH_BYTES[size]
        return width + int.from_bytes(content[start : start + width], "little")
    end = start
    for _ in range(2 if step in _TWO_LINES else 1):
        end = content.find(b"\n", end) + 1 or len(content)
    return end - start


def _memo_index(content: bytes, step: int, start: int) -> int:
    """Where an object is noted. A program writes no index that is above its position in the file."""
    argument = content[start : start + _argument_bytes(content, step, start)]
    return int(argument) if step == _PUT else int.from_bytes(argument, "little")


def _is_nested_deep(content: bytes, pickles: int) -> bool:
    """Returns True if tuples are nested too deep. Raises if this is no pickle."""
    file = BytesIO(content)
    return any(_has_deep_tuples(pickletools.genops(file)) for _ in range(pickles))


def _has_deep_tuples(steps: Iterable[tuple[pickletools.OpcodeInfo, Any, int | None]]) -> bool:
    stack: list[int] = []  # for each object on the pickle machine's stack, how deep its tuples are nested
    marks: list[int] = []
    memo: dict[int, int] = {}
    for step, argument, _ in steps:
        takes, gives = step.stack_before, step.stack_after
        if step.name == "MARK":
            marks.append(len(stack))
        elif step.name.endswith("PUT"):
            memo[int(argument)] = stack[-1]
        elif step.name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif step.name.endswith("GET"):
            stack.append(memo[int(argument)])
        elif step.name == "POP" and marks[-1:] == [len(stack)]:
            marks.pop()
        else:
            has_mark = pickletools.markobject in takes
            start = marks.pop() - takes.index(pickletools.markobject) if has_mark else len(stack) - len(takes)
            depth = max(stack[start:], default=0) + (step.name in {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"})
            if depth > _MAX_NESTED_TUPLES:
                return True
            stack[start:] = [depth] * len(gives)
    return False


def _foreign_problem(network: Any, classes: Iterable[tuple[str, str]]) -> str:
    """If weights aren't from Ultralytics: where they are from, as far as we can see."""
    names = {name for module, name in classes if module.startswith("models.")}
    if names or any(module == "models" for module, _ in classes):
        version = 7 if names & {"IDetect", "IAuxDetect", "IBin", "IKeypoint"} else 9 if names & _YOLOV9 else 5
        return (
            f"is of the YOLOv{version} repository, whose weights Ultralytics can't load: train anew with Ultralytics, "
            'such as YOLO("yolov5su.pt").train(data=...)'
        )
    others = sorted(_packages(classes) - {"torch", "numpy", "ultralytics"})
    if isinstance(network, _Thing) or others:
        what = type(network).__name__ if isinstance(network, _Thing) else "checkpoint"
        package = type(network).__module__.split(".")[0] if isinstance(network, _Thing) else others[0]
        whose = "a program's own" if package == "__main__" else package
        return f"is a {what} of {whose}, not a YOLO of Ultralytics: only such are served; {_FROM_TRAINING}"
    return (
        "holds numbers without a network (a state_dict, or of another framework): name the best.pt that Ultralytics "
        'wrote, or load them into a YOLO and save that with its save("best.pt")'
    )


_YOLOV9 = {"DDetect", "DualDetect", "DualDDetect", "TripleDetect", "TripleDDetect"}


def _packages(classes: Iterable[tuple[str, str]]) -> set[str]:
    """The packages of classes, without Python's own, which have other names in Python 2."""
    return {module.split(".")[0] for module, _ in classes} - sys.stdlib_module_names - {"__builtin__", "copy_reg"}


def _is_installed(module: str) -> bool:
    """Returns True if it can be imported, as far as we can see without running it.

    A folder without an `__init__.py`, such as `models`, doesn't count: it is a package, but has no class itself.
    """
    package, *parts = module.split(".")
    if package in {"", "__main__", "__mp_main__"}:
        return False
    try:
        spec = find_spec(package)
    except ValueError:  # it is a module that code has made
        return package in sys.modules
    for part in parts:
        if spec is None or spec.origin is not None:  # nobody knows what a package's own code does
            break
        spec = PathFinder.find_spec(part, list(spec.submodule_search_locations or ()))
    return spec is not None and spec.origin is not None
