"""A hard prompt against the language model of transformers on the text written out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

import methods
from methods.base.spec import Context, MethodError, TaskText
from methods.parts.prompt_template import classification_prompt

from .conftest import CLASSES, Case, case_of, tiny_config, tiny_tokenizer

SPEC = methods.get("hard_prompt")
WIDE: dict[str, Any] = {"vocab_size": 100, "initializer_range": 0.3}
WIDE |= {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
ARCHITECTURES: dict[str, PreTrainedConfig] = {
    "llama": transformers.LlamaConfig(**tiny_config("decoder").to_diff_dict() | {"tie_word_embeddings": True}),
    "gpt2": transformers.GPT2Config(**WIDE, n_embd=32, n_layer=2, n_head=4, n_positions=160),
    "opt": transformers.OPTConfig(
        vocab_size=100, hidden_size=32, word_embed_proj_dim=16, num_hidden_layers=2, num_attention_heads=4, ffn_dim=64,
        max_position_embeddings=160, init_std=0.3, pad_token_id=0, bos_token_id=2, eos_token_id=1,
    ),
    "gemma2": transformers.Gemma2Config(
        **WIDE, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        intermediate_size=64, max_position_embeddings=160, final_logit_softcapping=2.0,
    ),
    "t5": tiny_config("encoder-decoder"),
    "bart": transformers.BartConfig(
        vocab_size=100, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=160, init_std=0.3,
        pad_token_id=0, bos_token_id=2, eos_token_id=1, decoder_start_token_id=1, forced_eos_token_id=1,
    ),
}  # fmt: skip


def case_for(folder: Path, name: str, task: str = "classification") -> Case:
    """A backbone of that architecture, without quantization."""
    torch.manual_seed(7)
    config = ARCHITECTURES[name]
    config.update({"num_labels": 3} if task == "classification" else {})
    kind = "encoder-decoder" if config.is_encoder_decoder else "decoder"
    auto = transformers.AutoModelForSequenceClassification if task == "classification" else None
    model = (auto or transformers.AutoModelForCausalLM).from_config(config).eval()
    return case_of(folder, model, kind, task, "none")


def tokenizer_with_ends() -> PreTrainedTokenizerBase:
    """A token per word, ``<s>`` before every text and ``</s>`` after it."""
    base = tiny_tokenizer()
    inner = Tokenizer.from_str(base.backend_tokenizer.to_str())
    inner.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)


ROWS = ["word20 word21 word22", "word30", "word40 word41 word42 word43 word44"]
EXAMPLES = [("word50 word51", 2), ("word60", 0), ("word70 word71 word72", 1)]
TEMPLATE = "word10 {text} word11 {label}"


def context_of(case: Case, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str] = CLASSES) -> Context:
    def examples(count: int) -> list[tuple[list[int], int]]:
        return [(tokenizer(text)["input_ids"], label) for text, label in EXAMPLES[:count]]

    text = TaskText(tokenizer=tokenizer, labels=tuple(labels), max_length=16, examples=examples)
    return replace(case.shared.context, text=text)


def attached(case: Case, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str] = CLASSES, **params: Any) -> Any:
    params = {"template": TEMPLATE, "calibration": False, **params}
    attachment = SPEC.attach(case.view(), SPEC.params_type(**params), context_of(case, tokenizer, labels))
    attachment.train(False)
    return attachment


def batch(tokenizer: PreTrainedTokenizerBase, side: str) -> dict[str, Tensor]:
    tokenizer.padding_side = side
    encoded = tokenizer(ROWS, padding=True, return_tensors="pt")
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}


def longhand(case: Case, prompt: str, word: str, tokenizer: PreTrainedTokenizerBase) -> float:
    """Return the log-probability of a word after a prompt, computed with transformers alone."""
    both = case.kind == "encoder-decoder"
    auto = transformers.AutoModelForSeq2SeqLM if both else transformers.AutoModelForCausalLM
    model: nn.Module = auto.from_pretrained(case.original).eval()
    word_ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    read = tokenizer(prompt)["input_ids"]
    with torch.no_grad():
        if both:
            start = [model.config.decoder_start_token_id, *word_ids[:-1]]
            logits = model(input_ids=torch.tensor([read]), decoder_input_ids=torch.tensor([start])).logits[0]
        else:
            special = tokenizer("")["input_ids"][1:]
            read = read[: len(read) - len(special)]
            logits = model(input_ids=torch.tensor([[*read, *word_ids[:-1]]])).logits[0, len(read) - 1 :]
    scores = logits.double().log_softmax(dim=-1)
    return float(scores[torch.arange(len(word_ids)), torch.tensor(word_ids)].sum())


def expected(case: Case, prompts: Sequence[str], words: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Tensor:
    return torch.tensor([[longhand(case, prompt, word, tokenizer) for word in words] for prompt in prompts])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_hard_prompt_scores_equal_word_log_probabilities(name: str, tmp_path: Path) -> None:
    case, tokenizer = case_for(tmp_path, name), tokenizer_with_ends()
    attachment = attached(case, tokenizer)
    scores = expected(case, [f"word10 {row} word11" for row in ROWS], CLASSES, tokenizer)
    for side in ("left", "right"):
        with torch.no_grad():
            logits = attachment.module(**batch(tokenizer, side)).logits
        torch.testing.assert_close(logits, scores, atol=1e-5, rtol=1e-5)


def test_hard_prompt_examples_precede_text_with_classes(tmp_path: Path) -> None:
    case, tokenizer = case_for(tmp_path, "llama"), tokenizer_with_ends()
    attachment = attached(case, tokenizer, examples=2)
    shown = "word10 word50 word51 word11 positive word10 word60 word11 negative"
    scores = expected(case, [f"{shown} word10 {row} word11" for row in ROWS], CLASSES, tokenizer)
    with torch.no_grad():
        logits = attachment.module(**batch(tokenizer, "left")).logits
    torch.testing.assert_close(logits, scores, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_hard_prompt_scores_distinguishing_tokens_alone(name: str, tmp_path: Path) -> None:
    case, tokenizer = case_for(tmp_path, name), tokenizer_with_ends()
    labels = ["word80 word81 word90", "word80 word82 word90", "word83"]
    attachment = attached(case, tokenizer, labels)
    distinguishing = ["word80 word81", "word80 word82", "word83"]
    scores = expected(case, [f"word10 {row} word11" for row in ROWS], distinguishing, tokenizer)
    with torch.no_grad():
        logits = attachment.module(**batch(tokenizer, "left")).logits
    torch.testing.assert_close(logits, scores, atol=1e-5, rtol=1e-5)


def test_hard_prompt_verbalizers_replace_class_names(tmp_path: Path) -> None:
    case, tokenizer = case_for(tmp_path, "llama"), tokenizer_with_ends()
    attachment = attached(case, tokenizer, verbalizers="negative = word91; positive=word92")
    scores = expected(case, [f"word10 {row} word11" for row in ROWS], ["word91", "neutral", "word92"], tokenizer)
    with torch.no_grad():
        logits = attachment.module(**batch(tokenizer, "left")).logits
    torch.testing.assert_close(logits, scores, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "bart"])
def test_hard_prompt_calibration_divides_by_content_free_probabilities(name: str, tmp_path: Path) -> None:
    case, tokenizer = case_for(tmp_path, name), tokenizer_with_ends()
    attachment = attached(case, tokenizer, calibration=True)
    plain = expected(case, [f"word10 {row} word11" for row in ROWS], CLASSES, tokenizer)
    without = expected(case, ["word10 N/A word11"], CLASSES, tokenizer).softmax(dim=1)
    with torch.no_grad():
        probabilities = attachment.module(**batch(tokenizer, "left")).logits.softmax(dim=1)
    calibrated = plain.softmax(dim=1) / without  # the diagonal matrix of arXiv:2102.09690
    torch.testing.assert_close(probabilities, calibrated / calibrated.sum(dim=1, keepdim=True), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "labels"), [("llama", CLASSES), ("t5", ["word80 word81", "word80 word82", "word83"])])
def test_hard_prompt_is_saved_with_adapter(name: str, labels: Sequence[str], tmp_path: Path) -> None:
    (tmp_path / "backbone").mkdir()
    case, tokenizer = case_for(tmp_path / "backbone", name), tokenizer_with_ends()
    attachment = attached(case, tokenizer, labels, examples=3, calibration=True)
    (tmp_path / "adapter").mkdir()
    attachment.save(tmp_path / "adapter")
    back = methods.load_adapter(case.shared.view(5), tmp_path / "adapter", case.shared.context)
    rows = batch(tokenizer, "left")
    with torch.no_grad():
        assert torch.equal(back.module(**rows).logits, attachment.module(**rows).logits)


def test_hard_prompt_refuses_call_without_prompt(tmp_path: Path) -> None:
    case = case_for(tmp_path, "llama")
    bare = SPEC.attach(case.view(), SPEC.params_type(), case.shared.context)
    with pytest.raises(MethodError, match="has no words"):
        bare.module(**batch(tokenizer_with_ends(), "left"))


def test_hard_prompt_trains_nothing(tmp_path: Path) -> None:
    attachment = attached(case_for(tmp_path, "llama"), tokenizer_with_ends())
    assert not attachment.trainable()
    assert not attachment.groups
    assert not SPEC.trains


@pytest.mark.parametrize(
    ("params", "labels", "message"),
    [
        (
            {"verbalizers": "bad = word9"},
            CLASSES,
            "'bad', which is not a class; the classes are negative, neutral, positive",
        ),
        ({}, ["word80", "word80 word81"], "'word80 word81' begins like 'word80'"),
        ({}, ["unheard", "unseen"], "'unseen' begins like 'unheard'"),
        ({"examples": 3, "template": "word1 " * 40 + "{text} {label}"}, CLASSES, "takes 187 tokens; .* takes 160"),
    ],
)
def test_hard_prompt_refuses_impossible_prompts_in_one_line(
    params: dict[str, Any], labels: Sequence[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(MethodError, match=message) as caught:
        attached(case_for(tmp_path, "llama"), tokenizer_with_ends(), labels, **params)
    assert "\n" not in str(caught.value)


def test_hard_prompt_refuses_backbone_without_language_model(make_case: Any) -> None:
    with pytest.raises(MethodError, match="an encoder, which predicts no next token"):
        make_case("encoder", "classification", "none").attach(SPEC, SPEC.params_type())
    with pytest.raises(MethodError, match=r"lacks lm_head\.weight: its output embeddings are not tied"):
        make_case("decoder", "classification", "none").attach(SPEC, SPEC.params_type())


@pytest.mark.parametrize("template", ["{text}", "{label}", "{text} {label} more", "{text} {text} {label}", "sentiment"])
def test_hard_prompt_template_needs_text_and_final_class(template: str) -> None:
    with pytest.raises(MethodError, match=r"template is .* must be one of label, question, instruction, or a text"):
        SPEC.params_type(template=template)


CORPUS = [f"this was {word} and that was {word} .\nLabel: {word}" for word in ("good", "bad")] * 4


def bytes_tokenizer() -> PreTrainedTokenizerBase:
    """A byte-level tokenizer, as of GPT-2 and Llama 3: a word's token includes the space before it."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def pieces_tokenizer() -> PreTrainedTokenizerBase:
    """A tokenizer like SentencePiece, which begins every text with a space."""
    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    inner.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>"], show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner)


