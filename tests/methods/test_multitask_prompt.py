"""Multitask prompt tuning against peft's, stage by stage."""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.tuners.multitask_prompt_tuning import MultitaskPromptTuningInit as Init
from safetensors.torch import save_file
from torch import Tensor, nn

import methods
from methods.base.spec import MethodError

pytestmark = pytest.mark.filterwarnings(
    # peft 0.21 uses a name that transformers 5 has deprecated, when it attaches or loads an adapter
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)
SPEC = methods.get("multitask_prompt")
TRANSFERS = {"average": Init.AVERAGE_SOURCE_TASKS, "first": Init.EXACT_SOURCE_TASK, "shared": Init.ONLY_SOURCE_SHARED}


def attached(case, **changes: Any):
    context = {name: changes.pop(name) for name in ("sources", "source_labels", "text") if name in changes}
    params = SPEC.params_type(**{"tokens": 5, "ranks": 2, **changes})
    attachment = case.attach(SPEC, params, **context)
    torch.manual_seed(23)
    with torch.no_grad():  # away from matrices of almost nothing
        for _, parameter in sorted(attachment.trainable().items()):
            parameter += 0.3 * torch.randn_like(parameter)
    attachment.train(False)
    return attachment


def by_peft(case, tasks: int, init: Init = Init.RANDOM, file: Path | None = None) -> nn.Module:
    config = peft.MultitaskPromptTuningConfig(
        task_type={"classification": "SEQ_CLS", "causal-lm": "CAUSAL_LM"}[case.task],
        num_virtual_tokens=5,
        num_ranks=2,
        num_tasks=tasks,
        prompt_tuning_init=init,
        prompt_tuning_init_state_dict_path=str(file),
        prompt_tuning_init_task=0,
    )
    if case.task == "classification":
        config.modules_to_save = list(case.shared.context.head)
    return peft.get_peft_model(case.plain(), config).eval()


def copy_head(attachment, reference: nn.Module, source: int | None, case) -> None:
    """Copy the attachment's head, or that of a source task, into peft's model."""
    for place, name in enumerate(case.shared.context.head):
        wrapper = attachment.module.get_base_model().get_submodule(name).modules_to_save["default"]
        head = wrapper if source is None else attachment.module.source_stage.heads[source][place]
        other = reference.get_base_model().get_submodule(name).modules_to_save["default"]
        other.load_state_dict(head.state_dict())


@pytest.fixture(params=[("encoder", "classification"), ("decoder", "classification"), ("decoder", "causal-lm")])
def plain(request, make_case):
    return make_case(*request.param, "none")


