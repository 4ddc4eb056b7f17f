"""What views share, what they do not, and what the checksum notices."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import methods
from methods.base.spec import MethodError
from orchestrator.backbone.frozen import FrozenLinear
from orchestrator.backbone.shared import SharedBackbone

from ..engine.fake_gpu import DEVICE, DeviceTensor, FakeDevice, plain_classifier

KINDS = ["bert", "llama", "gpt2"]


def is_in_head(shared: SharedBackbone, name: str) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in shared.context.head)


@pytest.mark.parametrize("kind", KINDS)
def test_views_share_every_frozen_tensor_and_no_head(share: Callable[..., SharedBackbone], kind: str) -> None:
    shared = share(kind)
    first, second = shared.view(1), shared.view(2)
    second_parameters = dict(second.named_parameters())
    for name, parameter in first.named_parameters():
        same = parameter.data_ptr() == second_parameters[name].data_ptr()
        assert same is not is_in_head(shared, name), name
        assert not parameter.requires_grad
    pairs = zip(first.modules(), second.modules(), strict=True)
    assert all(a.frozen is b.frozen for a, b in pairs if isinstance(a, FrozenLinear) and isinstance(b, FrozenLinear))
    assert first.get_submodule(shared.fresh[0]) is not second.get_submodule(shared.fresh[0])


@pytest.mark.parametrize("kind", KINDS)
def test_heads_of_views_follow_from_the_seed(share: Callable[..., SharedBackbone], kind: str) -> None:
    shared = share(kind)
    torch.manual_seed(123)
    stream = torch.get_rng_state()
    heads = [shared.view(seed).get_submodule(shared.fresh[0]).state_dict() for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), stream), "the caller's random stream is left alone"
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])
    assert not torch.equal(heads[0]["weight"], heads[2]["weight"])
    assert heads[0]["weight"].isfinite().all()


def test_heads_of_views_have_the_same_numbers_on_every_device(share: Callable[..., SharedBackbone]) -> None:
    """The generators of processors and GPUs draw other numbers from the same seed."""
    model, head = plain_classifier(), ("classifier",)
    context = replace(share("bert").context, head=head)
    expected: Any = SharedBackbone(model, context, head, False).view(3).classifier.weight
    with FakeDevice():
        view = SharedBackbone(model.to(DEVICE), context, head, False).view(3)
        assert isinstance(view.classifier.weight, DeviceTensor)
        assert torch.equal(view.classifier.weight.cpu(), expected)


def test_head_trained_in_one_view_leaves_other_views(share: Callable[..., SharedBackbone]) -> None:
    shared = share("bert")
    first, second = shared.view(1), shared.view(1)
    with torch.no_grad():
        for parameter in first.get_submodule("classifier").parameters():
            parameter.add_(1)
    weight = first.get_submodule("classifier").weight, second.get_submodule("classifier").weight
    assert not torch.equal(*weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", methods.names())
def test_checksum_stays_the_same_after_training(share: Callable[..., SharedBackbone], method: str) -> None:
    shared = share("bert", "classification", "none")
    spec = methods.get(method)
    if spec.needs_original or not spec.trains:
        pytest.skip("tested with an original in tests/lanes" if spec.trains else "does not train")
    before = shared.checksum()
    try:
        attached = spec.attach(shared.view(1), spec.params_type(), shared.context)
    except MethodError as error:
        pytest.skip(f"cannot sit here: {error}")
    attached.train(True)
    parameters = [p for group in attached.groups for p in group.parameters]
    optimizer = torch.optim.SGD(parameters, lr=10.0)
    ids = torch.randint(3, 90, (2, 6))
    attached.module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.square().sum().backward()
    optimizer.step()
    assert shared.checksum() == before


def _embedding(shared: SharedBackbone) -> torch.Tensor:
    weight: torch.Tensor = shared.model.get_input_embeddings().weight  # type: ignore[assignment]
    return weight


def _norm(shared: SharedBackbone) -> torch.Tensor:
    return next(m for m in shared.model.modules() if isinstance(m, nn.LayerNorm)).weight


def _bias(shared: SharedBackbone) -> torch.Tensor:
    return next(m for m in shared.model.modules() if isinstance(m, FrozenLinear)).bias


def _packed(shared: SharedBackbone) -> torch.Tensor:
    layer = next(m for m in shared.model.modules() if isinstance(m, FrozenLinear))
    return layer.frozen.tensors()["packed"]


def _scales(shared: SharedBackbone) -> torch.Tensor:
    layer = next(m for m in shared.model.modules() if isinstance(m, FrozenLinear))
    return layer.frozen.derived()["scales"]


@pytest.mark.parametrize("which", [_embedding, _norm, _bias, _packed, _scales])
def test_checksum_and_fingerprint_detect_a_stray_write(
    share: Callable[..., SharedBackbone], which: Callable[[SharedBackbone], torch.Tensor]
) -> None:
    shared = share("bert")
    before, checksum_before = shared.fingerprint(), shared.checksum()
    assert (shared.fingerprint(), shared.checksum()) == (before, checksum_before)
    with torch.no_grad():
        tensor = which(shared).view(-1)
        value = tensor[-1].clone()
        tensor[-1] += 1
        assert shared.fingerprint() != before
        assert (shared.checksum() == checksum_before) == (which is _scales), "it excludes derived tensors"
        tensor[-1] = value
    assert (shared.fingerprint(), shared.checksum()) == (before, checksum_before)


def test_checksum_is_the_same_for_two_maps_of_a_file(share: Callable[..., SharedBackbone]) -> None:
    assert share("bert").checksum() == share("bert").checksum()
    assert share("bert").checksum() != share("bert", double=False).checksum()
