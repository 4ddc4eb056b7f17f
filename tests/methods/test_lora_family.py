"""LoRA's initializations, DoRA, QLoRA and AdaLoRA, against peft and against their papers."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import methods
from methods.base.spec import Attached, MethodError
from methods.parts import low_rank_init
from methods.parts.lora_layer import FusedLoraLinear
from methods.parts.low_rank import updated_layers
from orchestrator.backbone.weights import FourBitWeight
from orchestrator.tasks import TASK_TYPES

pytestmark = pytest.mark.filterwarnings(
    # peft 0.21 uses a name that transformers 5 has deprecated, when it attaches or loads an adapter
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    # peft 0.21 takes AdaLoRA's pattern for LoRA's when it attaches, and reads it when it loads the tensors
    "ignore:The following rank_pattern keys did not match:RuntimeWarning",
)
KINDS = [("encoder", "classification"), ("decoder", "causal-lm")]


@pytest.fixture(params=KINDS, ids=[kind for kind, _ in KINDS])
def plain_case(request, make_case):
    return make_case(*request.param, "none")


@pytest.fixture(params=KINDS, ids=[kind for kind, _ in KINDS])
def packed_case(request, make_case):
    return make_case(*request.param, "nf4")


def attach(case, name: str, **params) -> Attached:
    spec = methods.get(name)
    attached = case.attach(spec, spec.params_type(**params))
    attached.train(False)
    return attached


def steps(attached: Attached, case, first: int, last: int, total: int, optimizer=None) -> torch.optim.Optimizer:
    """Do the optimizer steps ``first`` to ``last`` of ``total``, counted from 1."""
    rated = [{"params": list(g.parameters), "lr": 1e-2 * g.multiplier} for g in attached.groups]
    optimizer = optimizer or torch.optim.AdamW(rated)
    for step in range(first, last + 1):
        attached.module(**case.batch(padded=False), labels=case.labels()).loss.backward()
        optimizer.step()
        if attached.on_step:
            attached.on_step(step, total)
        optimizer.zero_grad()
    return optimizer


def by_peft(case, config: peft.PeftConfig) -> nn.Module:
    config.task_type = {"classification": "SEQ_CLS", "causal-lm": "CAUSAL_LM"}[case.task]
    config.modules_to_save = list(case.shared.context.head) or None
    if case.kind == "encoder":
        config.exclude_modules = ["bert.pooler.dense"]
    model = case.plain()
    torch.manual_seed(11)
    return peft.get_peft_model(model, config).eval()


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def move_alike(case, *modules: nn.Module) -> None:
    """Add the same noise to what trains in each module, and leave the gradients of one backward pass."""
    for module in modules:
        torch.manual_seed(23)
        with torch.no_grad():
            for _, parameter in sorted(trainable(module).items()):
                parameter += 0.1 * torch.randn_like(parameter)
        module(**case.batch(padded=False), labels=case.labels()).loss.backward()


def assert_alike(case, module: nn.Module, reference: nn.Module) -> None:
    logits = case.logits(module, padded=False), case.logits(reference, padded=False)
    torch.testing.assert_close(*logits, atol=1e-5, rtol=1e-5)
    assert trainable(module).keys() == trainable(reference).keys()
    for name, parameter in trainable(reference).items():
        torch.testing.assert_close(trainable(module)[name].grad, parameter.grad, atol=1e-5, rtol=1e-4)


HAND_MADE: dict[str, tuple[dict[str, Any], Any]] = {
    "dora": ({}, lambda: peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", use_dora=True)),
    "adalora": (
        {"init_rank": 6, "target_ratio": 0.67, "orthogonality": 0.3},
        lambda: peft.AdaLoraConfig(
            init_r=6, target_r=4, lora_alpha=12, target_modules="all-linear", orth_reg_weight=0.3, total_step=100
        ),
    ),
    "lora-pissa": (
        {"init": "pissa", "alpha_ratio": 2.0},
        lambda: peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", init_lora_weights="pissa"),
    ),
    "lora-olora": (
        {"init": "olora", "alpha_ratio": 0.5, "rslora": True},
        lambda: peft.LoraConfig(
            r=8, lora_alpha=4, target_modules="all-linear", init_lora_weights="olora", use_rslora=True
        ),
    ),
}


@pytest.mark.parametrize("name", HAND_MADE)
def test_lora_family_outputs_and_gradients_equal_peft(name, plain_case):
    params, config = HAND_MADE[name]
    attached, reference = attach(plain_case, name.partition("-")[0], **params), by_peft(plain_case, config())
    for label, parameter in trainable(attached.module).items():
        torch.testing.assert_close(parameter, trainable(reference)[label], atol=1e-4, rtol=1e-4)
    start = plain_case.logits(attached.module, padded=False), plain_case.logits(reference, padded=False)
    torch.testing.assert_close(*start, atol=1e-5, rtol=1e-5)
    move_alike(plain_case, attached.module, reference)
    assert_alike(plain_case, attached.module, reference)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("shape", [(3, 5, 12), (3, 12)])
def test_lora_layer_equals_peft_to_rounding(dtype, tolerance, dropout, shape):
    config = peft.LoraConfig(r=4, lora_alpha=6, lora_dropout=dropout, init_lora_weights=False)
    layer = FusedLoraLinear(
        nn.Linear(12, 20, dtype=dtype).requires_grad_(False), "default", config=config, r=4, lora_alpha=6
    )
    layer.update_layer("second", 2, 5, config=config)
    layer.set_adapter(["default", "second"])
    for factors in (layer.lora_A, layer.lora_B):
        factors.float()
    results = []
    for forward in (FusedLoraLinear.forward, peft.tuners.lora.Linear.forward):
        x = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(1)).requires_grad_()
        torch.manual_seed(2)
        y = forward(layer, x)
        inputs = [x, *(p for p in layer.parameters() if p.requires_grad)]
        results.append([y, *torch.autograd.grad(y.float().square().mean(), inputs)])
    assert len(results[0]) == 2 + 4
    for tensor, other in zip(*results, strict=True):
        torch.testing.assert_close(tensor, other, rtol=tolerance, atol=tolerance)


def test_lora_layer_is_frozen_layer_while_adapter_disabled(plain_case):
    attached = attach(plain_case, "lora")
    assert all(isinstance(layer, FusedLoraLinear) for _, layer in updated_layers(attached.module))
    before = plain_case.logits(attached.module)
    move_alike(plain_case, attached.module)
    assert not torch.allclose(plain_case.logits(attached.module), before)
    with attached.module.disable_adapter():
        assert torch.equal(plain_case.logits(attached.module), before)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_lora_init_from_weight_starts_as_identity(init, packed_case):
    checksum = packed_case.shared.checksum()
    attached = attach(packed_case, "lora", init=init)
    assert all(layer.lora_B["default"].weight.any() for _, layer in updated_layers(attached.module))
    bare = packed_case.logits(packed_case.view())
    torch.testing.assert_close(packed_case.logits(attached.module), bare, atol=1e-5, rtol=1e-5)
    names = set(attached.trainable())
    assert not any(low_rank_init.START in name.split(".") for name in names)
    steps(attached, packed_case, 1, 2, 2)
    assert not torch.allclose(packed_case.logits(attached.module), bare, atol=1e-3)
    assert packed_case.shared.checksum() == checksum


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_lora_init_from_weight_is_saved_with_doubled_rank(init, rslora, plain_case, tmp_path: Path):
    attached = attach(plain_case, "lora", init=init, rslora=rslora, rank=4)
    steps(attached, plain_case, 1, 2, 2)
    attached.save(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 8
    attach(plain_case, "lora", rank=8).save(tmp_path / "plain")
    tensors, plain_tensors = (
        load_file(folder / "adapter_model.safetensors") for folder in (tmp_path, tmp_path / "plain")
    )
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        name: t.shape for name, t in plain_tensors.items()
    }
    plain = peft.PeftModel.from_pretrained(plain_case.plain(), str(tmp_path)).eval()
    expected = plain_case.logits(attached.module, padded=False)
    torch.testing.assert_close(plain_case.logits(plain, padded=False), expected, atol=1e-5, rtol=1e-5)
    back = methods.load_adapter(plain_case.view(), tmp_path, plain_case.shared.context)
    back.train(False)
    assert torch.equal(plain_case.logits(back.module, padded=False), expected)
    merged = attached.merge()
    torch.testing.assert_close(plain_case.logits(merged, padded=False), expected, atol=1e-4, rtol=1e-4)


def test_lora_init_from_weight_refuses_other_rank(make_case, tmp_path: Path):
    case = make_case("decoder", "causal-lm", "nf4")
    attach(case, "lora", init="pissa", rank=4).save(tmp_path)
    with pytest.raises(MethodError, match="is not an update of rank 6"):
        attach(case, "lora", init="pissa", rank=3).load(tmp_path)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_lora_init_from_weight_survives_pause(init, make_case):
    case = make_case("decoder", "causal-lm", "nf4")
    attached = attach(case, "lora", init=init)
    state = attached.state()
    assert len(state) == 2 * len(list(updated_layers(attached.module)))
    other = attach(case, "lora", init=init)
    with torch.no_grad():
        for tensor in other.state().values():
            tensor.zero_()
    assert not torch.allclose(case.logits(other.module), case.logits(attached.module), atol=1e-3)
    other.load_state(state)
    assert torch.equal(case.logits(other.module), case.logits(attached.module))


def test_principal_factors_equal_exact_decomposition():
    generator = torch.Generator().manual_seed(2)
    left, right = (torch.linalg.qr(torch.randn(120, 120, generator=generator)).Q for _ in range(2))
    weight = left * 0.9 ** torch.arange(120) @ right
    torch.manual_seed(0)
    a, b = low_rank_init.principal_factors(weight, 8, 2.0)
    u, s, v = torch.linalg.svd(weight.double())
    exact = (u[:, :8] * s[:8]) @ v[:8]
    assert a.shape == (8, 120)
    assert b.shape == (120, 8)
    torch.testing.assert_close(2 * (b @ a).double(), exact, atol=1e-4, rtol=0)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_loftq_starts_at_best_approximation_of_error(quantization, make_case):
    case = make_case("encoder", "classification", quantization)
    attached = attach(case, "lora", init="loftq", rank=8)
    for name, layer in updated_layers(attached.module):
        original = case.shared.context.original(f"{name}.weight")
        quantized = layer.get_base_layer().weight
        start = quantized + layer.get_delta_weight("default")
        best = torch.linalg.svdvals(original - quantized)[8:].norm()
        torch.testing.assert_close((original - start).norm(), best, atol=1e-4, rtol=1e-3)
    assert attached.merge


def test_loftq_refuses_missing_quantization_or_original(make_case):
    spec = methods.get("lora")
    params = spec.params_type(init="loftq")
    case = make_case("encoder", "classification", "none")
    with pytest.raises(MethodError, match="the backbone is not quantized"):
        case.attach(spec, params)
    case = make_case("encoder", "classification", "nf4")

    def unpublished(name: str) -> torch.Tensor:
        raise KeyError(f"{name} cannot be had")

    context = dataclasses.replace(case.shared.context, original=unpublished)
    with pytest.raises(MethodError, match=r"needs the original weights: .*query.weight cannot be had"):
        spec.attach(case.view(), params, context)
    assert spec.original_for["init"] == {"loftq"}


def test_loftq_adapter_loads_without_original(make_case, tmp_path: Path):
    case = make_case("encoder", "classification", "nf4")
    attached = attach(case, "lora", init="loftq")
    steps(attached, case, 1, 1, 1)
    attached.save(tmp_path)
    context = dataclasses.replace(case.shared.context, original=lambda name: pytest.fail(f"asked for {name}"))
    back = methods.load_adapter(case.view(), tmp_path, context)
    back.train(False)
    assert torch.equal(case.logits(back.module), case.logits(attached.module))


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_lora_init_from_weight_loads_without_unpacking(init, make_case, tmp_path: Path, monkeypatch):
    case = make_case("decoder", "causal-lm", "nf4")
    attach(case, "lora", init=init).save(tmp_path)
    view = case.view()
    monkeypatch.setattr(FourBitWeight, "dequantize", lambda *_: pytest.fail("a weight was unpacked"))
    methods.load_adapter(view, tmp_path, case.shared.context)


def test_dora_magnitudes_start_as_row_norms(packed_case):
    attached = attach(packed_case, "dora")
    for _, layer in updated_layers(attached.module):
        rows = layer.get_base_layer().weight.double().square().sum(dim=1).sqrt()
        magnitude = layer.lora_magnitude_vector["default"].weight
        torch.testing.assert_close(magnitude.double(), rows, atol=1e-5, rtol=1e-5)
        assert magnitude.requires_grad


def counted(monkeypatch) -> list[int]:
    """Count how often a weight is unpacked from now on, in the list's only item."""
    count, unpack = [0], FourBitWeight.dequantize

    def dequantize(weight: FourBitWeight, dtype: torch.dtype) -> torch.Tensor:
        count[0] += 1
        return unpack(weight, dtype)

    monkeypatch.setattr(FourBitWeight, "dequantize", dequantize)
    return count


