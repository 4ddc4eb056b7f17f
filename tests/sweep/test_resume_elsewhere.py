"""A sweep over an object store whose driver and machine are lost, and which another machine continues."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ..polling import until
from ..s3_server import S3Server, s3_server
from ..small_sweep import COMMAND, NOISE, ends, environment, mlflow_runs, write_sweep

pytestmark = [pytest.mark.ray, *(pytest.mark.filterwarnings(warning) for warning in NOISE)]
Events = list[dict[str, Any]]
TRIALS = 6


def count(kind: str, number: int = 1) -> Callable[[Events], bool]:
    return lambda journal: sum(event["event"] == kind for event in journal) >= number


MOMENTS: dict[str, Callable[[Events], bool]] = {
    "its first event": count("sweep"),
    "the first trial": count("trial"),
    "the first rung": count("rung"),
    "the first end": count("end"),
    "three ends": count("end", 3),
    "all trials": count("trial", TRIALS),
    "the end of the search": count("searched"),
    "the first answer of the final": count("answer"),
    "the selection": count("selection"),
    "the registration": count("registered"),
}
USUAL = ("three ends", "the first answer of the final")


class Machine:
    """A folder from which drivers run, and in which everything is lost with the machine.

    Args:
        folder: its working directory and home.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.process: subprocess.Popen[str] | None = None

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.folder,
            stdout=(self.folder / "stdout.txt").open("w"),
            stderr=(self.folder / "stderr.txt").open("w"),
            text=True,
            env=environment(self.folder),
        )
        return self.process

    def run(self, *arguments: str) -> int:
        return self.start(*arguments).wait(timeout=400)

    @property
    def journal(self) -> Events:
        file = next((self.folder / "sweeps").glob("*/journal.jsonl"), None)
        if file is None:
            return []
        text = file.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    @property
    def errors(self) -> str:
        log = next((self.folder / "sweeps").glob("*/sweep.log"), None)
        return (self.folder / "stderr.txt").read_text() + (log.read_text() if log else "")

    def lose(self) -> None:
        """Kill every process, the driver first, and delete every file."""
        if self.process and self.process.poll() is None:
            children = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            self.process.wait()
            for child in children:
                if child.is_running():
                    child.kill()
            psutil.wait_procs(children, timeout=60)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Callable[[str], Machine]]:
    machines: list[Machine] = []

    def make(name: str) -> Machine:
        machines.append(Machine(tmp_path / name))
        return machines[-1]

    yield make
    for one in machines:
        one.lose()


def write(machine: Machine, storage: str, database: Path) -> None:
    """Write a sweep whose trials are the same, whatever is finished first."""
    write_sweep(
        machine.folder,
        storage=storage,
        budget={"trials": TRIALS},
        search={"sampler": "random", "allocation": "round_robin", "early_stopping": False},
        selection={"seeds": 2},
        lanes={"max": 1, "pack": 1},
        mlflow={"tracking_uri": f"sqlite:///{database}"},
    )


def values(journal: Events) -> dict[tuple[str, int], float]:
    return {(event["trial"], event["step"]): event["value"] for event in journal if event["event"] == "rung"}


def result(journal: Events) -> dict[str, Any]:
    """Return what must not depend on interruptions: each trial with its values, and the selection."""
    (selection,) = (event for event in journal if event["event"] == "selection")
    return {
        "params": {event["trial"]: event["params"] for event in journal if event["event"] == "trial"},
        "values": values(journal),
        "ends": ends(journal),
        "recommended": selection["recommended"],
        "scores": {entry["method"]: entry["mean_score"] for entry in selection["finalists"]},
    }


@pytest.fixture(scope="module")
def undisturbed(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    machine = Machine(folder / "machine")
    write(machine, server.uri("undisturbed"), folder / "mlflow.db")
    assert machine.run("run", "sweep.yaml") == 0, machine.errors
    return result(machine.journal)


@pytest.mark.parametrize(
    "moment", [pytest.param(name, marks=[] if name in USUAL else [pytest.mark.exhaustive]) for name in MOMENTS]
)
def test_resume_on_another_machine_gives_the_same_result(
    moment: str, server: S3Server, machine: Callable[[str], Machine], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    folder = f"lost-{list(MOMENTS).index(moment)}"
    storage = server.uri(folder)
    first, database = machine("first"), tmp_path / "mlflow.db"
    write(first, storage, database)
    driver = first.start("run", "sweep.yaml")

    def is_reached() -> bool:
        # The copy follows the journal by some tenths of a second; without its first event there is no sweep elsewhere.
        return MOMENTS[moment](first.journal) and any("/journal/" in key for key in server.objects(folder))

    until(lambda: is_reached() or driver.poll() is not None, 300)
    assert driver.poll() is None, first.errors
    first.lose()

    second = machine("second")
    assert second.run("resume", "tiny", "--storage", storage, "--take-over") == 0, second.errors
    journal = second.journal
    assert result(journal) == undisturbed
    assert [event["event"] for event in journal].count("registered") == 1
    runs = [run for run in mlflow_runs(f"sqlite:///{database}") if run.data.tags.get("state") != "lost"]
    assert sorted(run.data.tags["key"] for run in runs) == sorted(["mail", *ends(journal)])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert versions(database) == 1 + len(journal_selection(journal)["tied"][1:])


def journal_selection(journal: Events) -> dict[str, Any]:
    return next(event for event in journal if event["event"] == "selection")


def versions(database: Path) -> int:
    """Return how many versions of the task's model there are."""
    from mlflow import MlflowClient

    return len(MlflowClient(f"sqlite:///{database}").search_model_versions("name = 'mail'"))