def test_multitask_prompt_source_stage_equals_peft(plain):
    attachment = attached(plain)
    reference = by_peft(plain, 2)
    reference.prompt_encoder["default"].load_state_dict(attachment.module.source_stage.encoder.state_dict())
    for task in (0, 1):
        copy_head(attachment, reference, task, plain)
        batch = plain.batch(padded=False)
        batch["task_ids"] = torch.full((4,), task)
        losses, gradients = [], []
        for module, encoder in (
            (attachment.module, attachment.module.source_stage.encoder),
            (reference, reference.prompt_encoder["default"]),
        ):
            module.zero_grad(set_to_none=True)
            loss = module(**batch, labels=plain.labels()).loss
            loss.backward()
            losses.append(loss)
            gradients.append({name: p.grad for name, p in encoder.named_parameters()})
        torch.testing.assert_close(losses[0], losses[1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)
        assert attachment.module.prompt_encoder["default"].embedding.weight.grad is None, "its turn comes later"


@pytest.mark.parametrize("transfer", TRANSFERS)
def test_multitask_prompt_transfer_and_target_stage_equal_peft(plain, transfer: str, tmp_path: Path):
    attachment = attached(plain, transfer=transfer, source_fraction=0.5)
    learned = attachment.module.source_stage.encoder
    file = tmp_path / "source.safetensors"
    factors = {name: getattr(learned, name).detach() for name in ("prefix_task_cols", "prefix_task_rows")}
    save_file({**factors, "prompt_embeddings": learned.embedding.weight.detach()}, file)
    target = attachment.module.prompt_encoder["default"]
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    for step in (1, 2, 3, 5, 6):
        attachment.on_step(step, 8)
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())
    attachment.on_step(4, 8)

    reference = by_peft(plain, 1, TRANSFERS[transfer], file)
    copy_head(attachment, reference, None, plain)
    moved = reference.prompt_encoder["default"]
    if transfer == "shared":  # noise of its own is what it leaves the matrix
        for name in ("prefix_task_cols", "prefix_task_rows"):
            assert torch.equal(getattr(target, name), before[name])
            getattr(moved, name).data.copy_(before[name])
    torch.testing.assert_close(dict(target.state_dict()), dict(moved.state_dict()), atol=1e-6, rtol=1e-6)
    batch = plain.batch(padded=False)
    for module, extra in ((attachment.module, {}), (reference, {"task_ids": torch.zeros(4, dtype=torch.int64)})):
        module.zero_grad(set_to_none=True)
        module(**batch, **extra, labels=plain.labels()).loss.backward()
    gradients, peft_gradients = (
        {name: p.grad for name, p in encoder.named_parameters()} for encoder in (target, moved)
    )
    torch.testing.assert_close(gradients, peft_gradients, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        expected = reference(**batch, task_ids=torch.zeros(4, dtype=torch.int64)).logits
        torch.testing.assert_close(attachment.module(**batch).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_multitask_prompt_source_tasks_may_have_other_classes(kind: str, make_case):
    case = make_case(kind, "classification", "nf4")
    attachment = attached(case, sources=("few", "many"), source_labels=(2, 5))
    rows = torch.tensor([0, 1, 1, 0])
    with torch.no_grad():
        logits = attachment.module(**case.batch(), task_ids=rows).logits
        assert attachment.module(**case.batch()).logits.shape == (4, 3)
    assert logits.shape == (4, 5)
    assert torch.isfinite(logits[rows == 1]).all()
    assert torch.isfinite(logits[rows == 0, :2]).all()
    assert torch.isneginf(logits[rows == 0, 2:]).all()
    for task in (0, 1):
        with torch.no_grad():
            alone = attachment.module(**case.batch(), task_ids=torch.full((4,), task)).logits
        assert alone.shape == (4, (2, 5)[task])
        torch.testing.assert_close(alone[rows == task], logits[rows == task, : (2, 5)[task]], atol=1e-5, rtol=1e-5)


def test_multitask_prompt_inactive_head_gets_no_gradient(make_case):
    case = make_case("encoder", "classification", "nf4")
    attachment = attached(case, sources=("one", "two"))
    attachment.module(**case.batch(), task_ids=torch.ones(4, dtype=torch.int64), labels=case.labels()).loss.backward()
    heads = attachment.module.source_stage.heads
    assert all(p.grad is None for p in heads[0].parameters())
    assert all(p.grad is not None for p in heads[1].parameters())
    target_parameters = {p for g in attachment.groups[:1] for p in g.parameters}
    assert all(p.grad is None for p in target_parameters)


@pytest.mark.parametrize(
    ("fraction", "total", "steps"), [(0.2, 100, 20), (0.2, 12, 2), (0.0, 12, 0), (0.99, 3, 2), (0.99, 1, 0)]
)
def test_multitask_prompt_leaves_a_step_for_the_task(fraction: float, total: int, steps: int, make_case):
    attachment = attached(make_case("encoder", "classification", "nf4"), source_fraction=fraction)
    assert attachment.source_steps(total) == steps


def test_multitask_prompt_stages_have_their_rates(make_case):
    attachment = attached(make_case("encoder", "classification", "nf4"), target_lr_ratio=4.0)
    rates = {id(p): group.multiplier for group in attachment.groups for p in group.parameters}
    source_ids = {id(p) for p in attachment.module.source_stage.parameters()}
    assert {rates[number] for number in source_ids} == {1.0}
    assert {rate for number, rate in rates.items() if number not in source_ids} == {4.0}


@pytest.mark.parametrize("init", ["vocabulary", "random"])
def test_multitask_prompt_stages_start_with_same_prompt(init: str, make_case):
    case = make_case("decoder", "causal-lm", "none")
    module = case.attach(SPEC, SPEC.params_type(tokens=5, init=init)).module
    start: Tensor = module.prompt_encoder["default"].embedding.weight
    assert torch.equal(start, module.source_stage.encoder.embedding.weight)
    words = module.get_input_embeddings().weight
    assert all((words == line).all(dim=1).any() for line in start) == (init == "vocabulary")


def test_multitask_prompt_is_saved_as_plain_prompt(make_case, tmp_path: Path):
    case = make_case("decoder", "causal-lm", "none")
    attachment = attached(case)
    attachment.save(tmp_path)
    config = peft.PeftConfig.from_pretrained(str(tmp_path))
    assert config.peft_type == peft.PeftType.PROMPT_TUNING
    back = methods.load_adapter(case.view(), tmp_path, case.shared.context)
    back.train(False)
    assert torch.equal(case.logits(back.module), case.logits(attachment.module))
    batch = case.batch()
    written = [
        module.generate(**batch, max_new_tokens=3, do_sample=False, pad_token_id=0)
        for module in (attachment.module, back.module)
    ]
    assert torch.equal(*written)


def test_multitask_prompt_refuses_task_without_source_tasks(make_case):
    case = make_case("encoder", "classification", "nf4")
    with pytest.raises(MethodError, match="name them in the task's source_tasks"):
        case.attach(SPEC, SPEC.params_type(), sources=())
