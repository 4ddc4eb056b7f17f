"""The capability matrix of an architecture: what it promises works, and what it refuses does not."""

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import methods
from methods.base.spec import Context, Hyperparameters, MethodError, MethodSpec, Quantization
from orchestrator.planning.capability import Probe, list_methods, try_method
from orchestrator.tasks import TASK_TYPES

from ..architectures import ARCHITECTURES, config_of, kind_of
from .expected_support import expected_refusal

pytestmark = pytest.mark.filterwarnings(
    # peft 0.21 uses a name that transformers 5 has deprecated, when it attaches
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)
TASKS = ("classification", "causal-lm")
# transposed weights in Conv1D layers; experts that are not layers; fused attention without biases
SAMPLE = (("gpt2", "classification"), ("mixtral", "causal-lm"), ("modernbert", "classification"))
STEPS = 4


def check(spec: MethodSpec, params: Hyperparameters, case, folder: Path) -> None:
    """Train, save, load and merge, through the files that a sweep writes; raise if anything is wrong."""
    before = case.shared.checksum()
    attached = case.attach(spec, params)
    if spec.trains:
        train(attached, case)
    attached.train(False)
    folder.mkdir()
    attached.save(folder)
    back = methods.load_adapter(case.shared.view(99), folder, case.shared.context)
    back.train(False)
    expected = case.logits(attached.module)
    assert expected.isfinite().all()
    assert torch.equal(case.logits(back.module), expected), "loaded, it gives other results"
    coarse = case.shared.model.dtype == torch.bfloat16
    if not coarse:
        require_rows_on_their_own(attached, case)
    assert (back.merge is not None) == spec.supports_merge
    if back.merge is not None:
        room: dict[str, Any] = {"atol": 0.05, "rtol": 0.05} if coarse else {"atol": 1e-4, "rtol": 1e-4}
        torch.testing.assert_close(case.logits(back.merge()), expected, **room, check_dtype=False)
    assert case.shared.checksum() == before, "it writes into the backbone"


def train(attached, case) -> None:
    batch, labels = case.batch(), case.labels()
    trainable = attached.trainable()
    assert {p.dtype for p in trainable.values()} == {torch.float32}
    optimizer = torch.optim.AdamW([{"params": list(g.parameters), "lr": 0.02 * g.multiplier} for g in attached.groups])
    sources = torch.arange(len(batch["input_ids"])) % len(case.context.sources)
    bare, reached = case.logits(attached.module), set()
    attached.train(True)
    for step in range(STEPS):
        stage = {"task_ids": sources} if step < attached.source_steps(STEPS) else {}
        attached.module(**batch, **stage, labels=labels).loss.backward()
        reached |= {name for name, p in trainable.items() if p.grad is not None}
        optimizer.step()
        if attached.on_step:
            attached.on_step(step + 1, STEPS)
        optimizer.zero_grad()
    assert trainable.keys() == reached, "something that should train gets no gradient"
    attached.train(False)
    assert not torch.equal(case.logits(attached.module), bare), "training changes nothing"


def require_rows_on_their_own(attached, case) -> None:
    batch = case.batch()
    alone = {name: tensor[:1, batch["attention_mask"][0] == 1] for name, tensor in batch.items()}
    with torch.no_grad():
        among, solo = attached.module(**batch).logits[0], attached.module(**alone).logits[0]
    if case.task == "causal-lm":
        real = batch["attention_mask"][0] == 1
        among, solo = among[-len(real) :][real][-1], solo[-1]
    torch.testing.assert_close(among, solo, atol=1e-4, rtol=1e-3)


def probe_of(name: str, task: str, quantization: Quantization) -> Probe:
    labels = 3 if task == "classification" else 0
    return Probe(config_of(name), TASK_TYPES[task], name=name, labels=labels, quantization=quantization)


