"""A sweep that is planned again and starts from the journal of its first run."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.backbone.store import publish
from orchestrator.common.storage import Storage
from orchestrator.config import load_config
from orchestrator.journal.events import Journal
from orchestrator.planning.plan import make_plan
from orchestrator.sweep.manifest import describe
from orchestrator.warm_start import Prior

from ..small_sweep import write_sweep

GOOD = {"rank": 16, "learning_rate": 0.004}


def test_warm_start_repeated_sweep_takes_its_own_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFT_SWEEP_CACHE", str(tmp_path / "cache"))
    plan = make_plan(load_config(write_sweep(tmp_path)))
    backbone = plan.config.backbone
    arguments = plan.tasks["mail"].type.auto_class, backbone.quantization, backbone.double_quantization
    published = publish(plan.source, *arguments, Storage(str(tmp_path / "sweeps")))
    journal = Journal(tmp_path / "sweeps" / "tiny-1" / "journal.jsonl")
    prepared = {"mail": SimpleNamespace(quantized=published, checksum="c")}
    journal.append("sweep", **describe(plan, "tiny-1", prepared))  # type: ignore[arg-type]  # describe reads nothing else of it
    journal.append("trial", trial="mail/lora/3", params=GOOD)
    journal.append("rung", trial="mail/lora/3", step=4, value=0.9)
    journal.append("end", trial="mail/lora/3", state="complete", reason="")
    changes = {"warm_start": ["tiny-1"]}
    config = plan.config.model_copy(update={"search": plan.config.search.model_copy(update=changes)})
    again = make_plan(config)
    (origin,) = again.prior.origins
    assert origin.sweep == "tiny-1"
    assert origin.similarity == pytest.approx(1.0)
    studies = {plan.study: plan for plan in again.studies}
    (params,) = studies["mail/lora"].prior
    assert {name: params[name] for name in GOOD} == GOOD
    assert studies["mail/linear_probe"].prior == ()
    assert make_plan(config, Prior()).prior == replace(again, prior=Prior()).prior  # as when resumed
