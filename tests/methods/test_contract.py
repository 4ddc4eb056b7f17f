"""What every method promises, on every backbone and task; no test here names one."""

import dataclasses
import json
import pickle
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from optuna import logging
from optuna.samplers import RandomSampler
from optuna.study import create_study
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import methods
import search_spaces
from methods.base.spec import Attached, Hyperparameters, MethodError, MethodSpec

pytestmark = [
    # peft 0.21 still asks transformers 5 by its old name when it loads an adapter
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    # and it asks the norms that it copies for the width of a linear layer
    pytest.mark.filterwarnings("ignore:Unsupported layer type .*Norm:UserWarning"),
    # what it has to say of beft and boft on a machine without CUDA, when it loads them itself
    pytest.mark.filterwarnings("ignore:Detected that the base layer has no bias term:UserWarning"),
    pytest.mark.filterwarnings("ignore:Failed to load the CUDA extension:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting boft_n_butterfly_factor to 1:UserWarning"),
]
STEPS = 4


def default(spec: MethodSpec) -> Hyperparameters:
    return spec.params_type.from_dict(search_spaces.get(spec.name).default)


def draws(spec: MethodSpec, count: int) -> list[Hyperparameters]:
    logging.set_verbosity(logging.WARNING)
    space = search_spaces.get(spec.name)
    study = create_study(sampler=RandomSampler(seed=1))
    trials = [study.ask(dict(space.distributions)) for _ in range(count)]
    return [spec.params_type.from_dict(trial.params) for trial in trials]


@dataclass
class Fresh:
    """An attachment that no test changes.

    Args:
        inside: the modules that the view had before.
        before: what the bare view gives.
        logits: what the attachment gives.
    """

    attached: Attached
    inside: set[nn.Module]
    before: Tensor
    logits: Tensor


@dataclass
class Trained:
    """An attachment after a few steps, which were interrupted once, and a nudge to everything that trains.

    Args:
        changed: the names of the tensors that the steps changed.
        checksums: of the backbone, before and after.
        paused: the file of the state in the middle.
        at_the_end: everything that trains, as the steps left it.
        folder: where it is saved, after the nudge.
        logits: what it gives, after the nudge.
    """

    attached: Attached
    changed: set[str]
    checksums: set[str]
    paused: Path
    at_the_end: dict[str, Tensor]
    folder: Path
    logits: Tensor


def attach(spec: MethodSpec, case, view: nn.Module | None = None) -> Attached:
    if case.shared.context.task_type not in spec.tasks:
        pytest.skip(f"the method declares that it does not do {case.task}")
    try:
        return case.attach(spec, default(spec), view)
    except MethodError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def fresh(method, case) -> Fresh:
    view = case.view()
    inside, before = set(view.modules()), case.logits(view)
    attached = attach(method, case, view)
    attached.train(False)
    return Fresh(attached, inside, before, case.logits(attached.module))