@pytest.mark.parametrize(
    ("tokenizer", "word"), [(bytes_tokenizer(), "Ġgood"), (pieces_tokenizer(), "▁good")], ids=["bytes", "pieces"]
)
@pytest.mark.parametrize("template", ["label", "{text} Label: {label}", "{text} {label}"])
def test_hard_prompt_tokenizes_words_with_preceding_space(
    tokenizer: PreTrainedTokenizerBase, word: str, template: str
) -> None:
    text = TaskText(tokenizer=tokenizer, labels=("good", "bad"), max_length=16, examples=lambda count: [])
    words = classification_prompt(text, template, "names", 0, closes=False)
    assert tokenizer.convert_ids_to_tokens(words.classes[0]) == [word]
    joined_ids = tokenizer("this was bad" + {"label": "\nLabel: good"}.get(template, template[6:-7] + "good"))[
        "input_ids"
    ]
    assert [*tokenizer("this was bad")["input_ids"], *words.after, *words.classes[0]] == joined_ids


def test_hard_prompt_templates_list_classes() -> None:
    text = TaskText(tokenizer=bytes_tokenizer(), labels=("good", "bad"), max_length=16, examples=lambda count: [])
    assert text.tokenizer.decode(classification_prompt(text, "question", "names", 0, closes=False).after) == (
        "\nQuestion: which of good, bad is this?\nAnswer:"
    )
    before = classification_prompt(text, "instruction", "good=fine", 0, closes=False).before
    assert text.tokenizer.decode(before) == "Read the text and choose one of fine, bad.\n"


