"""What every method promises, on every backbone and task; no test here names one."""

import dataclasses
import json
import pickle
import random
from pathlib import Path

import pytest
import torch
from optuna import logging
from optuna.samplers import RandomSampler
from optuna.study import create_study
from peft import PeftModel

import methods
import search_spaces
from methods._base import Attached, Hyperparameters, MethodSpec

pytestmark = pytest.mark.filterwarnings(
    # peft 0.21 still asks transformers 5 by its old name when it loads an adapter
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)


def default(spec: MethodSpec) -> Hyperparameters:
    return spec.params_type.from_dict(search_spaces.get(spec.name).default)


def draws(spec: MethodSpec, count: int) -> list[Hyperparameters]:
    logging.set_verbosity(logging.WARNING)
    space = search_spaces.get(spec.name)
    study = create_study(sampler=RandomSampler(seed=1))
    trials = [study.ask(dict(space.distributions)) for _ in range(count)]
    return [spec.params_type.from_dict(trial.params) for trial in trials]


def skip_unless_it_does(spec: MethodSpec, task: str) -> None:
    if task not in spec.tasks:
        pytest.skip("the method declares that it does not do this task")


def step(attached: Attached, case) -> None:
    """One optimizer step, dropout on."""
    attached.train(True)
    rated = [{"params": list(g.parameters), "lr": 1e-2 * g.multiplier} for g in attached.groups]
    optimizer = torch.optim.AdamW(rated)
    attached.module(**case.batch(), labels=case.labels()).loss.backward()
    optimizer.step()
    attached.train(False)


def perturb(attached: Attached) -> None:
    torch.manual_seed(13)
    with torch.no_grad():
        for parameter in attached.trainable().values():
            parameter += 0.1 * torch.randn_like(parameter)


def test_starts_as_identity_where_declared(method, case):
    skip_unless_it_does(method, case.task)
    if not method.starts_as_identity:
        pytest.skip("the method declares that it does not")
    if method.needs_original and case.quantization != "none":
        pytest.skip("the method starts from the original weights and not from the quantized ones")
    attached = case.attach(method, default(method))
    attached.train(False)
    torch.testing.assert_close(case.logits(attached.module), case.logits(case.view()), atol=1e-5, rtol=1e-5)


def test_only_declared_parameters_train_and_the_backbone_is_untouched(method, case):
    skip_unless_it_does(method, case.task)
    before = case.shared.checksum()
    attached = case.attach(method, default(method))
    declared = {id(p) for group in attached.groups for p in group.parameters}
    assert declared == {id(p) for p in attached.trainable().values()}
    assert len(declared) == sum(len(group.parameters) for group in attached.groups)
    frozen = {n: p.clone() for n, p in attached.module.named_parameters() if id(p) not in declared}
    trained = {n: p.clone() for n, p in attached.trainable().items()}
    step(attached, case)
    after = dict(attached.module.named_parameters())
    assert all(torch.equal(tensor, after[name]) for name, tensor in frozen.items())
    assert any(not torch.equal(tensor, after[name]) for name, tensor in trained.items())
    assert case.shared.checksum() == before


def test_everything_that_trains_is_float32_and_shared_with_no_other_view(method, case):
    skip_unless_it_does(method, case.task)
    one, other = case.attach(method, default(method)), case.attach(method, default(method))
    assert {p.dtype for p in one.trainable().values()} == {torch.float32}
    storages = [{p.data_ptr() for p in attached.trainable().values()} for attached in (one, other)]
    shared = {p.data_ptr() for p in case.shared.model.parameters() if p.device.type != "meta"}
    assert not storages[0] & storages[1]
    assert not storages[0] & shared


def test_every_trained_parameter_gets_a_gradient(method, case):
    skip_unless_it_does(method, case.task)
    attached = case.attach(method, default(method))
    perturb(attached)  # away from zero initialisations
    attached.module(**case.batch(), labels=case.labels()).loss.backward()
    silent = [name for name, p in attached.trainable().items() if p.grad is None]
    assert silent == []


def test_training_switches_dropout_of_the_adapter_alone(method, case):
    skip_unless_it_does(method, case.task)
    attached = case.attach(method, default(method))
    attached.train(True)
    active = set(attached.active)
    assert active
    assert all(module.training == (module in active) for module in attached.module.modules())
    attached.train(False)
    assert not any(module.training for module in [*attached.module.modules(), *active])


