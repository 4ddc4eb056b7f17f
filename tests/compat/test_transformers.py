"""What we use of transformers beyond its public interface."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from .reliance import relied_on

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries as they are imported

SIZES: dict[str, Any] = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 16,
}


@pytest.fixture
def bert() -> PreTrainedModel:
    return _model("bert")


def _model(kind: str) -> PreTrainedModel:
    if kind == "bert":
        return BertForSequenceClassification(BertConfig(**SIZES))
    return LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=1))


@relied_on("_init_weights", by=("orchestrator/backbone/shared.py", "methods/parts/source_stage.py"))
def test_transformers_models_initialize_one_module(bert: PreTrainedModel) -> None:
    layer = torch.nn.Linear(8, 2)
    with torch.no_grad():
        layer.bias.fill_(7)
    bert._init_weights(layer)
    assert not layer.bias.any()


@relied_on("_keep_in_fp32_modules", by="orchestrator/backbone/checkpoint.py")
def test_transformers_models_name_modules_kept_in_float32(bert: PreTrainedModel) -> None:
    from transformers import T5ForConditionalGeneration

    assert not bert._keep_in_fp32_modules
    assert "wo" in T5ForConditionalGeneration._keep_in_fp32_modules


@relied_on("_get_dtype_plan", by="orchestrator/backbone/checkpoint_reader.py")
def test_transformers_models_plan_modules_of_another_dtype(bert: PreTrainedModel) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    assert not bert._get_dtype_plan(torch.float16)
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=16, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    assert t5._get_dtype_plan(torch.float16) == {"wo": torch.float32}
    assert not t5._get_dtype_plan(torch.bfloat16)


@relied_on(
    "transformers.integrations.accelerate.load_offloaded_parameter", by="orchestrator/backbone/checkpoint_reader.py"
)
def test_transformers_reads_a_weight_left_on_disk(bert: PreTrainedModel, tmp_path: Path) -> None:
    from transformers.integrations.accelerate import load_offloaded_parameter

    bert.save_pretrained(tmp_path / "model")
    on_disk = type(bert).from_pretrained(
        tmp_path / "model", device_map={"": "disk"}, offload_folder=str(tmp_path / "offload")
    )
    name = "bert.encoder.layer.0.output.dense.weight"
    assert on_disk.get_parameter(name).is_meta
    assert torch.equal(load_offloaded_parameter(on_disk, name), bert.get_parameter(name))


@relied_on("_attn_implementation", by="methods/parts/attention_extension.py")
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_transformers_attention_is_chosen_by_config(kind: str) -> None:
    from transformers import AttentionInterface

    model = _model(kind)
    called: list[torch.nn.Module] = []

    def attend(module: torch.nn.Module, query: torch.Tensor, *_: object, **__: object) -> tuple[torch.Tensor, None]:
        called.append(module)
        return query.transpose(1, 2), None

    AttentionInterface.register("compatibility_test", attend)
    for config in {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}.values():
        setattr(config, "_attn_implementation", "compatibility_test")  # noqa: B010
    model(input_ids=torch.ones(1, 3, dtype=torch.long))
    (module,) = called
    modeling = sys.modules[type(module).__module__]
    assert callable(modeling.eager_attention_forward)
    assert modeling.ALL_ATTENTION_FUNCTIONS.get_interface("compatibility_test", None) is attend


@relied_on("transformers.utils.chat_template_utils.render_jinja_template", by="orchestrator/tasks/chat_template.py")
def test_transformers_renders_templates_with_what_they_mark() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    render: Any = render_jinja_template  # annotated as if it returned one text
    source = "{% for m in messages %}<{{ m.role }}>{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    source += "{{ eos_token if not add_generation_prompt }}{{ tools[0].name if tools }}"
    texts, marks = render(
        conversations=[[{"role": "user", "content": "hi"}]],
        tools=[{"name": "f"}],
        chat_template=source,
        return_assistant_tokens_mask=True,
        add_generation_prompt=False,
        eos_token="</s>",
    )
    assert texts == ["<user>hi</s>f"]
    assert [tuple(mark) for mark in marks[0]] == [(6, 8)]
    assert render(conversations=[[]], chat_template="x", return_assistant_tokens_mask=False)[1] == []


@relied_on(
    "transformers.utils.generic.ModelOutput",
    by=("orchestrator/engine/pack_rows.py", "orchestrator/engine/pack_view.py"),
)
def test_transformers_outputs_are_built_from_their_items() -> None:
    from transformers.modeling_outputs import BaseModelOutput
    from transformers.utils.generic import ModelOutput

    state: Any = torch.ones(1, 2, 3)
    output = BaseModelOutput(last_hidden_state=state, hidden_states=(state,))
    assert isinstance(output, ModelOutput)
    assert list(output) == ["last_hidden_state", "hidden_states"]
    assert BaseModelOutput(**dict(output.items())).last_hidden_state is state