@pytest.fixture
def writer(tmp_path: Path) -> Case:
    return case_for(tmp_path, "llama", "causal-lm")


def opening_tokenizer() -> PreTrainedTokenizerBase:
    """A tokenizer that puts ``<s>`` before every text, as Llama's."""
    tokenizer = tokenizer_with_ends()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    return tokenizer


@pytest.mark.parametrize("side", ["left", "right"])
def test_hard_prompt_language_model_reads_examples_before_row(writer: Case, side: str) -> None:
    tokenizer = opening_tokenizer()
    attachment = attached(writer, tokenizer, (), examples=2)
    model = transformers.AutoModelForCausalLM.from_pretrained(writer.original).eval()
    rows = batch(tokenizer, side)
    with torch.no_grad():
        logits = attachment.module(**rows).logits
        for row, text, mask in zip(logits, ROWS, rows["attention_mask"], strict=True):
            prompted = tokenizer(f"word50 word51 word60 {text}", return_tensors="pt")["input_ids"]
            count = len(text.split())
            torch.testing.assert_close(
                row[mask == 1][-count:], model(input_ids=prompted).logits[0, -count:], atol=1e-5, rtol=1e-5
            )
            # what the row's opening predicts is what the last example does
            torch.testing.assert_close(
                row[mask == 1][0], model(input_ids=prompted).logits[0, -count - 1], atol=1e-5, rtol=1e-5
            )


