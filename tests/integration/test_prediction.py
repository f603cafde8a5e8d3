"""A predictor in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.harness.stack import ROOT


def test_the_garbage_collector_leaves_torchs_objects_alone(bccd_environment: dict[str, str]) -> None:
    code = """if True:
        import gc, sys
        from yolo_backend.serving.request import default_predictor
        predictor = default_predictor()
        predictor.catalog.wait_for_info(predictor.settings.model_name, None)
        predictor.close()
        assert "torch" in sys.modules
        print(gc.get_freeze_count(), len(gc.get_objects()))
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **bccd_environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    frozen, others = map(int, done.stdout.split())
    assert frozen > 100_000 > others
