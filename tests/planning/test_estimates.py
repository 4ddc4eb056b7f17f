"""Estimated cost of a step on the meta device, against the same step on the CPU."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import BertConfig, LlamaConfig, PreTrainedConfig

import methods
import search_spaces
from methods.base.spec import Attached, Quantization
from orchestrator.backbone.frozen import FrozenLinear
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.backbone.skeleton import _model, _shared
from orchestrator.engine.checkpointed_blocks import block_names, checkpoint_blocks
from orchestrator.planning.capability.attach import attach
from orchestrator.planning.capability.dummy_text import dummy_text
from orchestrator.planning.estimates import Batch, StepCost, StepModel
from orchestrator.planning.estimates.cost_counter import CostCounter
from orchestrator.tasks import TASK_TYPES, token_losses

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
CASES: list[tuple[PreTrainedConfig, str]] = [(LLAMA, "causal-lm"), (BERT, "classification")]
BATCH = Batch(rows=3, tokens=12, targets=4)
SMALL = {"bottleneck": 8, "virtual_tokens": 4, "rank": 4}


def params_of(method: str, **changes: Any) -> dict[str, Any]:
    default = search_spaces.get(method).default
    return {**default, **{name: value for name, value in SMALL.items() if name in default}, **changes}


def cost(
    config: PreTrainedConfig,
    task: str,
    method: str,
    batch: Batch = BATCH,
    quantization: Quantization = "none",
    checkpointed: bool = False,
) -> StepCost:
    model = step_model(config, task, quantization)
    step_cost = model.cost(method, params_of(method), batch, checkpointed=checkpointed)
    assert step_cost is not None
    return step_cost


def step_model(config: PreTrainedConfig, task: str, quantization: Quantization = "none") -> StepModel:
    labels = 3 if task == "classification" else 0
    return StepModel(
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


def real(config: PreTrainedConfig, task: str) -> SharedBackbone:
    """Return the same architecture with random weights on the CPU."""
    labels, kind = (3 if task == "classification" else 0), TASK_TYPES[task]
    made = _shared(_model(config, kind.auto_class, labels, torch.float32), task, "tiny", labels, "none")
    return SharedBackbone(
        made.model, replace(made.context, text=dummy_text(config, labels, 16)), made.fresh, made.decoder
    )


def counted(attached: Attached, backbone: SharedBackbone, task: str, *, trains: bool = True) -> tuple[int, int]:
    """Return the bytes after the forward pass and at the peak of a real step, or forward pass, with one padded row."""
    ids = torch.randint(3, 299, (BATCH.rows, BATCH.tokens))
    mask = torch.ones_like(ids)
    mask[0, -2:] = 0
    labels = torch.full_like(ids, -100)
    labels[:, 2 : 2 + BATCH.targets] = 1
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels if task == "causal-lm" else torch.arange(3)}
    counter = CostCounter({})
    counter.exclude(backbone.shared_tensors())
    counter.exclude([*attached.module.parameters(), *attached.module.buffers(), *inputs.values()])
    attached.train(trains)
    with counter:
        loss = TASK_TYPES[task].loss(attached.module, inputs)
        after_forward = counter.alive_bytes
        if trains:
            loss.backward()
    return after_forward, counter.peak_bytes


@pytest.mark.parametrize(("config", "task"), CASES, ids=["llama", "bert"])
@pytest.mark.parametrize(
    ("method", "checkpointed"),
    [
        *((name, False) for name in ("lora", "ia3", "adapter", "prefix", "prompt", "last_layers", "full")),
        *((name, True) for name in ("lora", "full")),
    ],
)
def test_step_cost_on_meta_device_equals_a_real_step(
    config: PreTrainedConfig, task: str, method: str, checkpointed: bool
) -> None:
    backbone = real(config, task)
    attached = attach(methods.get(method), params_of(method), backbone)
    if checkpointed:
        checkpoint_blocks(attached.module, block_names(attached.module), backbone.device)
    after_forward, peak = counted(attached, backbone, task)
    estimate = cost(config, task, method, checkpointed=checkpointed)
    assert estimate.activation_bytes == pytest.approx(after_forward, rel=0.01)
    assert estimate.activation_bytes + estimate.transient_bytes == pytest.approx(peak, rel=0.02)


@pytest.mark.parametrize(("config", "task"), CASES, ids=["llama", "bert"])
def test_step_cost_exists_for_every_method_that_trains(config: PreTrainedConfig, task: str) -> None:
    type_ = TASK_TYPES[task].peft_task_type
    trainable = {name for name in methods.names() if methods.get(name).trains and type_ in methods.get(name).tasks}
    names = trainable - ({"bitfit"} if config is LLAMA else set())  # it has no biases
    costs = {name: cost(config, task, name, quantization="nf4") for name in names}
    for step_cost in costs.values():
        assert step_cost.flops > 0
        assert step_cost.adapter_bytes > 0
        assert step_cost.peak_bytes > step_cost.activation_bytes > 0
    assert costs["full"].optimizer_bytes > 5 * costs["lora"].optimizer_bytes > 0


@pytest.mark.parametrize(("config", "task"), CASES, ids=["llama", "bert"])
@pytest.mark.parametrize("method", ["lora", "prompt", "prefix"])
def test_scoring_estimate_equals_real_scoring(config: PreTrainedConfig, task: str, method: str) -> None:
    backbone = real(config, task)
    attached = attach(methods.get(method), params_of(method), backbone)
    with torch.no_grad():
        _, peak = counted(attached, backbone, task, trains=False)
    assert step_model(config, task).scoring_bytes(method, params_of(method), BATCH) == pytest.approx(peak, rel=0.05)


def test_estimates_count_the_logits_of_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch(rows=8, tokens=64, targets=63)
    config = copy.deepcopy(LLAMA)
    config.vocab_size = 5000
    logits_bytes = 4 * batch.rows * batch.targets * config.vocab_size
    model, peaks = step_model(config, "causal-lm"), []
    for chunk in (2**25, 20 * config.vocab_size):
        monkeypatch.setattr(token_losses, "CHUNK_LOGITS", chunk)
        step_cost = model.cost("lora", params_of("lora"), batch)
        scoring = model.scoring_bytes("lora", params_of("lora"), batch)
        assert step_cost is not None
        assert scoring is not None
        peaks.append((step_cost.peak_bytes, scoring))
    (step, scoring), (chunked_step, chunked_scoring) = peaks
    assert step - chunked_step > logits_bytes
    assert scoring - chunked_scoring > logits_bytes


def test_step_cost_optimizer_bytes_are_two_moments_per_parameter() -> None:
    full = cost(LLAMA, "causal-lm", "full")
    trained = LLAMA.vocab_size * 64 * 2 + 3 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 160 + 2 * 64) + 64
    assert full.optimizer_bytes == pytest.approx(2 * 4 * trained, rel=0.001)
    assert full.adapter_bytes >= 4 * trained


def test_step_cost_of_checkpointed_blocks_keeps_their_inputs_alone() -> None:
    shape = replace(BATCH, rows=1, tokens=64)
    deep = LlamaConfig.from_dict({**LLAMA.to_diff_dict(), "num_hidden_layers": 7})
    whole, few, many = (
        cost(config, "causal-lm", "lora", shape, checkpointed=checkpointed)
        for config, checkpointed in ((deep, False), (LLAMA, True), (deep, True))
    )
    assert many.activation_bytes - few.activation_bytes == 4 * (4 * 64 * 64), "a float32 state for each further block"
    assert many.peak_bytes < 0.5 * whole.peak_bytes
    assert 1.2 * whole.flops < many.flops < 1.6 * whole.flops


def test_step_cost_activations_grow_with_rows() -> None:
    few, many = (cost(LLAMA, "causal-lm", "lora", replace(BATCH, rows=rows)) for rows in (4, 16))
    assert many.activation_bytes == pytest.approx(4 * few.activation_bytes, rel=0.02)
    assert many.adapter_bytes == few.adapter_bytes
    assert many.optimizer_bytes == few.optimizer_bytes


def test_step_cost_counts_attention_weights_only_without_fused_attention() -> None:
    tokens, layers, heads = 256, 3, 4
    eager = LlamaConfig.from_dict(LLAMA.to_diff_dict(), attn_implementation="eager")
    shape = replace(BATCH, rows=1, tokens=tokens)
    fused, plain = (cost(config, "causal-lm", "lora", shape).activation_bytes for config in (LLAMA, eager))
    matrix, mask = 4 * heads * tokens**2, 4 * tokens**2
    assert plain - fused == pytest.approx(layers * (matrix - mask), rel=0.1)


def test_step_cost_counts_factors_of_dropout() -> None:
    without, dropping = (
        cost(BertConfig(**{**BERT.to_diff_dict(), "hidden_dropout_prob": p}), "classification", "full").activation_bytes
        for p in (0.0, 0.1)
    )
    places = 2 * 3 + 1  # after attention and feed-forward of each layer, and after the embeddings
    assert dropping - without == pytest.approx(places * 4 * BATCH.rows * BATCH.tokens * 64, rel=0.1)


def test_step_cost_counts_dequantized_weights_as_transient() -> None:
    plain, packed = (cost(LLAMA, "causal-lm", "lora", quantization=kind) for kind in ("none", "nf4"))
    assert packed.activation_bytes == plain.activation_bytes
    assert plain.transient_bytes <= packed.transient_bytes <= plain.transient_bytes + 2 * 4 * 64 * 160


def test_step_cost_is_none_where_data_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def peeks(layer: FrozenLinear, x: torch.Tensor) -> torch.Tensor:
        return x * float(x.numpy().max())

    monkeypatch.setattr(FrozenLinear, "forward", peeks)
    model = StepModel(LLAMA, TASK_TYPES["causal-lm"], name="tiny", labels=0, quantization="none", dtype=torch.float32)
    assert model.cost("lora", params_of("lora"), BATCH) is None
    assert model.cost("hard_prompt", params_of("hard_prompt"), BATCH) is None


def test_backbone_bytes_count_packed_weights_scales_and_the_rest() -> None:
    packed = 3 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 160)
    rest = 4 * (2 * LLAMA.vocab_size * 64 + (2 * 3 + 1) * 64 + 2 * 8)  # embeddings, head, norms and rotary frequencies
    model = StepModel(LLAMA, TASK_TYPES["causal-lm"], name="tiny", labels=0, quantization="nf4", dtype=torch.float32)
    assert model.backbone_bytes(double_quantization=False) == packed * (0.5 + 4 / 64) + rest
    quantized_scales = packed * (1 + 4 / 256) / 64
    assert model.backbone_bytes(double_quantization=True) == packed * 0.5 + quantized_scales + rest
    unpacked = model.backbone_bytes(double_quantization=True, keeps_scales=True)
    assert unpacked == packed * (0.5 + 4 / 64) + quantized_scales + rest
