"""What a step takes without numbers, against the same step with numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import BertConfig, LlamaConfig, PreTrainedConfig

import methods
import search_spaces
from methods.base.spec import Attached, Quantization, TaskType
from orchestrator.backbone.frozen import FrozenLinear
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.backbone.skeleton import _model, _shared
from orchestrator.planning.capability.dry_run import attach
from orchestrator.planning.capability.dummy_text import dummy_text
from orchestrator.planning.estimates import Batch, StepCost, StepModel
from orchestrator.planning.estimates.cost_counter import CostCounter
from orchestrator.tasks import TASK_TYPES

LLAMA = LlamaConfig(
    vocab_size=300,
    hidden_size=64,
    intermediate_size=160,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    pad_token_id=0,
)
BERT = BertConfig(
    vocab_size=300, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4, pad_token_id=0
)
CASES: list[tuple[PreTrainedConfig, TaskType]] = [(LLAMA, "causal-lm"), (BERT, "classification")]
BATCH = Batch(rows=3, tokens=12, targets=4)
SMALL = {"bottleneck": 8, "virtual_tokens": 4, "rank": 4}


def params_of(method: str, **changes: Any) -> dict[str, Any]:
    default = search_spaces.get(method).default
    return {**default, **{name: value for name, value in SMALL.items() if name in default}, **changes}


def cost(
    config: PreTrainedConfig, task: TaskType, method: str, batch: Batch = BATCH, quantization: Quantization = "none"
) -> StepCost:
    labels = 3 if task == "classification" else 0
    model = StepModel(
        config,
        TASK_TYPES[task],
        name="tiny",
        labels=labels,
        quantization=quantization,
        dtype=torch.float32,
        text=dummy_text(config, labels, 16),
        sources=("other",),
        source_labels=(labels,),
    )
    found = model.cost(method, params_of(method), batch)
    assert found is not None
    return found


def real(config: PreTrainedConfig, task: TaskType) -> SharedBackbone:
    """The same architecture with random numbers on the processor."""
    labels, kind = (3 if task == "classification" else 0), TASK_TYPES[task]
    made = _shared(_model(config, kind.auto_class, labels, torch.float32), task, "tiny", labels, "none")
    return SharedBackbone(
        made.model, replace(made.context, text=dummy_text(config, labels, 16)), made.fresh, made.decoder
    )


def counted(attached: Attached, backbone: SharedBackbone, task: TaskType) -> tuple[int, int]:
    """Bytes after the forward pass, and at the worst moment of both passes, of a real step with one padded row."""
    ids = torch.randint(3, 299, (BATCH.rows, BATCH.tokens))
    mask = torch.ones_like(ids)
    mask[0, -2:] = 0
    labels = torch.full_like(ids, -100)
    labels[:, 2 : 2 + BATCH.targets] = 1
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels if task == "causal-lm" else torch.arange(3)}
    counter = CostCounter({})
    counter.know(backbone.shared_tensors())
    counter.know([*attached.module.parameters(), *attached.module.buffers(), *inputs.values()])
    attached.train(True)
    with counter:
        loss = TASK_TYPES[task].loss(attached.module, inputs)
        after_forward = counter.alive
        loss.backward()  # type: ignore[no-untyped-call]
    return after_forward, counter.peak


@pytest.mark.parametrize(("config", "task"), CASES, ids=["llama", "bert"])
@pytest.mark.parametrize("method", ["lora", "ia3", "adapter", "prefix", "prompt", "last_layers", "full"])
def test_a_step_without_numbers_takes_what_a_real_one_takes(
    config: PreTrainedConfig, task: TaskType, method: str
) -> None:
    backbone = real(config, task)
    attached = attach(methods.get(method), params_of(method), backbone)
    after_forward, peak = counted(attached, backbone, task)
    found = cost(config, task, method)
    assert found.activations == pytest.approx(after_forward, rel=0.01)
    assert found.activations + found.transient_bytes == pytest.approx(peak, rel=0.02)


@pytest.mark.parametrize(("config", "task"), CASES, ids=["llama", "bert"])
def test_every_method_that_trains_has_an_estimate(config: PreTrainedConfig, task: TaskType) -> None:
    able = {name for name in methods.names() if methods.get(name).trains and task in methods.get(name).tasks}
    names = able - ({"bitfit"} if config is LLAMA else set())  # it has no biases
    costs = {name: cost(config, task, name, quantization="nf4") for name in names}
    assert all(one.flops > 0 and one.adapter > 0 and one.peak > one.activations > 0 for one in costs.values())
    assert costs["full"].optimizer > 5 * costs["lora"].optimizer > 0


def test_the_optimizer_keeps_two_numbers_for_each_that_trains() -> None:
    found = cost(LLAMA, "causal-lm", "full")
    trained = LLAMA.vocab_size * 64 * 2 + 3 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 160 + 2 * 64) + 64
    assert found.optimizer == pytest.approx(2 * 4 * trained, rel=0.001)
    assert found.adapter >= 4 * trained


def test_activations_grow_with_rows_and_the_adapter_does_not() -> None:
    few, many = (cost(LLAMA, "causal-lm", "lora", replace(BATCH, rows=rows)) for rows in (4, 16))
    assert many.activations == pytest.approx(4 * few.activations, rel=0.02)
    assert many.adapter == few.adapter
    assert many.optimizer == few.optimizer


def test_a_matrix_of_attention_weights_is_kept_only_where_attention_is_not_fused() -> None:
    tokens, layers, heads = 256, 3, 4
    eager = LlamaConfig(**LLAMA.to_diff_dict(), attn_implementation="eager")
    shape = replace(BATCH, rows=1, tokens=tokens)
    fused, plain = (cost(one, "causal-lm", "lora", shape).activations for one in (LLAMA, eager))
    matrix, mask = 4 * heads * tokens**2, 4 * tokens**2
    assert plain - fused == pytest.approx(layers * (matrix - mask), rel=0.1)


def test_dropout_keeps_its_factors() -> None:
    without, dropping = (
        cost(BertConfig(**{**BERT.to_diff_dict(), "hidden_dropout_prob": p}), "classification", "full").activations
        for p in (0.0, 0.1)
    )
    places = 2 * 3 + 1  # after attention and feed-forward of each layer, and after the embeddings
    assert dropping - without == pytest.approx(places * 4 * BATCH.rows * BATCH.tokens * 64, rel=0.1)


def test_a_packed_weight_is_unpacked_for_a_moment_only() -> None:
    plain, packed = (cost(LLAMA, "causal-lm", "lora", quantization=kind) for kind in ("none", "nf4"))
    assert packed.activations == plain.activations
    assert plain.transient_bytes <= packed.transient_bytes <= plain.transient_bytes + 2 * 4 * 64 * 160


def test_where_numbers_are_needed_there_is_no_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    def peeks(layer: FrozenLinear, x: torch.Tensor) -> torch.Tensor:
        return x * float(x.numpy().max())

    monkeypatch.setattr(FrozenLinear, "forward", peeks)
    model = StepModel(LLAMA, TASK_TYPES["causal-lm"], name="tiny", labels=0, quantization="none", dtype=torch.float32)
    assert model.cost("lora", params_of("lora"), BATCH) is None
    assert model.cost("hard_prompt", params_of("hard_prompt"), BATCH) is None
