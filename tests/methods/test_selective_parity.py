"""The methods that train a few tensors of a model, against float64 models that hold those tensors."""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, GPT2Config, Qwen2Config

import methods
from methods.base.spec import Attached, MethodError
from methods.bitfit import BitFitParams
from methods.full import FullParams
from methods.linear_probe import LinearProbeParams

from .conftest import LABELS

pytestmark = [
    # peft 0.21 uses a name that transformers 5 has deprecated, when it attaches or loads an adapter
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    # and it knows the width of linear layers alone, when it copies norms
    pytest.mark.filterwarnings("ignore:Unsupported layer type .*Norm:UserWarning"),
]
SMALL = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
NORMS = {
    "encoder": ["LayerNorm"],
    "decoder": ["input_layernorm", "post_attention_layernorm", "norm"],
    "encoder-decoder": ["layer_norm", "final_layer_norm"],
}


def nudge(module: nn.Module) -> None:
    torch.manual_seed(17)
    with torch.no_grad():
        for _, parameter in sorted(trainable(module).items()):
            parameter += 0.1 * torch.randn_like(parameter)


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def in_float64(case, attached: Attached) -> nn.Module:
    """A plain model that holds the trained tensors by name, and trains the same ones."""
    model = case.plain().double()
    for name, tensor in attached.trainable().items():
        parameter = model.get_parameter(name)
        parameter.data = tensor.detach().double()
        parameter.requires_grad_(True)
    return model


