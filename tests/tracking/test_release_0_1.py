"""Bundles and registered versions of release 0.1, which called both the mean and a checkpoint's own score ``score``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.cli.output import models as models_output
from orchestrator.common.errors import SweepError
from orchestrator.tracking.aliases import apply_promotion_policy
from orchestrator.tracking.browse import compare_models, list_models, show_model
from orchestrator.tracking.bundle import BUNDLE, Bundle
from orchestrator.tracking.connection import open_client
from orchestrator.tracking.versions import tags_of

RELEASE_0_1 = Path(__file__).parents[1] / "data" / "sweeps_of_0_1"
MEAN, CHECKPOINT = 0.47435897435897434, 0.48717948717948717
"""Scores of lora: the mean of two seeds, and that of the checkpoint that was kept."""


@pytest.fixture
def registry(uri: str) -> str:
    """A registry with the two versions that release 0.1 has registered."""
    client = open_client(uri)
    client.create_registered_model("mail")
    for version in json.loads((RELEASE_0_1 / "registry.json").read_text())["versions"]:
        client.create_model_version("mail", "file:///nowhere", None, version["tags"])
    apply_promotion_policy(client, "mail")
    return uri


def test_bundle_of_0_1_has_mean_and_checkpoint_score() -> None:
    bundle = Bundle.read(RELEASE_0_1 / "bundle")
    assert (bundle.format, bundle.mean_score, bundle.checkpoint_score) == (2, MEAN, CHECKPOINT)
    assert bundle.seed_scores == (0.48717948717948717, 0.46153846153846156)
    assert bundle.interval[0] < bundle.mean_score < bundle.interval[1]
    assert bundle.metrics["accuracy"] == bundle.checkpoint_score
    assert bundle.measurements["adapter_bytes"] == 43758
    assert bundle.selection is not None
    assert (bundle.selection.recommended, bundle.selection.tied) == ("linear_probe", ("linear_probe", "lora"))
    assert bundle.selection.runner_up_reason.startswith("with 0.474 [0.435, 0.513]")


def test_bundle_of_0_1_without_comparison_has_one_score(tmp_path: Path) -> None:
    values = json.loads((RELEASE_0_1 / "bundle" / BUNDLE).read_text())
    (tmp_path / BUNDLE).write_text(json.dumps({**values, "comparison": None}))
    bundle = Bundle.read(tmp_path)
    assert (bundle.mean_score, bundle.checkpoint_score, bundle.seed_scores) == (CHECKPOINT, CHECKPOINT, (CHECKPOINT,))
    assert bundle.selection is None


def test_bundle_of_0_1_that_lacks_a_score_is_refused(tmp_path: Path) -> None:
    values = json.loads((RELEASE_0_1 / "bundle" / BUNDLE).read_text())
    (tmp_path / BUNDLE).write_text(json.dumps({name: value for name, value in values.items() if name != "score"}))
    with pytest.raises(SweepError, match="checkpoint_score"):
        Bundle.read(tmp_path)


def test_bundle_of_0_1_is_written_again_in_todays_format(tmp_path: Path) -> None:
    shutil.copy(RELEASE_0_1 / "bundle" / BUNDLE, tmp_path)
    bundle = Bundle.read(tmp_path)
    (tmp_path / BUNDLE).write_text(bundle.model_dump_json())
    assert json.loads((tmp_path / BUNDLE).read_text())["format"] == 2
    assert Bundle.read(tmp_path) == bundle


def test_promotion_policy_ranks_versions_of_0_1(registry: str) -> None:
    recorded = json.loads((RELEASE_0_1 / "registry.json").read_text())["aliases"]
    assert {alias: show_model(f"mail@{alias}", registry)["version"] for alias in recorded} == recorded
    better = Bundle.read(RELEASE_0_1 / "bundle").model_copy(
        update={"mean_score": 0.9, "interval": (0.85, 0.95), "sweep": "later"}
    )
    client = open_client(registry)
    client.create_model_version("mail", "file:///nowhere", None, tags_of(better))
    holders = apply_promotion_policy(client, "mail")
    assert holders is not None
    assert (holders.champion, holders.previous) == (3, 1)


def test_models_commands_show_versions_of_0_1(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tags = {model["version"]: model["tags"] for model in list_models(registry)}
    assert [float(tags[2][name]) for name in ("mean_score", "checkpoint_score")] == [MEAN, CHECKPOINT]
    assert json.loads(tags[2]["seed_scores"]) == [0.48717948717948717, 0.46153846153846156]
    comparison = compare_models("mail/1", "mail/2", registry)
    assert comparison["lead"]["difference"] == pytest.approx(CHECKPOINT - MEAN), "mean against mean"
    assert comparison["better"] is None
    shown = text(monkeypatch, models_output.print_models, list_models(registry))
    assert "0.474 [0.435, 0.513]" in shown
    shown = text(monkeypatch, models_output.print_comparison, comparison)
    assert "accuracy 0.487 [0.341, 0.633]" in shown


def text(monkeypatch: pytest.MonkeyPatch, show: Any, values: Any) -> str:
    console = Console(width=160, highlight=False, markup=False, color_system=None)
    monkeypatch.setattr(models_output, "console", console)
    with console.capture() as captured:
        show(values)
    return captured.get()
