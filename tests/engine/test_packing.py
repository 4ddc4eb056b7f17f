"""Packed passes against the same trials alone."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor

import methods
from methods.base.spec import MethodError
from orchestrator.backbone import frozen
from orchestrator.backbone.frozen import FrozenLinear, FrozenMatmul
from orchestrator.backbone.weights import PlainWeight
from orchestrator.engine import matmul, packing
from orchestrator.engine.matmul import CHUNK_ROWS, shared_matmul
from orchestrator.engine.packing import PackedCall, in_lockstep
from orchestrator.engine.random_stream import RandomStream
from orchestrator.engine.step import train_step
from orchestrator.engine.trial_run import TrialRun

from .conftest import Lab, state, train

PACKS = [
    ("lora", "lora"),
    ("lora", "ia3", "adapter", "prefix"),
    ("full", "last_layers", "linear_probe", "prompt"),
    ("adalora", "dora", "qlora", "lora"),
    methods.names(),
]
UNFIT = {"encoder": {"hard_prompt"}, "decoder": {"bitfit", "hard_prompt"}}
"""Methods that cannot train on the lab's backbone: its decoder has no biases, and neither has a language-model head."""
WITH_OWN_LAYERS = {"full", "last_layers"}
"""Methods that train copies of the backbone's layers, and so call fewer frozen ones than the others."""


def fitting(lab: Lab, kind: str, pack: tuple[str, ...]) -> tuple[str, ...]:
    """Return the methods of a pack that can train on the lab's backbone: all but the known exceptions."""
    fit = []
    for method in pack:
        with suppress(MethodError):
            lab.run(method)
            fit += [method] if methods.get(method).trains else []
    assert set(pack) - set(fit) == UNFIT[kind] & set(pack)
    return tuple(fit)


def begin(lab: Lab, pack: tuple[str, ...]) -> list[TrialRun]:
    """Start trials with different batch sizes, and so different shapes."""
    return [lab.run(method, number, batch_size=2 + number) for number, method in enumerate(pack)]


def gradients(run: TrialRun) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in run.attached.trainable().items() if p.grad is not None}


def packed(runs: list[TrialRun]) -> list[PackedCall[Tensor]]:
    calls = in_lockstep([run.forward for run in runs])
    torch.stack([call.result for call in calls if call.result is not None]).sum().backward()
    return calls


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Rows of every trial in every product that is computed."""
    recorded: list[list[int]] = []
    matmul = shared_matmul

    def recording(weight: Any, dtype: torch.dtype, inputs: list[Tensor], biases: list[Any]) -> tuple[Tensor, ...]:
        recorded.append([x.numel() // x.shape[-1] for x in inputs])
        return matmul(weight, dtype, inputs, biases)

    monkeypatch.setattr(packing, "shared_matmul", recording)
    return recorded


@pytest.mark.parametrize("pack", PACKS, ids="-".join)
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_packed_trials_train_like_solo_trials(make_lab: Callable[[str], Lab], kind: str, pack: tuple[str, ...]) -> None:
    lab = make_lab(kind)
    pack = fitting(lab, kind, pack)
    alone, together = begin(lab, pack), begin(lab, pack)
    for _ in range(2):
        solo = []
        for run in alone:
            loss = run.forward()
            loss.backward()
            solo.append((loss, gradients(run)))
        calls = packed(together)
        for method, run, call, (loss, expected) in zip(pack, together, calls, solo, strict=True):
            assert call.error is None, method
            torch.testing.assert_close(call.result, loss, rtol=1e-5, atol=1e-6)
            results = gradients(run)
            assert results.keys() == expected.keys()
            for name, gradient in expected.items():
                scale = gradient.abs().max().item()
                torch.testing.assert_close(results[name], gradient, rtol=1e-5, atol=1e-5 * scale + 1e-9, msg=name)
        for run, (loss, _) in zip(alone, solo, strict=True):
            run.finish_step(loss)
        for run, call in zip(together, calls, strict=True):
            assert call.result is not None
            run.finish_step(call.result)


def test_packed_trials_without_dropout_leave_the_generators_alone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = [("ia3", {}), ("lora", {"dropout": 0.0}), ("lora", {}), ("prompt", {}), ("adapter", {})]
    alone, together = ([lab.run(method, k, **changes) for k, (method, changes) in enumerate(pack)] for _ in range(2))
    expected = [train(run, 5) for run in alone]
    for run in together:
        train(run, 2)
    assert [run.draws_random_numbers for run in together] == [False, False, True, False, True]
    captures: list[None] = []
    capture = RandomStream.capture
    monkeypatch.setattr(RandomStream, "capture", lambda device: captures.append(None) or capture(device))
    losses: list[list[float]] = [[] for _ in together]
    for run, own in zip(together, losses, strict=True):
        finish_step = run.finish_step
        monkeypatch.setattr(
            run, "finish_step", lambda loss, *rest, own=own, f=finish_step: own.append(loss.item()) or f(loss, *rest)
        )
    for _ in range(3):
        assert not train_step(together)
    assert losses == [own[2:] for own in expected]
    for first, second in zip(alone, together, strict=True):
        assert second._random.equals(first._random), "a checkpoint would differ from the solo trial's"
    layers = sum(isinstance(module, FrozenLinear) for module in lab.backbone.model.modules())
    assert len(captures) <= 3 * 2 * (layers + 8), "two trials draw, and wait once at each layer"


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_packed_trials_of_all_methods_share_every_frozen_product(
    make_lab: Callable[[str], Lab], products: list[list[int]], kind: str
) -> None:
    lab = make_lab(kind)
    pack = fitting(lab, kind, methods.names())
    solo = []
    for run in begin(lab, pack):
        products.clear()
        in_lockstep([run.forward])
        solo.append([rows for (rows,) in products])
    products.clear()
    in_lockstep([run.forward for run in begin(lab, pack)])
    assert len(products) == max(map(len, solo)), "one product per frozen layer"
    assert sum(map(sum, products)) == sum(map(sum, solo))
    assert {method for method, rows in zip(pack, solo, strict=True) if len(rows) < len(products)} == WITH_OWN_LAYERS
    assert min(map(len, products)) == len(pack) - len(WITH_OWN_LAYERS), "every product has all other methods in it"


def test_packed_trials_keep_their_random_streams(lab: Lab) -> None:
    """A trial's random numbers do not depend on its neighbours."""
    alone = lab.run("lora")
    train(alone, 2)
    for neighbours in (("lora",), ("full", "lora", "adapter")):
        run = lab.run("lora")
        others = [lab.run(method, number) for number, method in enumerate(neighbours, 1)]
        for _ in range(2):
            calls = packed([*others, run])
            assert calls[-1].result is not None
            run.finish_step(calls[-1].result)
        assert torch.equal(run._random.cpu, alone._random.cpu)


