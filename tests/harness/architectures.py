"""Weights of every architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ultralytics import YOLO
from ultralytics.utils import ROOT as ULTRALYTICS_ROOT
from ultralytics.utils import YAML

from yolo_backend.demo.train import NARROW_DEPTH_WIDTH_MAXCHANNELS


def weights_of(architecture: str, folder: Path, trained: Path) -> Path:
    """Weights of another architecture: what it shares with the `trained` YOLO11n is theirs, what is its own is random.

    Made once in the folder.
    """
    path = folder / f"{architecture}.pt"
    if not path.exists():
        configs = ULTRALYTICS_ROOT / "cfg" / "models"
        (config,) = configs.glob(f"*/{architecture.replace('n-', '-').removesuffix('n')}.yaml")
        YAML.save(
            folder / f"{architecture}.yaml",
            {**YAML.load(config), "nc": 3, "scale": "n", "scales": {"n": list(NARROW_DEPTH_WIDTH_MAXCHANNELS)}},
        )
        torch.manual_seed(3)
        yolo = YOLO(folder / f"{architecture}.yaml").load(trained)
        _spread(yolo.model.model[-1], trained=architecture.startswith("yolo11"))
        yolo.save(path)
    return path


def _spread(head: Any, trained: bool) -> None:
    """Make random branches of a head say something about the image: at first they say the same everywhere."""
    random_branches = {"cv4"} if trained else {"cv2", "cv3", "cv4", "one2one_cv2", "one2one_cv3", "one2one_cv4"}
    random_branches |= {"cv4_kpts", "one2one_cv4_kpts"}
    with torch.no_grad():
        for name, branches in head.named_children():
            for branch in branches if name in random_branches else ():
                last = branch[-1] if isinstance(branch, torch.nn.Sequential) else branch
                if not isinstance(last, torch.nn.Conv2d):  # the last one is in a branch of its own
                    continue
                last.weight.normal_(std=0.3)
                if name.endswith("cv3") and last.bias is not None:
                    last.bias.fill_(-5)
        if trained and hasattr(head, "proto"):  # many masks become empty, and which ones depends on the image
            head.proto.cv3.bn.bias.fill_(-0.2)
            head.proto.cv3.bn.weight.fill_(5)
