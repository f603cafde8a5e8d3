"""What is wrong with weights that can't be loaded or run, in our words, by the libraries' errors."""

from __future__ import annotations

import re
from itertools import product
from traceback import walk_tb

import onnxruntime
import torch
import ultralytics

from yolo_backend.messages import first_line

# Of torch (CPU on Linux and Windows, CUDA, MPS, cuBLAS, cuDNN) and of ONNX Runtime, which has no type for it.
_OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "alloc_failed", "bad_alloc")

_NEWER = (
    "need {0} of Ultralytics, which {ultralytics} (here) doesn't have: they are of a newer one, or of a changed copy; "
    "update it with pip install -U ultralytics-opencv-headless"
)
_MISFIT = "don't fit Ultralytics {ultralytics} (here): install the one that they were trained with, or train them anew"
# What the libraries' errors say, and what it means.
_REMEDIES = {
    r"Can't get attribute '([^']+)' on <module 'ultralytics": _NEWER,
    r"No module named '(ultralytics[\w.]+)'": _NEWER,
    r"Can't get attribute '([^']+)' on <module '([^']+)'": "need {0} of {1}, which isn't here: train without it",
    r"is not a loadable checkpoint|No graph was found|Protobuf parsing failed|PytorchStreamReader|hasRecord": (
        "are broken, or only half downloaded: download or copy them again"
    ),
    r'External data path.* "(?:[^"]*/)?([^"/]+)"': "keep their numbers in the file {0}: put that beside them",
    r"max supported IR version|[Oo]pset \d+ is under development|official support for domain \S+ is till opset": (
        "are for a newer ONNX Runtime than {onnxruntime} (here): export them anew with opset=17, or update onnxruntime"
    ),
    r"No Op registered for (\w+)": "need {0}, an operator that ONNX Runtime doesn't have: export them with Ultralytics",
}


def failure(error: Exception, device: str, what: str = "loaded") -> str:
    """Why weights couldn't be loaded or run on a device, as far as we know, and what to do."""
    said = first_line(error)
    causes = [cause for cause in (error, error.__cause__) if cause is not None]
    if any(is_out_of_memory(cause) for cause in causes):
        return (
            f"don't fit into the memory of {device}: lower MODEL_IMAGE_SIZE, BATCH_SIZE or MAX_MODELS, or set another "
            "DEVICE"
        )
    versions = {"ultralytics": ultralytics.__version__, "onnxruntime": onnxruntime.__version__}
    for cause, (pattern, remedy) in product(causes, _REMEDIES.items()):
        if found := re.search(pattern, str(cause), re.DOTALL):
            return remedy.format(*found.groups(), **versions)
    if any(isinstance(cause, AttributeError) and _is_of_libraries(cause) for cause in causes):
        return _MISFIT.format(**versions)
    return f"can't be {what}: {said} ({type(error).__name__}); see whether Ultralytics takes them: YOLO(file).predict()"


def _is_of_libraries(error: BaseException) -> bool:
    """Returns True if it was raised within Ultralytics or torch, not by our own code."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__")).split(".")[0] in {"ultralytics", "torch"}


def is_out_of_memory(error: BaseException) -> bool:
    """Returns True if this error of torch or ONNX Runtime says that there is not enough memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error).lower() for words in _OUT_OF_MEMORY)
