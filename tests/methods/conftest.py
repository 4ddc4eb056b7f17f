"""Tiny real backbones, quantized and plain, that every method is tried on."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn
from transformers import (
    BertConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Config,
)

from methods.base.spec import Attached, Context, Hyperparameters, MethodSpec, Quantization, TaskText
from methods.families.peft_type import trainable_types
from orchestrator.backbone.checkpoint import write
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.source import Source

PAD, END, LABELS, VOCABULARY, WIDTH = 0, 1, 3, 100, 32
CLASSES = ("negative", "neutral", "positive")
SOURCES = ("first", "second")
AUTO_CLASSES = {"classification": "AutoModelForSequenceClassification", "causal-lm": "AutoModelForCausalLM"}
BACKBONES = (
    ("encoder", "classification"),
    ("decoder", "classification"),
    ("encoder-decoder", "classification"),
    ("decoder", "causal-lm"),
)
# plain backbones differ little from quantized ones, so that make test-plain leaves them out
PLAIN_CASES = [
    pytest.param((kind, task, "none"), id=f"{kind}-{task}-none", marks=pytest.mark.slow) for kind, task in BACKBONES
]
CASES = [pytest.param((kind, task, "nf4"), id=f"{kind}-{task}-nf4") for kind, task in BACKBONES] + PLAIN_CASES
COMPOSITIONS = ("compose:prefix+adapter", "compose:bitfit+ia3", "compose:adapter+prefix+lora")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_config(kind: str) -> BertConfig | LlamaConfig | T5Config:
    # weights ten times as large as usual: a change anywhere shows in the logits
    shape: dict[str, Any]
    if kind == "encoder-decoder":
        shape = {"vocab_size": VOCABULARY, "d_model": WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
        shape |= {"pad_token_id": PAD, "eos_token_id": END, "decoder_start_token_id": PAD}
        return T5Config(**shape)
    shape = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 4}
    shape |= {"intermediate_size": 64, "max_position_embeddings": 160, "initializer_range": 0.2, "pad_token_id": PAD}
    if kind == "encoder":
        return BertConfig(**shape)
    return LlamaConfig(**shape, num_key_value_heads=2, eos_token_id=END, bos_token_id=2)


def tiny_model(kind: str, task: str, **changes: Any) -> PreTrainedModel:
    import transformers

    config = tiny_config(kind)
    config.update({"num_labels": LABELS, **changes})
    torch.manual_seed(7)
    model: PreTrainedModel = getattr(transformers, AUTO_CLASSES[task]).from_config(config)
    for name, parameter in model.named_parameters():
        if "norm" in name.lower() or name.endswith("bias"):
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


@cache
def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """A token per word; the classes' names are words of it."""
    words = ["<pad>", "</s>", "<s>", "<unk>", *CLASSES]
    words += [f"word{index}" for index in range(len(words), VOCABULARY)]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def narrowed(params: Hyperparameters) -> Hyperparameters:
    """Return the parameters with bottlenecks that fit: usual ones are wider than a tiny model."""
    wide = {n: WIDTH for n, v in params.to_dict().items() if n.rpartition(".")[2] == "bottleneck" and v > WIDTH}
    return type(params).from_dict({**params.to_dict(), **wide})


