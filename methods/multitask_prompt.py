"""A prompt learned on source tasks first, then transferred to the task itself (Wang et al., 2023, arXiv:2303.02861).

The prompt of task ``k`` is ``P * (U_k V_k)``, elementwise, with a shared ``P`` of shape ``(tokens, width)``, ``U_k`` of
shape ``(tokens, ranks)`` and ``V_k`` of shape ``(ranks, width)``. In the first steps of a trial, ``P`` and the matrices
of every source task train, each task with a head that is discarded later. Then ``P`` and, depending on ``transfer``,
the source tasks' matrices initialize the task's own prompt, which trains with the task's head in the remaining steps.

Saved is the product ``P * (U V)`` alone, as `peft`'s plain soft prompt: inference does not need its factors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from peft import MultitaskPromptTuningConfig, PeftModel, PromptTuningConfig, PromptTuningInit
from peft.tuners.multitask_prompt_tuning import MultitaskPromptEmbedding
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from methods.base import peft_adapter
from methods.base.spec import (
    Attached,
    Category,
    Context,
    Hyperparameters,
    MethodError,
    MethodSpec,
    ParameterGroup,
    PeftTaskType,
)
from methods.parts.soft_prompt import (
    derive_peft_position_ids_from_mask,
    initial_token_ids,
    prompt_dimensions,
    require_positions,
    require_virtual_tokens,
    set_initial_prompt,
)
from methods.parts.source_stage import SourceStage

TRANSFERS = ("average", "first", "shared")


@dataclass(frozen=True, kw_only=True)
class MultitaskPromptParams(Hyperparameters):
    """Parameters of multitask prompt tuning.

    Args:
        tokens: number of virtual tokens; they use up positions of the model's longest input.
        ranks: rank of the task matrices.
        init: initial shared prompt: ``vocabulary``, embeddings of random tokens; ``random``, from a unit normal.
        source_fraction: fraction of the trial's steps, in 0..1, that train on the source tasks.
        transfer: initial matrix of the task: ``average``, the mean of the source tasks' matrices; ``first``, that of
            the first source task; ``shared``, noise, so that the shared prompt alone is transferred.
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
        self.require_in_range("tokens", "ranks", "source_fraction", "target_lr_ratio")
        self.require(self.init in ("vocabulary", "random"), "init", "vocabulary or random")
        self.require(self.transfer in TRANSFERS, "transfer", f"one of {', '.join(TRANSFERS)}")


def attach(view: nn.Module, params: MultitaskPromptParams, context: Context) -> Attached:
    """Put the virtual tokens before the input, and add the prompts and heads of the source tasks.

    Raises:
        MethodError: if the task names no others to learn from, or the architecture takes no embeddings from outside,
            or has too few positions.
    """
    if context.text is not None and not context.sources:
        raise MethodError("multitask_prompt learns from other tasks first: name them in the task's source_tasks")
    require_virtual_tokens(view)
    require_positions(view, params.tokens, context)
    config = MultitaskPromptTuningConfig(
        num_virtual_tokens=params.tokens, num_ranks=params.ranks, num_tasks=1, **prompt_dimensions(view)
    )
    plain = peft_adapter.attach(view, config, "multitask_prompt", params, context)
    model: PeftModel = plain.module
    if params.init == "vocabulary":
        ids = initial_token_ids(view, replace(context, text=None), params.tokens)
        set_initial_prompt(model, view.get_input_embeddings()(ids).detach())  # type: ignore[operator]
    derive_peft_position_ids_from_mask(model)
    target = model.prompt_encoder[peft_adapter.ADAPTER]
    stage = SourceStage(model, context) if context.sources else None
    target.forward = _prompt_forward(target, stage)
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
            transfer_prompt(stage.encoder, target, params.transfer)

    return replace(
        attached,
        groups=(*attached.groups, ParameterGroup(tuple(stage.parameters()))),
        active=(*attached.active, *stage.modules()),
        source_steps=source_steps,
        on_step=on_step,
    )


@torch.no_grad()
def transfer_prompt(source: MultitaskPromptEmbedding, target: MultitaskPromptEmbedding, transfer: str) -> None:
    """Initialize the target's prompt with what the source tasks have learned."""
    target.embedding.weight.copy_(source.embedding.weight)
    for target_factor, source_factors in (
        (target.prefix_task_cols, source.prefix_task_cols),
        (target.prefix_task_rows, source.prefix_task_rows),
    ):
        if transfer != "shared":
            mean = source_factors.mean(dim=0, keepdim=True)
            target_factor.copy_(mean if transfer == "average" else source_factors[:1])


def _prompt_forward(target: MultitaskPromptEmbedding, stage: SourceStage | None) -> Callable[..., Tensor]:
    """Return the function from rows to their prompts; without task ids, rows get the prompt of the task itself."""

    def forward(indices: Tensor, task_ids: Tensor | None = None) -> Tensor:
        if task_ids is None or stage is None:
            return task_prompt(target).expand(len(indices), -1, -1)
        prompts: Tensor = stage.encoder(indices, task_ids.to(indices.device))
        return prompts

    return forward


def task_prompt(encoder: MultitaskPromptEmbedding) -> Tensor:
    """Return the product ``P * (U V)`` of the first task, shape ``(tokens, width)``."""
    weight: Tensor = encoder.embedding.weight
    matrix: Tensor = encoder.prefix_task_cols[0] @ encoder.prefix_task_rows[0]
    return weight * matrix


def _save(folder: Path, model: PeftModel, save: Callable[[Path], None]) -> None:
    """Write `peft`'s folder with the product in place of its factors."""
    save(folder)
    tensors = load_file(folder / peft_adapter.WEIGHTS)
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("prefix_task_")}
    prompt = task_prompt(model.prompt_encoder[peft_adapter.ADAPTER]).detach().cpu().contiguous()
    save_file({**tensors, "prompt_embeddings": prompt}, folder / peft_adapter.WEIGHTS, metadata={"format": "pt"})
    config = model.active_peft_config
    names = {field.name for field in dataclasses.fields(PromptTuningConfig) if field.init} - {"peft_type"}
    plain = {**{name: getattr(config, name) for name in names}, "prompt_tuning_init": PromptTuningInit.RANDOM}
    PromptTuningConfig(**{**plain, "inference_mode": True}).save_pretrained(str(folder))


def _load(folder: Path, model: PeftModel) -> None:
    """Read the product as the shared prompt, with a task matrix of ones."""
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
    tasks=frozenset(get_args(PeftTaskType)) - {"FEATURE_EXTRACTION"},  # peft passes no task ids on to the prompts there
    starts_as_identity=False,
    peft=True,
)
