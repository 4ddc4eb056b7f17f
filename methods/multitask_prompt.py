"""A prompt learned on source tasks first, and moved to the task itself (Wang et al., 2023, arXiv:2303.02861).

The prompt of task ``k`` is ``P * (U_k V_k)``, elementwise, with a shared ``P`` of shape ``(tokens, width)``, ``U_k`` of
shape ``(tokens, ranks)`` and ``V_k`` of shape ``(ranks, width)``. The first part of a trial's steps trains ``P`` and
every source task's matrices, each with a head of its own that is thrown away. Then ``P`` and what is made of the
matrices become the start of the task's own prompt, which trains with the task's head for the rest.

What is saved is the product, a plain soft prompt as `peft` knows it, since nobody who uses it asks for its factors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from peft import MultitaskPromptTuningConfig, PeftModel, PromptTuningConfig, PromptTuningInit
from peft.tuners.multitask_prompt_tuning import MultitaskPromptEmbedding
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from methods.base import peft_adapter
from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodError, MethodSpec, ParameterGroup
from methods.parts.soft_prompt import (
    dimensions,
    first_tokens,
    number_positions,
    require_prompts,
    require_room,
    start_from,
)
from methods.parts.source_stage import SourceStage

TRANSFERS = ("average", "first", "shared")


@dataclass(frozen=True, kw_only=True)
class MultitaskPromptParams(Hyperparameters):
    """Parameters of multitask prompt tuning.

    Args:
        tokens: virtual tokens; they take room in the model's longest input.
        ranks: of the task matrices.
        init: the shared prompt starts from embeddings of random tokens (``vocabulary``) or a unit normal (``random``).
        source_fraction: of the trial's steps, how many train on the source tasks.
        transfer: what the task's matrix starts from: the ``average`` of the source tasks' matrices, that of the
            ``first`` source task, or noise, so that the ``shared`` prompt alone is moved.
        target_lr_ratio: learning rate on the task itself over that on the source tasks.
    """

    learning_rate: float = 3e-2
    tokens: int = 20
    ranks: int = 1
    init: Literal["vocabulary", "random"] = "vocabulary"
    source_fraction: float = 0.2
    transfer: Literal["average", "first", "shared"] = "average"
    target_lr_ratio: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.tokens >= 1, "tokens", "at least 1")
        self.require(self.ranks >= 1, "ranks", "at least 1")
        self.require(self.init in ("vocabulary", "random"), "init", "vocabulary or random")
        self.require(0 <= self.source_fraction < 1, "source_fraction", "in 0..1, below 1")
        self.require(self.transfer in TRANSFERS, "transfer", f"one of {', '.join(TRANSFERS)}")
        self.require(self.target_lr_ratio > 0, "target_lr_ratio", "above 0")


def attach(view: nn.Module, params: MultitaskPromptParams, context: Context) -> Attached:
    """Put the virtual tokens before the input, those of the source tasks beside them.

    Raises:
        MethodError: if the task names no others to learn from, or the architecture takes no embeddings from outside,
            or has too few positions.
    """
    if context.text is not None and not context.sources:
        raise MethodError("multitask_prompt learns from other tasks first: name them in the task's source_tasks")
    require_prompts(view)
    require_room(view, params.tokens, context)
    config = MultitaskPromptTuningConfig(
        num_virtual_tokens=params.tokens, num_ranks=params.ranks, num_tasks=1, **dimensions(view)
    )
    plain = peft_adapter.attached(view, config, "multitask_prompt", params, context)
    model: PeftModel = plain.module
    if params.init == "vocabulary":
        ids = first_tokens(view, replace(context, text=None), params.tokens)
        start_from(model, view.get_input_embeddings()(ids).detach())  # type: ignore[operator]
    number_positions(model)
    target = model.prompt_encoder[peft_adapter.ADAPTER]
    stage = SourceStage(model, context) if context.sources else None
    target.forward = _prompts(target, stage)
    attached = replace(
        plain,
        groups=(ParameterGroup(plain.groups[0].parameters, params.target_lr_ratio),),
        save=lambda folder: _save(folder, model, plain.save),
        load=lambda folder: _load(folder, model),
    )
    return attached if stage is None else _in_two_stages(attached, stage, target, params)


def _in_two_stages(
    attached: Attached, stage: SourceStage, target: MultitaskPromptEmbedding, params: MultitaskPromptParams
) -> Attached:
    with torch.no_grad():
        stage.encoder.embedding.weight.copy_(target.embedding.weight)

    def source_steps(total: int) -> int:
        return min(round(params.source_fraction * total), total - 1)

    def on_step(step: int, total: int) -> None:
        if step == source_steps(total):
            move(stage.encoder, target, params.transfer)

    return replace(
        attached,
        groups=(*attached.groups, ParameterGroup(tuple(stage.parameters()))),
        active=(*attached.active, *stage.modules()),
        source_steps=source_steps,
        on_step=on_step,
    )


@torch.no_grad()
def move(source: MultitaskPromptEmbedding, target: MultitaskPromptEmbedding, transfer: str) -> None:
    """Begin the target's prompt from what the source tasks have learned."""
    target.embedding.weight.copy_(source.embedding.weight)
    for own, learned in (
        (target.prefix_task_cols, source.prefix_task_cols),
        (target.prefix_task_rows, source.prefix_task_rows),
    ):
        if transfer != "shared":
            own.copy_(learned.mean(dim=0, keepdim=True) if transfer == "average" else learned[:1])


