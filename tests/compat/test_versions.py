"""Dependencies in ``pyproject.toml``, against the versions in ``constraints.txt`` and the uses in this folder."""

from __future__ import annotations

import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .scan import ROOT

BOUNDED = {"bitsandbytes", "mlflow", "optuna", "peft", "ray", "sacrebleu", "torch", "transformers"}
"""Libraries that have tests in this folder."""


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(line) for group in groups for line in group]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_dependency_range_contains_the_pinned_version(requirement: Requirement) -> None:
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_dependencies_with_compatibility_tests_have_upper_bounds() -> None:
    bounded = {requirement.name for requirement in requirements() if "<" in str(requirement.specifier)}
    assert bounded == BOUNDED
