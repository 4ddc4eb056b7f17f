"""Nothing trains: a template around the text, examples before it, and the model's own words for the classes.

Zero- and few-shot prompting (Brown et al., 2020, arXiv:2005.14165) with a template and verbalizers (Schick & Schütze,
2021, arXiv:2001.07676): a class's score is the language model's log-probability of its word after the prompt, which
calibration corrects by what the model answers without any content (arXiv:2102.09690). A language-modelling task has
examples alone; without them it is the bare model.

The folder holds, in ``adapter.safetensors``, the token ids of the prompt's pieces: ``before`` and ``after`` the row's
own, ``classes`` (a line each, filled up with -1), ``blank`` (a text without content), and in ``ends`` how many special
tokens a row begins and ends with.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from methods.base.adapter_folder import TENSORS, save_method
from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodError, MethodSpec, TaskText
from methods.parts.language_model import language_model
from methods.parts.prompted_model import Prompted, PromptedClassifier, PromptedLanguageModel
from methods.parts.prompt_template import NAMES, Words, check_template, check_verbalizers, classifying, continuing


@dataclass(frozen=True, kw_only=True)
class HardPromptParams(Hyperparameters):
    """Parameters of a hard prompt; those of training have no effect.

    Args:
        template: ``label``, ``question`` or ``instruction``, or a text with ``{text}`` once and ``{label}`` at its
            end, and ``{labels}`` where the classes are to be named. Of classification alone.
        verbalizers: ``names``, the classes' own, or words for them: ``neg = bad; pos = good``. Of classification alone.
        examples: training rows with their classes (or completions) before the text.
        calibration: whether the classes' scores are corrected. Of classification alone.
    """

    template: str = "label"
    verbalizers: str = NAMES
    examples: int = 0
    calibration: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(not (wanted := check_template(self.template)), "template", wanted)
        self.require(not (wanted := check_verbalizers(self.verbalizers)), "verbalizers", wanted)
        self.require(self.examples >= 0, "examples", "at least 0")


def attach(view: nn.Module, params: HardPromptParams, context: Context) -> Attached:
    """Put the words around every row; without the task's words, they come when an adapter is loaded.

    Raises:
        MethodError: if the backbone predicts no next token, the classes' words cannot be told apart, or the prompt
            leaves no room for the text.
    """
    model = language_model(view, context)
    classifies = context.task == "classification"
    module = PromptedClassifier(model, params.calibration) if classifies else PromptedLanguageModel(model)
    if context.text is not None:
        module.say(_words(params, context.text, module, classifies))
    return Attached(
        module=module,
        groups=(),
        active=(),
        save=lambda folder: _save(folder, module, params, context),
        load=lambda folder: _load(folder, module),
    )


def _words(params: HardPromptParams, text: TaskText, module: Prompted, classifies: bool) -> Words:
    if classifies:
        closes = bool(getattr(module.config, "is_encoder_decoder", False))
        words = classifying(text, params.template, params.verbalizers, params.examples, closes=closes)
    else:
        words = continuing(text, params.examples)
    room = getattr(module.config.get_text_config(), "max_position_embeddings", None)
    needed = len(words.before) + text.max_length + len(words.after) + max(map(len, words.classes), default=0)
    if room is not None and needed > room:
        prompt = f"a prompt with {params.examples} examples and rows of up to {text.max_length} tokens"
        raise MethodError(f"{prompt} takes {needed} tokens; the backbone takes {room} at most")
    return words


def _save(folder: Path, module: Prompted, params: HardPromptParams, context: Context) -> None:
    save_method(folder, "hard_prompt", params, context)
    save_file({name: tensor.contiguous() for name, tensor in module.words.items()}, folder / TENSORS)


def _load(folder: Path, module: Prompted) -> None:
    module.take(load_file(folder / TENSORS))


SPEC = MethodSpec(
    name="hard_prompt",
    category=Category.PROMPTING,
    reference="Brown et al. (2020), arXiv:2005.14165",
    params_type=HardPromptParams,
    attach=attach,
    starts_as_identity=False,
    trains=False,
)