@pytest.fixture(scope="module")
def trained(method, case, tmp_path_factory) -> Trained:
    if not method.trains:
        pytest.skip("the method declares that it has nothing to train")
    checksum, attached = case.shared.checksum(), attach(method, case)
    folder, before = tmp_path_factory.mktemp("adapter"), tensors_of(attached.module)
    optimizer = optimizer_of(attached)
    train(attached, case, optimizer, range(STEPS // 2))
    paused = tmp_path_factory.mktemp("paused") / "state.safetensors"
    pause(attached, optimizer, paused)
    train(attached, case, optimizer, range(STEPS // 2, STEPS))
    after = tensors_of(attached.module)
    at_the_end = {name: p.detach().clone() for name, p in attached.trainable().items()}
    changed = {name for name, tensor in before.items() if not same(tensor, after[name])}
    nudge(attached)
    attached.save(folder)
    checksums = {checksum, case.shared.checksum()}
    return Trained(attached, changed, checksums, paused, at_the_end, folder, case.logits(attached.module))


def optimizer_of(attached: Attached) -> torch.optim.Optimizer:
    return torch.optim.AdamW([{"params": list(g.parameters), "lr": 1e-2 * g.multiplier} for g in attached.groups])


def train(attached: Attached, case, optimizer: torch.optim.Optimizer, steps: Iterable[int]) -> None:
    """As a lane does it, dropout on, the source tasks first; a random stream per step."""
    for step in steps:
        torch.manual_seed(step)
        attached.train(True)
        loss(attached, case, source=step < attached.source_steps(STEPS)).backward()
        optimizer.step()
        if attached.on_step is not None:
            attached.on_step(step + 1, STEPS)
        optimizer.zero_grad(set_to_none=True)
    attached.train(False)


def loss(attached: Attached, case, *, source: bool) -> Tensor:
    batch = case.batch()
    if source:
        batch["task_ids"] = torch.arange(len(batch["input_ids"])) % len(case.context.sources)
    found: Tensor = attached.module(**batch, labels=case.labels()).loss
    return found


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def pause(attached: Attached, optimizer: torch.optim.Optimizer, file: Path) -> None:
    tensors = {f"parameter:{name}": p.detach() for name, p in attached.trainable().items()}
    tensors |= {f"method:{name}": tensor for name, tensor in attached.state().items()}
    for index, own in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer:{index}:{name}": value for name, value in own.items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)


def resume(attached: Attached, file: Path) -> torch.optim.Optimizer:
    tensors = load_file(file)
    with torch.no_grad():
        for name, parameter in attached.trainable().items():
            parameter.copy_(tensors[f"parameter:{name}"])
    attached.load_state({n.removeprefix("method:"): t for n, t in tensors.items() if n.startswith("method:")})
    optimizer, state = optimizer_of(attached), {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer:"):
            _, index, name = key.split(":")
            state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return optimizer


def nudge(attached: Attached) -> None:
    """Move everything that trains away from its initialization, zeros included."""
    torch.manual_seed(13)
    with torch.no_grad():
        for parameter in attached.trainable().values():
            parameter += 0.05 * torch.randn_like(parameter)


def test_it_attaches_somewhere(method, make_case):
    task = "classification" if "SEQ_CLS" in method.tasks else "causal-lm"
    refusals = []
    for kind in ("decoder", "encoder", "encoder-decoder") if task == "classification" else ("decoder",):
        try:
            make_case(kind, task, "nf4").attach(method, default(method))
        except MethodError as error:
            refusals.append(str(error))
        else:
            return
    pytest.fail(" / ".join(refusals))


def test_starts_as_identity_where_declared(method, case, fresh):
    if not method.starts_as_identity:
        pytest.skip("the method declares that it does not")
    if method.needs_original and case.quantization != "none":
        pytest.skip("the method starts from the original weights and not from the quantized ones")
    torch.testing.assert_close(fresh.logits, fresh.before, atol=1e-5, rtol=1e-5)


def test_what_trains_is_what_is_declared_once_and_in_float32(method, fresh):
    declared = [p for group in fresh.attached.groups for p in group.parameters]
    assert len(declared) == len(set(declared))
    assert set(declared) == set(fresh.attached.trainable().values())
    assert bool(declared) == method.trains
    assert {p.dtype for p in declared} <= {torch.float32}


def test_what_trains_is_shared_with_no_other_view(case, fresh, trained):
    storages = [{p.data_ptr() for p in one.attached.trainable().values()} for one in (fresh, trained)]
    shared = {p.data_ptr() for p in case.shared.model.parameters() if p.device.type != "meta"}
    assert not storages[0] & storages[1]
    assert not storages[0] & shared


def test_only_declared_parameters_change_and_the_backbone_is_untouched(trained):
    assert trained.changed
    assert trained.changed <= trained.at_the_end.keys()
    assert len(trained.checksums) == 1


def test_every_trained_parameter_gets_a_gradient(case, trained):
    attached = trained.attached
    if attached.source_steps(STEPS):
        loss(attached, case, source=True).backward()
    loss(attached, case, source=False).backward()
    silent = [name for name, p in attached.trainable().items() if p.grad is None]
    attached.module.zero_grad(set_to_none=True)
    assert silent == []


def test_training_switches_dropout_of_the_adapter_alone(fresh):
    attached, active = fresh.attached, set(fresh.attached.active)
    modules = set(attached.module.modules())
    attached.train(True)
    switched = {module for module in modules if module.training}
    attached.train(False)
    assert switched == active & modules
    assert {module for module in modules - fresh.inside if isinstance(module, nn.Dropout)} <= active
    assert not any(module.training for module in modules | active)


def test_a_changed_adapter_changes_the_output(fresh, trained):
    assert not torch.allclose(fresh.logits, trained.logits, atol=1e-3)


def test_a_row_does_not_depend_on_the_padding_of_its_batch(case, fresh, request):
    attached = fresh.attached
    if attached.groups:
        attached = request.getfixturevalue("trained").attached
    batch = case.batch()
    kept = batch["attention_mask"][0] == 1
    alone = {name: tensor[:1, kept] for name, tensor in batch.items()}
    with torch.no_grad():
        among, solo = attached.module(**batch).logits[0], attached.module(**alone).logits[0]
    if case.task == "causal-lm":
        among, solo = among[-1], solo[-1]
    torch.testing.assert_close(among, solo, atol=1e-4, rtol=1e-4)


def test_a_paused_trial_goes_on_as_if_nothing_had_happened(method, case, trained):
    attached = attach(method, case)
    optimizer = resume(attached, trained.paused)
    train(attached, case, optimizer, range(STEPS // 2, STEPS))
    assert attached.trainable().keys() == trained.at_the_end.keys()
    assert all(torch.equal(p, trained.at_the_end[name]) for name, p in attached.trainable().items())


def test_a_saved_adapter_is_read_back_bit_for_bit_and_merges_where_declared(method, case, fresh, request, tmp_path):
    folder, logits = tmp_path, fresh.logits
    if method.trains:
        trained = request.getfixturevalue("trained")
        folder, logits = trained.folder, trained.logits
    else:
        fresh.attached.save(folder)
    assert {f.suffix for f in folder.rglob("*") if f.is_file()} <= {".json", ".safetensors", ".md"}
    # with another head, except where nothing is trained and so none is saved
    back = methods.load_adapter(case.shared.view(99 if method.trains else case.seed), folder, case.shared.context)
    back.train(False)
    assert torch.equal(case.logits(back.module), logits)
    assert (back.merge is not None) == method.supports_merge
    if back.merge is not None:
        checksum, merged = case.shared.checksum(), back.merge()
        torch.testing.assert_close(case.logits(merged), logits, atol=1e-4, rtol=1e-4)
        assert case.shared.checksum() == checksum
        assert set(dict(case.plain().named_modules())) == set(dict(merged.named_modules()))


def test_peft_reads_what_is_declared_to_be_its_own(method, case, trained):
    if not method.peft:
        pytest.skip("the method declares a format of its own")
    if case.quantization != "none":
        pytest.skip("a plain model has other weights than a quantized one")
    plain = PeftModel.from_pretrained(case.plain(), str(trained.folder)).eval()
    assert plain.active_peft_config.base_model_name_or_path == case.shared.context.backbone
    torch.testing.assert_close(
        case.logits(plain, padded=False), case.logits(trained.attached.module, padded=False), atol=1e-5, rtol=1e-5
    )


def test_params_survive_json_and_pickle(method):
    params = default(method)
    assert method.params_type.from_dict(json.loads(json.dumps(params.to_dict()))) == params
    assert pickle.loads(pickle.dumps(params)) == params


def test_every_draw_of_its_space_is_a_valid_parameter_set(method):
    assert len(draws(method, 200)) == 200


def test_a_handful_of_draws_run_or_are_refused_in_one_line(method, make_case):
    task = "classification" if "SEQ_CLS" in method.tasks else "causal-lm"
    ran, refusals = 0, []
    for params in random.Random(2).sample(draws(method, 40), 5):
        for kind in ("encoder", "decoder", "encoder-decoder") if task == "classification" else ("decoder",):
            case = make_case(kind, task, "nf4")
            try:
                attached = case.attach(method, params)
            except MethodError as error:
                refusals.append(str(error))
            else:
                attached.train(False)
                assert torch.isfinite(case.logits(attached.module)).all()
                ran += 1
    assert ran
    assert not any("\n" in refusal for refusal in refusals)


def test_unknown_and_impossible_parameters_are_refused_in_one_line(method):
    with pytest.raises(MethodError, match="unknown parameter 'rnak'"):
        method.params_type.from_dict({"rnak": 1})
    for field in dataclasses.fields(method.params_type):
        wrong = "nonsense" if isinstance(getattr(method.params_type(), field.name), str) else -1
        if isinstance(getattr(method.params_type(), field.name), bool):
            continue
        with pytest.raises(MethodError, match=field.name) as caught:
            method.params_type.from_dict({field.name: wrong})
        assert "\n" not in str(caught.value)
