"""Methods that the context limits to some blocks."""

import re

import pytest

import methods
from methods.base.architecture import blocks, name_pattern, targets
from methods.base.spec import MethodError

pytestmark = [
    # peft 0.21 uses a name that transformers 5 has deprecated, when it attaches
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


def sits_in(case, name: str, layers: frozenset[int]) -> set[str]:
    """Return the prefixes of the blocks in which a method trains parameters."""
    spec = methods.get(name)
    attached = case.attach(spec, spec.params_type(), layers=layers)
    body = [n for n in attached.trainable() if not any(f"{head}." in n for head in case.context.head)]
    return {match[1] if (match := re.search(r"((?:layer|layers|block)\.\d+)\.", n)) else n for n in body}


@pytest.mark.parametrize("name", ["adapter", "ia3", "lora", "bitfit", "norm_tuning"])
def test_layers_limit_where_method_trains(name, make_case):
    case = make_case("encoder", "classification", "nf4")
    assert sits_in(case, name, frozenset({0, 2})) == {"layer.0", "layer.2"}
    with pytest.raises(MethodError, match="layers is 1, 7; BertForSequenceClassification has 0 to 2"):
        sits_in(case, name, frozenset({1, 7}))
    with pytest.raises(MethodError, match="layers is empty"):
        sits_in(case, name, frozenset())


def test_blocks_count_decoder_after_encoder(make_case):
    view = make_case("encoder-decoder", "classification", "nf4").view()
    names = [block.name for block in blocks(view, frozenset({1, 2}))]
    assert names == ["transformer.encoder.block.1", "transformer.decoder.block.0"]


def test_name_pattern_matches_exactly_its_names(make_case):
    for kind in ("encoder", "decoder", "encoder-decoder"):
        view = make_case(kind, "classification", "nf4").view()
        names = targets(view, ("query", "feed_forward"), frozenset({0, 2}))
        expression = name_pattern([*names, "embeddings.norm"])
        every = [*(name for name, _ in view.named_modules()), "embeddings.norm", "embeddings.norms"]
        assert {name for name in every if re.fullmatch(expression, name)} == {*names, "embeddings.norm"}


def test_name_pattern_shares_branches_of_numbered_names():
    names = [f"model.layers.{index}.mlp.up_proj" for index in range(40)]
    assert len(name_pattern(names)) < 4 * 40
    assert name_pattern(names[:1]) == r"model\.layers\.0\.mlp\.up_proj"
