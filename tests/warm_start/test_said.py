"""What a configuration may say of warm starts, and what a plan says of one."""

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


@pytest.mark.parametrize("said", ["auto", [], [NAME], [NAME, "sweeps/other"]])
def test_earlier_sweeps_are_named_or_left_to_be_found(said: Any) -> None:
    config = small_plan(["lora"], search={"warm_start": said}).config
    assert config.search.warm_start == said
    assert config.resolved()["search"]["warm_start"] == said


@pytest.mark.parametrize(
    ("said", "mend"),
    [
        (NAME, f"write auto, or a list of sweeps, as in [{NAME}]"),
        (True, "write auto, or a list of the names of sweeps"),
        ([3], "write auto, or a list of the names of sweeps"),
        ([" "], "write auto, or a list of the names of sweeps"),
        ([NAME, NAME], f"{NAME} given more than once"),
    ],
)
def test_anything_else_is_one_problem_that_says_what_to_write(said: Any, mend: str) -> None:
    with pytest.raises(ValidationError) as caught:
        small_plan(["lora"], search={"warm_start": said})
    (problem,) = caught.value.errors()
    assert problem["loc"] == ("search", "warm_start")
    assert mend in problem["msg"]


def test_a_plan_shows_how_similar_a_sweep_is_and_what_it_gives(capsys: pytest.CaptureFixture[str]) -> None:
    plan = replace(small_plan(["lora", "ia3"]), prior=PRIOR)
    print_plan(plan, Path("mail.yaml"))
    said = " ".join(capsys.readouterr().out.split())
    assert f"warm start of mail from {NAME}/post, 0.91 similar: 2 of lora" in said
    assert "warm start of mail from other/mail, 0.50 similar: nothing" in said
    assert "note: something else" in said
    assert plan_json(plan)["warm_start"] == PRIOR.fields()


def test_studies_get_their_own_configurations() -> None:
    lora, ia3 = replace(small_plan(["lora", "ia3"]), prior=PRIOR).studies
    assert lora.prior == ({"rank": 4}, {"rank": 16})
    assert ia3.prior == ()
