"""Prompts, prefixes and deep prompts, against longhand math, peft, and the tokens that initialize them."""

import dataclasses
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import Tensor, nn

import methods
from methods.base.spec import Attached, MethodError
from methods.deep_prompt import DeepPromptParams
from methods.p_tuning import PTuningParams
from methods.prefix import PrefixParams
from methods.prompt import PromptParams
from orchestrator.backbone.frozen import FrozenLinear
from orchestrator.backbone.skeleton import skeleton
from orchestrator.engine.packing import in_lockstep

pytestmark = pytest.mark.filterwarnings(
    # peft 0.21 uses a name that transformers 5 has deprecated, when it attaches or loads an adapter
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)
DEEP, PREFIX, PROMPT, P_TUNING = (methods.get(name) for name in ("deep_prompt", "prefix", "prompt", "p_tuning"))
KINDS = ["encoder", "decoder"]
SHAPE: dict[str, Any] = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPE |= {"intermediate_size": 64, "max_position_embeddings": 40, "initializer_range": 0.2}
IDS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
ROTARY = {**SHAPE, **IDS, "num_key_value_heads": 2}
SEQ2SEQ = {"vocab_size": 100, "d_model": 32, **IDS, "decoder_start_token_id": 0}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", SHAPE),
    "modernbert": ("ModernBertConfig", {**SHAPE, **IDS, "cls_token_id": 3, "sep_token_id": 4, "local_attention": 4}),
    "llama": ("LlamaConfig", ROTARY),
    "mistral": ("MistralConfig", {**ROTARY, "sliding_window": 4}),
    "gemma3": ("Gemma3TextConfig", {**ROTARY, "head_dim": 8, "sliding_window": 4}),
    "gpt2": (
        "GPT2Config",
        {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40, **IDS}
        | {"initializer_range": 0.2},
    ),
    "t5": ("T5Config", {**SEQ2SEQ, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}),
    "bart": (
        "BartConfig",
        {**SEQ2SEQ, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
        | {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 40}
        | {"init_std": 0.2},
    ),
}
LEFT_PADDED = {"llama", "mistral", "gemma3", "gpt2"}


def nudge(module: nn.Module) -> None:
    torch.manual_seed(23)
    with torch.no_grad():
        for _, parameter in sorted(module.named_parameters()):
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn_like(parameter)


def model(name: str, attention: str = "sdpa") -> transformers.PreTrainedModel:
    kind, values = MODELS[name]
    config = getattr(transformers, kind)(**values, num_labels=3, attn_implementation=attention)
    torch.manual_seed(7)
    built = transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation=attention)
    return built.eval().requires_grad_(False)


def batch(name: str) -> dict[str, Tensor]:
    torch.manual_seed(5)
    tokens = torch.randint(5, 100, (3, 9))
    mask = torch.ones_like(tokens)
    padding = slice(0, 3) if name in LEFT_PADDED else slice(-3, None)
    tokens[0, padding], mask[0, padding] = 0, 0
    tokens[torch.arange(3), mask.cumsum(1).argmax(1)] = 1  # some classify at the end-of-text token
    return {"input_ids": tokens, "attention_mask": mask}


def deep(view: nn.Module, case_context: Any, **changes: Any) -> Attached:
    torch.manual_seed(11)
    attached = DEEP.attach(view, DeepPromptParams(**{"tokens": 5, "init": "random", **changes}), case_context)
    attached.train(False)
    return attached


@pytest.fixture
def context(make_case) -> Any:
    return dataclasses.replace(make_case("encoder", "classification", "none").shared.context, head=())