def assert_same_gradients(case, attached: Attached, reference: nn.Module) -> None:
    for module in (attached.module, reference):
        module(**case.batch(), labels=case.labels()).loss.backward()
    for name, parameter in attached.trainable().items():
        expected = reference.get_parameter(name).grad
        torch.testing.assert_close(parameter.grad.double(), expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("biases", ["all", "query_mlp"])
def test_bitfit_equals_model_with_other_biases(biases, make_case):
    case = make_case("encoder", "classification", "none")
    attached = case.attach(methods.get("bitfit"), BitFitParams(biases=biases))
    nudge(attached.module)
    attached.train(False)
    reference = in_float64(case, attached)
    torch.testing.assert_close(case.logits(attached.module).double(), case.logits(reference), atol=1e-5, rtol=1e-5)
    assert_same_gradients(case, attached, reference)


def test_bitfit_trains_all_or_query_mlp_biases(make_case):
    case = make_case("encoder", "classification", "nf4")
    spec = methods.get("bitfit")
    head = {name for name in case.attach(spec, BitFitParams()).trainable() if name.startswith(case.context.head)}
    every = {name for name, _ in case.plain().named_parameters() if name.endswith(".bias")}
    assert case.attach(spec, BitFitParams()).trainable().keys() == every | head
    block = "bert.encoder.layer.{}.{}.bias"
    few = {block.format(i, name) for i in range(3) for name in ("attention.self.query", "intermediate.dense")}
    assert case.attach(spec, BitFitParams(biases="query_mlp")).trainable().keys() == few | head


def test_bitfit_refuses_architecture_without_biases(make_case, share):
    spec = methods.get("bitfit")
    refusing: list[tuple[str, str, Any]] = [("decoder", "Llama", "all"), ("encoder-decoder", "T5", "query_mlp")]
    for kind, name, biases in refusing:
        with pytest.raises(MethodError, match=f"{name}ForSequenceClassification has no biases, which"):
            make_case(kind, "classification", "nf4").attach(spec, BitFitParams(biases=biases))
    config = GPT2Config(vocab_size=100, n_embd=32, n_layer=1, n_head=4, n_positions=64)
    case = share(config, "decoder", "causal-lm")
    with pytest.raises(MethodError, match="no such layers with biases of their own; biases must be all"):
        case.attach(spec, BitFitParams(biases="query_mlp"))


@pytest.mark.parametrize("method", ["bitfit", "norm_tuning"])
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_float32_parameters_keep_bfloat16_stream(method, kind, share):
    shape: dict[str, Any] = {**SMALL, "intermediate_size": 64, "dtype": "bfloat16"}
    config = BertConfig(**shape) if kind == "encoder" else Qwen2Config(**shape, num_key_value_heads=2, pad_token_id=0)
    case, spec = share(config, kind, "classification"), methods.get(method)
    attached = case.attach(spec, spec.params_type())
    attached.train(False)
    torch.testing.assert_close(
        case.logits(attached.module), case.logits(case.view()), atol=0.02, rtol=0.02, check_dtype=False
    )
    streams: set[torch.dtype] = set()
    for name, module in attached.module.named_modules():
        if name.endswith(("layer.1", "layers.1")):
            module.register_forward_hook(lambda _, __, out: streams.add((out[0] if type(out) is tuple else out).dtype))
    attached.module(**case.batch(), labels=case.labels()).loss.backward()
    assert streams == {torch.bfloat16}
    assert {p.grad.dtype for p in attached.trainable().values()} == {torch.float32}


@pytest.mark.parametrize("kind", NORMS)
def test_norm_tuning_equals_peft(kind, make_case):
    case = make_case(kind, "classification", "none")
    spec = methods.get("norm_tuning")
    attached = case.attach(spec, spec.params_type())
    config = peft.LNTuningConfig(target_modules=NORMS[kind], modules_to_save=list(case.context.head))
    config.task_type = "SEQ_CLS"
    reference = peft.get_peft_model(case.plain(), config).eval()
    attached.train(False)
    for module in (attached.module, reference):
        nudge(module)
        module(**case.batch(), labels=case.labels()).loss.backward()
    parameters, expected = attached.trainable(), trainable(reference)
    assert parameters.keys() == expected.keys()
    torch.testing.assert_close(case.logits(attached.module), case.logits(reference), atol=1e-5, rtol=1e-5)
    for name, parameter in parameters.items():
        torch.testing.assert_close(parameter.grad, expected[name].grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["encoder", "decoder", "encoder-decoder"])
def test_linear_probe_of_mean_is_logistic_regression(kind, make_case):
    case = make_case(kind, "classification", "none")
    attached = case.attach(methods.get("linear_probe"), LinearProbeParams(pooling="mean"))
    nudge(attached.module)
    attached.train(False)
    features = means(case)
    weights = list(attached.trainable().values())
    logits = features @ weights[0].detach().double().T
    logits = logits + weights[1].detach().double() if len(weights) == 2 else logits
    torch.testing.assert_close(case.logits(attached.module).double(), logits, atol=1e-5, rtol=1e-5)
    attached.module(**case.batch(), labels=case.labels()).loss.backward()
    error = torch.softmax(logits, dim=1) - F.one_hot(case.labels(), logits.shape[1])
    torch.testing.assert_close(weights[0].grad.double(), error.T @ features / 4, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_full_of_mean_equals_model_with_linear_head(kind, make_case):
    case = make_case(kind, "classification", "none")
    attached = case.attach(methods.get("full"), FullParams(pooling="mean", layer_decay=0.5))
    nudge(attached.module)
    attached.train(False)
    plain = case.plain()
    trained = {name: parameter.detach() for name, parameter in attached.module.named_parameters()}
    plain.load_state_dict(trained, strict=False)
    head = [p for name, p in plain.named_parameters() if name.startswith(case.context.head) and p.shape[0] == LABELS]
    logits = F.linear(means(case, plain), *(p.detach().double() for p in head))
    torch.testing.assert_close(case.logits(attached.module).double(), logits, atol=1e-5, rtol=1e-5)
    attached.module(**case.batch(), labels=case.labels()).loss.backward()
    assert [name for name, p in attached.trainable().items() if p.grad is None] == []
    assert attached.merge is None
    assert {p for group in attached.groups for p in group.parameters} == set(attached.trainable().values())


def means(case, plain: Any = None) -> Tensor:
    """Return the mean hidden state of each row in float64, computed row by row without padding."""
    batch, model = case.batch(), (plain or case.plain()).double().base_model
    if case.kind == "encoder-decoder":
        model = model.encoder
    rows = []
    for tokens, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        states = model(input_ids=tokens[mask == 1][None]).last_hidden_state[0]
        rows.append(sum(states) / len(states))
    return torch.stack(rows)


def test_linear_probe_of_mean_loads_and_drops_features(make_case, tmp_path: Path):
    case = make_case("encoder", "classification", "nf4")
    spec = methods.get("linear_probe")
    attached = case.attach(spec, LinearProbeParams(pooling="mean", dropout=0.5))
    attached.train(True)
    assert not torch.equal(case.logits(attached.module), case.logits(attached.module))
    attached.train(False)
    attached.save(tmp_path)
    assert attached.merge is None
    back = methods.load_adapter(case.shared.view(99), tmp_path, case.shared.context)
    back.train(False)
    assert torch.equal(case.logits(back.module), case.logits(attached.module))


def test_linear_probe_refuses_head_that_cannot_read_mean(make_case):
    case = make_case("encoder", "classification", "nf4")
    view = case.view()
    view.classifier = nn.Linear(16, 3)
    with pytest.raises(MethodError, match="BertForSequenceClassification has no linear layer from 32 features to 3"):
        case.attach(methods.get("linear_probe"), LinearProbeParams(pooling="mean"), view)
