"""The fault table of docs/journal/reliability.md: every fault, injected for real, and what came out.

The real backend runs under gunicorn with the demo's weights, beside servers that misbehave.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from tests.faults.backend import (
    ENVIRONMENT,
    MORE_FILES,
    MORE_MEGABYTES,
    MORE_THREADS,
    Backend,
    Footprint,
    HealthWatch,
    Outcome,
    faulty_backend_server,
)
from tests.faults.bodies import Generated, send_bad_bodies, send_bad_images
from tests.faults.callers import CALLERS, inject_caller
from tests.faults.ceilings import CEILINGS_ENVIRONMENT, inject_large_bodies
from tests.faults.engine import DETECT_TIMEOUT_S, ENGINE_FAULTS, HANGING, KILLING
from tests.faults.kinds import FAULTS, GROUPS, NO_ANSWER, PREDICTED, answers
from tests.faults.neighbours import NEIGHBOURS_ENVIRONMENT, PERSON_WITHIN_S, inject_neighbours
from tests.faults.replaced import inject_new_images, inject_new_weights, replaced_environment
from tests.faults.servers import World, world
from tests.harness.report import made_by, table
from tests.harness.stack import BackendServer, backend_server, pick_port, wait_until_ready
from yolo_backend.detection.health import MAX_HANGS

_BODIES_EACH = 1000
_IMAGE_REQUESTS = 700
_AT_LEAST_GENERATED = 5000


class Run:
    """One making of the table: its rows, its sentences, and what went wrong."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Outcome]] = {}
        self.notes: list[str] = []
        self.problems: list[str] = []
        self.generated = Generated()
        self.took_s = 0.0

    def add(self, group: str, outcome: Outcome) -> None:
        """Take a row into the table, and say how it went."""
        self.rows.setdefault(group, []).append(outcome)
        print(f"{outcome.name}: {_came_out(outcome)} in at most {outcome.slowest_s:.1f} s", flush=True)
        self.expect(outcome.name, outcome.problems)

    def expect(self, where: str, problems: list[str]) -> None:
        """Note what isn't as it should be."""
        for problem, times in Counter(problems).items():
            self.problems.append(f"{where}: {problem}" + (f" ({times} times)" if times > 1 else ""))
            print(f"  WRONG: {self.problems[-1]}", flush=True)


def inject_all(folder: Path) -> Run:
    """Inject every fault as often as the table says; logs go to `folder`."""
    run = Run()
    started_at = time.monotonic()
    with world(answers(), folder) as servers:
        _run_faults(run, servers, folder)
        _run_engine_faults(run, servers, folder)
        _run_neighbours(run, servers, folder)
        _run_ceilings(run, servers, folder)
        _run_replaced(run, servers, folder)
    run.took_s = time.monotonic() - started_at
    return run


def _run_faults(run: Run, servers: World, folder: Path) -> None:
    with backend_server(pick_port(0), ENVIRONMENT, folder / "backend.log") as server:
        backend = _warm_backend(server, servers)
        for fault in FAULTS:
            backend.inject(fault, 4)
        with _watched(run, backend, "the faults of images, tasks and callers"):
            for group, faults in GROUPS.items():
                for fault in faults:
                    run.add(group, backend.inject(fault))
            for caller in CALLERS:
                run.add("Callers", inject_caller(backend, caller))
        with _watched(run, backend, "the generated bodies and images"):
            send_bad_bodies(backend, run.generated, _BODIES_EACH)
            print(f"generated: {dict(run.generated.bodies)}", flush=True)
            send_bad_images(backend, run.generated, _IMAGE_REQUESTS)
            print(f"generated: {dict(run.generated.images)}", flush=True)
        run.expect("generated", run.generated.problems)
        if run.generated.total < _AT_LEAST_GENERATED:
            run.expect("generated", [f"{run.generated.total} are fewer than {_AT_LEAST_GENERATED}"])
        run.expect("at the end", [] if backend.predicts() else ["a good image has other boxes than in the beginning"])
        run.expect("at the end", backend.leaks())
        run.expect("at the end", backend.tracebacks())


