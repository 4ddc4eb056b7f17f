"""Joint passes through the body of the backbone against the same trials alone."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

import methods
from methods.base.peft_adapter import ADAPTER
from methods.parts.lora_layer import FusedLoraLinear
from orchestrator.backbone.frozen import FrozenLinear
from orchestrator.engine.joint_pass import JointPasses
from orchestrator.engine.matmul import shared_matmul
from orchestrator.engine.pack_site import Site
from orchestrator.engine.pack_view import PackView
from orchestrator.engine.packing import in_lockstep
from orchestrator.engine.step import score_trials, train_step
from orchestrator.engine.trial_run import TrialRun

from .conftest import Lab, state, train
from .test_packing import fitting, gradients

RANKS = (4, 8, 16, 2)
PACKS: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "lora of many ranks": tuple(("lora", {"rank": rank, "dropout": 0.0}) for rank in RANKS),
    "lora with and without dropout": (("lora", {}), ("lora", {"dropout": 0.0}), ("lora", {"dropout": 0.0, "rank": 2})),
    "rows that differ": tuple(("lora", {"rank": 4, "dropout": 0.0, "batch_size": size}) for size in (2, 3, 5)),
    "lora at other layers": (
        ("lora", {"dropout": 0.0, "targets": "attention_qv"}),
        ("lora", {"dropout": 0.0, "targets": "feed_forward", "alpha_ratio": 0.5, "rslora": True}),
        ("lora", {"dropout": 0.0, "lr_ratio": 8.0}),
    ),
    "lora and dora": tuple(
        (method, {"rank": rank, "dropout": 0.0}) for method, rank in zip(("lora", "dora") * 2, RANKS, strict=True)
    ),
    "mixed": tuple(
        (method, {}) for method in ("lora", "ia3", "adapter", "norm_tuning", "dora", "prefix", "prompt", "p_tuning")
    ),
}


def begin(lab: Lab, pack: Sequence[tuple[str, dict[str, Any]]]) -> list[TrialRun]:
    return [lab.run(method, number, **changes) for number, (method, changes) in enumerate(pack)]


def assert_steps_agree(lab: Lab, pack: Sequence[tuple[str, dict[str, Any]]], steps: int = 2) -> None:
    """Compare losses and gradients of joint steps with those of the same trials alone."""
    alone, together = begin(lab, pack), begin(lab, pack)
    for _ in range(steps):
        joint = JointPasses(together)
        calls = in_lockstep([run.forward for run in together], joint=joint)
        torch.stack([call.result for call in calls if call.result is not None]).sum().backward()
        joint.write_gradients()
        for (method, _), solo, run, call in zip(pack, alone, together, calls, strict=True):
            loss = solo.forward()
            loss.backward()
            assert call.error is None, method
            assert call.result is not None
            torch.testing.assert_close(call.result, loss, rtol=1e-4, atol=1e-6, msg=method)
            expected, results = gradients(solo), gradients(run)
            assert results.keys() == expected.keys(), method
            for name, gradient in expected.items():
                scale = gradient.abs().max().item()
                atol = 1e-4 * scale + 1e-7  # a bias of keys changes no score: its gradient is rounding alone
                torch.testing.assert_close(results[name], gradient, rtol=1e-4, atol=atol, msg=f"{method}: {name}")
            solo.finish_step(loss)
            run.finish_step(call.result)


@pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS)
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_joint_steps_have_losses_and_gradients_of_solo_steps(
    make_lab: Callable[[str], Lab], kind: str, pack: tuple[tuple[str, dict[str, Any]], ...]
) -> None:
    assert_steps_agree(make_lab(kind), pack)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_joint_steps_of_all_methods_agree(make_lab: Callable[[str], Lab], kind: str) -> None:
    lab = make_lab(kind)
    assert_steps_agree(lab, [(method, {}) for method in fitting(lab, kind, methods.names())])


@pytest.fixture
def random_biases(lab: Lab) -> Iterator[None]:
    """Frozen biases that are not zero, while a test runs: other tests have the same backbone."""
    layers = [module for module in lab.backbone.model.modules() if isinstance(module, FrozenLinear)]
    biases = [layer.bias for layer in layers if layer.bias is not None]
    assert len(biases) == len(layers)
    before = [bias.clone() for bias in biases]
    with torch.no_grad():
        for bias in biases:
            bias.normal_(std=0.5)
    yield
    with torch.no_grad():
        for bias, value in zip(biases, before, strict=True):
            bias.copy_(value)


@pytest.mark.usefixtures("random_biases")
def test_frozen_biases_are_added_once_to_the_rows_of_every_trial(lab: Lab) -> None:
    names = ("norm_tuning", "bitfit", "lora", "ia3", "dora", "prompt")
    assert_steps_agree(lab, [(method, {"dropout": 0.0} if method in ("lora", "dora") else {}) for method in names])


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_trials_scored_in_joint_passes_predict_what_each_predicts_alone(
    make_lab: Callable[[str], Lab], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, widths = make_lab(kind), list[int]()
    run = PackView.run

    def recording(view: PackView, trials: Any, arguments: Any, fork: Any) -> Any:
        widths.append(len(trials))
        return run(view, trials, arguments, fork)

    names = ("lora", "ia3", "dora", "norm_tuning", "adapter", "dora", "prefix", "lora")
    pack = [(name, {"dropout": 0.0, "rank": 2 + k} if name in ("lora", "dora") else {}) for k, name in enumerate(names)]
    alone, together = begin(lab, pack), begin(lab, pack)
    for one in (*alone, *together):
        train(one, 2)
    monkeypatch.setattr(PackView, "run", recording)
    score_trials(together, joint=True)
    assert widths
    assert set(widths) == {7}, "all but prefix"
    for (name, _), solo, packed in zip(pack, alone, together, strict=True):
        expected, results = (each.evaluate("validation").predictions for each in (solo, packed))
        assert results["row"].equals(expected["row"])
        probabilities, own = (np.array(each["probabilities"].to_pylist()) for each in (expected, results))
        np.testing.assert_allclose(own, probabilities, atol=1e-4, err_msg=name)
    assert not train_step(together, joint=True), "a view that was made for scoring trains"


def test_stacked_products_in_bfloat16_have_the_losses_of_those_alone(lab: Lab) -> None:
    alone, together = (begin(lab, PACKS["lora and dora"]) for _ in range(2))
    for run in (*alone, *together):
        torch.manual_seed(0)
        layers = [module for module in run.attached.module.modules() if isinstance(module, FusedLoraLinear)]
        for layer in layers:
            layer.product_dtype = torch.bfloat16
            torch.nn.init.normal_(layer.lora_B[ADAPTER].weight, std=0.3)
        assert layers
    expected = [run.forward().item() for run in alone]
    calls = in_lockstep([run.forward for run in together], joint=JointPasses(together))
    results = [call.result.item() for call in calls if call.result is not None]
    assert results == pytest.approx(expected, rel=1e-2)


def alike(lab: Lab, count: int = 3) -> list[TrialRun]:
    return [lab.run("lora", k, rank=RANKS[k], dropout=0.0) for k in range(count)]


def test_layers_of_all_lora_trials_are_one_call(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    forks: list[int] = []
    run = PackView.run

    def recording(view: PackView, trials: Any, arguments: Any, fork: Any) -> Any:
        return run(view, trials, arguments, lambda calls: forks.append(len(calls)) or fork(calls))

    monkeypatch.setattr(PackView, "run", recording)
    runs = alike(lab)
    assert not train_step(runs, joint=True)
    sites = [name for name, m in runs[0].pack_view(runs)._body.named_modules() if isinstance(m, Site)]
    assert len(sites) == 2 * 6 + 1, "all linear layers of two blocks, and the pooler, which each trial trains"
    assert forks == [3], "the pooler alone is called trial by trial"


def test_dora_takes_its_product_from_the_product_of_all_rows(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    products: list[int] = []

    def recording(weight: Any, dtype: Any, inputs: Sequence[Any], biases: Any) -> Any:
        products.append(len(inputs))
        return shared_matmul(weight, dtype, inputs, biases)

    monkeypatch.setattr("orchestrator.engine.packing.shared_matmul", recording)
    runs = begin(lab, [("dora", {"dropout": 0.0}), ("lora", {"dropout": 0.0}), ("norm_tuning", {})])
    assert not train_step(runs, joint=True)
    assert products == [1] * 2 * 6, "each frozen layer of two blocks once"


def test_joint_step_calls_a_fraction_of_the_operators_of_single_steps(lab: Lab) -> None:
    runs = [lab.run("lora", k, rank=RANKS[k % 4], dropout=0.0, batch_size=2) for k in range(8)]
    calls = {}
    for joint in (False, True):
        train_step(runs, joint=joint)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            train_step(runs, joint=joint)
        events = [event for event in profiler.events() if event.name.startswith("aten::")]
        calls[joint] = sum(not (e.cpu_parent and e.cpu_parent.name.startswith("aten::")) for e in events)
    assert calls[True] < 0.4 * calls[False]


def test_trial_that_diverges_in_a_joint_pass_leaves_its_neighbours_alone(lab: Lab) -> None:
    alone, together = alike(lab), alike(lab)
    expected = [train(run, 2) for run in alone]
    with torch.no_grad():
        together[1].parameters[0].fill_(float("nan"))
    for _ in range(2):
        failures = train_step(together, joint=True)
        assert [run.job.trial.number for run, _ in failures] == [1]
    for k in (0, 2):
        for name, value in state(together[k]).items():
            torch.testing.assert_close(value, state(alone[k])[name], rtol=1e-3, atol=1e-5, msg=name)
    assert len(expected[0]) == 2


def test_pack_goes_in_lockstep_after_a_joint_pass_failed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    alone, together = alike(lab), alike(lab)
    for run in alone:
        train(run, 2)

    def refuse(*_: Any) -> Any:
        raise ValueError("a tensor has no rows")

    monkeypatch.setattr(PackView, "run", refuse)
    for _ in range(2):
        assert train_step(together, joint=True) == []
    assert caplog.text.count("a packed step failed") == 1
    for first, second in zip(alone, together, strict=True):
        for name, value in state(first).items():
            torch.testing.assert_close(state(second)[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_micro_batches_of_joint_passes_add_their_gradients(lab: Lab) -> None:
    alone, together = alike(lab), alike(lab)
    for run in together:
        assert run.shrink_step()
    for run in alone:
        train(run, 2)
    for _ in range(2):
        assert train_step(together, joint=True) == []
    for first, second in zip(alone, together, strict=True):
        for name, value in state(first).items():
            torch.testing.assert_close(state(second)[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_trials_that_draw_are_never_padded_for_others(lab: Lab) -> None:
    draws, plain = lab.run("lora", 0), lab.run("lora", 1, dropout=0.0)
    train(plain, 1)  # has shown that it draws nothing
    ids = {width: {"input_ids": torch.ones(3, width, dtype=torch.long)} for width in (5, 9)}
    groups = JointPasses([draws, plain]).groups
    assert groups([0, 1], [ids[9], ids[5]]) == [[0, 1]]
    assert groups([0, 1], [ids[5], ids[9]]) == []
    assert groups([0, 1], [ids[5], ids[5]]) == [[0, 1]]


def test_lengths_that_would_waste_much_are_not_joined(lab: Lab) -> None:
    runs = alike(lab)
    for run in runs:
        train(run, 1)
    widths = (400, 390, 40)
    arguments = [{"input_ids": torch.ones(3, width, dtype=torch.long)} for width in widths]
    assert JointPasses(runs).groups([0, 1, 2], arguments) == [[0, 1]]
