"""What a multitask prompt learns with on its source tasks, and leaves behind: a matrix and a head for each of them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.multitask_prompt_tuning import MultitaskPromptEmbedding
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base.spec import Context


class SourceStage(nn.Module):
    """A prompt that all source tasks share, with a task matrix and a head for each.

    While ``model`` is called with ``task_ids`` of shape ``(rows,)``, these stand in for its own. Where a task has fewer
    classes than another, the logits of those that it lacks are minus infinity.

    Args:
        model: with a multitask prompt for its own task; the stage becomes a part of it.
        context: of its view.
    """

    def __init__(self, model: PeftModel, context: Context) -> None:
        super().__init__()
        config = copy.copy(model.active_peft_config)
        config.num_tasks = len(context.sources)
        self.encoder = MultitaskPromptEmbedding(config, model.word_embeddings).to(model.device)
        wrapped = [model.get_base_model().get_submodule(name) for name in context.head]
        own = int(getattr(model.config, "num_labels", 0))
        labels = [count or own for count in context.source_labels or [own] * config.num_tasks]
        self.heads = nn.ModuleList(_head(model, wrapped, own, count) for count in labels) if wrapped else None
        self._task_ids: Tensor | None = None
        for place, module in enumerate(wrapped):
            module.register_forward_hook(self._replacing(place), with_kwargs=True)
        model.register_forward_pre_hook(self._begin, with_kwargs=True)
        model.source_stage = self

    def _begin(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._task_ids = kwargs.get("task_ids")

    def _replacing(self, place: int) -> Any:
        """A hook that gives what the sources' heads make of the rows in the place of one of the model's own."""

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
            if self._task_ids is None or self.heads is None:
                return None
            return self._by_task(place, self._task_ids.to(output.device), args[0])

        return hook

    def _by_task(self, place: int, task_ids: Tensor, x: Tensor) -> Tensor:
        """Every row through the head of its task; ``x`` has shape ``(rows, ...)``."""
        assert self.heads is not None
        found = {task: self.heads[task][place](x[task_ids == task]) for task in task_ids.unique().tolist()}
        width = max(part.shape[-1] for part in found.values())
        first = next(iter(found.values()))
        whole: Tensor = first.new_full((len(x), *first.shape[1:-1], width), -torch.inf)
        for task, part in found.items():
            whole[task_ids == task] = F.pad(part, (0, width - part.shape[-1]), value=-torch.inf)
        return whole


def _head(model: PeftModel, wrapped: list[nn.Module], own: int, labels: int) -> nn.ModuleList:
    """The model's head, begun alike, for another number of classes."""
    head = nn.ModuleList()
    for module in wrapped:
        head.append(copy.deepcopy(module.get_submodule(f"modules_to_save.{model.active_adapter}")))
    if labels != own:
        sizes = {name: part for name, part in head.named_modules() if isinstance(part, nn.Linear)}
        name, last = [(name, part) for name, part in sizes.items() if part.out_features == own][-1]
        bias = last.bias is not None
        new = nn.Linear(last.in_features, labels, bias=bias, device=last.weight.device)
        model.get_base_model()._init_weights(new)
        if name.isdigit():  # a head of one layer, with what brings it to float32
            new._forward_pre_hooks, new._forward_hooks = last._forward_pre_hooks, last._forward_hooks
            new._forward_pre_hooks_with_kwargs = last._forward_pre_hooks_with_kwargs
        head.set_submodule(name, new)
    return head
