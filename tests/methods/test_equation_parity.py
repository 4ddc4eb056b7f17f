"""The methods that peft does not implement, against longhand math and against models that they should equal."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import methods
from methods.adapter import AdapterParams, Bottleneck
from methods.base.spec import MethodError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: x.clamp_min(0),
    "gelu": lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2,
    "silu": lambda x: x / (1 + torch.exp(-x)),
}
SITES = {
    "encoder": ("attention.output.dense", "intermediate.dense", "output.dense"),
    "decoder": ("self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"),
}


def random_values(module: nn.Module) -> None:
    torch.manual_seed(17)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn_like(parameter))


def longhand(
    weights: dict[str, Tensor], prefix: str, phi: Callable[[Tensor], Tensor], scale: float, z: Tensor
) -> Tensor:
    w = {name: weights[f"{prefix}.{name}"].double() for name in ("down.weight", "down.bias", "up.weight", "up.bias")}
    middle = phi(torch.einsum("bti,oi->bto", z, w["down.weight"]) + w["down.bias"])
    return scale * (torch.einsum("bti,oi->bto", middle, w["up.weight"]) + w["up.bias"])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_bottleneck_equals_its_equation(activation):
    adapter = Bottleneck(12, AdapterParams(bottleneck=5, activation=activation, scale=4.0))
    random_values(adapter)
    z = torch.randn(2, 3, 12)
    weights = {f"a.{name}": tensor for name, tensor in adapter.state_dict().items()}
    expected = longhand(weights, "a", ACTIVATIONS[activation], 4.0, z.double())
    torch.testing.assert_close(adapter(z).double(), expected, atol=1e-6, rtol=1e-5)


def test_adapter_refuses_bottleneck_wider_than_model(make_case):
    case, spec = make_case("encoder", "classification", "none"), methods.get("adapter")
    spec.attach(case.view(), AdapterParams(bottleneck=32), case.context)
    with pytest.raises(MethodError, match=r"^bottleneck is 33; it must be at most 32, the width of the model$"):
        spec.attach(case.view(), AdapterParams(bottleneck=33), case.context)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer", "parallel"])
def test_adapter_placements_equal_their_papers(kind, placement, make_case):
    case = make_case(kind, "classification", "none")
    params = AdapterParams(placement=placement, bottleneck=6, scale=2.0)
    attached = case.attach(methods.get("adapter"), params)
    random_values(attached.module)
    attached.train(False)
    reference = case.plain().double()
    for name in case.shared.context.head:
        reference.get_submodule(name).load_state_dict(attached.module.get_submodule(name).state_dict())
    hook_longhand(reference, kind, placement, attached.trainable())
    torch.testing.assert_close(case.logits(attached.module).double(), case.logits(reference), atol=1e-4, rtol=1e-4)


def hook_longhand(model: nn.Module, kind: str, placement: str, weights: dict[str, Tensor]) -> None:
    """Add the adapters by hooks, in float64."""
    attention, first, last = SITES[kind]
    inputs: dict[str, Tensor] = {}

    def keep(block: str) -> Callable[..., None]:
        return lambda _, args: inputs.update({block: args[0]})

    def add(name: str, block: str) -> Callable[..., Tensor]:
        def hook(_: nn.Module, __: Any, z: Tensor) -> Tensor:
            source = inputs[block] if placement == "parallel" else z
            return z + longhand(weights, f"{name}.adapter", ACTIVATIONS["relu"], 2.0, source)

        return hook

    for name, module in model.named_modules():
        if name.endswith(first):
            module.register_forward_pre_hook(keep(name.removesuffix(first)))
        is_last = name.endswith(last) and not name.endswith(attention)
        if is_last or (placement == "houlsby" and name.endswith(attention)):
            module.register_forward_hook(add(name, name.removesuffix(last)))


def test_full_equals_original_model_before_and_after_step(case):
    attached = case.attach(methods.get("full"), methods.get("full").params_type())
    attached.train(False)
    reference = case.plain().requires_grad_(True)
    torch.testing.assert_close(case.logits(attached.module), case.logits(reference), atol=1e-5, rtol=1e-5)
    for module in (attached.module, reference):
        module(**case.batch(), labels=case.labels()).loss.backward()
        torch.optim.SGD(module.parameters(), lr=0.1).step()
    expected = dict(reference.named_parameters())
    assert attached.trainable().keys() == expected.keys()
    for name, parameter in attached.trainable().items():
        torch.testing.assert_close(parameter, expected[name], atol=1e-5, rtol=1e-4)


def test_full_layer_decay_lowers_rate_per_block(make_case):
    case = make_case("encoder", "classification", "nf4")
    spec = methods.get("full")
    attached = case.attach(spec, spec.params_type(layer_decay=0.5))
    names = {p: name for name, p in attached.trainable().items()}
    rates = {names[p]: group.multiplier for group in attached.groups for p in group.parameters}
    assert rates["bert.embeddings.word_embeddings.weight"] == 0.5**4
    assert rates["bert.encoder.layer.0.output.dense.weight"] == 0.5**3
    assert rates["bert.encoder.layer.2.output.dense.bias"] == 0.5
    assert rates["bert.pooler.dense.weight"] == rates["classifier.weight"] == 1
    assert len(rates) == len(names)


def test_full_keeps_tied_weights_tied(tmp_path, tied_decoder):
    case = tied_decoder
    attached = case.attach(methods.get("full"), methods.get("full").params_type())
    assert attached.module.lm_head.weight is attached.module.model.embed_tokens.weight
    attached.save(tmp_path)
    back = methods.load_adapter(case.view(), tmp_path, case.shared.context)
    assert back.module.lm_head.weight is back.module.model.embed_tokens.weight


@pytest.mark.parametrize(("fraction", "trained"), [(1 / 6, {2}), (1 / 3, {2}), (1 / 2, {1, 2}), (1.0, {0, 1, 2})])
def test_last_layers_trains_original_weights_of_last_blocks(fraction, trained, make_case):
    case = make_case("decoder", "causal-lm", "nf4")
    spec = methods.get("last_layers")
    attached = case.attach(spec, spec.params_type(fraction=fraction))
    attached.train(False)
    blocks = {int(n.split(".")[2]) for n in attached.trainable() if ".layers." in n}
    assert blocks == trained
    assert "model.norm.weight" in attached.trainable()
    reference, lower = case.plain(), case.view()
    for index in {0, 1, 2} - trained:
        reference.model.layers[index] = lower.model.layers[index]
    torch.testing.assert_close(case.logits(attached.module), case.logits(reference), atol=1e-5, rtol=1e-5)


def test_linear_probe_gradient_equals_logistic_regression(make_case):
    case = make_case("encoder", "classification", "nf4")
    spec = methods.get("linear_probe")
    attached = case.attach(spec, spec.params_type())
    features: list[Tensor] = []
    attached.module.classifier.register_forward_hook(lambda _, args, __: features.append(args[0].detach().double()))
    attached.module(**case.batch(), labels=case.labels()).loss.backward()
    weight, bias = (p.detach().double() for p in attached.module.classifier.parameters())
    error = torch.softmax(features[0] @ weight.T + bias, dim=1) - F.one_hot(case.labels(), 3)
    expected = error.T @ features[0] / len(error)
    head = tuple(f"{name}." for name in case.shared.context.head)
    assert all(name.startswith(head) for name in attached.trainable())
    torch.testing.assert_close(attached.module.classifier.weight.grad.double(), expected, atol=1e-6, rtol=1e-5)


def test_linear_probe_dropout_acts_in_training_only(make_case):
    case = make_case("encoder", "classification", "nf4")
    spec = methods.get("linear_probe")
    attached = case.attach(spec, spec.params_type(dropout=0.5))
    attached.train(True)
    assert not torch.equal(case.logits(attached.module), case.logits(attached.module))
    attached.train(False)
    torch.testing.assert_close(case.logits(attached.module), case.logits(case.view()))


def test_full_refuses_missing_original_weights_in_one_line(make_case):
    case = make_case("encoder", "classification", "nf4")
    without = dataclasses.replace(case.shared.context, original=missing_original)
    spec = methods.get("full")
    with pytest.raises(MethodError, match=r"the original weights are needed: .* was not kept"):
        spec.attach(case.view(), spec.params_type(), without)


def missing_original(name: str) -> Tensor:
    raise KeyError(f"{name} was not kept")
