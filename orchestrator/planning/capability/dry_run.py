"""A whole trial in miniature: all that a lane and its checkpoints ask of a method, in a tenth of a second."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import methods
from methods.base.spec import Attached, MethodError, MethodSpec
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.common.errors import describe_error
from orchestrator.planning.capability.dummy_text import special_ids
from orchestrator.tasks import TaskType

ROWS, TOKENS, PADDED = 4, 10, 3
STEPS, MANY_STEPS = 2, 100
LEARNING_RATE = 1e-2
WIDEST = 2048  # a decomposition of such a matrix takes seconds, and there are some in every layer
IGNORED = -100


class NumbersNeededError(MethodError):
    """A method computes with weights when it is attached, and these are too large to make up."""


def attach(spec: MethodSpec[Any], params: Mapping[str, Any], backbone: SharedBackbone) -> Attached:
    """Put a method onto a view of its own.

    On a skeleton it is first tried without any numbers, which takes no time at any size. A few methods need some.

    Raises:
        MethodError: if it refuses, or fails in any way.
    """
    typed = spec.params_type.from_dict(params)
    if backbone.model.device.type == "meta":
        try:
            with _quietly(), torch.device("meta"):
                return spec.attach(backbone.view(0), typed, backbone.context)
        except Exception as error:
            if "meta" in str(error).lower() and _width(backbone) > WIDEST:
                line = f"{spec.name} computes with weights of {_width(backbone)} columns to be attached"
                raise NumbersNeededError(line) from error
    return attach_with_numbers(spec, params, backbone)


def attach_with_numbers(spec: MethodSpec[Any], params: Mapping[str, Any], backbone: SharedBackbone) -> Attached:
    """Put a method onto a view of its own; what is the method's own has numbers on a skeleton, too.

    Raises:
        MethodError: if it refuses, or fails in any way.
    """
    typed = spec.params_type.from_dict(params)
    with _quietly(), _explained("attaching it fails"):
        return spec.attach(backbone.view(0), typed, backbone.context)


def _width(backbone: SharedBackbone) -> int:
    width: int = backbone.model.config.get_text_config().hidden_size
    return width


def dry_run(spec: MethodSpec[Any], attached: Attached, backbone: SharedBackbone, kind: TaskType) -> None:
    """Train, score, save, load and merge.

    Args:
        spec: of the method.
        attached: on a view of ``backbone``.
        backbone: small, with weights.
        kind: of the task.

    Raises:
        MethodError: with the first thing that goes wrong.
    """
    before, inputs = backbone.fingerprint(), batch(backbone)
    with _quietly():
        if spec.trains:
            with _explained("training it fails"):
                _train(attached, inputs, kind)
        with _explained("scoring it fails"):
            expected = _scores(attached.module, attached, inputs, backbone)
        with _explained("saving and loading it fails"), tempfile.TemporaryDirectory() as folder:
            attached.save(Path(folder))
            context = replace(backbone.context, text=None)
            back = methods.load_adapter(backbone.view(1), Path(folder), context)
            found = _scores(back.module, back, inputs, backbone)
        _require(torch.equal(found, expected), "what is saved and loaded gives other results")
        if back.merge is not None:
            with _explained("merging it fails"):
                merged = back.merge()(**_inputs(inputs)).logits
            _require(_close(merged, expected, backbone), "merged, it gives other results")
    _require(backbone.fingerprint() == before, "it writes into the shared backbone")


def batch(backbone: SharedBackbone) -> dict[str, Tensor]:
    """Random rows of the backbone's vocabulary with one that is padded, and labels as lanes make them."""
    model = backbone.model
    config, special = model.config, special_ids(model.config)
    classifies = backbone.context.task == "classification"
    usual = [i for i in range(config.get_text_config().vocab_size) if i not in special.values()]
    drawn = torch.randint(len(usual), (ROWS, TOKENS), generator=torch.Generator().manual_seed(0))
    tokens, mask = torch.tensor(usual)[drawn], torch.ones(ROWS, TOKENS, dtype=torch.int64)
    left = classifies and backbone.decoder
    padding, last = (slice(PADDED), -1) if left else (slice(-PADDED, None), TOKENS - PADDED - 1)
    if getattr(config, "is_encoder_decoder", False):  # those classify at the token that ends the text
        tokens[0, last], tokens[1:, -1] = special["eos_token"], special["eos_token"]
    tokens[0, padding], mask[0, padding] = special["pad_token"], 0
    labels = torch.arange(ROWS) % int(config.num_labels or 1) if classifies else tokens.where(mask == 1, IGNORED)
    return {"input_ids": tokens, "attention_mask": mask, "labels": labels}