def test_dora_caches_norms_in_evaluation(make_case, monkeypatch):
    case = make_case("encoder", "classification", "nf4")
    attached = attach(case, "dora", dropout=0.5)
    layers = len(list(updated_layers(attached.module)))
    count = counted(monkeypatch)
    case.logits(attached.module)
    assert count[0] == 2 * layers
    case.logits(attached.module)
    assert count[0] == 3 * layers


def test_dora_recomputes_norms_in_training(make_case):
    case = make_case("encoder", "classification", "nf4")
    cached, other = attach(case, "dora"), attach(case, "dora")
    case.logits(cached.module)
    for attached in (cached, other):
        for name, parameter in attached.trainable().items():
            if "lora_B" in name:
                parameter.data.add_(0.1)  # as an optimizer does that writes past torch
    cached.train(True)
    other.train(True)
    expected = case.logits(other.module)
    assert torch.equal(case.logits(cached.module), expected)
    cached.train(False)
    assert torch.equal(case.logits(cached.module), expected)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dora_norms_follow_training_and_loading(dropout, plain_case, tmp_path: Path):
    attached = attach(plain_case, "dora", dropout=dropout)
    plain_case.logits(attached.module, padded=False)  # and they are kept
    attached.train(True)
    steps(attached, plain_case, 1, 2, 2)
    attached.train(False)
    expected = plain_case.logits(attached.module, padded=False)
    attached.save(tmp_path)
    reference = peft.PeftModel.from_pretrained(plain_case.plain(), str(tmp_path)).eval()
    torch.testing.assert_close(plain_case.logits(reference, padded=False), expected, atol=1e-5, rtol=1e-5)
    other = attach(plain_case, "dora")
    plain_case.logits(other.module, padded=False)
    other.load(tmp_path)
    assert torch.equal(plain_case.logits(other.module, padded=False), expected)


