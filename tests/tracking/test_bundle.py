import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from orchestrator.backbone.store import backbone_path, cache_folder
from orchestrator.backbone.weights import SCALES
from orchestrator.common.errors import SweepError
from orchestrator.common.storage import Storage
from orchestrator.selection.results import MethodResult
from orchestrator.tracking.bundle import (
    BUNDLE,
    CARRIED,
    EVALUATION,
    Bundle,
    BundleBaseline,
    BundleSelection,
    PeftAgreement,
)
from orchestrator.tracking.evaluation import with_rows
from orchestrator.tracking.modelcard import model_card
from orchestrator.tracking.predictor import Predictor

from .conftest import MakeBundle
from .small import LABELS, Made


@pytest.fixture(scope="module")
def made(make_bundle: MakeBundle) -> Made:
    return make_bundle()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEFT_SWEEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def recorded(made: Made, column: str) -> np.ndarray:
    from pyarrow import parquet

    return np.array(parquet.read_table(made.folder / EVALUATION)[column].to_pylist())


def probabilities(answers: pa.Table) -> np.ndarray:
    """Probabilities of shape ``(rows, labels)``."""
    return np.stack([answers[f"probability_{label}"].to_numpy() for label in LABELS], axis=1)


def carried(made: Made) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    with safe_open(made.folder / CARRIED, framework="pt") as opened:
        return opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def test_bundle_reads_back_as_written(made: Made) -> None:
    assert Bundle.read(made.folder) == made.bundle


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_bundle_with_one_input_column_is_read_and_used(make_bundle: MakeBundle, kind: str) -> None:
    made = make_bundle(kind)
    values = made.bundle.model_dump(mode="json")
    (column,) = values.pop("columns")
    (made.folder / BUNDLE).write_text(json.dumps({**values, "column": "body"}))
    predictor = Predictor.load(made.folder)
    assert predictor.bundle.columns == {column: "body"}
    assert predictor.predict([{"body": made.inputs[0][column]}]).num_rows == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 3}, "format"),
        ({"surprise": 1}, "surprise"),
        ({"mean_score": "high"}, "mean_score"),
        ({"columns": {}}, "columns"),
    ],
)
def test_bundle_of_unknown_format_is_refused(
    made: Made, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    (tmp_path / BUNDLE).write_text(json.dumps({**made.bundle.model_dump(mode="json"), **change}))
    with pytest.raises(SweepError, match=message):
        Bundle.read(tmp_path)


def test_bundle_read_refuses_another_folder(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="is not a bundle"):
        Bundle.read(tmp_path)


def test_evaluation_table_refuses_predictions_of_other_rows() -> None:
    rows = pa.table({"row": [1, 2], "text": ["a", "b"]})
    with pytest.raises(ValueError, match="not those of these rows"):
        with_rows(rows, pa.table({"row": [2, 1], "label": [0, 1]}))


def test_predictor_reproduces_recorded_probabilities(made: Made) -> None:
    answers = Predictor.load(made.folder).predict(made.inputs)
    np.testing.assert_allclose(probabilities(answers), recorded(made, "probabilities"), rtol=0, atol=1e-9)
    labels = answers["label"].to_pylist()
    assert labels == [LABELS[best] for best in probabilities(answers).argmax(axis=1)]
    assert len(set(labels)) > 1


def test_predictor_restores_the_number_of_threads(made: Made) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    Predictor.load(made.folder).predict(made.inputs)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_predictor_answers_no_texts_with_the_same_columns(made: Made) -> None:
    predictor = Predictor.load(made.folder)
    assert predictor.predict([]).schema == predictor.predict(made.inputs).schema
    assert predictor.predict([]).num_rows == 0


@pytest.mark.parametrize("place", [0, 2])
def test_predictor_names_the_row_that_is_not_a_string(made: Made, place: int) -> None:
    rows: list[dict[str, object]] = [{"text": text} for text in ("good", "bad", "fine")]
    rows[place]["text"] = None
    with pytest.raises(ValueError, match=rf"row {place + 1}: text is null, not a string"):
        Predictor.load(made.folder).predict(rows)


def test_predictor_completes_prompts_in_their_order(make_bundle: MakeBundle) -> None:
    made = make_bundle("decoder")
    predictor = Predictor.load(made.folder)
    answers = predictor.predict(made.inputs)
    assert answers.column_names == ["completion"]
    completions = answers["completion"].to_pylist()
    assert completions[::7] == [predictor.predict([row])["completion"][0].as_py() for row in made.inputs[::7]]
    assert len(set(completions)) > 1
    assert predictor.predict([]).num_rows == 0


def test_backbone_outside_the_bundle_is_quantized_once(make_bundle: MakeBundle, cache: Path) -> None:
    made = make_bundle(carry=False)
    file = cache_folder() / backbone_path(made.bundle.backbone.digest)
    file.unlink(missing_ok=True)
    answers = Predictor.load(made.folder).predict(made.inputs)
    np.testing.assert_allclose(probabilities(answers), recorded(made, "probabilities"), rtol=0, atol=1e-9)
    assert file.exists()
    (made.checkpoint / "model.safetensors").unlink()
    Predictor.load(made.folder)


def test_backbone_is_taken_from_the_storage(make_bundle: MakeBundle, cache: Path) -> None:
    made = make_bundle(carry=False)
    (cache_folder() / backbone_path(made.bundle.backbone.digest)).unlink()
    (made.checkpoint / "model.safetensors").unlink()
    with pytest.raises(SweepError, match="cannot be loaded here"):
        Predictor.load(made.folder)
    Predictor.load(made.folder, Storage(str(made.folder.parent / "storage")))


def test_backbone_from_a_changed_checkpoint_is_refused(make_bundle: MakeBundle, cache: Path) -> None:
    made = make_bundle(carry=False)
    (cache_folder() / backbone_path(made.bundle.backbone.digest)).unlink()
    with (made.checkpoint / "config.json").open("a") as config:
        config.write("\n")
    with pytest.raises(SweepError, match="is not the one that the adapter was trained on"):
        Predictor.load(made.folder)


def test_backbone_with_another_checksum_is_refused(make_bundle: MakeBundle) -> None:
    made = make_bundle()
    header, tensors = carried(made)
    tensors["bert.embeddings.LayerNorm.bias"][0] += 1e-3
    save_file(tensors, made.folder / CARRIED, metadata=header)
    with pytest.raises(SweepError, match="checksum differs"):
        Predictor.load(made.folder)


def test_backbone_tensors_outside_the_checksum_change_no_prediction(make_bundle: MakeBundle) -> None:
    made = make_bundle()
    header, tensors = carried(made)
    scales = [tensor.mul_(2) for name, tensor in tensors.items() if name.endswith(f":{SCALES}")]
    assert scales
    save_file(tensors, made.folder / CARRIED, metadata=header)
    answers = Predictor.load(made.folder).predict(made.inputs)
    np.testing.assert_allclose(probabilities(answers), recorded(made, "probabilities"), rtol=0, atol=1e-9)


def test_model_card_names_the_baseline_and_collapsed_seeds(made: Made) -> None:
    trivial = BundleBaseline(
        name="always answering negative", score=0.276, interval=(0.27, 0.28), lead=0.5, lead_low=0.4
    )
    scores = {"seed_scores": (0.262, 0.409, 0.262), "collapsed_seeds": 2}
    card = model_card(made.bundle.model_copy(update={"trivial": trivial, **scores}))
    assert (
        "always answering negative, has macro_f1 0.276 [0.270, 0.280] on the same rows. This method is better" in card
    )
    assert "2 of 3 seeds gave every test row the same answer" in card
    below = trivial.model_copy(update={"lead": 0.02, "lead_low": -0.01})
    card = model_card(made.bundle.model_copy(update={"trivial": below}))
    assert (
        "**This method was not shown to be better**, and has no alias: the difference is +0.020, its lower bound -0.010"
        in card
    )
    chosen = BundleSelection(recommended="lora", reason="It is the smallest.", tied=("lora",))
    card = model_card(made.bundle.model_copy(update={"trivial": below, "selection": chosen}))
    assert "No method is recommended; the closest is `lora`. Reason: It is the smallest." in card


def test_model_card_has_purpose_score_comparison_and_use(made: Made) -> None:
    costs = {"adapter_bytes": 2.4e6, "peak_memory_bytes": 2.1e8, "latency_overhead_1": 0.03}
    lora = MethodResult(
        method="lora", trial="mail/lora/0", mean_score=0.8043, interval=(0.781, 0.832), seed_scores=(0.80, 0.81, 0.80),
        validation=0.81, measurements=costs, tied=True,
    )  # fmt: skip
    probe = replace(lora, method="linear_probe", seed_scores=(0.41,), mean_score=0.41, measurements={}, tied=False)
    chosen = BundleSelection(recommended="lora", reason="only lora passed the validation screening", tied=("lora",))
    bundle = made.bundle.model_copy(update={"selection": chosen})
    card = model_card(bundle, [lora, probe], trials={"lora": 5, "linear_probe": 1}, untuned=probe, peft=True)
    assert "`lora` adapter on the frozen backbone" in card
    assert f"**macro_f1 {bundle.mean_score:.3f}** [0.100, 0.900]: one seed on 30 test rows" in card
    assert "accuracy of 0.400" in card
    assert "Reason: only lora passed the validation screening." in card
    assert "| lora | 0.804 [0.781, 0.832] | 3 | recommended |" in card
    assert "| lora | 5 | 0.810 | 2.4 MB | 210 MB | +3% |" in card
    assert "| linear_probe | 0.410 [0.781, 0.832] | 1 | eliminated on validation |" in card
    assert "| linear_probe | 1 | 0.810 | not measured | not measured | not measured |" in card
    assert "| linear_probe (default parameters) | 0.410 [0.781, 0.832] | 1 |  |" in card
    assert 'mlflow.pyfunc.load_model("models:/mail/VERSION")' in card
    assert "PeftModel.from_pretrained" in card
    assert bundle.data_digest in card
    assert "PeftModel" not in model_card(made.bundle)


def test_model_card_has_reason_runner_up_and_tie(made: Made) -> None:
    chosen = BundleSelection(
        recommended="lora", reason="lora has the smallest adapter", tied=("lora", "ia3"), runner_up="ia3",
        runner_up_reason="0.650 [0.500, 0.800], tied with lora; prefer: size decided",
        probability={"lora": 0.84, "ia3": 0.16},
    )  # fmt: skip
    scores = {"mean_score": 0.7, "seed_scores": (0.6, 0.7, 0.8), "checkpoint_score": 0.8}
    bundle = made.bundle.model_copy(update={"selection": chosen, **scores})
    card = model_card(bundle)
    assert "**macro_f1 0.700** [0.100, 0.900]: mean over 3 seeds on 30 test rows" in card
    assert "its own test score is 0.800" in card
    assert "Reason: lora has the smallest adapter.\nProbability: lora 0.84 that a full search" in card
    assert "would not prefer another; ia3 0.16.\nRunner-up: `ia3`, 0.650" in card
    tied = model_card(bundle.model_copy(update={"method": "ia3"}))
    assert "Recommended method: `lora`" in tied
    assert "`ia3` is tied with it: the difference is not significant at the 95 % level." in tied


def test_model_card_measures_the_unquantized_combination(made: Made) -> None:
    agreement = PeftAgreement(rows=200, differing=8, largest_difference=0.2641, numbers="probability")
    card = model_card(made.bundle.model_copy(update={"peft_agreement": agreement}), peft=True)
    assert f"over `{made.bundle.backbone.model}` in nf4, not over that: 8 of 200 test rows get another answer" in card
    assert "the largest difference of a probability is 0.264 (the first ones)" in card
    assert "The score above is not that of this combination." in card
    unmeasured = model_card(made.bundle, peft=True)
    assert "how far the predictions of this combination differ was not measured. The score above is not" in unmeasured
    assert "not quantized in training either" in model_card(
        made.bundle.model_copy(update={"backbone": made.bundle.backbone.model_copy(update={"quantization": "none"})}),
        peft=True,
    )
