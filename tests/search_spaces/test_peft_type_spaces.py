"""The search spaces of ``peft:TYPE`` fit their methods and the installed `peft`."""

import dataclasses
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

import methods
import search_spaces
from methods.families.peft_type_names import trainable_types
from methods.families.peft_type_params import config_class, has_targets
from search_spaces import _peft_type

TRAINING = {"learning_rate", "batch_size", "warmup", "weight_decay"}


@pytest.fixture(params=trainable_types())
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def test_peft_type_space_has_pefts_parameters_and_defaults(kind):
    space, spec = search_spaces.get(f"peft:{kind}"), methods.get(f"peft:{kind}")
    fields: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(spec.params_type)}
    assert set(space.distributions) <= set(fields)
    assert set(space.distributions) >= TRAINING
    for name in set(space.distributions) - TRAINING:
        assert space.default[name] == fields[name]
        assert type(space.default[name]) is type(fields[name])


def test_peft_type_space_searches_targets_where_possible(kind):
    assert ("targets" in search_spaces.get(f"peft:{kind}").distributions) == has_targets(kind)


def test_peft_type_space_contains_its_default(kind):
    space = search_spaces.get(f"peft:{kind}")
    assert set(space.default) == set(space.distributions) == set(space.sources)
    for parameter, distribution in space.distributions.items():
        assert distribution._contains(distribution.to_internal_repr(space.default[parameter])), parameter
    assert methods.get(f"peft:{kind}").params_type.from_dict(space.default)


def test_peft_type_space_searches_the_usual_sizes(kind):
    fields: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(config_class(kind))}
    for name in {"r", "n_frequency", "block_size", "oft_block_size", "boft_block_size", "vector_length"} & set(fields):
        searched = name in search_spaces.get(f"peft:{kind}").distributions
        assert searched == (isinstance(fields[name], int) and fields[name] > 0)


@pytest.mark.parametrize(
    ("kind", "size", "distribution"),
    [
        ("vera", "r", CategoricalDistribution([64, 128, 256, 512, 1024])),
        ("boft", "boft_block_size", CategoricalDistribution([2, 4, 8, 16])),
        ("tinylora", "r", CategoricalDistribution([1, 2, 4, 8])),
        ("cartridge", "num_virtual_tokens", CategoricalDistribution([5, 10, 20, 40, 80])),
        ("frod", "sparse_rate", FloatDistribution(0.0025, 0.04, log=True)),
    ],
)
def test_peft_type_sizes_span_quarter_to_four_times_default(kind, size, distribution):
    assert search_spaces.get(f"peft:{kind}").distributions[size] == distribution


def test_peft_type_sparsity_is_searched_by_what_trains():
    distribution = search_spaces.get("peft:supertuning").distributions["sparsity"]
    assert isinstance(distribution, FloatDistribution)
    assert (distribution.low, distribution.high) == pytest.approx((0.96, 0.9975))


def test_peft_type_spaces_find_every_configuration():
    assert {kind for kind in trainable_types() if kind not in _peft_type._configurations()} == set()


def test_peft_type_space_of_unknown_type_is_key_error():
    with pytest.raises(KeyError, match="peft:boff"):
        search_spaces.get("peft:boff")
