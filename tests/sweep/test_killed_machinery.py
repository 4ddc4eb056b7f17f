"""Sweeps whose own processes are killed: no trial ends by that, and the sweep goes on or is resumed."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from ..polling import until
from ..small_sweep import COMMAND, NOISE, ends, environment, events, journal_of, write_sweep

pytestmark = [pytest.mark.ray, pytest.mark.slow, *(pytest.mark.filterwarnings(line) for line in NOISE)]
STOP_LIMIT_S = 30.0
RAY_LIMIT_S = 30.0


class Driver:
    """A sweep under way, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_sweep(
            folder,
            budget={"trials": 6},
            training={"max_steps": 400, "max_length": 16},
            search={"sampler": "random", "early_stopping": False, "allocation": "round_robin", "min_results": 2},
            selection={"seeds": 2},
        )
        self.process = self._start("run", "sweep.yaml")

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(self.folder),
        )

    def journal(self) -> list[dict[str, Any]]:
        found = list((self.folder / "sweeps").glob("*/journal.jsonl"))
        return events(found[0]) if found else []

    def wait_for(self, kind: str) -> None:
        """Wait until the journal has an event of this kind."""
        until(lambda: any(e["event"] == kind for e in self.journal()) or self.process.poll() is not None, 300.0)
        assert self.process.poll() is None, self.process.communicate()

    def kill(self, name: str) -> None:
        """Kill a process of the sweep, by the beginning of its name."""
        names: dict[str, psutil.Process] = {}
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                names |= {child.name(): child, child.cmdline()[0]: child} if child.cmdline() else {}
        found = next((process for its_name, process in names.items() if its_name.startswith(name)), None)
        assert found, f"there is no {name} among {sorted(names)}"
        found.kill()

    def resume(self) -> int:
        self.process = self._start("resume", journal_of(self.folder).parent.name)
        self.process.communicate(timeout=400)
        return self.process.returncode


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    driver = Driver(tmp_path)
    yield driver
    if driver.process.poll() is None:
        driver.process.kill()
        driver.process.communicate()


def test_sweep_goes_on_when_a_trials_process_is_killed(driver: Driver) -> None:
    driver.wait_for("rung")
    driver.kill("ray::ResourceTrainable")  # what Tune makes of a trial's class
    _, errors = driver.process.communicate(timeout=400)
    assert driver.process.returncode == 0, errors
    assert set(ends(driver.journal()).values()) == {"complete"}
    rungs = [(e["trial"], e["step"]) for e in driver.journal() if e["event"] == "rung"]
    assert len(rungs) == len(set(rungs)), "no trial reports a rung twice"


def test_sweep_stops_as_resumable_when_the_broker_is_killed(driver: Driver) -> None:
    driver.wait_for("rung")
    driver.kill("ray::Broker")
    began = time.monotonic()
    _, errors = driver.process.communicate(timeout=400)
    seconds = time.monotonic() - began
    print(f"stopped after {seconds:.1f} s")
    assert driver.process.returncode == 1
    *_, message, hint = errors.strip().splitlines()
    assert message == "peft-sweep: the process that hands out the trials' work has died; no trial is at fault"
    assert hint.startswith("continue with: ")
    assert seconds < STOP_LIMIT_S
    assert {e["state"] for e in driver.journal() if e["event"] == "end"} <= {"complete"}
    assert driver.journal()[-1]["reason"] == "failed"

    assert driver.resume() == 0
    assert set(ends(driver.journal()).values()) == {"complete"}
    assert len(ends(driver.journal())) == 6


@pytest.mark.parametrize(("name", "meaning"), [("raylet", "node process"), ("gcs_server", "control store")])
def test_sweep_says_how_to_continue_when_ray_itself_dies(driver: Driver, name: str, meaning: str) -> None:
    driver.wait_for("rung")
    driver.kill(name)
    began = time.monotonic()
    _, errors = driver.process.communicate(timeout=400)
    seconds = time.monotonic() - began
    print(f"ended after {seconds:.1f} s")
    *_, message, hint = errors.strip().splitlines()
    assert message in (
        f"peft-sweep: Ray's {meaning} ({name}) has died; no trial is at fault",
        "peft-sweep: the sweep's process was ended from outside: it was killed, or Ray's own processes have died; "
        "no trial is at fault",
    )
    assert hint.startswith("continue with: ")
    assert seconds < RAY_LIMIT_S
    assert {e["state"] for e in driver.journal() if e["event"] == "end"} <= {"complete"}
    assert driver.resume() == 0
    assert set(ends(driver.journal()).values()) == {"complete"}