def test_hard_prompt_language_model_without_examples_is_bare_model(writer: Case) -> None:
    tokenizer = opening_tokenizer()
    attachment = attached(writer, tokenizer, (), examples=0)
    rows = batch(tokenizer, "right")
    with torch.no_grad():
        scores = writer.view()(**rows).logits
        real = rows["attention_mask"] == 1
        torch.testing.assert_close(attachment.module(**rows).logits[real], scores[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("examples", [0, 2])
def test_hard_prompt_generates_after_examples_and_row(writer: Case, examples: int) -> None:
    tokenizer = opening_tokenizer()
    attachment = attached(writer, tokenizer, (), examples=examples)
    model = transformers.AutoModelForCausalLM.from_pretrained(writer.original).eval()
    rows = batch(tokenizer, "left")
    settings = {"do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4, "pad_token_id": 0}
    written = attachment.module.generate(**rows, **settings)
    assert torch.equal(written[:, : rows["input_ids"].shape[1]], rows["input_ids"])
    for line, text in zip(written, ROWS, strict=True):
        shown = "word50 word51 word60 " if examples else ""
        prompted = tokenizer(shown + text, return_tensors="pt")["input_ids"]
        assert line[-4:].tolist() == model.generate(prompted, **settings)[0, -4:].tolist()
    assert len(set(itertools.chain(*written[:, -4:].tolist()))) > 1
