"""A packed step against the same trials alone."""

from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
from torch import Tensor

import methods
from methods._base import MethodError
from orchestrator.backbone import frozen
from orchestrator.backbone.frozen import FrozenLinear
from orchestrator.lanes.packing import Turn, packed_forward
from orchestrator.lanes.run import TrialRun

from .conftest import Lab, state, train

PACKS = [
    ("lora", "lora"),
    ("lora", "ia3", "adapter", "prefix"),
    ("full", "last_layers", "linear_probe", "prompt"),
    ("adalora", "dora", "qlora", "lora"),
    methods.names(),
]


def fitting(lab: Lab, pack: tuple[str, ...]) -> tuple[str, ...]:
    """Those that train here."""
    fit = []
    for method in pack:
        with suppress(MethodError):
            lab.run(method)
            fit += [method] if methods.get(method).trains else []
    return tuple(fit)


def begin(lab: Lab, pack: tuple[str, ...]) -> list[TrialRun]:
    """Trials of different batch sizes, so of different shapes."""
    return [lab.run(method, number, batch_size=2 + number) for number, method in enumerate(pack)]


def gradients(run: TrialRun) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in run.attached.trainable().items() if p.grad is not None}


def packed(runs: list[TrialRun]) -> list[Turn]:
    turns = packed_forward([run.forward for run in runs])
    torch.stack([turn.loss for turn in turns if turn.loss is not None]).sum().backward()
    return turns


@pytest.fixture
def widths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every product that is really computed."""
    seen: list[int] = []
    product = FrozenLinear.product

    def counted(layer: FrozenLinear, x: Tensor) -> Tensor:
        seen.append(x.numel() // x.shape[-1])
        return product(layer, x)

    monkeypatch.setattr(FrozenLinear, "product", counted)
    return seen


@pytest.mark.parametrize("pack", PACKS, ids="-".join)
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_packed_trials_equal_each_alone(make_lab: Callable[[str], Lab], kind: str, pack: tuple[str, ...]) -> None:
    lab = make_lab(kind)
    pack = fitting(lab, pack)
    assert len(pack) > 1
    alone, together = begin(lab, pack), begin(lab, pack)
    for _ in range(2):
        solo = []
        for run in alone:
            loss = run.forward()
            loss.backward()
            solo.append((loss, gradients(run)))
        turns = packed(together)
        for method, run, turn, (loss, expected) in zip(pack, together, turns, solo, strict=True):
            assert turn.error is None, method
            torch.testing.assert_close(turn.loss, loss, rtol=1e-5, atol=1e-6)
            found = gradients(run)
            assert found.keys() == expected.keys()
            for name, gradient in expected.items():
                scale = gradient.abs().max().item()
                torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-5 * scale + 1e-9, msg=name)
        for run, (loss, _) in zip(alone, solo, strict=True):
            run.finish_step(loss)
        for run, turn in zip(together, turns, strict=True):
            assert turn.loss is not None
            run.finish_step(turn.loss)


def test_trials_share_the_passes_through_the_frozen_layers(lab: Lab, widths: list[int]) -> None:
    runs = begin(lab, ("lora", "ia3", "adapter"))
    rows = []
    for run in begin(lab, ("lora", "ia3", "adapter")):
        widths.clear()
        run.forward()
        rows.append(sum(widths))
        passes = len(widths)
    widths.clear()
    packed_forward([run.forward for run in runs])
    assert len(widths) == passes
    assert sum(widths) == sum(rows)


def test_every_trial_keeps_its_own_random_stream(lab: Lab) -> None:
    """Neighbours, and how many there are, change nothing of what a trial draws."""
    alone = lab.run("lora")
    train(alone, 2)
    for neighbours in (("lora",), ("full", "lora", "adapter")):
        run = lab.run("lora")
        others = [lab.run(method, number) for number, method in enumerate(neighbours, 1)]
        for _ in range(2):
            turns = packed([*others, run])
            assert turns[-1].loss is not None
            run.finish_step(turns[-1].loss)
        assert torch.equal(run._random.cpu, alone._random.cpu)


def test_an_error_in_one_forward_ends_that_one_alone(lab: Lab) -> None:
    runs, alone = begin(lab, ("lora", "ia3", "adapter")), begin(lab, ("lora", "ia3", "adapter"))
    broken = lab.run("lora", 9)
    layer = broken.attached.module.get_submodule("base_model.model.bert.encoder.layer.1.intermediate")

    def fail(*_: object) -> None:
        raise RuntimeError("out of luck")

    layer.register_forward_pre_hook(fail)
    turns = packed([runs[0], broken, *runs[1:]])
    assert str(turns[1].error) == "out of luck"
    assert turns[1].loss is None
    for turn, run in zip([turns[0], *turns[2:]], alone, strict=True):
        torch.testing.assert_close(turn.loss, run.forward(), rtol=1e-5, atol=1e-6)


def test_a_forward_that_ends_at_once_is_no_trouble(lab: Lab) -> None:
    run = lab.run("lora")
    turns = packed_forward([lambda: torch.tensor(1.0), run.forward])
    assert turns[0].loss == torch.tensor(1.0)
    torch.testing.assert_close(turns[1].loss, lab.run("lora").forward())


def test_an_error_in_a_shared_product_surfaces_and_leaves_no_forward_half_way(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    product = FrozenLinear.product

    def fail(layer: FrozenLinear, x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise torch.OutOfMemoryError("no room")
        return product(layer, x)

    monkeypatch.setattr(FrozenLinear, "product", fail)
    with pytest.raises(torch.OutOfMemoryError):
        packed_forward([watched(0), watched(1)])
    assert sorted(ended) == [0, 1], "each was unwound"
    assert frozen._product is None, "frozen layers are on their own again"
    monkeypatch.undo()
    for run, fresh, values in zip(runs, begin(lab, ("lora", "ia3")), before, strict=True):
        run.rewind()
        assert all(torch.equal(value, values[name]) for name, value in state(run).items())
        assert train(run, 2) == train(fresh, 2), "repeated alone, the step is what it would have been"


def test_gradients_switched_off_by_one_trial_stay_on_for_the_others(lab: Lab) -> None:
    """A forward may be without gradients when it hands over its rows."""
    layer = next(module for module in lab.backbone.model.modules() if isinstance(module, FrozenLinear))
    found: list[bool] = []

    def without() -> Tensor:
        with torch.no_grad():
            y = layer(torch.ones(2, layer.in_features, requires_grad=True))
            found.append(torch.is_grad_enabled())
        assert not y.requires_grad
        return y.sum()

    def with_gradients() -> Tensor:
        x = torch.ones(3, layer.in_features, requires_grad=True)
        loss = (layer(x) ** 2).sum()
        found.append(torch.is_grad_enabled())
        assert loss.requires_grad
        return loss

    for order in ([without, with_gradients], [with_gradients, without]):
        found.clear()
        turns = packed_forward(order)
        assert [turn.error for turn in turns] == [None, None]
        assert sorted(found) == [False, True]
        assert torch.is_grad_enabled()


def test_the_caller_s_random_stream_is_left_alone(lab: Lab) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    packed_forward([run.forward for run in begin(lab, ("lora", "full"))])
    assert torch.equal(torch.get_rng_state(), before)
