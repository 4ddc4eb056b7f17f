"""Warm starts in a configuration and in the output of `plan`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.cli.output.plan import plan_json, print_plan
from orchestrator.warm_start import Origin, Prior, Transferred

from ..small_plan import small_plan

NAME = "mail-20261101-120000"
PRIOR = Prior(
    origins=(
        Origin(task="mail", sweep=NAME, earlier_task="post", similarity=0.912),
        Origin(task="mail", sweep="other", earlier_task="mail", similarity=0.5),
    ),
    configurations={
        "mail/lora": tuple(
            Transferred(params={"rank": rank}, sweep=NAME, trial=f"post/lora/{rank}", similarity=0.9, rank=0.8)
            for rank in (4, 16)
        )
    },
    notes=("something else",),
)


@pytest.mark.parametrize("names", ["auto", [], [NAME], [NAME, "sweeps/other"]])
def test_warm_start_config_takes_names_or_auto(names: Any) -> None:
    config = small_plan(["lora"], search={"warm_start": names}).config
    assert config.search.warm_start == names
    assert config.resolved()["search"]["warm_start"] == names


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (NAME, f"write auto, or a list of sweeps, as in [{NAME}]"),
        (True, "write auto, or a list of the names of sweeps"),
        ([3], "write auto, or a list of the names of sweeps"),
        ([" "], "write auto, or a list of the names of sweeps"),
        ([NAME, NAME], f"{NAME} given more than once"),
    ],
)
def test_warm_start_config_refuses_anything_else(value: Any, hint: str) -> None:
    with pytest.raises(ValidationError) as caught:
        small_plan(["lora"], search={"warm_start": value})
    (problem,) = caught.value.errors()
    assert problem["loc"] == ("search", "warm_start")
    assert hint in problem["msg"]


def test_plan_shows_similarity_and_counts_of_earlier_sweeps(capsys: pytest.CaptureFixture[str]) -> None:
    plan = replace(small_plan(["lora", "ia3"]), prior=PRIOR)
    print_plan(plan, Path("mail.yaml"))
    output = " ".join(capsys.readouterr().out.split())
    assert f"warm start of mail from {NAME}/post (similarity 0.91 of 1): 2 of lora" in output
    assert "warm start of mail from other/mail (similarity 0.50 of 1): nothing" in output
    assert "note: something else" in output
    assert plan_json(plan)["warm_start"] == PRIOR.fields()


def test_prior_gives_each_study_its_configurations() -> None:
    lora, ia3 = replace(small_plan(["lora", "ia3"]), prior=PRIOR).studies
    assert lora.prior == ({"rank": 4}, {"rank": 16})
    assert ia3.prior == ()
