"""Checkpoints as they are handed on: without notes of the machine that trained them, perhaps with a trained record."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from yolo_backend.detection.record import TrainedRecord, add_record


def write_checkpoint(trained: Path, written: Path, record: TrainedRecord | None = None) -> None:
    """Copy a .pt that Ultralytics saved, whole or not at all, in the place of `written`.

    What Ultralytics notes of the machine is left out: its folders, its checkout. Raises OSError, and what torch raises
    for a file that it can't read.
    """
    checkpoint = torch.load(trained, map_location="cpu", weights_only=False)
    checkpoint.pop("git", None)
    networks = [checkpoint[name] for name in ("model", "ema") if checkpoint.get(name) is not None]
    _strip(checkpoint.get("train_args"))
    for network in networks:
        _strip(getattr(network, "args", None))
        _strip(getattr(network, "yaml", None))
    with TemporaryDirectory(dir=written.parent, prefix=".writing-") as folder:
        made = Path(folder, written.name)
        torch.save(checkpoint, made)
        if record:
            add_record(made, record)
        with made.open("rb") as file:
            os.fsync(file.fileno())
        made.replace(written)


def _strip(notes: Any) -> None:
    """Leave file names in the place of paths; notes are a dict, or attributes, or missing."""
    known = notes if isinstance(notes, dict) else vars(notes) if hasattr(notes, "__dict__") else {}
    for name, value in known.items():
        if isinstance(value, str) and Path(value).is_absolute():
            known[name] = Path(value).name
