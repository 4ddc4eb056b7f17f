"""Prompting without training: a template around the text, examples before it, and a word for each class.

Zero- and few-shot prompting (Brown et al., 2020, arXiv:2005.14165) with a template and verbalizers (Schick & Schütze,
2021, arXiv:2001.07676): a class's score is the language model's log-probability of its word after the prompt.
Calibration subtracts the log-probability for a text without content (arXiv:2102.09690). A language model's task has a
prompt of its own, so that examples come before it; without them it is the bare model. Where it chooses among texts,
calibration subtracts what they score after the prompt without content.

The adapter's folder holds the prompt's token ids in ``adapter.safetensors``: ``before`` and ``after`` the row's own,
``classes`` (a row per class, filled up with -1), ``blank`` (a text, or a prompt, without content), and ``ends``, the
numbers of special tokens at the beginning and at the end of a tokenized row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from methods.base.adapter_folder import TENSORS_FILE, save_method
from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodError, MethodSpec, TaskText
from methods.parts.language_model import language_model
from methods.parts.prompt_template import (
    CLASS_NAMES,
    PromptTokens,
    classification_prompt,
    completion_prompt,
    template_range,
    verbalizers_range,
)
from methods.parts.prompted_model import PromptedClassifier, PromptedLanguageModel, PromptedModel


@dataclass(frozen=True, kw_only=True)
class HardPromptParams(Hyperparameters):
    """Parameters of a hard prompt; those of training have no effect.

    Args:
        template: ``label``, ``question`` or ``instruction``, or a text with ``{text}`` once, ``{label}`` at its end,
            and ``{labels}`` in place of the list of classes. For classification only.
        verbalizers: ``names`` for the classes' names, or words for them, as in ``neg = bad; pos = good``. For
            classification only.
        examples: number of training rows with their classes (or completions) before the text.
        calibration: whether the scores of a text without content are subtracted. For classification and for choices
            after a prompt with columns. It takes away what the model prefers without a text, and so suits classes that
            are about as frequent; of frequent classes it answers too few.
    """

    template: str = "label"
    verbalizers: str = CLASS_NAMES
    examples: int = 0
    calibration: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(not (range_text := template_range(self.template)), "template", range_text)
        self.require(not (range_text := verbalizers_range(self.verbalizers)), "verbalizers", range_text)
        self.require_in_range("examples")


def attach(view: nn.Module, params: HardPromptParams, context: Context) -> Attached:
    """Put the prompt around every row; where the task's words are unknown, loading an adapter sets the prompt.

    Raises:
        MethodError: if the backbone predicts no next token, the classes' words cannot be told apart, or prompt and
            text exceed the backbone's positions.
    """
    model = language_model(view, context)
    classifies = context.task_type == "SEQ_CLS"
    if classifies and context.text is not None and len(context.text.labels) < 2:
        raise MethodError("hard_prompt chooses among the names of classes; this task has no two of them")
    module = (PromptedClassifier if classifies else PromptedLanguageModel)(model, params.calibration)
    if context.text is not None:
        module.set_prompt(_prompt(params, context.text, module, classifies))
    return Attached(
        module=module,
        groups=(),
        active=(),
        save=lambda folder: _save(folder, module, params, context),
        load=lambda folder: _load(folder, module),
    )


def _prompt(params: HardPromptParams, text: TaskText, module: PromptedModel, classifies: bool) -> PromptTokens:
    if classifies:
        closes = bool(getattr(module.config, "is_encoder_decoder", False))
        prompt = classification_prompt(text, params.template, params.verbalizers, params.examples, closes=closes)
    else:
        prompt = completion_prompt(text, params.examples)
    limit = getattr(module.config.get_text_config(), "max_position_embeddings", None)
    length = len(prompt.before) + text.max_length + len(prompt.after) + max(map(len, prompt.classes), default=0)
    if limit is not None and length > limit:
        parts = f"a prompt with {params.examples} examples and rows of up to {text.max_length} tokens"
        raise MethodError(f"{parts} takes {length} tokens; the backbone takes {limit} at most")
    return prompt


def _without_effect(context: Context) -> frozenset[str]:
    if context.task_type == "SEQ_CLS":
        return frozenset()
    chooses = context.text is not None and bool(context.text.blank)
    return frozenset({"template", "verbalizers"} if chooses else {"template", "verbalizers", "calibration"})


def _save(folder: Path, module: PromptedModel, params: HardPromptParams, context: Context) -> None:
    save_method(folder, "hard_prompt", params, context)
    save_file({name: tensor.contiguous() for name, tensor in module.prompt.items()}, folder / TENSORS_FILE)


def _load(folder: Path, module: PromptedModel) -> None:
    module.load_prompt(load_file(folder / TENSORS_FILE))


SPEC = MethodSpec(
    name="hard_prompt",
    category=Category.PROMPTING,
    reference="Brown et al. (2020), arXiv:2005.14165",
    params_type=HardPromptParams,
    attach=attach,
    tasks=frozenset({"SEQ_CLS", "CAUSAL_LM"}),
    starts_as_identity=False,
    trains=False,
    without_effect=_without_effect,
)
