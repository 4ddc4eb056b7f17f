"""The methods that peft implements, against peft on a plain model of transformers."""

from pathlib import Path

import peft
import pytest
import torch
from torch import nn

import methods
from methods.base.spec import MethodSpec
from orchestrator.backbone.weights import FourBitWeight

from .conftest import BACKBONES
from .expected_support import expected_refusal

pytestmark = pytest.mark.filterwarnings(
    # peft 0.21 uses a name that transformers 5 has deprecated, when it attaches or loads an adapter
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)
TASK_TYPES = {"classification": "SEQ_CLS", "causal-lm": "CAUSAL_LM"}
HAND_MADE = {
    "lora": lambda kind: peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"),
    "ia3": lambda kind: peft.IA3Config(
        target_modules=["key", "value", "0.output.dense", "1.output.dense", "2.output.dense"]
        if kind == "encoder"
        else ["k_proj", "v_proj", "down_proj"],
        feedforward_modules=["0.output.dense", "1.output.dense", "2.output.dense"]
        if kind == "encoder"
        else ["down_proj"],
        exclude_modules=r".*attention\.output\.dense" if kind == "encoder" else None,
    ),
    "prompt": lambda kind: peft.PromptTuningConfig(num_virtual_tokens=20, prompt_tuning_init="SAMPLE_VOCAB"),
    "prefix": lambda kind: peft.PrefixTuningConfig(num_virtual_tokens=20, init_weights="zero"),
}


