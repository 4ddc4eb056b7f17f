"""Sweeps over Ray nodes that are drained one after another, each with its notice, while others take their place."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..polling import until
from ..small_sweep import COMMAND, NOISE, ends, environment, events, journal_of, write_sweep

pytestmark = [pytest.mark.ray, pytest.mark.slow, *(pytest.mark.filterwarnings(line) for line in NOISE)]
EXAMPLE = Path(__file__).parents[2] / "examples" / "my_method.py"
METHODS = ["my_method", "same_method"]
RECORDER = """
import time
from pathlib import Path

import ray
from orchestrator.engine.trial_run import TrialRun

finish_step = TrialRun.finish_step


def finish_and_record(run, *arguments):
    finish_step(run, *arguments)
    with open({file!r}, "a") as steps:
        steps.write(f"{{ray.get_runtime_context().get_node_id()}} {{run.job.name}} {{run.step}}\\n")
    if not Path({hurry!r}).exists():  # the last node is to be drained long before the last step
        time.sleep(0.1)


if finish_step.__name__ == "finish_step":
    TrialRun.finish_step = finish_and_record
"""
"""Appended to both plugins, one of which every lane runs before its first step."""


class Nodes:
    """A head without cores, which the driver runs on, and nodes of one core each."""

    def __init__(self, cache: Path) -> None:
        from ray.cluster_utils import Cluster

        self._cluster, self._cache = Cluster(), cache
        self._cluster.add_node(num_cpus=0)
        self.address = str(self._cluster.address)

    def add(self) -> None:
        self._cluster.add_node(num_cpus=1, env_vars={"PEFT_SWEEP_CACHE": str(self._cache)})

    def drain(self, node: str) -> None:
        """Give notice of a node, as the watcher of a spot instance does."""
        reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
        command = ["drain-node", "--address", self.address, "--node-id", node, "--deadline-remaining-seconds", "60"]
        subprocess.run([Path(sys.executable).with_name("ray"), *command, *reason], check=True, capture_output=True)

    def close(self) -> None:
        self._cluster.shutdown()


class Sweep:
    """A sweep of random trials that all run to their end, so that nothing depends on who was first."""

    def __init__(self, folder: Path, address: str, *, trials: int, steps: int) -> None:
        folder.mkdir()
        self.folder = folder
        (folder / "steps").touch()
        for name in METHODS:
            source = EXAMPLE.read_text().replace('"my_method"', f'"{name}"') + RECORDER.format(
                file=str(folder / "steps"), hurry=str(folder / "hurry")
            )
            (folder / f"{name}.py").write_text(source)
        config = write_sweep(
            folder,
            plugins=[f"{name}.py" for name in METHODS],
            methods=METHODS,
            search={"sampler": "random", "early_stopping": False, "allocation": "round_robin"},
            budget={"trials": trials},
            training={"max_steps": steps, "max_length": 16},
            selection={"seeds": 2, "contenders": 2},
            lanes={"min": 2, "max": 2, "pack": 1},
        )
        command = [*COMMAND, "run", str(config), "--address", address, "--json"]
        self.process = subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=subprocess.PIPE, text=True)

    def steps(self) -> list[tuple[str, str]]:
        """Return the node, and the training with its step, of every optimizer step that a lane took."""
        lines = (self.folder / "steps").read_text().splitlines()
        return [(node, step) for node, _, step in (line.partition(" ") for line in lines)]

    def nodes(self) -> list[str]:
        """Return the nodes that have trained, in the order of their first step."""
        return list(dict.fromkeys(node for node, _ in self.steps()))

    def wait_for_nodes(self, count: int) -> None:
        """Wait until so many nodes have trained."""
        until(lambda: len(self.nodes()) >= count or self.process.poll() is not None, 300.0)
        assert len(self.nodes()) >= count, "the sweep ended before all nodes were drained"

    def hurry(self) -> None:
        """Let steps take no longer than they need."""
        (self.folder / "hurry").touch()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def outcome(self) -> dict[str, Any]:
        output, _ = self.process.communicate(timeout=1500)
        assert self.process.returncode == 0
        outcome: dict[str, Any] = json.loads(output)
        return outcome

    def journal(self) -> list[dict[str, Any]]:
        return events(journal_of(self.folder))

    def values(self) -> dict[tuple[str, ...], float]:
        """Return every score, on validation and on test."""
        journal = self.journal()
        assert set(ends(journal).values()) == {"complete"}
        rungs = {(e["trial"], str(e["step"])): e["value"] for e in journal if e["event"] == "rung"}
        return rungs | {
            (e["trial"], e["role"], str(e["seed"])): e["checkpoint_score"] for e in journal if e["event"] == "test"
        }


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    nodes = Nodes(tmp_path / "cache")
    for _ in range(2):
        nodes.add()
    yield nodes
    nodes.close()


@pytest.fixture
def sweep(tmp_path: Path, nodes: Nodes) -> Iterator[Callable[[str, int, int], Sweep]]:
    """Start a sweep in a folder of this name, with so many trials of so many steps."""
    sweeps: list[Sweep] = []

    def start(name: str, trials: int, steps: int) -> Sweep:
        sweeps.append(Sweep(tmp_path / name, nodes.address, trials=trials, steps=steps))
        return sweeps[-1]

    yield start
    for sweep in sweeps:
        sweep.kill()


@pytest.mark.timeout(2400)
@pytest.mark.parametrize(
    ("drains", "trials", "steps"),
    [pytest.param(1, 4, 600), pytest.param(10, 10, 1500, marks=pytest.mark.exhaustive)],
)
def test_sweep_over_drained_nodes_loses_no_step(
    sweep: Callable[[str, int, int], Sweep], nodes: Nodes, drains: int, trials: int, steps: int
) -> None:
    drained = sweep("drained", trials, steps)
    for number in range(drains):
        drained.wait_for_nodes(2 + number)
        nodes.add()
        nodes.drain(drained.nodes()[number])
    drained.wait_for_nodes(2 + drains)
    drained.hurry()
    outcome = drained.outcome()
    journal = drained.journal()
    notices = [event for event in journal if event["event"] == "drain"]
    moves = [event for event in journal if event["event"] == "move"]

    undisturbed = sweep("undisturbed", trials, steps)
    undisturbed.hurry()
    expected = undisturbed.outcome()
    print(f"{len(notices)} nodes drained, {len(moves)} jobs moved at steps {[event['step'] for event in moves]}")
    print(f"{len(drained.steps())} steps trained, {len(undisturbed.steps())} without drained nodes")
    assert len(notices) == drains
    assert len(moves) <= drains
    assert moves or drains == 1, "a lane may have been between two jobs"
    done, expected_steps = (sorted(step for _, step in which.steps()) for which in (drained, undisturbed))
    assert done == expected_steps, "each step was trained once"
    assert drained.values() == undisturbed.values()
    for key in ("method", "trial", "params", "mean_score", "checkpoint_score", "interval"):
        assert outcome["tasks"]["mail"][key] == expected["tasks"]["mail"][key]
    assert "Traceback" not in (journal_of(drained.folder).parent / "sweep.log").read_text()