def test_dora_with_dropout_equals_peft(plain_case):
    attached = attach(plain_case, "dora", dropout=0.3)
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", use_dora=True, lora_dropout=0.3)
    reference = by_peft(plain_case, config)
    attached.train(True)
    for module in reference.modules():  # its own dropout, and none of the backbone's
        module.training = type(module).__module__.startswith("peft.tuners.lora") or getattr(module, "p", None) == 0.3
    losses = []
    for module in (attached.module, reference):
        with torch.no_grad():
            torch.manual_seed(23)
            for _, parameter in sorted(trainable(module).items()):
                parameter += 0.1 * torch.randn_like(parameter)
        torch.manual_seed(29)
        losses.append(module(**plain_case.batch(padded=False), labels=plain_case.labels()).loss)
        losses[-1].backward()
    torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-5)
    for name, parameter in trainable(reference).items():
        torch.testing.assert_close(trainable(attached.module)[name].grad, parameter.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_qlora_refuses_backbone_not_in_four_bits(quantization, make_case):
    case = make_case("decoder", "causal-lm", quantization)
    with pytest.raises(MethodError, match=r"needs a backbone in 4 bit; write backbone.quantization: nf4"):
        attach(case, "qlora")


def test_qlora_uses_paged_optimizer_and_all_linear_layers(make_case):
    case = make_case("decoder", "causal-lm", "nf4")
    attached = attach(case, "qlora")
    assert attached.optimizer == "paged_adamw_8bit"
    assert {name.rpartition(".")[2] for name, _ in updated_layers(attached.module)} == {
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    }


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("lora", {"rank": 33}, r"^rank is 33; .*query is 32 x 32 and has no more than 32 to update$"),
        ("qlora", {"rank": 33}, "rank is 33"),
        ("dora", {"rank": 33}, "rank is 33"),
        ("adalora", {"init_rank": 33}, "init_rank is 33"),
    ],
)
def test_lora_refuses_rank_above_layer_size(name, params, message, make_case):
    with pytest.raises(MethodError, match=message):
        attach(make_case("encoder", "classification", "nf4"), name, **params)