def check_matrix(
    name: str, task: str, quantization: Quantization, names, share, folder: Path, monkeypatch
) -> list[str]:
    """Return every promise and every refusal of the capability matrix that is wrong or not expected."""
    probe = probe_of(name, task, quantization)
    case = share(config_of(name), kind_of(name), task, quantization)
    wrong = []
    for method in names:
        capability, values = try_method(probe, method)
        spec = methods.get(method)
        params, adapter_folder = spec.params_type.from_dict(values), folder / method.replace(":", "-")
        if (name, task) in SAMPLE and capability.available == bool(expected_refusal(method, name, task, quantization)):
            wrong.append(f"{method}: expected_support.py expects otherwise than {capability.reason or 'available'}")
        if capability.available:
            try:
                check(spec, params, case, adapter_folder)
            except Exception as error:
                wrong.append(f"{method} is promised, and {type(error).__name__}: {error}")
        else:
            with monkeypatch.context() as patch:
                lift_checks(patch)
                if works(
                    dataclasses.replace(spec, tasks=frozenset({"SEQ_CLS", "CAUSAL_LM"})), params, case, adapter_folder
                ):
                    wrong.append(f"{method} is refused, since {capability.reason}, and works")
    return wrong


def lift_checks(patch: pytest.MonkeyPatch) -> None:
    """Remove the checks that methods make before they attach."""
    for module in [module for key, module in sys.modules.items() if key.startswith("methods.")]:
        for name, member in list(vars(module).items()):
            if re.match(r"_?require", name) and callable(member):
                patch.setattr(module, name, lambda *_, **__: None)


def works(spec: MethodSpec, params: Hyperparameters, case, folder: Path) -> bool:
    try:
        check(spec, params, case, folder)
    except Exception:  # any failure and any wrong result
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize(("name", "task"), SAMPLE, ids=[name for name, _ in SAMPLE])
def test_capability_matrix_is_true_and_expected(name, task, share, tmp_path, monkeypatch):
    assert check_matrix(name, task, "nf4", methods.names(), share, tmp_path, monkeypatch) == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("quantization", ["nf4", "none"])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_whole_capability_matrix_is_true(name, task, quantization, share, tmp_path, monkeypatch):
    if task == "causal-lm" and no_language_model(name):
        with pytest.raises(MethodError):
            probe_of(name, task, quantization)
        return
    assert check_matrix(name, task, quantization, list_methods()[0], share, tmp_path, monkeypatch) == []


def no_language_model(name: str) -> bool:
    """Return whether transformers has no language model of the architecture, or one that sees later tokens."""
    try:
        model = transformers.AutoModelForCausalLM.from_config(config_of(name)).eval()
    except ValueError:
        return True
    tokens = torch.arange(10, 20)[None]
    changed = tokens.clone()
    changed[0, -1] = 30
    with torch.no_grad():
        return not torch.allclose(model(tokens).logits[0, 0], model(changed).logits[0, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bert", "bert models attend to later tokens, so they cannot be language models"),
        ("t5", "t5 models have no AutoModelForCausalLM in transformers"),
    ],
)
def test_probe_refuses_language_modelling_without_language_model(name, reason):
    assert no_language_model(name)
    with pytest.raises(MethodError, match=f"^{reason}$"):
        probe_of(name, "causal-lm", "nf4")


@pytest.mark.parametrize("name", ["llama", "bart"])
def test_probe_accepts_language_models(name):
    assert not no_language_model(name)
    probe_of(name, "causal-lm", "nf4")


@pytest.mark.parametrize(
    ("method", "params", "reason"),
    [
        ("lora", {"targets": "feed_forward"}, "has no linear layer for feed_forward"),
        ("adapter", {}, "has no feed-forward of linear layers"),
        ("ia3", {"targets": "feed_forward"}, "has no feed-forward of linear layers"),
    ],
)
@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_capability_does_not_count_fused_experts_as_feed_forward(name, method, params, reason):
    capability = probe_of(name, "causal-lm", "nf4").capability(method, params)
    assert not capability.available
    assert reason in capability.reason


def test_blocks_refuse_model_without_transformer_blocks():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3))
    for name in ("lora", "ia3", "adapter"):
        spec = methods.get(name)
        context = Context(
            task="causal-lm", task_type="CAUSAL_LM", backbone="x", head=(), original=lambda _: torch.empty(0)
        )
        with pytest.raises(MethodError, match="no transformer blocks were found in Sequential"):
            spec.attach(model, spec.params_type(), context)
