"""The contract that every method keeps, on every backbone and task that it supports.

No test here names a method: a new file in methods/ is tested without a change. Where a method refuses a backbone, say
so in expected_support.py.
"""

import dataclasses
import json
import pickle
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
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
from orchestrator.engine.checkpointed_blocks import block_names, checkpoint_blocks
from orchestrator.tasks import TASK_TYPES

from ..architectures import ARCHITECTURES
from .conftest import BACKBONES, Case, family_members
from .expected_support import ARCHITECTURE_OF_KIND, REFUSALS, expected_refusal

pytestmark = [
    # peft 0.21 uses a name that transformers 5 has deprecated, when it loads an adapter
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    # and it knows the width of linear layers alone, when it copies norms
    pytest.mark.filterwarnings("ignore:Unsupported layer type .*Norm:UserWarning"),
    # warnings of beft and boft on a machine without CUDA, when peft loads them itself
    pytest.mark.filterwarnings("ignore:Detected that the base layer has no bias term:UserWarning"),
    pytest.mark.filterwarnings("ignore:Failed to load the CUDA extension:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting boft_n_butterfly_factor to 1:UserWarning"),
]
STEPS = 4
Pair = tuple[str, str, str, str]  # method, kind, task, quantization
METHODS = [*methods.names(), *(pytest.param(name, marks=pytest.mark.slow) for name in family_members())]


def all_pairs() -> list[tuple[Pair, list[pytest.MarkDecorator]]]:
    """Every method with every backbone, and the marks of the pair.

    Methods with a file are tried on all backbones. Of the many members of families, make test tries each on every
    architecture and task once, alternately with and without quantization; make test-full tries the rest.
    """
    pairs: list[tuple[Pair, list[pytest.MarkDecorator]]] = []
    for quantization in ("nf4", "none"):
        for place, (kind, task) in enumerate(BACKBONES):
            marks = [] if quantization == "nf4" else [pytest.mark.slow]
            pairs += [((name, kind, task, quantization), marks) for name in methods.names()]
            for index, name in enumerate(family_members()):
                in_make_test = (index + place) % 2 == (quantization == "none")
                mark = pytest.mark.slow if in_make_test else pytest.mark.exhaustive
                pairs.append(((name, kind, task, quantization), [mark]))
    return pairs


def refusal(pair: Pair) -> str:
    name, kind, task, quantization = pair
    return expected_refusal(name, ARCHITECTURE_OF_KIND[kind], task, quantization)


def on_pairs(condition: Callable[[MethodSpec, Pair], bool]) -> pytest.MarkDecorator:
    """Generate a case for each pair of method and backbone that satisfies ``condition``."""
    # module scope, and the same values in all tests: pytest runs the tests of a pair in a row, on the same fixtures
    pairs = [
        pytest.param(pair, id="-".join(pair), marks=marks)
        for pair, marks in all_pairs()
        if condition(methods.get(pair[0]), pair)
    ]
    return pytest.mark.parametrize("pair", pairs, indirect=True, scope="module")


on_supported = on_pairs(lambda _, pair: not refusal(pair))
on_trained = on_pairs(lambda spec, pair: spec.trains and not refusal(pair))


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest) -> Pair:
    method_and_backbone: Pair = request.param
    return method_and_backbone


@pytest.fixture(scope="module")
def spec(pair: Pair) -> MethodSpec:
    return methods.get(pair[0])


@pytest.fixture(scope="module")
def case(pair: Pair, make_case: Callable[..., Case]) -> Case:
    return make_case(*pair[1:])


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
    """An attachment after a few steps with one pause, and noise added to everything that trains.

    Args:
        changed: the names of the tensors that the steps changed.
        checksums: of the backbone, before and after.
        paused: the file of the state in the middle.
        at_the_end: everything that trains, after the steps and before the noise.
        folder: folder of the saved adapter, after the noise.
        logits: logits after the noise.
    """

    attached: Attached
    changed: set[str]
    checksums: set[str]
    paused: Path
    at_the_end: dict[str, Tensor]
    folder: Path
    logits: Tensor


