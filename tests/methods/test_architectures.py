"""Every method on the architectures whose modules have other names, shapes, heads or a narrower stream."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import methods
from methods._base import Context, MethodError, MethodSpec

pytestmark = pytest.mark.filterwarnings(
    # peft 0.21 still asks transformers 5 by its old name when it attaches
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)
USUAL = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
USUAL |= {
    "intermediate_size": 64,
    "max_position_embeddings": 160,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
SEQ2SEQ = {"d_model": 32, "vocab_size": 100, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    # a head of several layers, which reads the whole sequence
    "electra": ("ElectraConfig", {**USUAL, "embedding_size": 16}),
    # transposed weights in modules that are not nn.Linear, fused attention
    "gpt2": (
        "GPT2Config",
        {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 160, "pad_token_id": 0},
    ),
    # a bfloat16 stream, tied embeddings, heads wider than the stream
    "qwen3": (
        "Qwen3Config",
        {**USUAL, "num_key_value_heads": 2, "head_dim": 16, "dtype": "bfloat16", "tie_word_embeddings": True},
    ),
}
MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "roberta": ("RobertaConfig", {**USUAL, "pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0}),
    "distilbert": ("DistilBertConfig", {"vocab_size": 100, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}),
    "mpnet": ("MPNetConfig", USUAL),
    "deberta-v2": ("DebertaV2Config", {**USUAL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "modernbert": ("ModernBertConfig", {**USUAL, "cls_token_id": 3, "sep_token_id": 4}),
    "albert": ("AlbertConfig", {**USUAL, "embedding_size": 16}),
    "gemma3": ("Gemma3TextConfig", {**USUAL, "num_key_value_heads": 2, "head_dim": 8}),
    "gpt_neox": ("GPTNeoXConfig", USUAL),
    "phi3": ("Phi3Config", USUAL),
    "opt": (
        "OPTConfig",
        {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64}
        | {"max_position_embeddings": 160, "word_embed_proj_dim": 32, "pad_token_id": 0},
    ),
    "t5": ("T5Config", {**SEQ2SEQ, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}),
    "bart": (
        "BartConfig",
        {**SEQ2SEQ, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
        | {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 160},
    ),
}
DECODERS = {"gpt2", "qwen3", "gemma3", "gpt_neox", "phi3", "opt"}
# (architecture, method): what the one line says
REFUSALS = {
    **{(name, "prefix"): "takes no key-value pairs" for name in ("distilbert", "mpnet", "deberta-v2", "modernbert")},
    ("albert", "prefix"): "takes no key-value pairs",
    **{
        (name, method): "is an encoder-decoder"
        for name in ("t5", "bart")
        for method in ("prompt", "prefix", "p_tuning", "multitask_prompt")
    },
    **{(name, "deep_prompt"): "outside transformers' attention interface" for name in ("mpnet", "deberta-v2")},
}


def inputs(case, name: str) -> dict[str, torch.Tensor]:
    batch = case.batch(padded=False)
    if name in ("t5", "bart"):
        batch["input_ids"][:, -1] = 1  # these classify at the end-of-text token
    return batch


def check(spec: MethodSpec, case, name: str, folder: Path) -> None:
    attached = case.attach(spec, spec.params_type())
    attached.train(True)
    batch = inputs(case, name)
    labels = case.labels() if case.task == "classification" else batch["input_ids"]
    attached.module(**batch, labels=labels).loss.backward()
    if attached.source_steps(10):
        sources = torch.arange(len(batch["input_ids"])) % len(case.context.sources)
        attached.module(**batch, labels=labels, task_ids=sources).loss.backward()
    trainable = attached.trainable()
    assert {p.dtype for p in trainable.values()} == {torch.float32}
    assert [n for n, p in trainable.items() if p.grad is None] == []
    torch.optim.SGD([{"params": list(g.parameters), "lr": 0.1 * g.multiplier} for g in attached.groups]).step()
    attached.train(False)
    folder.mkdir()
    attached.save(folder)
    back = methods.load_adapter(case.shared.view(99), folder, case.shared.context)
    back.train(False)
    with torch.no_grad():
        expected = attached.module(**batch).logits
        assert torch.equal(back.module(**batch).logits, expected)
        if back.merge is not None:
            narrow = {"atol": 0.05, "rtol": 0.05} if name == "qwen3" else {"atol": 1e-4, "rtol": 1e-4}
            torch.testing.assert_close(back.merge()(**batch).logits, expected, **narrow, check_dtype=False)


def check_all(name: str, share: Callable[..., Any], folder: Path) -> None:
    kind, values = {**CONFIGS, **MORE}[name]
    config = getattr(transformers, kind)(**values, num_labels=3)
    for task in ("classification", "causal-lm") if name in DECODERS else ("classification",):
        case = share(config, "decoder" if name in DECODERS else "encoder", task)
        before = case.shared.checksum()
        for method in methods.names():
            spec = methods.get(method)
            if (name, method) in REFUSALS:
                with pytest.raises(MethodError, match=REFUSALS[name, method]):
                    case.attach(spec, spec.params_type())
            elif task in spec.tasks and spec.trains:
                check(spec, case, name, folder / f"{task}-{method}")
        assert case.shared.checksum() == before


@pytest.mark.parametrize("name", CONFIGS)
def test_methods_train_save_load_and_merge(name, share, tmp_path):
    check_all(name, share, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_methods_train_save_load_and_merge_on_more_architectures(name, share, tmp_path):
    check_all(name, share, tmp_path)


def test_a_model_without_transformer_blocks_is_refused_in_one_line():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3))
    for name in ("lora", "ia3", "adapter"):
        spec = methods.get(name)
        context = Context(task="causal-lm", backbone="x", head=(), original=lambda _: torch.empty(0))
        with pytest.raises(MethodError, match="no transformer blocks were found in Sequential"):
            spec.attach(model, spec.params_type(), context)