def test_packed_error_in_one_forward_ends_that_trial_alone(lab: Lab) -> None:
    runs, alone = begin(lab, ("lora", "ia3", "adapter")), begin(lab, ("lora", "ia3", "adapter"))
    broken = lab.run("lora", 9)
    layer = broken.attached.module.get_submodule("base_model.model.bert.encoder.layer.1.intermediate")

    def fail(*_: object) -> None:
        raise RuntimeError("out of luck")

    layer.register_forward_pre_hook(fail)
    calls = packed([runs[0], broken, *runs[1:]])
    assert str(calls[1].error) == "out of luck"
    assert calls[1].result is None
    for call, run in zip([calls[0], *calls[2:]], alone, strict=True):
        torch.testing.assert_close(call.result, run.forward(), rtol=1e-5, atol=1e-6)


def test_packed_call_may_return_without_a_frozen_layer(lab: Lab) -> None:
    run = lab.run("lora")
    calls = in_lockstep([lambda: torch.tensor(1.0), run.forward])
    assert calls[0].result == torch.tensor(1.0)
    torch.testing.assert_close(calls[1].result, lab.run("lora").forward())


def test_packed_error_in_a_shared_product_unwinds_every_forward(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = begin(lab, ("lora", "ia3"))
    before = [state(run) for run in runs]
    ended: list[int] = []

    def watched(k: int) -> Callable[[], Tensor]:
        def forward() -> Tensor:
            try:
                return runs[k].forward()
            finally:
                ended.append(k)

        return forward

    calls = 0
    product = shared_matmul

    def fail(*arguments: Any) -> tuple[Tensor, ...]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise torch.OutOfMemoryError("no room")
        return product(*arguments)

    monkeypatch.setattr(packing, "shared_matmul", fail)
    with pytest.raises(torch.OutOfMemoryError):
        in_lockstep([watched(0), watched(1)])
    assert sorted(ended) == [0, 1], "both forwards were unwound"
    assert frozen._matmul_override is None, "frozen layers compute alone again"
    monkeypatch.undo()
    for run, fresh, values in zip(runs, begin(lab, ("lora", "ia3")), before, strict=True):
        run.rewind()
        assert all(torch.equal(value, values[name]) for name, value in state(run).items())
        assert train(run, 2) == train(fresh, 2), "the step repeated alone is the same step"


def test_packed_trials_have_gradient_modes_of_their_own(lab: Lab) -> None:
    """A forward may be in no_grad mode while it waits at a frozen layer."""
    layer = next(module for module in lab.backbone.model.modules() if isinstance(module, FrozenLinear))
    results: list[bool] = []

    def without() -> Tensor:
        with torch.no_grad():
            y = layer(torch.ones(2, layer.in_features, requires_grad=True))
            results.append(torch.is_grad_enabled())
        assert not y.requires_grad
        return y.sum()

    def with_gradients() -> Tensor:
        x = torch.ones(3, layer.in_features, requires_grad=True)
        loss = (layer(x) ** 2).sum()
        results.append(torch.is_grad_enabled())
        assert loss.requires_grad
        return loss

    for order in ([without, with_gradients], [with_gradients, without]):
        results.clear()
        calls = in_lockstep(order)
        assert [call.error for call in calls] == [None, None]
        assert sorted(results) == [False, True]
        assert torch.is_grad_enabled()


def test_packed_pass_leaves_the_callers_random_stream(lab: Lab) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    in_lockstep([run.forward for run in begin(lab, ("lora", "full"))])
    assert torch.equal(torch.get_rng_state(), before)


def test_packed_trials_have_inference_and_autocast_modes_of_their_own(lab: Lab) -> None:
    """Inference mode and autocast hold across frozen layers, for the trial that set them alone."""
    layer = next(module for module in lab.backbone.model.modules() if isinstance(module, FrozenLinear))
    recorded: dict[str, list[tuple[bool, ...]]] = {}

    def modes() -> tuple[bool, ...]:
        return torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")

    def twice(name: str) -> Tensor:
        x, results = torch.ones(2, layer.in_features), recorded.setdefault(name, [])
        for _ in range(2):
            layer(x)
            results.append(modes())
        return x

    def inferring() -> Tensor:
        with torch.inference_mode():
            return twice("inference")

    def casting() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return twice("autocast")

    def failing() -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            twice("failing")
            raise RuntimeError("out of luck")

    calls = [inferring, lambda: twice("plain"), casting, failing]
    expected = {"inference": (True, False, False), "plain": (False, True, False), "autocast": (False, True, True)}
    for order in (calls, calls[::-1]):
        recorded.clear()
        packed_calls = in_lockstep(order)
        assert [call.error for call in packed_calls if call.call is not failing] == [None] * 3
        assert modes() == (False, True, False), "the caller's modes are unchanged"
        for name, mode in expected.items():
            assert recorded[name] == [mode, mode], name


def test_packed_trials_inherit_the_callers_modes(lab: Lab) -> None:
    layer = next(module for module in lab.backbone.model.modules() if isinstance(module, FrozenLinear))
    with torch.inference_mode():
        calls = in_lockstep([lambda: layer(torch.ones(2, layer.in_features))] * 2)
        assert torch.is_inference_mode_enabled()
        assert [call.error for call in calls] == [None, None]
    assert not torch.is_inference_mode_enabled()


def test_shared_matmul_without_gradients_casts_all_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "stackable_rows", lambda *_: (1, CHUNK_ROWS))  # on every processor
    weight, dtype = PlainWeight(torch.randn(48, 64)), torch.bfloat16
    xs = [torch.randn(8, 1, 64) for _ in range(3)]
    alone = [shared_matmul(weight, dtype, [x], [None])[0] for x in xs]
    for needs_gradients, memories in ((False, 1), (True, 3)):
        inputs = [x.clone().requires_grad_(needs_gradients) for x in xs]
        ys = shared_matmul(weight, dtype, inputs, [None] * 3)
        torch.testing.assert_close(list(ys), alone)
        assert [y.requires_grad for y in ys] == [needs_gradients] * 3
        assert len({y.untyped_storage().data_ptr() for y in ys}) == memories, "autograd keeps no rows of a neighbour"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("inner", "outer"), [(16, 24), (384, 192), (1536, 384), (384, 1536)])