@pytest.fixture(scope="module")
def fresh(spec, case) -> Fresh:
    view = case.view()
    inside, before = set(view.modules()), case.logits(view)
    attached = case.attach(spec, default(spec), view)
    attached.train(False)
    return Fresh(attached, inside, before, case.logits(attached.module))


@pytest.fixture(scope="module")
def trained(spec, case, tmp_path_factory) -> Trained:
    checksum, attached = case.shared.checksum(), case.attach(spec, default(spec))
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
    """Train as a lane does: with dropout, source tasks first, and a random stream per step."""
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
    task_loss: Tensor = attached.module(**batch, labels=case.labels()).loss
    return task_loss


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def same(tensor: Tensor, other: Tensor) -> bool:
    return tensor.shape == other.shape and torch.equal(tensor, other)


def pause(attached: Attached, optimizer: torch.optim.Optimizer, file: Path) -> None:
    tensors = {f"parameter:{name}": p.detach() for name, p in attached.trainable().items()}
    tensors |= {f"method:{name}": tensor for name, tensor in attached.state().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer:{index}:{name}": value for name, value in state.items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)


def resume(attached: Attached, file: Path) -> torch.optim.Optimizer:
    tensors = load_file(file)
    with torch.no_grad():
        for name, parameter in attached.trainable().items():
            parameter.copy_(tensors[f"parameter:{name}"])
    attached.load_state({n.removeprefix("method:"): t for n, t in tensors.items() if n.startswith("method:")})
    optimizer = optimizer_of(attached)
    state: dict[int, dict[str, Tensor]] = {}
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


def test_expected_support_names_existing_methods_and_backbones():
    assert set(REFUSALS) <= {*methods.names(), *family_members()}
    for patterns in REFUSALS.values():
        for pattern in patterns:
            architecture, *rest = pattern.partition("-")
            assert architecture in ("*", *ARCHITECTURES), pattern
            assert rest, pattern


@pytest.mark.parametrize("name", METHODS)
def test_method_supports_some_backbone(name):
    assert any(not refusal(pair) for pair, _ in all_pairs() if pair[0] == name)


@on_pairs(lambda _, pair: bool(refusal(pair)))
def test_method_refuses_unsupported_backbone(pair, spec, case):
    with pytest.raises(MethodError, match=refusal(pair)) as caught:
        case.attach(spec, default(spec))
    assert "\n" not in str(caught.value)


def test_methods_declare_supported_tasks():
    for pair, _ in all_pairs():
        if not refusal(pair):
            assert TASK_TYPES[pair[2]].peft_task_type in methods.get(pair[0]).tasks, pair


@on_pairs(
    lambda spec, pair: (
        spec.starts_as_identity and not refusal(pair) and not (spec.needs_original and pair[3] != "none")
    )  # it starts from the original weights, not the quantized ones
)
def test_fresh_method_is_identity_where_declared(fresh):
    torch.testing.assert_close(fresh.logits, fresh.before, atol=1e-5, rtol=1e-5)


@on_supported
def test_trainable_parameters_are_declared_once_and_float32(spec, fresh):
    declared = [p for group in fresh.attached.groups for p in group.parameters]
    assert len(declared) == len(set(declared))
    assert set(declared) == set(fresh.attached.trainable().values())
    assert bool(declared) == spec.trains
    assert {p.dtype for p in declared} <= {torch.float32}


@on_trained
def test_trainable_parameters_are_not_shared_between_views(case, fresh, trained):
    storages = [{p.data_ptr() for p in view.attached.trainable().values()} for view in (fresh, trained)]
    shared = {p.data_ptr() for p in case.shared.model.parameters() if p.device.type != "meta"}
    assert not storages[0] & storages[1]
    assert not storages[0] & shared


@on_trained
def test_training_changes_declared_parameters_alone(trained):
    assert trained.changed
    assert trained.changed <= trained.at_the_end.keys()
    assert len(trained.checksums) == 1


@on_trained
def test_every_trainable_parameter_gets_a_gradient(case, trained):
    attached = trained.attached
    if attached.source_steps(STEPS):
        loss(attached, case, source=True).backward()
    loss(attached, case, source=False).backward()
    silent = [name for name, p in attached.trainable().items() if p.grad is None]
    attached.module.zero_grad(set_to_none=True)
    assert silent == []


@on_trained
def test_checkpointed_blocks_leave_loss_and_gradients_equal(case, trained):
    attached, names = trained.attached, block_names(trained.attached.module)
    expected = seeded_gradients(attached, case)
    assert len(names) == len(block_names(case.shared.model)) > 1
    calls: Counter[str] = Counter()
    with checkpointed(attached.module, names, calls):
        result = seeded_gradients(attached, case)
    assert result[0] == expected[0]
    assert result[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(result[1][name], gradient, rtol=1e-6, atol=1e-6, msg=name)
    passes = 2 if attached.source_steps(STEPS) else 1
    head_alone = all(any(f"{part}." in name for part in case.shared.context.head) for name in attached.trainable())
    assert calls.keys() == set(names)
    assert max(calls.values()) == (passes if head_alone else 2 * passes), "a block runs again if gradients reach it"


def seeded_gradients(attached: Attached, case) -> tuple[float, dict[str, Tensor]]:
    """Return the loss and the gradients of a step with dropout."""
    torch.manual_seed(17)
    attached.train(True)
    total = sum(loss(attached, case, source=source) for source in {attached.source_steps(STEPS) > 0, False})
    total = total if attached.penalty is None else total + attached.penalty()
    total.backward()
    gradients = {name: p.grad for name, p in attached.trainable().items() if p.grad is not None}
    attached.module.zero_grad(set_to_none=True)
    attached.train(False)
    return total.item(), gradients


@contextmanager
def checkpointed(module: nn.Module, names: Iterable[str], calls: Counter[str]) -> Iterator[None]:
    """Checkpoint blocks inside the context, and count how often each of them runs."""
    before = {name: module.get_submodule(name).__dict__.get("forward") for name in names}
    for name in names:
        block = module.get_submodule(name)
        block.forward = partial(counted, block.forward, name, calls)
    checkpoint_blocks(module, names, torch.device("cpu"))
    yield
    for name, forward in before.items():
        del module.get_submodule(name).forward
        if forward is not None:
            module.get_submodule(name).forward = forward


def counted(forward: Callable[..., object], name: str, calls: Counter[str], *args: object, **kwargs: object) -> object:
    calls[name] += 1
    return forward(*args, **kwargs)


@on_supported
def test_train_switches_dropout_of_adapter_alone(fresh):
    attached, active = fresh.attached, set(fresh.attached.active)
    modules = set(attached.module.modules())
    attached.train(True)
    switched = {module for module in modules if module.training}
    attached.train(False)
    assert switched == active & modules
    assert {module for module in modules - fresh.inside if isinstance(module, nn.Dropout)} <= active
    assert not any(module.training for module in modules | active)


@on_trained
def test_changed_adapter_changes_output(fresh, trained):
    assert not torch.allclose(fresh.logits, trained.logits, atol=1e-3)


@on_supported
def test_row_does_not_depend_on_padding(case, fresh, request):
    attached = fresh.attached
    if attached.groups:
        attached = request.getfixturevalue("trained").attached
    batch = case.batch()
    real = batch["attention_mask"][0] == 1
    alone = {name: tensor[:1, real] for name, tensor in batch.items()}
    with torch.no_grad():
        in_batch, by_itself = attached.module(**batch).logits[0], attached.module(**alone).logits[0]
    if case.task == "causal-lm":
        in_batch, by_itself = in_batch[-1], by_itself[-1]
    torch.testing.assert_close(in_batch, by_itself, atol=1e-4, rtol=1e-4)


@on_trained
def test_paused_trial_resumes_bit_for_bit(spec, case, trained):
    attached = case.attach(spec, default(spec))
    optimizer = resume(attached, trained.paused)
    train(attached, case, optimizer, range(STEPS // 2, STEPS))
    assert attached.trainable().keys() == trained.at_the_end.keys()
    assert all(torch.equal(p, trained.at_the_end[name]) for name, p in attached.trainable().items())


@on_supported
def test_saved_adapter_loads_bit_for_bit_and_merges(spec, case, fresh, request, tmp_path):
    folder, logits = tmp_path, fresh.logits
    if spec.trains:
        trained = request.getfixturevalue("trained")
        folder, logits = trained.folder, trained.logits
    else:
        fresh.attached.save(folder)
    assert {f.suffix for f in folder.rglob("*") if f.is_file()} <= {".json", ".safetensors", ".md"}
    # with another head, except where nothing is trained and so none is saved
    back = methods.load_adapter(case.shared.view(99 if spec.trains else case.seed), folder, case.shared.context)
    back.train(False)
    assert torch.equal(case.logits(back.module), logits)
    assert (back.merge is not None) == spec.supports_merge
    if back.merge is not None:
        checksum, merged = case.shared.checksum(), back.merge()
        torch.testing.assert_close(case.logits(merged), logits, atol=1e-4, rtol=1e-4)
        assert case.shared.checksum() == checksum
        assert set(dict(case.plain().named_modules())) == set(dict(merged.named_modules()))


# a plain model of transformers has the weights of a backbone without quantization alone
@on_pairs(lambda spec, pair: spec.peft and pair[3] == "none" and not refusal(pair))
def test_peft_loads_saved_adapter_where_declared(case, trained):
    plain = PeftModel.from_pretrained(case.plain(), str(trained.folder)).eval()
    assert plain.active_peft_config.base_model_name_or_path == case.shared.context.backbone
    torch.testing.assert_close(
        case.logits(plain, padded=False), case.logits(trained.attached.module, padded=False), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("name", METHODS)
def test_params_survive_json_and_pickle(name):
    spec = methods.get(name)
    params = default(spec)
    assert spec.params_type.from_dict(json.loads(json.dumps(params.to_dict()))) == params
    assert pickle.loads(pickle.dumps(params)) == params


@pytest.mark.parametrize("name", METHODS)
def test_search_space_draws_valid_parameters(name):
    assert len(draws(methods.get(name), 200)) == 200


@pytest.mark.parametrize("name", METHODS)
def test_search_space_draws_run_or_are_refused_in_one_line(name, make_case):
    """Two draws on each kind of backbone that the method supports; some draws are too large for tiny models."""
    spec = methods.get(name)
    task = "classification" if "SEQ_CLS" in spec.tasks else "causal-lm"
    backbones = [(kind, task, "nf4") for kind, other in BACKBONES if other == task]
    supported = [backbone for backbone in backbones if not refusal((name, *backbone))]
    ran, refusals = 0, []
    for index, params in enumerate(random.Random(2).sample(draws(spec, 40), 2 * len(supported))):
        case = make_case(*supported[index % len(supported)])
        try:
            attached = case.attach(spec, params)
        except MethodError as error:
            refusals.append(str(error))
        else:
            attached.train(False)
            assert torch.isfinite(case.logits(attached.module)).all()
            ran += 1
    assert ran
    assert not any("\n" in message for message in refusals)


@pytest.mark.parametrize("name", METHODS)
def test_params_refuse_unknown_and_impossible_values_in_one_line(name):
    params_type = methods.get(name).params_type
    with pytest.raises(MethodError, match="unknown parameter 'rnak'"):
        params_type.from_dict({"rnak": 1})
    for field in dataclasses.fields(params_type):
        default_value = getattr(params_type(), field.name)
        if isinstance(default_value, bool):
            continue
        impossible = "nonsense" if isinstance(default_value, str) else -1
        with pytest.raises(MethodError, match=field.name) as caught:
            params_type.from_dict({field.name: impossible})
        assert "\n" not in str(caught.value)