def test_a_perturbed_adapter_changes_the_output(method, case):
    skip_unless_it_does(method, case.task)
    attached = case.attach(method, default(method))
    attached.train(False)
    before = case.logits(attached.module)
    perturb(attached)
    assert not torch.allclose(before, case.logits(attached.module), atol=1e-3)


def test_a_row_does_not_depend_on_the_padding_of_its_batch(method, case):
    skip_unless_it_does(method, case.task)
    attached = case.attach(method, default(method))
    perturb(attached)
    attached.train(False)
    batch = case.batch()
    kept = batch["attention_mask"][0] == 1
    alone = {name: tensor[:1, kept] for name, tensor in batch.items()}
    with torch.no_grad():
        among, solo = attached.module(**batch).logits[0], attached.module(**alone).logits[0]
    if case.task == "causal-lm":
        among, solo = among[-1], solo[-1]
    torch.testing.assert_close(among, solo, atol=1e-4, rtol=1e-4)


def test_a_saved_adapter_is_read_back_bit_for_bit(method, case, tmp_path: Path):
    skip_unless_it_does(method, case.task)
    attached = case.attach(method, default(method))
    step(attached, case)
    attached.save(tmp_path)
    back = methods.load_adapter(case.shared.view(99), tmp_path, case.shared.context)
    back.train(False)
    assert torch.equal(case.logits(back.module), case.logits(attached.module))
    assert {f.suffix for f in tmp_path.iterdir()} <= {".json", ".safetensors", ".md"}


def test_peft_reads_what_is_declared_to_be_its_own(method, case, tmp_path: Path):
    skip_unless_it_does(method, case.task)
    if not method.peft:
        pytest.skip("the method declares a format of its own")
    if case.quantization != "none":
        pytest.skip("a plain model has other weights than a quantized one")
    attached = case.attach(method, default(method))
    perturb(attached)
    attached.train(False)
    attached.save(tmp_path)
    plain = PeftModel.from_pretrained(case.plain(), str(tmp_path)).eval()
    assert plain.active_peft_config.base_model_name_or_path == case.shared.context.backbone
    torch.testing.assert_close(
        case.logits(plain, padded=False), case.logits(attached.module, padded=False), atol=1e-5, rtol=1e-5
    )


def test_merged_equals_unmerged_where_declared(method, case):
    skip_unless_it_does(method, case.task)
    attached = case.attach(method, default(method))
    assert (attached.merge is not None) == method.supports_merge
    if attached.merge is None:
        pytest.skip("the method declares that it cannot be merged")
    perturb(attached)
    attached.train(False)
    before, checksum = case.logits(attached.module), case.shared.checksum()
    merged = attached.merge()
    torch.testing.assert_close(case.logits(merged), before, atol=1e-4, rtol=1e-4)
    assert case.shared.checksum() == checksum
    assert set(dict(case.plain().named_modules())) == set(dict(merged.named_modules()))


def test_params_survive_json_and_pickle(method):
    params = default(method)
    assert method.params_type.from_dict(json.loads(json.dumps(params.to_dict()))) == params
    assert pickle.loads(pickle.dumps(params)) == params


def test_every_draw_of_its_space_is_a_valid_parameter_set(method):
    assert len(draws(method, 200)) == 200


def test_a_handful_of_draws_attach_and_run(method, make_case):
    task = "classification"
    chosen = make_case("encoder", task, "nf4"), make_case("decoder", task, "nf4")
    for params in random.Random(2).sample(draws(method, 40), 6):
        for case in chosen:
            attached = case.attach(method, params)
            attached.train(False)
            assert torch.isfinite(case.logits(attached.module)).all()


def test_unknown_and_impossible_parameters_are_refused_in_one_line(method):
    from methods._base import MethodError

    with pytest.raises(MethodError, match="unknown parameter 'rnak'"):
        method.params_type.from_dict({"rnak": 1})
    for field in dataclasses.fields(method.params_type):
        wrong = "nonsense" if isinstance(getattr(method.params_type(), field.name), str) else -1
        if isinstance(getattr(method.params_type(), field.name), bool):
            continue
        with pytest.raises(MethodError, match=field.name) as caught:
            method.params_type.from_dict({field.name: wrong})
        assert "\n" not in str(caught.value)
