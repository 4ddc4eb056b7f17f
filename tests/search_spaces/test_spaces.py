"""Every search space fits its method."""

import dataclasses

import pytest

import methods
import search_spaces


@pytest.fixture(params=methods.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_space_searches_parameters_of_its_method(name):
    fields = {field.name for field in dataclasses.fields(methods.get(name).params_type)}
    assert set(search_spaces.get(name).distributions) <= fields
    if methods.get(name).trains:
        assert {"learning_rate", "batch_size"} <= set(search_spaces.get(name).distributions)


def test_space_contains_its_default(name):
    space = search_spaces.get(name)
    assert set(space.default) == set(space.distributions)
    for parameter, distribution in space.distributions.items():
        value = space.default[parameter]
        assert distribution._contains(distribution.to_internal_repr(value)), parameter
        assert distribution.to_external_repr(distribution.to_internal_repr(value)) == value


def test_space_default_builds_with_its_types(name):
    space, spec = search_spaces.get(name), methods.get(name)
    params = spec.params_type.from_dict(space.default)
    for parameter, value in space.default.items():
        assert type(value) is type(getattr(spec.params_type(), parameter)), parameter
        assert getattr(params, parameter) == value


def test_space_has_source_for_every_range(name):
    space = search_spaces.get(name)
    assert set(space.sources) == set(space.distributions)


def test_space_of_unknown_method_is_key_error():
    with pytest.raises(KeyError):
        search_spaces.get("lorra")
