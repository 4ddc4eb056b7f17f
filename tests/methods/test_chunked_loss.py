"""The loss in chunks of every method of the catalogue, against its loss with all logits at once."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import methods
from methods.base.spec import Attached
from orchestrator.tasks import token_losses
from orchestrator.tasks.output_head import states_and_head
from orchestrator.tasks.token_losses import next_token_losses

from .conftest import VOCABULARY, Case, family_members
from .expected_support import ARCHITECTURE_OF_KIND, expected_refusal

BACKBONE = ("decoder", "causal-lm", "nf4")
NAMES = [
    name
    for name in (*methods.names(), *family_members())
    if not expected_refusal(name, ARCHITECTURE_OF_KIND["decoder"], *BACKBONE[1:])
]


def attach(case: Case, name: str) -> Attached:
    spec = methods.get(name)
    attached = case.attach(spec, spec.params_type())
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in attached.trainable().values():
            parameter.add_(0.02 * torch.randn_like(parameter))
    attached.train(True)
    return attached


def step(attached: Attached, losses: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(4)  # of dropout
    values = losses()
    if attached.groups:
        values.mean().backward()
    trainable = attached.trainable()
    gradients = {name: p.grad.clone() for name, p in trainable.items() if p.grad is not None}
    for parameter in trainable.values():
        parameter.grad = None
    return values.detach(), gradients


@pytest.mark.parametrize("name", NAMES)
def test_chunked_loss_equals_unchunked_loss_with_every_method(
    name: str, make_case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(*BACKBONE)
    attached = attach(case, name)
    batch = {**case.batch(), "labels": case.labels()}
    tokens = batch["labels"].shape[1]
    is_counted = batch["labels"][:, 1:] != -100

    def unchunked() -> Tensor:
        logits = attached.module(**case.batch()).logits[:, -tokens:][:, :-1][is_counted].float()
        return F.cross_entropy(logits, batch["labels"][:, 1:][is_counted], reduction="none")

    expected, expected_gradients = step(attached, unchunked)
    monkeypatch.setattr(token_losses, "CHUNK_LOGITS", 5 * VOCABULARY)
    losses, gradients = step(attached, lambda: next_token_losses(attached.module, batch)[0])
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == expected_gradients.keys()
    for parameter, gradient in expected_gradients.items():
        torch.testing.assert_close(gradients[parameter], gradient, rtol=1e-3, atol=1e-5)
    states, _ = states_and_head(attached.module, case.batch())
    assert states.shape[-1] == case.shared.model.config.hidden_size, "it has logits for all positions"