def by_peft(spec: MethodSpec, case) -> nn.Module:
    """Return the model that a user of peft would build from its documentation."""
    config = HAND_MADE[spec.name](case.kind)
    config.task_type = TASK_TYPES[case.task]
    if case.task == "classification":
        config.modules_to_save = list(case.shared.context.head)
    if spec.name == "lora" and case.kind == "encoder":
        config.exclude_modules = ["bert.pooler.dense"]  # no part of a block
    model = case.plain()
    torch.manual_seed(11)
    return peft.get_peft_model(model, config).eval()


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [backbone for backbone in BACKBONES if backbone[0] != "encoder-decoder"])
@pytest.mark.parametrize("name", HAND_MADE)
def test_method_outputs_and_gradients_equal_peft(name, backbone, make_case):
    case, spec = make_case(*backbone, "none"), methods.get(name)
    attached = case.attach(spec, spec.params_type())
    attached.train(False)
    reference = by_peft(spec, case)
    for module in (attached.module, reference):
        torch.manual_seed(23)
        with torch.no_grad():
            for _, parameter in sorted(trainable(module).items()):
                parameter += 0.1 * torch.randn_like(parameter)
        module(**case.batch(padded=False), labels=case.labels()).loss.backward()
    assert trainable(attached.module).keys() == trainable(reference).keys()
    torch.testing.assert_close(
        case.logits(attached.module, padded=False), case.logits(reference, padded=False), atol=1e-5, rtol=1e-5
    )
    for key, parameter in trainable(reference).items():
        torch.testing.assert_close(trainable(attached.module)[key].grad, parameter.grad, atol=1e-5, rtol=1e-4)


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("targets", "encoder", "decoder"),
    [
        ("attention_qv", {"query", "value"}, {"q_proj", "v_proj"}),
        ("attention", {"query", "key", "value", "attention.output.dense"}, {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("feed_forward", {"intermediate.dense", "output.dense"}, {"gate_proj", "up_proj", "down_proj"}),
    ],
)
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_lora_targets_follow_architecture(kind, targets, encoder, decoder, make_case):
    case = make_case(kind, "classification", "nf4")
    spec = methods.get("lora")
    attached = case.attach(spec, spec.params_type(targets=targets))
    blocks = [n.partition(".lora_A")[0] for n in attached.trainable() if "lora_A" in n]
    layer_names = {n.partition(".layer.")[2] or n.partition(".layers.")[2] for n in blocks}
    suffixes = encoder if kind == "encoder" else decoder
    assert len(layer_names) == 3 * len(suffixes)
    assert all(any(name.endswith(f".{suffix}") for suffix in suffixes) for name in layer_names)
    if kind == "encoder" and targets == "feed_forward":
        assert not any("attention" in name for name in layer_names)


def test_lora_plus_sets_rate_of_b(make_case):
    case = make_case("decoder", "causal-lm", "nf4")
    spec = methods.get("lora")
    attached = case.attach(spec, spec.params_type(lr_ratio=16.0))
    rates = {id(p): group.multiplier for group in attached.groups for p in group.parameters}
    assert {rates[id(p)] for n, p in attached.trainable().items() if "lora_B" in n} == {16.0}
    assert {rates[id(p)] for n, p in attached.trainable().items() if "lora_B" not in n} == {1.0}


@pytest.mark.parametrize(("rslora", "scale"), [(False, 2.0), (True, 8.0)])
def test_lora_scale_is_alpha_over_rank_or_root(rslora, scale, make_case):
    case = make_case("encoder", "classification", "none")
    spec = methods.get("lora")
    attached = case.attach(spec, spec.params_type(rank=16, alpha_ratio=2.0, rslora=rslora))
    layers = [m for m in attached.module.modules() if hasattr(m, "lora_A")]
    assert {layer.scaling["default"] for layer in layers} == {scale}


@pytest.mark.parametrize("name", [n for n in methods.names() if methods.get(n).peft and n != "dora"])  # it reads norms
def test_peft_method_attaches_without_unpacking(name, make_case, monkeypatch):
    case = make_case("decoder", "causal-lm", "nf4")
    spec = methods.get(name)
    view = case.view()
    monkeypatch.setattr(FourBitWeight, "dequantize", lambda *_: pytest.fail("a weight was unpacked"))
    attached = case.attach(spec, spec.params_type(), view)
    monkeypatch.undo()
    assert torch.isfinite(case.logits(attached.module)).all()


@pytest.mark.parametrize("name", [n for n in methods.names() if not expected_refusal(n, "llama", "causal-lm", "nf4")])
def test_generation_equals_one_pass_per_token(name, make_case):
    case = make_case("decoder", "causal-lm", "nf4")
    spec = methods.get(name)
    attached = case.attach(spec, spec.params_type())
    torch.manual_seed(23)
    with torch.no_grad():
        for parameter in attached.trainable().values():
            parameter += 0.1 * torch.randn_like(parameter)
    attached.train(False)
    batch = case.batch()
    # min_new_tokens forbids the end, so forbid it by hand as well
    with torch.no_grad():
        generated = attached.module.generate(**batch, max_new_tokens=5, min_new_tokens=5, do_sample=False)
        tokens, mask = batch["input_ids"], batch["attention_mask"]
        for _ in range(5):
            scores = attached.module(input_ids=tokens, attention_mask=mask).logits[:, -1]
            scores[:, 1] = -torch.inf
            following = scores.argmax(dim=1, keepdim=True)
            tokens, mask = torch.cat([tokens, following], 1), torch.cat([mask, torch.ones_like(following)], 1)
    assert torch.equal(generated, tokens)
    assert len(set(generated[:, -5:].flatten().tolist())) > 1


def test_prefix_projection_is_saved_as_its_output(make_case, tmp_path: Path):
    case = make_case("decoder", "classification", "none")
    spec = methods.get("prefix")
    attached = case.attach(spec, spec.params_type(projection=True, projection_width=16, init="random"))
    attached.train(False)
    attached.save(tmp_path)
    back = methods.load_adapter(case.view(), tmp_path, case.shared.context)
    back.train(False)
    assert torch.equal(case.logits(back.module), case.logits(attached.module))
    plain = peft.PeftModel.from_pretrained(case.plain(), str(tmp_path)).eval()
    torch.testing.assert_close(
        case.logits(plain, padded=False), case.logits(attached.module, padded=False), atol=1e-5, rtol=1e-5
    )
