"""The table of this folder is complete: a new private name of a library in our source needs a test here."""

from __future__ import annotations

import ast

import pytest

from . import (
    test_bitsandbytes,
    test_environment,
    test_imports,
    test_loggers,
    test_mlflow,
    test_optuna,
    test_peft,
    test_ray,
    test_sacrebleu,
    test_torch,
    test_transformers,
)
from .reliance import TABLE
from .scan import Use, environment_names, logger_names, overrides, patches, private_names, private_uses

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries as they are imported

TESTS = (
    test_bitsandbytes,
    test_environment,
    test_imports,
    test_loggers,
    test_mlflow,
    test_optuna,
    test_peft,
    test_ray,
    test_sacrebleu,
    test_torch,
    test_transformers,
)
"""Imported for the lines that they enter into the table."""


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import ray._private.worker", {"ray._private.worker"}),
        ("from ray.train.v2._internal import callbacks", {"ray.train.v2._internal.callbacks"}),
        ("from torch.utils import _pytree as trees", {"torch.utils._pytree"}),
        ("from peft.tuners.lora import Linear", {"peft.tuners.lora.Linear"}),
        ("from peft.tuners import lora", set()),
        ("storage._cdata", {"_cdata"}),
        ("getattr(config, '_attn_implementation')", {"_attn_implementation"}),
        ("config._attn_implementation = 'sdpa'", {"_attn_implementation"}),
        ("super()._create_default_callbacks()", {"_create_default_callbacks"}),
        ("class Ours(Theirs):\n    def run(self):\n        self._theirs()", {"_theirs"}),
        ("class Ours:\n    def run(self, other):\n        self._ours = other._ours", set()),
        ("from orchestrator.search.space import _resolve\n_resolve()", set()),
        ("import _thread", set()),
        ("kind.__name__", set()),
    ],
)
def test_scanner_finds_private_names(source: str, names: set[str]) -> None:
    assert private_names(ast.parse(source)) == names


def test_every_private_name_has_a_compatibility_test() -> None:
    uses = private_uses() | overrides() | patches() | environment_names() | logger_names()
    untested = sorted(uses - TABLE)
    assert not untested, f"write a test with @relied_on(...) in tests/compat for:\n{_lines(untested)}"
    unused = sorted(TABLE - uses)
    assert not unused, (
        f"nothing in our source uses these any more; take their lines out of tests/compat:\n{_lines(unused)}"
    )


def _lines(uses: list[Use]) -> str:
    return "\n".join(f"  {use.file}: {use.name}" for use in uses)
