"""Pairs of sweeps, each a process of its own, that register their winners in the same moment."""

import itertools
import json
import math
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.tracking.browse import list_models
from orchestrator.tracking.bundle import BUNDLE, EVALUATION
from orchestrator.tracking.connection import open_client

from .conftest import MakeBundle

pytestmark = pytest.mark.slow
PAIRS = 20
SWEEP = """
import json, os, sys
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
from orchestrator.tracking.packaging import save_pyfunc
from orchestrator.tracking.registry import register
from pathlib import Path
answers.write("ready\\n")
for line in sys.stdin:
    told = json.loads(line)
    made = register(Path(told["folder"]), run_id=told["run"], tracking_uri=told["uri"])
    answers.write(json.dumps([made.version, made.alias]) + "\\n")
"""


def test_concurrent_sweeps_leave_the_policy_s_champion(make_bundle: MakeBundle, uri: str, tmp_path: Path) -> None:
    made, client, draw = make_bundle(), open_client(uri), random.Random(3)
    run = client.create_run(client.create_experiment("mail", str(tmp_path / "mlruns"))).info.run_id
    # Small, since what is raced for is the title: no adapter, no backbone.
    folders = [tmp_path / f"sweep-{number}" for number in range(2)]
    for folder in folders:
        (folder / EVALUATION).parent.mkdir(parents=True)
        shutil.copy(made.folder / EVALUATION, folder / EVALUATION)
        (folder / "README.md").write_text("# mail")
    sweeps = [sweep() for _ in folders]
    try:
        champions = []
        for pair in range(PAIRS):
            for number, (folder, one) in enumerate(zip(folders, sweeps, strict=True)):
                score, half = 0.5 + 0.01 * pair + draw.uniform(-0.05, 0.05), draw.uniform(0.005, 0.03)
                scores = {"mean_score": score, "checkpoint_score": score, "interval": (score - half, score + half)}
                changes = {**scores, "sweep": f"mail-{pair}-{number}"}
                (folder / BUNDLE).write_text(made.bundle.model_copy(update=changes).model_dump_json())
                say(one, json.dumps({"folder": str(folder), "run": run, "uri": uri}))
            told = [json.loads(hear(one)) for one in sweeps]
            named, held = by_the_rule(uri)
            assert held == [named], f"pair {pair}"
            assert sorted(version for version, _ in told) == [2 * pair + 1, 2 * pair + 2]
            champions.append(named)
        assert len(set(champions)) > 3, "who wins must change for the race to mean anything"
        assert any(a == b for a, b in itertools.pairwise(champions))
    finally:
        for one in sweeps:
            one.kill()
            one.communicate()


def by_the_rule(uri: str) -> tuple[int, list[int]]:
    """Whom the rule names, longhand; and who has the alias."""
    versions = sorted(list_models(uri), key=lambda one: int(one["version"]))
    score, low, high, champion = -math.inf, 0.0, -math.inf, 0
    for one in versions:
        new, new_low, new_high = (float(one["tags"][name]) for name in ("mean_score", "interval_low", "interval_high"))
        if not champion or new - score > math.sqrt((new - new_low) ** 2 + (high - score) ** 2):
            score, low, high, champion = new, new_low, new_high, int(one["version"])
    assert low <= score <= high
    return champion, [int(one["version"]) for one in versions if "champion" in one["aliases"]]


def sweep() -> "subprocess.Popen[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    started = subprocess.Popen([sys.executable, "-c", SWEEP], env=environment, text=True, **pipes)  # type: ignore[call-overload]
    assert hear(started) == "ready\n"
    return started


def say(one: "subprocess.Popen[str]", line: str) -> None:
    assert one.stdin
    one.stdin.write(f"{line}\n")
    one.stdin.flush()


def hear(one: "subprocess.Popen[str]") -> str:
    assert one.stdout
    return one.stdout.readline()
