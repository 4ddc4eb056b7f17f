"""The modules that a multitask prompt needs during its source tasks only: a task matrix and a head for each task."""

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

    A call of ``model`` with ``task_ids`` of shape ``(rows,)`` uses these in place of its own. Logits of classes that a
    row's task does not have are minus infinity.

    Args:
        model: model with a multitask prompt for its own task; the stage becomes a submodule of it.
        context: the view's context.
    """

    def __init__(self, model: PeftModel, context: Context) -> None:
        super().__init__()
        config = copy.copy(model.active_peft_config)
        config.num_tasks = len(context.sources)
        self.encoder = MultitaskPromptEmbedding(config, model.word_embeddings).to(model.device)
        head_modules = [model.get_base_model().get_submodule(name) for name in context.head]
        num_labels = int(getattr(model.config, "num_labels", 0))
        counts = [count or num_labels for count in context.source_labels or [num_labels] * config.num_tasks]
        heads = [_copy_head(model, head_modules, num_labels, count) for count in counts] if head_modules else None
        self.heads = None if heads is None else nn.ModuleList(heads)
        self._task_ids: Tensor | None = None
        for index, module in enumerate(head_modules):
            module.register_forward_hook(self._replacement_hook(index), with_kwargs=True)
        model.register_forward_pre_hook(self._store_task_ids, with_kwargs=True)
        model.source_stage = self

    def _store_task_ids(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._task_ids = kwargs.get("task_ids")

    def _replacement_hook(self, index: int) -> Any:
        """Return a hook that replaces the output of the head's module ``index`` by that of the source tasks' heads."""

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
            if self._task_ids is None or self.heads is None:
                return None
            return self._run_heads(index, self._task_ids.to(output.device), args[0])

        return hook

    def _run_heads(self, index: int, task_ids: Tensor, x: Tensor) -> Tensor:
        """Run every row of ``x``, of shape ``(rows, ...)``, through module ``index`` of its task's head."""
        assert self.heads is not None
        by_task = {task: self.heads[task][index](x[task_ids == task]) for task in task_ids.unique().tolist()}
        width = max(rows.shape[-1] for rows in by_task.values())
        first = next(iter(by_task.values()))
        output: Tensor = first.new_full((len(x), *first.shape[1:-1], width), -torch.inf)
        for task, rows in by_task.items():
            output[task_ids == task] = F.pad(rows, (0, width - rows.shape[-1]), value=-torch.inf)
        return output


def _copy_head(model: PeftModel, head_modules: list[nn.Module], num_labels: int, labels: int) -> nn.ModuleList:
    """Return a copy of the model's head, with a new last layer where the number of classes differs."""
    head = nn.ModuleList()
    for module in head_modules:
        head.append(copy.deepcopy(module.get_submodule(f"modules_to_save.{model.active_adapter}")))
    if labels != num_labels:
        linears = {name: module for name, module in head.named_modules() if isinstance(module, nn.Linear)}
        name, last = [(name, module) for name, module in linears.items() if module.out_features == num_labels][-1]
        bias = last.bias is not None
        new = nn.Linear(last.in_features, labels, bias=bias)
        model.get_base_model()._init_weights(new)
        new.to(last.weight.device)
        if name.isdigit():  # the whole head is this layer, and has the hooks that bring the head to float32
            new._forward_pre_hooks, new._forward_hooks = last._forward_pre_hooks, last._forward_hooks
            new._forward_pre_hooks_with_kwargs = last._forward_pre_hooks_with_kwargs
        head.set_submodule(name, new)
    return head