@dataclass(frozen=True)
class Case:
    """A backbone, ready for methods.

    Args:
        original: the folder of the checkpoint.
        seed: of the views' heads.
    """

    kind: str
    task: str
    quantization: str
    original: Path
    shared: SharedBackbone
    seed: int = 3

    def view(self) -> PreTrainedModel:
        return self.shared.view(self.seed)

    @property
    def context(self) -> Context:
        """The context of a trial; a saved adapter is loaded with that of the shared backbone, which has no words."""
        labels = CLASSES if self.task == "classification" else ()
        text = TaskText(tokenizer=tiny_tokenizer(), labels=labels, max_length=32, examples=self.examples)
        return replace(self.shared.context, text=text, sources=SOURCES)

    def attach(
        self, spec: MethodSpec, params: Hyperparameters, view: nn.Module | None = None, **changes: Any
    ) -> Attached:
        """``changes`` are to the context."""
        torch.manual_seed(11)
        return spec.attach(view or self.view(), narrowed(params), replace(self.context, **changes))

    def examples(self, count: int) -> Sequence[tuple[Sequence[int], int]]:
        batch = self.batch()
        classes = self.labels().tolist() if self.task == "classification" else [0] * len(batch["input_ids"])
        rows = [row[mask == 1].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
        return list(zip(rows, classes, strict=True))[:count]

    def plain(self) -> PreTrainedModel:
        """The same weights in a model of transformers alone, with the view's head."""
        model = tiny_model(self.kind, self.task)
        view = self.view()
        for name in self.shared.context.head:
            model.get_submodule(name).load_state_dict(view.get_submodule(name).state_dict())
        return model.requires_grad_(False)

    def batch(self, padded: bool = True) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(5)
        tokens = torch.randint(3, 100, (4, 9), generator=generator)
        mask = torch.ones_like(tokens)
        if padded:
            where = slice(0, 3) if self.kind == "decoder" else slice(-3, None)
            tokens[0, where], mask[0, where] = PAD, 0
        if self.kind == "encoder-decoder":  # these classify at the end-of-text token
            tokens[torch.arange(len(tokens)), mask.sum(dim=1) - 1] = END
        return {"input_ids": tokens, "attention_mask": mask}

    def labels(self) -> Tensor:
        batch = self.batch()
        if self.task == "classification":
            return torch.tensor([0, 1, 2, 1])
        return batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)

    def logits(self, model: nn.Module, padded: bool = True) -> Tensor:
        """Return ``(rows, labels)`` or ``(rows, tokens, vocabulary)`` logits, without those of virtual tokens."""
        batch = self.batch(padded)
        with torch.no_grad():
            logits: Tensor = model(**batch).logits
        return logits if logits.dim() == 2 else logits[:, -batch["input_ids"].shape[1] :][batch["attention_mask"] == 1]


@pytest.fixture(scope="session")
def make_case(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Case]:
    cases: dict[tuple[str, str, str], Case] = {}

    def make(kind: str, task: str, quantization: Quantization) -> Case:
        key = (kind, task, quantization)
        if key not in cases:
            cases[key] = case_of(
                tmp_path_factory.mktemp("-".join(key)), tiny_model(kind, task), kind, task, quantization
            )
        return cases[key]

    return make


@pytest.fixture
def share(tmp_path: Path) -> Callable[..., Case]:
    """Make a quantized case from a configuration of any architecture."""

    def make(config: PreTrainedConfig, kind: str, task: str, quantization: Quantization = "nf4") -> Case:
        import transformers

        torch.manual_seed(7)
        folder = tmp_path / f"backbone-{task}-{quantization}"
        folder.mkdir()
        model = getattr(transformers, AUTO_CLASSES[task]).from_config(config, dtype=config.dtype or torch.float32)
        return case_of(folder, model.eval(), kind, task, quantization)

    return make


@pytest.fixture
def tied_decoder(tmp_path: Path) -> Case:
    folder = tmp_path / "backbone"
    folder.mkdir()
    model = tiny_model("decoder", "causal-lm", tie_word_embeddings=True)
    model.tie_weights()
    return case_of(folder, model, "decoder", "causal-lm", "nf4")


def case_of(folder: Path, model: PreTrainedModel, kind: str, task: str, quantization: Quantization) -> Case:
    """Share a model, through the files that a sweep writes."""
    checkpoint = folder / "checkpoint"
    # the inner model alone, so that the head is missing as in a pretrained checkpoint
    (model if task == "causal-lm" else copy.deepcopy(model.base_model)).save_pretrained(checkpoint)
    source = Source(str(checkpoint), checkpoint, "tiny", portable=False, trust_remote_code=False)
    write(source, AUTO_CLASSES[task], quantization, True, folder / "frozen.safetensors")
    write(source, AUTO_CLASSES[task], "none", True, folder / "original.safetensors")
    shared = load(
        folder / "frozen.safetensors",
        task,
        name=str(checkpoint),
        dtype=torch.float32,
        labels=LABELS if task == "classification" else 0,
        original=folder / "original.safetensors",
    )
    return Case(kind, task, quantization, checkpoint, shared)


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, make_case: Callable[..., Case]) -> Case:
    return make_case(*request.param)


@pytest.fixture(scope="module", params=PLAIN_CASES)
def plain_case(request: pytest.FixtureRequest, make_case: Callable[..., Case]) -> Case:
    """A backbone without quantization, so that a model of transformers alone has the same weights."""
    return make_case(*request.param)


def family_members() -> tuple[str, ...]:
    """Every ``peft:TYPE`` of the installed `peft`, and a few compositions."""
    return (*(f"peft:{name}" for name in trainable_types()), *COMPOSITIONS)