@pytest.mark.parametrize("name", ["lora", "dora", "adalora"])
def test_lora_refuses_role_that_architecture_lacks(name, share: Callable):
    spec = methods.get(name)
    context = make_context("causal-lm")
    with pytest.raises(MethodError, match="has no linear layer for query, value, fused"):
        spec.attach(OnlyOutputs(), spec.params_type(targets="attention_qv"), context)


class OnlyOutputs(nn.Module):
    """A transformer whose attention has nothing but an output projection."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.ModuleDict({"attention": nn.ModuleDict({"out_proj": nn.Linear(8, 8)})})
        self.layers = nn.ModuleList([block])


def make_context(task: str):
    from methods.base.spec import Context

    task_type: Any = TASK_TYPES[task].peft_task_type
    return Context(task=task, task_type=task_type, backbone="x", head=(), original=lambda _: torch.empty(0))


@pytest.mark.parametrize("name", ["lora", "qlora", "dora", "adalora"])
def test_lora_family_keeps_to_layers_of_context(name, make_case):
    case = make_case("decoder", "causal-lm", "nf4")
    spec = methods.get(name)
    context = dataclasses.replace(case.shared.context, layers=frozenset({1}))
    attached = spec.attach(case.view(), spec.params_type(), context)
    assert {layer.split(".layers.")[1][0] for layer, _ in updated_layers(attached.module)} == {"1"}


SHORT = {"init_rank": 4, "target_ratio": 0.5, "tinit": 0.0, "tfinal": 0.4, "alpha_ratio": 1.0}


def entries_within_budget(attached: Attached) -> int:
    return sum(int(layer.lora_E["default"].count_nonzero()) for _, layer in updated_layers(attached.module))


def test_adalora_falls_to_budget_and_trains_on(packed_case, tmp_path: Path):
    attached = attach(packed_case, "adalora", **SHORT)
    layers = len(list(updated_layers(attached.module)))
    optimizer = steps(attached, packed_case, 1, 3, 10)
    assert 2 * layers < entries_within_budget(attached) < 4 * layers
    steps(attached, packed_case, 4, 6, 10, optimizer)
    assert entries_within_budget(attached) == 2 * layers
    before = {name: p.clone() for name, p in attached.trainable().items()}
    steps(attached, packed_case, 7, 10, 10, optimizer)
    assert entries_within_budget(attached) == 2 * layers
    assert any(not torch.equal(before[name], p) for name, p in attached.trainable().items() if "lora_E" in name)


@pytest.mark.parametrize("total", [1, 2, 3])
def test_adalora_trains_in_very_short_trials(total, make_case):
    case = make_case("encoder", "classification", "nf4")
    attached = attach(case, "adalora", tinit=0.5, tfinal=0.4, init_rank=3)
    steps(attached, case, 1, total, total)
    assert torch.isfinite(case.logits(attached.module)).all()


@pytest.mark.parametrize("done", [3, 8])
def test_adalora_paused_trial_equals_uninterrupted(done, make_case):
    case = make_case("encoder", "classification", "nf4")
    straight = attach(case, "adalora", **SHORT)
    steps(straight, case, 1, 10, 10)

    paused = attach(case, "adalora", **SHORT)
    first = steps(paused, case, 1, done, 10)
    continued = attach(case, "adalora", **SHORT)
    with torch.no_grad():
        for name, parameter in paused.trainable().items():
            continued.trainable()[name].copy_(parameter)
    continued.load_state({name: tensor.clone() for name, tensor in paused.state().items()})
    rated = [{"params": list(g.parameters), "lr": 1e-2 * g.multiplier} for g in continued.groups]
    second = torch.optim.AdamW(rated)
    second.load_state_dict(first.state_dict())
    steps(continued, case, done + 1, 10, 10, second)
    for name, parameter in straight.trainable().items():
        assert torch.equal(continued.trainable()[name], parameter), name


@pytest.mark.parametrize("done", [5, 10])
def test_adalora_saves_with_and_without_final_budget(done, plain_case, tmp_path: Path):
    attached = attach(plain_case, "adalora", interval=0.4, **SHORT)  # between two falls, entries move again
    steps(attached, plain_case, 1, done, 10)
    expected = plain_case.logits(attached.module, padded=False)
    attached.save(tmp_path)
    shapes = {t.shape[0] for name, t in load_file(tmp_path / "adapter_model.safetensors").items() if "lora_E" in name}
    assert (shapes == {4}) == (done == 5)
    back = methods.load_adapter(plain_case.view(), tmp_path, plain_case.shared.context)
    back.train(False)
    assert torch.equal(plain_case.logits(back.module, padded=False), expected)
    plain = peft.PeftModel.from_pretrained(plain_case.plain(), str(tmp_path)).eval()
    torch.testing.assert_close(plain_case.logits(plain, padded=False), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plain_case.logits(attached.merge(), padded=False), expected, atol=1e-4, rtol=1e-4)
    again = tmp_path / "again"
    again.mkdir()
    back.save(again)
    tensors, saved_again = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path, again))
    assert tensors.keys() == saved_again.keys()
    assert all(torch.equal(tensors[name], saved_again[name]) for name in tensors)


def test_adalora_penalty_equals_term_in_peft_loss(make_case):
    case = make_case("decoder", "causal-lm", "nf4")
    attached = attach(case, "adalora", orthogonality=0.3)
    free = attach(case, "adalora", orthogonality=0.0)
    batch = {**case.batch(), "labels": case.labels()}
    with torch.no_grad():
        added = attached.module(**batch).loss - free.module(**batch).loss
        torch.testing.assert_close(attached.penalty(), added, atol=1e-5, rtol=1e-5)
    attached.penalty().backward()
    touched = {name for name, p in attached.trainable().items() if p.grad is not None}
    assert touched == {name for name in attached.trainable() if "lora_A" in name or "lora_B" in name}


@pytest.mark.parametrize(("init", "ratio", "target"), [(12, 0.67, 8), (2, 0.9, 1), (3, 0.1, 1), (96, 0.3, 29)])
def test_adalora_target_rank_is_between_one_and_init_rank(init, ratio, target):
    assert methods.get("adalora").params_type(init_rank=init, target_ratio=ratio).target_rank == target


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"target_ratio": 1.0}, "target_ratio is 1.0; it must be above 0 and below 1: ranks can only fall"),
        ({"init_rank": 1}, "init_rank is 1; it must be at least 2"),
        ({"tinit": 0.5, "tfinal": 0.5}, "tfinal is 0.5; it must be at least 0 and below 1 - tinit"),
        ({"interval": 0.0}, "interval is 0.0"),
        ({"targets": "output"}, "targets is 'output'; it must be one of attention_qv"),
    ],
)
def test_adalora_refuses_impossible_schedule(params, message):
    with pytest.raises(MethodError, match=message):
        methods.get("adalora").params_type(**params)