def _warm_backend(server: BackendServer, servers: World) -> Backend:
    backend = Backend(server, servers)
    backend.prepare()
    print("warming up", flush=True)
    backend.fill_threads()
    return backend


def _run_engine_faults(run: Run, servers: World, folder: Path) -> None:
    environment = {**ENVIRONMENT, "DETECT_TIMEOUT_SECONDS": str(DETECT_TIMEOUT_S)}
    with faulty_backend_server(pick_port(0), environment, folder / "engine.log") as server:
        backend = _warm_backend(server, servers)
        for fault in ENGINE_FAULTS:
            if fault is not KILLING:
                backend.inject(fault, 2 if fault is HANGING else 10)
        with _no_growth(run, backend, "the faults of the engine that leave its process alive"):
            for fault in ENGINE_FAULTS:
                if fault is not KILLING:
                    run.add("The engine", backend.inject(fault))
        run.add("The engine", backend.inject(KILLING))
        run.expect("at the end", backend.leaks())
        run.add("The engine", _hang_for_good(backend))


def _hang_for_good(backend: Backend) -> Outcome:
    """Let the engine hang as often in a row as it takes for the backend to give it up."""
    outcome = Outcome(f"the engine hangs {MAX_HANGS} times in a row", 1, lost="every prediction, until a restart")
    started_at = time.monotonic()
    for _ in range(MAX_HANGS):
        backend.ask_for(HANGING)
    outcome.slowest_s = time.monotonic() - started_at
    health = backend.health()
    outcome.came_out[f"/health {health.status_code}: {health.reason}"] = 1
    if health.status_code != 503 or "restart" not in str(health.reason):
        outcome.problems.append("/health should answer 503 and ask for a restart")
    return outcome


def _run_neighbours(run: Run, servers: World, folder: Path) -> None:
    with _prepared(run, servers, NEIGHBOURS_ENVIRONMENT, folder / "neighbours.log") as backend:
        for outcome in inject_neighbours(backend):
            run.add("Neighbours and people whose images hang", outcome)


def _run_ceilings(run: Run, servers: World, folder: Path) -> None:
    with _prepared(run, servers, CEILINGS_ENVIRONMENT, folder / "ceilings.log") as backend:
        for outcome in inject_large_bodies(backend):
            run.add("Requests of very many bytes", outcome)


def _run_replaced(run: Run, servers: World, folder: Path) -> None:
    with _prepared(run, servers, replaced_environment(folder), folder / "replaced.log") as backend:
        for outcome in inject_new_images(backend, folder):
            run.add("Images that are replaced", outcome)
        for outcome in inject_new_weights(backend, folder):
            run.add("Weights that are replaced under load", outcome)


@contextlib.contextmanager
def _prepared(run: Run, servers: World, environment: Mapping[str, str], log: Path) -> Iterator[Backend]:
    """A backend with settings of its own, which has its model."""
    with backend_server(pick_port(0), environment, log) as server:
        wait_until_ready(server.url)
        backend = Backend(server, servers)
        backend.prepare()
        yield backend
        run.expect(f"in {log.name}", [*backend.leaks(), *backend.tracebacks()])


@contextlib.contextmanager
def _no_growth(run: Run, backend: Backend, what: str) -> Iterator[None]:
    """What the processes hold before and after should be the same."""
    before = backend.footprint_once_idle()
    yield
    after = backend.footprint_once_idle(before)
    run.expect(what, after.growth_since(before))
    run.notes.append(f"Before and after {what}: {_pairs(before, after)}.")
    print(run.notes[-1], flush=True)


@contextlib.contextmanager
def _watched(run: Run, backend: Backend, what: str) -> Iterator[None]:
    """Nothing grows, and whatever goes on, /health is answered."""
    with _no_growth(run, backend, what):
        with HealthWatch(backend) as watch:
            yield
        run.expect(f"/health during {what}", watch.failures)
        run.notes.append(
            f"During {what} `/health` was asked {watch.asked} times: {watch.asked - len(watch.failures)} answers were "
            f"200, the slowest came after {watch.slowest_s:.2f} s."
        )
        print(run.notes[-1], flush=True)


