"""How far peft's combination of an adapter and the unquantized backbone is from what was scored, measured."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
from peft import PeftModel

import methods
from orchestrator.backbone.pretrained import pretrained
from orchestrator.backbone.source import resolve
from orchestrator.config import BackboneConfig
from orchestrator.final.peft_agreement import peft_agreement
from orchestrator.planning.plan import SweepPlan
from orchestrator.tasks import TaskData
from orchestrator.tasks.batches import evaluation_batches
from orchestrator.tasks.tokens import lengths

from ..export.small_sweep_folder import LABELS, SWEEP, WORDS, Left, left_in
from ..small_plan import small_plan

pytestmark = pytest.mark.filterwarnings(
    # peft 0.21 still asks transformers 5 by its old name when it attaches
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Left:
    monkeypatch.setenv("PEFT_SWEEP_CACHE", str(tmp_path / "cache"))
    return left_in(tmp_path)("bert", "classification", "lora")


def planned(trained: Left) -> SweepPlan:
    """The plan of a sweep on that checkpoint, with 30 test rows."""
    source = resolve(BackboneConfig(model=str(trained.checkpoint)), Path("/"))
    draw = np.random.default_rng(1)
    texts = [" ".join(draw.choice(WORDS, size=size)) for size in draw.integers(2, 9, 30)]
    rows = pa.table({"row": range(30), "text": texts, "label": pa.array(draw.integers(0, 3, 30).astype(np.int32))})
    plan = small_plan(["lora"])
    task = plan.tasks["mail"]
    splits = dict.fromkeys(("train", "validation", "test"), rows)
    data = TaskData("mail", task.data.config, splits, LABELS, 0, 0, 0.5, "d")
    task = replace(task, data=data, type=replace(task.type, labels=LABELS))
    return replace(plan, source=source, tasks={"mail": task}, tokenizer=source.tokenizer())


def test_peft_agreement_counts_labels_and_the_largest_difference(
    trained: Left, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = planned(trained)
    task, adapter = plan.tasks["mail"], trained.storage / SWEEP / "checkpoints" / trained.trial / "step-4" / "adapter"
    backbone = pretrained(str(trained.checkpoint), "classification", labels=len(LABELS))
    attached = methods.load_adapter(backbone.view(0), adapter, backbone.context)
    attached.train(False)
    tokens = task.type.tokenize(task.data.splits["test"], plan.tokenizer, plan.config.training.max_length)
    recorded = task.type.predictions(attached.module, tokens, evaluation_batches(lengths(tokens), 8), 0)

    capfd.readouterr()
    agreement = peft_agreement(plan, task, adapter, recorded)
    assert agreement is not None
    assert capfd.readouterr() == ("", ""), "nothing of libraries among a sweep's lines"

    plain = transformers.AutoModelForSequenceClassification.from_pretrained(trained.checkpoint, num_labels=len(LABELS))
    model = PeftModel.from_pretrained(plain, str(adapter)).eval()
    texts = task.data.splits["test"]["text"].to_pylist()
    encoded = plan.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits
    expected = logits.double().softmax(dim=-1).numpy()
    before = np.array(recorded["probabilities"].to_pylist())
    assert (agreement.rows, agreement.numbers) == (30, "probability")
    assert agreement.differing == int((expected.argmax(axis=1) != before.argmax(axis=1)).sum())
    assert agreement.largest_difference == pytest.approx(np.abs(expected - before).max(), abs=1e-5)
    assert agreement.largest_difference > 1e-4, "what NF4 rounds shows"


def test_peft_agreement_is_not_measured_without_weights(trained: Left) -> None:
    plan = planned(trained)
    for file in trained.checkpoint.glob("*.safetensors"):
        file.unlink()
    assert peft_agreement(plan, plan.tasks["mail"], trained.checkpoint, pa.table({"row": [0]})) is None
