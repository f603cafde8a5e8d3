"""What becomes of a model that was judged: the gate's word, what a person asked for, and what serves already."""

from __future__ import annotations

from dataclasses import replace

from yolo_backend.training.gate import Judgement
from yolo_backend.training.records import Promote


def decide(judgement: Judgement, promote: Promote, *, other_kind: str | None, run: str, project_id: int) -> Judgement:
    """The judgement with the verdict and the reason of the run: with `promote` it is to serve.

    `other_kind` is the kind of what serves the project, if that isn't judged by the same as this one.
    """
    is_passed, gate_says = judgement.verdict == "promote", f"The gate says: {judgement.reason}"
    if promote == "always":
        reason = judgement.reason if is_passed else f"It is promoted, because of --promote always. {gate_says}"
        return replace(judgement, verdict="promote", reason=reason)
    if promote == "never" and is_passed:
        reason = f"It is not promoted, because of --promote never. {gate_says}"
        return replace(judgement, verdict="aside", reason=reason)
    if is_passed and other_kind:
        reason = (
            f"It is kept aside, because a {other_kind} model serves this project, and one model serves at a time: "
            f"`yolo-backend models --project {project_id} --promote {run}` puts this one in its place. {gate_says}"
        )
        return replace(judgement, verdict="aside", reason=reason)
    return judgement