def _pairs(before: Footprint, after: Footprint) -> str:
    return (
        f"memory {before.megabytes} and {after.megabytes} MB, open files {before.files} and {after.files}, "
        f"threads {before.threads} and {after.threads}"
    )


# The report


def section(run: Run) -> str:
    """The table and its sentences, in Markdown."""
    kinds = sum(len(rows) for rows in run.rows.values())
    injected = sum(row.times for rows in run.rows.values() for row in rows)
    made = made_by("faults", run.took_s, "pytest tests/proofs/test_faults.py --write-docs")
    lines = [
        f"{made} The backend is the real one under gunicorn {version('gunicorn')}, with the demo's weights on the CPU, "
        f"urllib3 {version('urllib3')} and Pillow {version('pillow')}; each fault is "
        "injected for real, by a server, a file, a caller or an engine that misbehaves.",
        "",
        f"{kinds} kinds of fault, {injected} injections, {len(run.problems)} unexpected outcomes. A fault of an image "
        "or a task stands between two good tasks of the same request, four such requests at once, and the good ones "
        "must come out with the boxes that they have alone. *Came out* is the kind that `/metrics` counts "
        "(`yolo_image_failures_total`), or what the caller was answered. *Slowest* is the slowest whole answer; the "
        f"limit for an image was {ENVIRONMENT['IMAGE_TIMEOUT_SECONDS']} s, for a batch in the engine "
        f"{DETECT_TIMEOUT_S:g} s.",
        "",
        "The last four groups have backends of their own. Where neighbours' or other people's images hang, no time-out "
        "is set, and *slowest* is one's own job, or the other person's answer: at most 2 x alone + 2 s, or "
        f"{PERSON_WITHIN_S:g} s. Under requests of very many bytes, all processes together may grow by "
        "`MAX_HELD_MEGABYTES`. While weights are replaced, two people click all the time; each answer must be of one "
        "file whole, by labels, boxes, scores and `model_version`, and none may be without boxes. An image that is "
        "replaced is clicked on twice each time, so that the second answer comes from memory.",
        "",
        *(f"- {note}" for note in run.notes),
        f"- Growth beyond {MORE_MEGABYTES} MB, {MORE_FILES} open files or {MORE_THREADS} threads fails the run; each "
        "fault had its turn before the first look, so that pools and the allocator are full. So does a traceback in "
        "the log where nothing internal failed, a token or a presigned address's signature in the log, or an "
        "`Authorization` header at another origin than Label Studio's.",
        "",
    ]
    for group, rows in run.rows.items():
        cells = [[row.name, str(row.times), _came_out(row), f"{row.slowest_s:.1f} s", row.lost] for row in rows]
        lines += [f"### {group}", "", table(["fault", "injected", "came out", "slowest", "lost"], cells), ""]
    return "\n".join([*lines, *_generated_lines(run.generated)])


def _generated_lines(generated: Generated) -> list[str]:
    routes = ("/predict", "/setup", "/webhook")
    bodies = [[f"bodies to `{route}`", _counts(_of_route(generated.bodies, route))] for route in routes]
    return [
        "### Generated",
        "",
        f"{generated.total} bad bodies and images, made by hypothesis: {generated.bodies.total()} bodies (nearly right "
        f"ones, damaged ones, bytes) and {generated.images.total()} images (valid files cut off, overwritten, spliced, "
        f"with numbers at their limits). {len(generated.problems)} answers of 500, hangs or missing results; the "
        f"slowest body was answered after {generated.slowest_s:.2f} s.",
        "",
        table(["sent", "came out"], [*bodies, ["images", _counts(generated.images)]]),
    ]


def _of_route(bodies: Counter[str], route: str) -> Counter[str]:
    return Counter({name.split()[1]: count for name, count in bodies.items() if name.split()[0] == route})


def _came_out(outcome: Outcome) -> str:
    if len(outcome.came_out) == 1:
        return _code(next(iter(outcome.came_out)))
    return _counts(outcome.came_out)


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{_code(name)} {count}" for name, count in counts.most_common())


def _code(name: str) -> str:
    return name if name in {PREDICTED, NO_ANSWER} or " " in name else f"`{name}`"
