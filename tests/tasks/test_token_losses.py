"""Losses in chunks, against those of all logits at once."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from orchestrator.tasks import output_head, token_losses
from orchestrator.tasks.output_head import states_and_head
from orchestrator.tasks.token_losses import next_token_losses

from ..architectures import DECODERS, USUAL

GROUPED = {**USUAL, "num_key_value_heads": 2, "head_dim": 8}
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    # capped logits, tied embeddings
    "gemma2": ("Gemma2Config", {**GROUPED, "final_logit_softcapping": 3.0, "sliding_window": 8}),
    # logits times, or over, a constant
    "cohere": ("CohereConfig", {**USUAL, "num_key_value_heads": 2, "logit_scale": 0.3}),
    "granite": ("GraniteConfig", {**USUAL, "num_key_value_heads": 2, "logits_scaling": 4.0}),
    # a bias of the logits
    "gptj": ("GPTJConfig", {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}),
    # linear layers before the output embeddings
    "bert": ("BertConfig", {**USUAL, "is_decoder": True}),
}
TOKENS = 12


def model_of(name: str) -> PreTrainedModel:
    kind, values = {**DECODERS, **HEADS}[name]
    config = getattr(transformers, kind)(**{**values, "initializer_range": 0.2})
    torch.manual_seed(3)
    model: PreTrainedModel = transformers.AutoModelForCausalLM.from_config(config)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("bias"):
            parameter.data += torch.randn_like(parameter)
    return model.eval()


def batch_of(rows: int = 3, seed: int = 5) -> dict[str, Tensor]:
    """Rows of several lengths, padded on the right; about half of the tokens count."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 100, (rows, TOKENS), generator=random)
    lengths = torch.arange(rows)[:, None] % 3
    mask = (torch.arange(TOKENS) < TOKENS - lengths).long()
    counts = (torch.rand(rows, TOKENS, generator=random) < 0.5) & (mask == 1)
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(~counts, -100)}


def losses_of_all_logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].float()
    targets = batch["labels"][:, 1:]
    return F.cross_entropy(logits[targets != -100], targets[targets != -100], reduction="none")


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four tokens of the tiny vocabulary to a chunk."""
    monkeypatch.setattr(token_losses, "CHUNK_LOGITS", 400)


@pytest.mark.parametrize("name", sorted({**DECODERS, **HEADS}))
def test_chunked_loss_and_gradients_equal_those_of_all_logits(name: str) -> None:
    model, batch = model_of(name), batch_of()
    losses, is_labelled = next_token_losses(model, batch)
    losses.mean().backward()
    chunked = gradients(model)
    expected = losses_of_all_logits(model, batch)
    expected.mean().backward()
    assert torch.equal(is_labelled, batch["labels"][:, 1:] != -100)
    near: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5} if model.dtype == torch.float32 else {"rtol": 0.1, "atol": 0.02}
    torch.testing.assert_close(losses, expected, **near)
    if model.dtype == torch.float32:
        assert losses.mean().item() == pytest.approx(expected.mean().item(), rel=1e-5)
    whole = gradients(model)
    assert chunked.keys() == whole.keys()
    for parameter, gradient in whole.items():
        torch.testing.assert_close(chunked[parameter], gradient, **near)


@pytest.mark.parametrize("name", sorted({**DECODERS, **HEADS}))
def test_chunked_loss_computes_no_logits_of_other_tokens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = model_of(name), batch_of()
    counted = int((batch["labels"][:, 1:] != -100).sum())
    sizes: list[int] = []
    model.get_output_embeddings().register_forward_hook(lambda _, __, output: sizes.append(output[..., 0].numel()))
    with torch.no_grad():
        next_token_losses(model, batch)
    assert max(sizes) <= 4
    assert sum(sizes) == counted
    assert not output_head._changes_logits


def test_chunked_loss_needs_memory_of_a_chunk_only() -> None:
    """No step of the computation, forward or backward, makes more logits than a chunk's."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor) and leaf.shape[-1:] == (100,) and leaf.shape != (32, 100):
                    self.numel = max(self.numel, leaf.untyped_storage().nbytes() // leaf.itemsize)
            return result

    model, batch = model_of("llama").requires_grad_(False), batch_of(rows=8)
    model.model.norm.weight.requires_grad_(True)
    with Largest() as largest:
        next_token_losses(model, batch)[0].mean().backward()
    assert largest.numel == 400
    assert model.model.norm.weight.grad is not None


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_states_and_head_of_encoder_decoders_give_their_logits(name: str) -> None:
    from ..architectures import ENCODER_DECODERS

    kind, values = ENCODER_DECODERS[name]
    torch.manual_seed(3)
    model = transformers.AutoModelForSeq2SeqLM.from_config(getattr(transformers, kind)(**values)).eval()
    ids = batch_of()["input_ids"]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": ids[:, :5]}
    states, head = states_and_head(model, inputs)
    assert states.shape[-1] == 32
    expected = model(**inputs).logits
    torch.testing.assert_close(head.logits(states.flatten(0, 1)).view_as(expected), expected)


class Shifted(nn.Module):
    """A wrapper with a bias of its own for the logits."""

    def __init__(self, inner: PreTrainedModel) -> None:
        super().__init__()
        self.inner, self.bias, self.calls = inner, nn.Parameter(torch.linspace(0, 3, 100)), 0

    def forward(self, **inputs: Tensor) -> CausalLMOutput:
        self.calls += 1
        return CausalLMOutput(logits=self.inner(**inputs).logits + self.bias)


def test_chunked_loss_calls_wrappers_that_change_logits() -> None:
    model, batch = Shifted(model_of("llama")), batch_of()
    torch.testing.assert_close(next_token_losses(model, batch)[0], losses_of_all_logits(model, batch))
    calls = model.calls
    next_token_losses(model, batch)
    assert model.calls == calls + 1  # the model is known by now
    output_head._changes_logits.discard(model)


def test_chunked_loss_leaves_the_model_as_it_was() -> None:
    model, batch = model_of("gemma2"), batch_of()
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    next_token_losses(model, batch)[0].mean().backward()
    assert [name for name, module in model.named_modules() if vars(module).keys() != before[name].keys()] == []
    model.model.forward = lambda *_, **__: 1 / 0
    with pytest.raises(ZeroDivisionError):
        next_token_losses(model, batch)
    assert "forward" not in vars(model)
    with pytest.raises(ZeroDivisionError):
        model.model.forward()