def test_shared_matmul_gives_each_trial_the_bits_of_its_own(dtype: torch.dtype, inner: int, outer: int) -> None:
    """For all sizes, forward and backward; processors split long sums by the number of rows."""
    weight, bias = PlainWeight(torch.randn(outer, inner).to(dtype)), torch.randn(outer)
    shapes = [(4, 16), (3, 7), (2, 5), (CHUNK_ROWS // 8, 8), (1 + CHUNK_ROWS // 16, 8), (1, 1)]
    biases = [bias, bias, None, None, bias, bias]
    xs = [torch.randn(*shape, inner, requires_grad=True) for shape in shapes]
    alone = [x.detach().clone().requires_grad_() for x in xs]
    ys = shared_matmul(weight, dtype, xs, biases)
    torch.stack([(y**2).sum() for y in ys]).sum().backward()
    for x, y, solo_x, added in zip(xs, ys, alone, biases, strict=True):
        expected = FrozenMatmul.apply(solo_x, weight, dtype, added)
        (expected**2).sum().backward()
        assert torch.equal(y, expected)
        assert x.grad is not None and solo_x.grad is not None  # noqa: PT018
        assert torch.equal(x.grad, solo_x.grad)


def test_shared_matmul_computes_only_required_gradients() -> None:
    weight = PlainWeight(torch.randn(24, 16))
    xs = [torch.randn(2, 16, requires_grad=on) for on in (True, False, True)]
    first, second, third = shared_matmul(weight, torch.float32, xs, [None] * 3)
    assert third.requires_grad
    (first.sum() + second.sum()).backward()
    torch.testing.assert_close(xs[0].grad, weight.weight.sum(dim=0).expand(2, 16))
    assert xs[1].grad is None
    assert xs[2].grad is None
