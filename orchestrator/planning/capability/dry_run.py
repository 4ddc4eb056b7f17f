"""Dry run of a method: a whole trial on a tiny model, with everything that a lane does, in a tenth of a second."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import methods
from methods.base.spec import Attached, MethodError, MethodSpec
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.planning.capability.attach import as_method_error, isolated
from orchestrator.planning.capability.dummy_text import special_ids
from orchestrator.tasks import TaskType

ROWS, TOKENS, PADDING_TOKENS = 4, 10, 3
STEPS, MAX_STEPS = 2, 100
LEARNING_RATE = 1e-2


def dry_run(spec: MethodSpec[Any], attached: Attached, backbone: SharedBackbone, kind: TaskType) -> None:
    """Train, score, save, load and merge a method.

    Args:
        spec: the method.
        attached: the method, attached to a view of ``backbone``.
        backbone: a tiny model with weights.
        kind: the task type.

    Raises:
        MethodError: for the first step that fails.
    """
    before, inputs = backbone.fingerprint(), batch(backbone, kind)
    with isolated():
        if spec.trains:
            with as_method_error("training it fails"):
                _train(attached, inputs, kind)
        with as_method_error("scoring it fails"):
            expected = _scores(attached.module, attached, inputs, backbone, kind)
        with as_method_error("saving and loading it fails"), tempfile.TemporaryDirectory() as folder:
            attached.save(Path(folder))
            context = replace(backbone.context, text=None)
            loaded = methods.load_adapter(backbone.view(1), Path(folder), context)
            reloaded = _scores(loaded.module, loaded, inputs, backbone, kind)
        _require(torch.equal(reloaded, expected), "it gives other results after saving and loading")
        if loaded.merge is not None:
            with as_method_error("merging it fails"):
                merged = kind.forward(loaded.merge(), inputs)
            _require(_close(merged, expected, backbone), "it gives other results after merging")
    _require(backbone.fingerprint() == before, "it writes into the shared backbone")


def batch(backbone: SharedBackbone, kind: TaskType) -> dict[str, Tensor]:
    """Return a batch of random token rows, one of them padded, in the form in which lanes make it."""
    model = backbone.model
    config, special = model.config, special_ids(model.config)
    ordinary = [token for token in range(config.get_text_config().vocab_size) if token not in special.values()]
    indices = torch.randint(len(ordinary), (ROWS, TOKENS), generator=torch.Generator().manual_seed(0))
    tokens, mask = torch.tensor(ordinary)[indices], torch.ones(ROWS, TOKENS, dtype=torch.int64)
    pads_left = kind.pads_left and backbone.decoder
    padding, last = (
        (slice(PADDING_TOKENS), -1) if pads_left else (slice(-PADDING_TOKENS, None), TOKENS - PADDING_TOKENS - 1)
    )
    if getattr(config, "is_encoder_decoder", False):  # such classifiers read the state of the end token
        tokens[0, last], tokens[1:, -1] = special["eos_token"], special["eos_token"]
    tokens[0, padding], mask[0, padding] = special["pad_token"], 0
    return kind.dummy_batch(tokens, mask, int(config.num_labels or 0))


def reads_ahead(backbone: SharedBackbone, kind: TaskType) -> bool:
    """Return whether a token's logits depend on later tokens, which makes a model useless as a language model."""
    inputs = {name: tensor[1:2] for name, tensor in batch(backbone, kind).items()}
    changed = {**inputs, "input_ids": inputs["input_ids"].clone()}
    changed["input_ids"][:, -1] = inputs["input_ids"][:, 0]
    with torch.no_grad():
        before, after = (kind.forward(backbone.model, rows)[:, :-1].float() for rows in (inputs, changed))
    return not torch.allclose(before, after, atol=1e-3 * float(before.abs().max()))


def _train(attached: Attached, inputs: dict[str, Tensor], kind: TaskType) -> None:
    groups = [{"params": list(g.parameters), "lr": LEARNING_RATE * g.multiplier} for g in attached.groups]
    optimizer, with_gradient = torch.optim.AdamW(groups), set()
    total = _step_count(attached)
    source_steps = attached.source_steps(total)
    attached.train(True)
    for step in range(total):
        task_ids = torch.zeros(len(inputs["input_ids"]), dtype=torch.int64)
        step_inputs = {**inputs, "task_ids": task_ids} if step < source_steps else inputs
        loss = kind.loss(attached.module, step_inputs)
        loss = loss if attached.penalty is None else loss + attached.penalty()
        _require(bool(loss.isfinite()), f"the loss is {loss.item():g}")
        loss.backward()
        with_gradient |= {name for name, p in attached.trainable().items() if p.grad is not None}
        optimizer.step()
        if attached.on_step:
            attached.on_step(step + 1, total)
        optimizer.zero_grad()
    idle = sorted(attached.trainable().keys() - with_gradient)
    _require(
        not idle, f"{len(idle)} of {len(idle) + len(with_gradient)} parameters get no gradient, {idle[:1]} among them"
    )


def _step_count(attached: Attached) -> int:
    """Return two, or the fewest steps in which a method with source tasks reaches both of its stages."""
    staged = attached.source_steps(MAX_STEPS) > 0
    lengths = range(STEPS, MAX_STEPS)
    return next((n for n in lengths if 0 < attached.source_steps(n) < n), STEPS) if staged else STEPS


def _scores(
    module: nn.Module, attached: Attached, inputs: dict[str, Tensor], backbone: SharedBackbone, kind: TaskType
) -> Tensor:
    """Return what the model gives for the batch."""
    attached.train(False)
    with torch.no_grad():
        outputs = kind.forward(module, inputs)
    shape = kind.forward_shape(backbone.model.config, inputs)
    _require(tuple(outputs.shape) == shape, f"its result has shape {tuple(outputs.shape)} instead of {shape}")
    _require(bool(outputs.isfinite().all()), "its result is not finite")
    return outputs


def _close(outputs: Tensor, expected: Tensor, backbone: SharedBackbone) -> bool:
    """Return whether outputs are equal up to the rounding of the backbone's dtype."""
    tolerance = 1e-3 if backbone.model.dtype == torch.float32 else 0.1
    return bool((outputs - expected).abs().max() <= tolerance * expected.abs().max())


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise MethodError(message)
