"""Additive prompts against longhand float64 math, with padding, in an encoder-decoder and with a cache."""

import pytest
import torch
from torch import Tensor, nn

import methods
from methods.additive_prompt import AdditivePromptParams
from methods.base.spec import MethodError


def attach(case, tokens: int):
    attached = case.attach(methods.get("additive_prompt"), AdditivePromptParams(tokens=tokens))
    torch.manual_seed(17)
    with torch.no_grad():
        vectors(attached).normal_(std=0.5)
    attached.train(False)
    return attached


def vectors(attached) -> nn.Parameter:
    (parameter,) = (p for name, p in attached.trainable().items() if name.endswith("additive_prompt.vectors"))
    return parameter


def add_by_hand(model: nn.Module, prompt: Tensor, mask: Tensor) -> None:
    """Add the vectors token by token; in an encoder-decoder, to the encoder's input."""

    def add(_: nn.Module, __: tuple[Tensor], embedded: Tensor) -> Tensor:
        rows = []
        for row, real in zip(embedded, mask.tolist(), strict=True):
            count, tokens = 0, []
            for token, is_real in zip(row, real, strict=True):
                tokens.append(token + prompt[count % len(prompt)] if is_real else token)
                count += is_real
            rows.append(torch.stack(tokens))
        return torch.stack(rows)

    reader = model.get_encoder() if model.config.is_encoder_decoder else model
    reader.get_input_embeddings().register_forward_hook(add)


@pytest.mark.parametrize("tokens", [1, 4])
def test_additive_prompt_uses_vectors_in_turn_over_real_tokens(tokens, plain_case):
    attached = attach(plain_case, tokens)
    reference = plain_case.plain().double()
    prompt = vectors(attached).detach().double().requires_grad_(True)
    add_by_hand(reference, prompt, plain_case.batch()["attention_mask"])
    logits, expected = plain_case.logits(attached.module).double(), plain_case.logits(reference)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    for module in (attached.module, reference):
        module(**plain_case.batch(), labels=plain_case.labels()).loss.backward()
    torch.testing.assert_close(vectors(attached).grad.double(), prompt.grad, atol=1e-5, rtol=1e-3)


def test_additive_prompt_generates_alike_with_and_without_cache(make_case):
    case = make_case("decoder", "causal-lm", "nf4")
    attached = attach(case, 4)
    batch, generated = case.batch(), []
    for cached in (True, False):
        with torch.no_grad():
            generated.append(
                attached.module.generate(
                    **batch,
                    max_new_tokens=6,
                    min_new_tokens=6,
                    do_sample=False,
                    use_cache=cached,
                    output_logits=True,
                    return_dict_in_generate=True,
                )
            )
    torch.testing.assert_close(*(torch.stack(out.logits) for out in generated), atol=1e-5, rtol=1e-5)
    assert torch.equal(*(out.sequences for out in generated))


def test_additive_prompt_counts_cached_tokens_without_mask(make_case):
    case = make_case("decoder", "causal-lm", "nf4")
    model, tokens = attach(case, 4).module, case.batch(padded=False)["input_ids"]
    with torch.no_grad():
        uncached = model(input_ids=tokens).logits[:, 6:]
        cache = model(input_ids=tokens[:, :6], use_cache=True).past_key_values
        rest = model(input_ids=tokens[:, 6:], past_key_values=cache).logits
    torch.testing.assert_close(rest, uncached, atol=1e-5, rtol=1e-5)


def test_additive_prompt_refuses_tokens_embedded_outside_model(make_case):
    case = make_case("decoder", "causal-lm", "nf4")
    model = attach(case, 4).module
    case.logits(model)
    with pytest.raises(MethodError, match="cannot number tokens that are embedded outside of the model"):
        model.get_input_embeddings()(case.batch()["input_ids"])