def reads_ahead(backbone: SharedBackbone) -> bool:
    """Whether a token's result depends on the tokens after it, as no language model's may."""
    inputs = _inputs(batch(backbone))
    inputs = {name: tensor[1:2] for name, tensor in inputs.items()}
    changed = {**inputs, "input_ids": inputs["input_ids"].clone()}
    changed["input_ids"][:, -1] = inputs["input_ids"][:, 0]
    with torch.no_grad():
        one, other = (backbone.model(**given).logits[:, :-1].float() for given in (inputs, changed))
    return not torch.allclose(one, other, atol=1e-3 * float(one.abs().max()))


def _train(attached: Attached, inputs: dict[str, Tensor], kind: TaskType) -> None:
    groups = [{"params": list(g.parameters), "lr": LEARNING_RATE * g.multiplier} for g in attached.groups]
    optimizer, reached = torch.optim.AdamW(groups), set()
    total = _steps(attached)
    sources = attached.source_steps(total)
    attached.train(True)
    for step in range(total):
        given = {**inputs, "task_ids": torch.zeros(ROWS, dtype=torch.int64)} if step < sources else inputs
        loss = kind.loss(attached.module, given)
        loss = loss if attached.penalty is None else loss + attached.penalty()
        _require(bool(loss.isfinite()), f"the loss is {loss.item():g}")
        loss.backward()
        reached |= {name for name, p in attached.trainable().items() if p.grad is not None}
        optimizer.step()
        if attached.on_step:
            attached.on_step(step + 1, total)
        optimizer.zero_grad()
    idle = sorted(attached.trainable().keys() - reached)
    _require(not idle, f"{len(idle)} of {len(idle) + len(reached)} parameters get no gradient, {idle[:1]} among them")


def _steps(attached: Attached) -> int:
    """Two, or as many as it takes to reach both stages of a method that has two."""
    staged = attached.source_steps(MANY_STEPS) > 0
    lengths = range(STEPS, MANY_STEPS)
    return next((n for n in lengths if 0 < attached.source_steps(n) < n), STEPS) if staged else STEPS


def _scores(module: nn.Module, attached: Attached, inputs: dict[str, Tensor], backbone: SharedBackbone) -> Tensor:
    """Logits of shape ``(rows, labels)`` or ``(rows, tokens, vocabulary)``, the results of virtual tokens left out."""
    attached.train(False)
    with torch.no_grad():
        logits: Tensor = module(**_inputs(inputs)).logits
    config = backbone.model.config
    classifies = backbone.context.task == "classification"
    wanted = (ROWS, config.num_labels) if classifies else (ROWS, TOKENS, config.get_text_config().vocab_size)
    logits = logits if classifies else logits[:, -TOKENS:]
    _require(tuple(logits.shape) == wanted, f"its result has shape {tuple(logits.shape)} in the place of {wanted}")
    _require(bool(logits.isfinite().all()), "its result is not finite")
    return logits


def _close(found: Tensor, expected: Tensor, backbone: SharedBackbone) -> bool:
    """Equal up to the rounding of the backbone's stream."""
    allowed = 1e-3 if backbone.model.dtype == torch.float32 else 0.1
    return bool((found - expected).abs().max() <= allowed * expected.abs().max())


def _inputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def _require(holds: bool, line: str) -> None:
    if not holds:
        raise MethodError(line)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn any failure into one line; a method's own line stays as it is."""
    try:
        yield
    except MethodError:
        raise
    except Exception as error:
        raise MethodError(f"{what}: {describe_error(error)}") from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Leave random numbers, threads and warnings as they are for whoever asks."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what is this small only waits for a second thread
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            yield
    finally:
        torch.set_num_threads(threads)
