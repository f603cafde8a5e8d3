"""The click itself, through a real Label Studio, beside what bounds it: `python -m benchmarks.click`.

The table and the plot of a whole run stand in docs/journal/speed.md, its numbers in benchmarks/results. A target that
isn't met is told. It exits with 1 where a prediction isn't stored exactly once, or an upload of the folder was fetched
over HTTP.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from benchmarks.click_cases import Bench, Case
from benchmarks.click_report import cells, draw, section
from benchmarks.click_results import BUCKET, FOLDER, HTTP, Results, ratios
from benchmarks.speed_client import CLIENTS, IMAGE_SIZES, Client
from benchmarks.speed_limits import OwnExportAlone
from benchmarks.speed_photos import LARGE, MEDIUM, PHOTOS, WEIGHTS, PhotosMissingError, make_photos, photo_files
from benchmarks.speed_report import REPORT, write_json
from benchmarks.speed_server import photo_server
from tests.harness.postgres import POSTGRESQL, SQLITE, find_postgres, postgres_server
from tests.harness.report import write_section
from tests.harness.stack import (
    PROCESSES,
    LabelStudioServer,
    StackError,
    bypass_proxies,
    find_uwsgi,
    label_studio_server,
    pick_port,
    several_processes,
    wait_until_ready,
)
from yolo_backend.label_studio.storing import QUICK_IMPORTS
from yolo_backend.settings import Settings

# By what the command line calls them.
CASES = {
    "120": Case(SQLITE, "320", MEDIUM, 120, (FOLDER, HTTP, BUCKET), 2),
    "1000": Case(SQLITE, "320", MEDIUM, 1000, (FOLDER,), 1),
    "12mp": Case(SQLITE, "320", LARGE, 100, (FOLDER,), 1),
    "640": Case(SQLITE, "640", MEDIUM, 120, (FOLDER,), 1),
    "postgresql": Case(POSTGRESQL, "320", MEDIUM, 120, (FOLDER,), 1),
}
# Over HTTP, as Label Studio is served to many.
CASES |= {f"{name}-processes": replace(case, ways=(HTTP,), processes=PROCESSES) for name, case in CASES.items()}
_TRIED_S = 0.2  # each way to use ONNX Runtime


def main() -> None:
    """Measure, print and write. Exits with 1 where something went wrong."""
    options = _parse_options()
    bypass_proxies()
    began_at = time.monotonic()
    results = Results()
    cases = [case for name, case in CASES.items() if name in options.only]
    if options.tasks:
        cases = [replace(case, tasks=min(case.tasks, options.tasks), repeats=1) for case in cases]
    if find_postgres() is None and any(case.database == POSTGRESQL for case in cases):
        cases = [case for case in cases if case.database != POSTGRESQL]
        results.left_out.append("Clicks with PostgreSQL were left out: none is installed where this was run.")
    if find_uwsgi() is None and any(case.processes > 1 for case in cases):
        cases = [case for case in cases if case.processes == 1]
        results.left_out.append(
            "Clicks on a Label Studio of several processes were left out: no uwsgi is installed where this was run."
        )
    with tempfile.TemporaryDirectory(prefix="click-") as name:
        folder = Path(name)
        try:
            make_photos(folder / "photos", {MEDIUM, *(case.size for case in cases)})
        except PhotosMissingError as error:
            sys.exit(str(error))
        with photo_server(folder / "photos") as server:
            client = Client(folder, server, {})
            try:
                _measure(cases, client, results, began_at)
                is_whole = options.only == list(CASES) and not options.tasks
            except Exception as error:  # what was measured before is told
                traceback.print_exc()
                results.problems.append(f"it ended early: {type(error).__name__}: {error}")
                is_whole = False
            results.problems += client.problems
    took_s = time.monotonic() - began_at
    with_target = ratios(results)
    print(section(results, with_target, took_s))
    if is_whole and not options.no_report:
        write_json(results, with_target, {}, took_s, "click")
        draw(results)
        write_section("bench-click", section(results, with_target, took_s), report=REPORT)
    for problem in results.problems:
        print(f"WRONG: {problem}")
    sys.exit(1 if results.problems else 0)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure clicks in a real Label Studio, and what bounds them.")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--tasks", type=int, help="at most so many, once, to try it out: the numbers mean nothing")
    parser.add_argument("--no-report", action="store_true", help="leave docs/ and benchmarks/results alone")
    return parser.parse_args()


def _measure(cases: Sequence[Case], client: Client, results: Results, began_at: float) -> None:
    """Measure the cases: those of one database and one input size with the same servers. Tells each row at once."""
    photos = photo_files(client.folder / "photos", MEDIUM)
    models = {}
    for weights in dict.fromkeys(case.weights for case in cases):
        models[weights] = OwnExportAlone(WEIGHTS, IMAGE_SIZES[weights], photos, client.folder / weights)
        models[weights].find_best_way(_TRIED_S)
    for database, processes in dict.fromkeys((case.database, case.processes) for case in cases):
        with _label_studio(database, processes, client.folder / f"{database}-{processes}") as (server, pids):
            for weights, model in models.items():
                chosen = [
                    case
                    for case in cases
                    if (case.database, case.processes, case.weights) == (database, processes, weights)
                ]
                if not chosen:
                    continue
                with _bench(client, weights, model, server, pids, problems=results.problems) as bench:
                    for size in dict.fromkeys(case.size for case in chosen):
                        first = next(case for case in chosen if case.size == size)
                        few = PHOTOS if first is chosen[0] else CLIENTS  # of another size only decoding is new
                        bench.warm_up(first, few)
                    for case in chosen:
                        for row in bench.measure(case):
                            results.rows.append(row)
                            print(*cells(row), f"{time.monotonic() - began_at:.0f} s", sep="\t", flush=True)


@contextmanager
def _label_studio(database: str, processes: int, folder: Path) -> Iterator[tuple[LabelStudioServer, Collection[int]]]:
    """A new Label Studio, and the processes of it and its database.

    In one process, as Compose and the demo start it, or in several, as uwsgi does. Raises StackError.
    """
    uwsgi = find_uwsgi() if processes > 1 else None
    program: dict[str, Any] = {"program": several_processes(uwsgi)} if uwsgi else {}
    with ExitStack() as running:
        environment = running.enter_context(postgres_server()) if database == POSTGRESQL else {}
        server = running.enter_context(
            label_studio_server(folder, pick_port(0), environment={**environment, QUICK_IMPORTS: "true"}, **program)
        )
        ports = [urlsplit(server.url).port]
        if environment:
            ports.append(int(environment["POSTGRE_PORT"]))
        yield server, {_listening_on(port) for port in ports}


def _listening_on(port: int | None) -> int:
    """The process that listens on this port, or whose children do: the first of its session.

    Raises StackError where that isn't one, or it may not be known.
    """
    connections = psutil.net_connections("tcp")
    pids: set[int | None] = {
        os.getsid(each.pid) if each.pid else None
        for each in connections
        if each.status == psutil.CONN_LISTEN and each.laddr.port == port
    }
    pid, *others = pids or {None}
    if pid is None or others:
        raise StackError(f"expected one known process that listens on port {port}, found {sorted(map(str, pids))}")
    return pid


@contextmanager
def _bench(
    client: Client,
    weights: str,
    model: OwnExportAlone,
    server: LabelStudioServer,
    studio_pids: Collection[int],
    *,
    problems: list[str],
) -> Iterator[Bench]:
    """The backends of these weights, ready; what goes wrong is added to `problems`."""
    media, token = str(server.media_root), server.personal_access_token()
    connected = {
        "LABEL_STUDIO_URL": server.url,
        "LABEL_STUDIO_API_KEY": token,
        "PREDICT_DEADLINE_SECONDS": _default("predict_deadline_s"),
        "THREADS": _default("threads"),
    }
    with ExitStack() as running:
        alone, over_http, from_folder = (
            running.enter_context(client.starting_backend(weights, **environment))
            for environment in (
                {"LOCAL_FILES_DOCUMENT_ROOT": media},
                connected,
                connected | {"LABEL_STUDIO_MEDIA_ROOT": media},
            )
        )
        for backend in (alone, over_http, from_folder):  # the first exports, and the others wait for it
            wait_until_ready(backend.url)
        backends = {FOLDER: from_folder, HTTP: over_http, BUCKET: over_http}
        yield Bench(client, model, server, token, studio_pids, alone, backends, problems)


def _default(setting: str) -> str:
    """The product's own, where the client of the benchmark has another."""
    return str(Settings.model_fields[setting].default)


if __name__ == "__main__":
    main()
