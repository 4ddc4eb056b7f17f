"""Real sweeps on shuffled labels: nothing can be learned, so no method is named, and no version has an alias."""

from __future__ import annotations

import csv
import random
import re
import subprocess
from pathlib import Path

import pytest

from orchestrator.tracking.browse import list_models

from ..small_sweep import COMMAND, NOISE, environment, events, journal_of, write_sweep

pytestmark = [pytest.mark.ray, pytest.mark.exhaustive, *(pytest.mark.filterwarnings(line) for line in NOISE)]


def shuffle_labels(file: Path, seed: int) -> None:
    """Give every text of a file a label that does not depend on it, two of three times the same."""
    generator = random.Random(seed)
    with file.open(newline="") as stream:
        header, *rows = csv.reader(stream)
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *([text, generator.choice(["good", "good", "bad"])] for text, _ in rows)])


@pytest.mark.parametrize("seed", range(3))
def test_sweep_on_shuffled_labels_names_no_method_and_sets_no_alias(tmp_path: Path, seed: int) -> None:
    fast = {"learning_rate": {"value": 0.05}}
    task = {"type": "classification", "data": "rows.csv", "text": "text", "label": "label", "metric": "macro_f1"}
    config = write_sweep(
        tmp_path,
        seed=seed,
        tasks={"mail": task},
        methods=["lora", "linear_probe", "bitfit"],
        budget={"trials": 9},
        training={"max_steps": 20, "max_length": 16},
        search_space=dict.fromkeys(("lora", "linear_probe", "bitfit"), fast),
    )
    shuffle_labels(tmp_path / "rows.csv", seed)
    command = [*COMMAND, "run", str(config)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert re.match("mail  no method was (shown to be )?better than ", done.stdout), done.stdout
    journal = events(journal_of(tmp_path))
    assert [event["aliases"] for event in journal if event["event"] == "registered"] == [[]]
    models = list_models(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert models
    assert {alias for model in models for alias in model["aliases"]} == set()
    assert {model["tags"]["state"] for model in models} == {"no_better_than_baseline"}