def _prompts(target: MultitaskPromptEmbedding, stage: SourceStage | None) -> Callable[..., Tensor]:
    """What gives every row its prompt: without task ids, which nobody knows of a trained adapter, the task's own."""

    def forward(indices: Tensor, task_ids: Tensor | None = None) -> Tensor:
        if task_ids is None or stage is None:
            return product(target).expand(len(indices), -1, -1)
        found: Tensor = stage.encoder(indices, task_ids.to(indices.device))
        return found

    return forward


def product(encoder: MultitaskPromptEmbedding) -> Tensor:
    """The prompt of the first task, shape ``(tokens, width)``."""
    weight: Tensor = encoder.embedding.weight
    matrix: Tensor = encoder.prefix_task_cols[0] @ encoder.prefix_task_rows[0]
    return weight * matrix


def _save(folder: Path, model: PeftModel, save: Callable[[Path], None]) -> None:
    """As `peft` saves it, with the product in the place of its factors."""
    save(folder)
    tensors = load_file(folder / peft_adapter.WEIGHTS)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("prefix_task_")}
    prompt = product(model.prompt_encoder[peft_adapter.ADAPTER]).detach().cpu().contiguous()
    save_file({**kept, "prompt_embeddings": prompt}, folder / peft_adapter.WEIGHTS, metadata={"format": "pt"})
    config = model.active_peft_config
    names = {field.name for field in dataclasses.fields(PromptTuningConfig) if field.init} - {"peft_type"}
    plain = {**{name: getattr(config, name) for name in names}, "prompt_tuning_init": PromptTuningInit.RANDOM}
    PromptTuningConfig(**{**plain, "inference_mode": True}).save_pretrained(str(folder))


def _load(folder: Path, model: PeftModel) -> None:
    """Read the product: with a task matrix of ones it is itself."""
    peft_adapter.load(folder, model)
    encoder = model.prompt_encoder[peft_adapter.ADAPTER]
    with torch.no_grad():
        encoder.prefix_task_cols.zero_()[..., 0] = 1
        encoder.prefix_task_rows.zero_()[:, 0] = 1


SPEC = MethodSpec(
    name="multitask_prompt",
    category=Category.SOFT_PROMPT,
    reference="Wang et al. (2023), arXiv:2303.02861",
    params_type=MultitaskPromptParams,
    attach=attach,
    starts_as_identity=False,
    peft=True,
)