def longhand(q: Tensor, k: Tensor, v: Tensor, pairs: Any, visible: Tensor, scaling: float) -> Tensor:
    """Compute attention in float64, head by head and query by query; shape (batch, queries, heads * width)."""
    rows, heads, queries, _ = q.shape
    group = heads // k.shape[1]
    out = torch.zeros(rows, queries, heads, v.shape[3], dtype=torch.float64)
    for row in range(rows):
        for head in range(heads):
            keys = torch.cat([pairs.keys[head // group], k[row, head // group]]).double()
            values = torch.cat([pairs.values[head // group], v[row, head // group]]).double()
            for query in range(queries):
                visible_keys = torch.cat([torch.ones(len(pairs.keys[0]), dtype=torch.bool), visible[row, query]])
                scores = torch.exp(keys[visible_keys] @ q[row, head, query].double() * scaling)
                out[row, query, head] = (scores / scores.sum()) @ values[visible_keys]
    return out.flatten(2)


def visible(mask: Tensor, causal: bool, window: int | None) -> Tensor:
    """Return which of the input's keys each query attends to; shape (batch, queries, keys)."""
    positions = torch.arange(mask.shape[1])
    distance = positions[:, None] - positions[None, :]
    allowed = (distance >= 0) if causal else torch.ones_like(distance, dtype=torch.bool)
    if window is not None:
        allowed = allowed & (distance.abs() < window)
    return allowed[None] & mask[:, None, :].bool()


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions as complex numbers; ``x`` has shape (batch, heads, tokens, width)."""
    half = x.shape[-1] // 2
    turn = torch.complex(cos, sin)[:, None, :, :half].to(torch.complex128)
    turned = torch.complex(x[..., :half].double(), x[..., half:].double()) * turn
    return torch.cat([turned.real, turned.imag], dim=-1)


@pytest.mark.parametrize("padded", [True, False], ids=["padded", "whole"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["bert", "llama", "mistral"])
def test_deep_prompt_equals_its_equation(name, attention, padded, context):
    view = model(name, attention)
    attached = deep(view, context)
    nudge(attached.module)
    layers = [m for m in view.modules() if hasattr(m, "learned_pairs")]
    records: dict[Any, Any] = {}
    for layer in layers:
        layer.register_forward_hook(
            lambda m, args, kwargs, out: records.update({m: (args, kwargs, out)}), with_kwargs=True
        )
        if name != "bert":  # what its output projection reads
            layer.o_proj.register_forward_pre_hook(lambda _, args, m=layer: records.update({f"{id(m)}": args[0]}))
    rows = batch(name)
    if not padded:
        rows["attention_mask"] = torch.ones_like(rows["attention_mask"])
    with torch.no_grad():
        view(**rows)
    assert len(records) == (2 if name == "bert" else 4)
    for layer in layers:
        args, kwargs, out = records[layer]
        x = (args[0] if args else kwargs["hidden_states"]).double()
        names = ("query", "key", "value") if name == "bert" else ("q_proj", "k_proj", "v_proj")
        q, k, v = (project(getattr(layer, n), x) for n in names)
        if name != "bert":
            cos, sin = kwargs["position_embeddings"]
            q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        allowed = visible(rows["attention_mask"], name != "bert", 4 if name == "mistral" else None)
        expected = longhand(q, k, v, layer.learned_pairs, allowed, 8**-0.5)
        output = out[0] if name == "bert" else records[f"{id(layer)}"]
        real = rows["attention_mask"].bool()
        torch.testing.assert_close(output[real].double(), expected[real], atol=1e-5, rtol=1e-5)


def project(linear: nn.Linear, x: Tensor) -> Tensor:
    """Project to queries, keys or values in float64, of shape (batch, heads, tokens, 8)."""
    bias = 0 if linear.bias is None else linear.bias.double()
    return (x @ linear.weight.double().T + bias).unflatten(-1, (-1, 8)).transpose(1, 2)


@pytest.mark.parametrize("causal", [True, False])
def test_deep_prompt_pairs_are_visible_with_is_causal_flag(causal, context):
    view = model("llama")
    deep(view, context)
    layer = next(m for m in view.modules() if hasattr(m, "learned_pairs"))
    q, k, v = (torch.randn(2, heads, 6, 8) for heads in (4, 2, 2))
    attend = transformers.AttentionInterface()["learned_pairs_sdpa"]
    output, _ = attend(layer, q, k, v, None, scaling=0.3, is_causal=causal)
    allowed = visible(torch.ones(2, 6), causal, None)
    expected = longhand(q, k, v, layer.learned_pairs, allowed, 0.3)
    torch.testing.assert_close(output.flatten(2).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_deep_prompt_is_equal_in_sdpa_and_eager(name, context):
    outputs = []
    for attention in ("sdpa", "eager"):
        attached = deep(model(name, attention), context)
        nudge(attached.module)
        with torch.no_grad():
            outputs.append(attached.module(**batch(name)).logits)
    bare = model(name)(**batch(name)).logits
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(outputs[0], bare, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_deep_prompt_on_skeleton_has_real_shapes(name, context):
    real = {n: p.shape for n, p in deep(model(name), context).trainable().items()}
    kind, values = MODELS[name]
    config = getattr(transformers, kind)(**values)
    bare = skeleton(config, "AutoModelForSequenceClassification", "classification", name, 3)
    empty = deep(bare.view(0), dataclasses.replace(bare.context, head=()), init="tokens").trainable()
    assert {p.device.type for p in empty.values()} == {"meta"}
    assert real == {n: p.shape for n, p in empty.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_deep_prompt_equals_peft_prefix_of_same_pairs(kind, make_case):
    case = make_case(kind, "classification", "none")
    attached = case.attach(DEEP, DeepPromptParams(tokens=6, init="random"))
    attached.train(False)
    config = peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=6)
    reference = peft.get_peft_model(case.plain(), config).eval()
    layers = [m.learned_pairs for m in attached.module.modules() if hasattr(m, "learned_pairs")]
    pairs = torch.stack([pair.detach() for layer in layers for pair in (layer.keys, layer.values)])
    weight = reference.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        weight.copy_(pairs.permute(2, 0, 1, 3).flatten(1))
    rows = case.batch(padded=False)
    # a prefix of peft's takes the first positions, a deep prompt none
    shifted = {**rows, "position_ids": torch.arange(6, 15).expand(4, -1)}
    output, expected = attached.module(**shifted, labels=case.labels()), reference(**rows, labels=case.labels())
    torch.testing.assert_close(output.logits, expected.logits, atol=1e-5, rtol=1e-5)
    output.loss.backward()
    expected.loss.backward()
    gradients = torch.stack([pair.grad for layer in layers for pair in (layer.keys, layer.values)])
    torch.testing.assert_close(gradients.permute(2, 0, 1, 3).flatten(1), weight.grad, atol=1e-5, rtol=1e-4)


def test_deep_prompt_leaves_other_views_unchanged(make_case):
    case = make_case("decoder", "classification", "nf4")
    earlier = case.view()
    before = case.logits(earlier)
    attached = case.attach(DEEP, DeepPromptParams())
    nudge(attached.module)
    assert attached.module.config._attn_implementation == "learned_pairs_sdpa"
    assert {model.config._attn_implementation for model in (case.shared.model, earlier, case.view())} == {"sdpa"}
    assert torch.equal(case.logits(earlier), before)
    assert torch.equal(case.logits(case.view()), before)
    assert not torch.allclose(case.logits(attached.module), before, atol=1e-3)


def test_deep_prompts_in_pack_equal_each_alone(make_case):
    case = make_case("decoder", "classification", "nf4")

    def trials() -> list[Attached]:
        runs = [case.attach(DEEP, DeepPromptParams(tokens=4)), case.attach(PROMPT, PromptParams(tokens=3))]
        runs.append(case.attach(DEEP, DeepPromptParams(tokens=7, init="tokens")))
        for run in runs:
            nudge(run.module)
        return runs

    rows = {**case.batch(), "labels": case.labels()}
    alone, together = trials(), trials()
    for run in alone:
        run.module(**rows).loss.backward()
    turns = in_lockstep([lambda run=run: run.module(**rows).loss for run in together])
    assert [turn.error for turn in turns] == [None] * 3
    torch.stack([turn.result for turn in turns]).sum().backward()
    for solo, packed in zip(alone, together, strict=True):
        for name, parameter in solo.trainable().items():
            torch.testing.assert_close(packed.trainable()[name].grad, parameter.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("name", "layers", "where"), [("llama", {1}, "layers.1."), ("t5", {2}, "decoder.block.0.")])
def test_deep_prompt_keeps_to_layers_of_context(name, layers, where, context):
    attached = deep(model(name), dataclasses.replace(context, layers=frozenset(layers)))
    assert len(attached.trainable()) == 2
    assert all(where in n for n in attached.trainable())


def test_deep_prompt_skips_cross_attention(context):
    trainable = deep(model("bart"), context).trainable()
    assert len(trainable) == 8
    assert all(".self_attn.learned_pairs." in name for name in trainable)


def test_deep_prompt_refuses_attention_outside_interface(context):
    config = transformers.DebertaV2Config(**SHAPE, relative_attention=True, pos_att_type=["p2c", "c2p"])
    view = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    with pytest.raises(MethodError, match=r"DebertaV2.* computes attention \(eager\) outside transformers' attention"):
        deep(view, context)


def test_deep_prompt_small_init_is_near_bare_model(make_case):
    case = make_case("decoder", "classification", "nf4")
    bare, distance = case.logits(case.view()), {}
    for init in ("small", "random"):
        attached = case.attach(DEEP, DeepPromptParams(init=init, tokens=4))
        attached.train(False)
        distance[init] = float((case.logits(attached.module) - bare).norm())
        if init == "small":
            learn(attached, case)
            assert all(len(torch.unique(p[0], dim=0)) == 4 for n, p in attached.trainable().items() if "pairs" in n)
    assert distance["small"] < distance["random"]


def test_prefix_zero_init_keeps_pairs_equal(make_case):
    case = make_case("decoder", "classification", "nf4")
    distinct = {}
    for init in ("zero", "tokens"):
        attached = case.attach(PREFIX, PrefixParams(init=init, tokens=4))
        learn(attached, case)
        distinct[init] = len(torch.unique(attached.module.prompt_encoder["default"].embedding.weight, dim=0))
    assert distinct == {"zero": 1, "tokens": 4}


def learn(attached: Attached, case) -> None:
    optimizer = torch.optim.SGD(attached.trainable().values(), lr=0.1)
    for _ in range(2):
        attached.module(**case.batch(), labels=case.labels()).loss.backward()
        optimizer.step()


@pytest.mark.parametrize("quantization", ["nf4", "none"])
@pytest.mark.parametrize("spec", [PREFIX, DEEP], ids=lambda spec: spec.name)
def test_prefix_token_init_equals_tokens_before_text(spec, quantization, make_case):
    case = make_case("decoder", "causal-lm", quantization)
    labels = ("word17", "word40", "word41", "word8")
    text = dataclasses.replace(case.context.text, labels=labels)
    attached = case.attach(spec, spec.params_type(init="tokens", tokens=7), text=text)
    attached.train(False)
    words = case.context.text.tokenizer("word17 , word40 , word41 , word8", add_special_tokens=False)["input_ids"]
    rows = case.batch(padded=False)
    prefixed = {"input_ids": torch.cat([torch.tensor(words).expand(4, -1), rows["input_ids"]], dim=1)}
    prefixed["attention_mask"] = torch.ones_like(prefixed["input_ids"])
    if spec is DEEP:
        rows["position_ids"] = torch.arange(7, 16).expand(4, -1)
    with torch.no_grad():
        expected = case.view()(**prefixed).logits[:, 7:]
        torch.testing.assert_close(attached.module(**rows).logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("spec", [PREFIX, DEEP, PROMPT], ids=lambda spec: spec.name)
def test_soft_prompt_from_words_loads_without_words(spec, make_case, tmp_path: Path):
    case = make_case("encoder", "classification", "nf4")
    attached = case.attach(spec, spec.params_type(tokens=5, init="text" if spec is PROMPT else "tokens"))
    attached.train(False)
    attached.save(tmp_path)
    assert case.shared.context.text is None
    back = methods.load_adapter(case.view(), tmp_path, case.shared.context)
    back.train(False)
    assert torch.equal(case.logits(back.module), case.logits(attached.module))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("word30 word31", ["word30", "word31", "word30", "word31", "word30"]),
        ("word9 word8 word7 word10 word11 word12", ["word9", "word8", "word7", "word10", "word11"]),
        ("", ["negative", "<unk>", "neutral", "<unk>", "positive"]),
    ],
    ids=["repeated", "cut", "classes"],
)
def test_prompt_text_init_equals_embeddings_of_words(text, words, make_case):
    case = make_case("encoder", "classification", "nf4")
    view = case.view()
    attached = case.attach(PROMPT, PromptParams(tokens=5, init="text", init_text=text), view)
    ids = case.context.text.tokenizer.convert_tokens_to_ids(words)
    embedded = view.get_input_embeddings()(torch.tensor(ids))
    assert torch.equal(attached.module.prompt_encoder["default"].embedding.weight, embedded)


@pytest.mark.parametrize("spec", [PREFIX, DEEP, PROMPT], ids=lambda spec: spec.name)
def test_soft_prompt_loads_without_forward_pass(spec, make_case, tmp_path: Path, monkeypatch):
    case = make_case("encoder", "classification", "nf4")
    case.attach(spec, spec.params_type(tokens=5, init="text" if spec is PROMPT else "tokens")).save(tmp_path)
    monkeypatch.setattr(FrozenLinear, "matmul", lambda *_: pytest.fail("a frozen layer was run"))
    methods.load_adapter(case.view(), tmp_path, case.shared.context)


def test_prompt_refuses_init_text_without_text_init():
    with pytest.raises(MethodError, match="init_text is 'Classify'; it must be empty where init is not text"):
        PromptParams(init_text="Classify")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encoder", ["lstm", "mlp"])
def test_p_tuning_equals_peft_and_is_saved_as_tokens(encoder, kind, make_case, tmp_path: Path):
    case = make_case(kind, "classification", "none")
    attached = case.attach(P_TUNING, PTuningParams(tokens=6, encoder=encoder, width=12, depth=1 + (encoder == "lstm")))
    attached.train(False)
    config = peft.PromptEncoderConfig(
        task_type="SEQ_CLS",
        num_virtual_tokens=6,
        encoder_reparameterization_type=encoder.upper(),
        encoder_hidden_size=12,
        modules_to_save=list(case.shared.context.head),
    )
    plain = case.plain()
    torch.manual_seed(11)
    reference = peft.get_peft_model(plain, config).eval()
    for module in (attached.module, reference):
        nudge(module)
        module(**case.batch(padded=False), labels=case.labels()).loss.backward()
    expected = {name: p for name, p in reference.named_parameters() if p.requires_grad}
    assert attached.trainable().keys() == expected.keys()
    for name, parameter in expected.items():
        torch.testing.assert_close(attached.trainable()[name].grad, parameter.grad, atol=1e-5, rtol=1e-4)
    logits = case.logits(reference, padded=False)
    torch.testing.assert_close(case.logits(attached.module, padded=False), logits, atol=1e-5, rtol=1e-5)
    attached.save(tmp_path)
    back = methods.load_adapter(case.view(), tmp_path, case.shared.context)
    back.train(False)
    assert not any("head" in name for name in back.trainable() if "prompt_encoder" in name)
    assert torch.equal(case.logits(back.module), case.logits(attached.module))
    loaded = peft.PeftModel.from_pretrained(case.plain(), str(tmp_path)).eval()
    torch.testing.assert_close(case.logits(loaded, padded=False), logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spec", [PROMPT, PREFIX, P_TUNING], ids=lambda spec: spec.name)
def test_virtual_tokens_beyond_positions_are_refused(spec, make_case):
    case = make_case("decoder", "classification", "nf4")
    with pytest.raises(MethodError, match=r"tokens is 129; .* rows of up to 32 tokens it must be at most 128, .* 160"):
        case.attach(spec, spec.params_type(tokens=129))
    case.attach(spec, spec.params_type(tokens=128))
    case.attach(spec, spec.params_type(tokens=159), text=None)
    with pytest.raises(MethodError, match="tokens is 160"):
        case.attach(spec, spec.params_type(tokens=160), text=None)
    case.attach(DEEP, DeepPromptParams(tokens=400))  # takes no positions
    with pytest.raises(MethodError, match=r"tokens is 400; .* at most 160, the positions"):
        case.attach(DEEP, DeepPromptParams(tokens=400, init="tokens"))


def test_virtual_tokens_limit_counts_roberta_positions(context):
    config = transformers.RobertaConfig(**{**SHAPE, "pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0})
    view = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    with pytest.raises(MethodError, match=r"tokens is 38; .* at most 37, since Roberta\w+ takes 38"):
        PROMPT.attach(view, PromptParams(tokens=38), context)
    module = PROMPT.attach(view, PromptParams(tokens=37), context).module
    assert torch.isfinite(module(input_ids=torch.tensor([[5]]), attention_mask=torch.ones(1, 1)).logits).all()


@pytest.mark.parametrize("name", ["linear_probe", "deep_prompt", "prompt", "prefix"])
def test_position_ids_count_real_tokens(name, share):
    kind, values = MODELS["gpt2"]
    case = share(getattr(transformers, kind)(**values, num_labels=3), "decoder", "classification")
    spec = methods.get(name)
    attached = case.attach(spec, spec.params_type(**({} if name == "linear_probe" else {"tokens": 5})))
    attached.train(False)
    rows = case.batch()
    real = rows["attention_mask"][0] == 1
    alone = {key: value[:1, real] for key, value in rows.items()}
    with torch.no_grad():
        among, solo = attached.module(**rows).logits[0], attached.module(**alone).logits[0]
    torch.testing.assert_close(among, solo, atol=1e-5, rtol=1e-5)


def test_prefix_refuses_limited_layers(make_case):
    case = make_case("decoder", "classification", "nf4")
    with pytest.raises(MethodError, match="prefix sits in every block; deep_prompt can be given some"):
        case.attach(PREFIX, PrefixParams(), layers=frozenset({1}))


def test_deep_prompt_dropout_acts_in_training_only(make_case):
    case = make_case("encoder", "classification", "nf4")
    attached = case.attach(DEEP, DeepPromptParams(init="random", dropout=0.5))
    attached.train(True)
    assert not torch.equal(case.logits(attached.module), case.logits(attached.module))
    attached.train(False)
    assert torch.equal(case.logits(attached.module), case.logits(attached.module))


def test_deep_prompt_generates_alike_with_and_without_cache(make_case):
    case = make_case("decoder", "causal-lm", "nf4")
    attached = case.attach(DEEP, DeepPromptParams(init="random"))
    nudge(attached.module)
    attached.train(False)
    written = [
        attached.module.generate(**case.batch(), max_new_tokens=5, min_new_tokens=5, do_sample=False, use_cache=cached)
        for cached in (True, False)
    ]
    assert torch.equal(*written)
    assert len(set(written[0][:, -5:].flatten().tolist())) > 1
