import json
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
from orchestrator.tracking.bundle import BUNDLE, CARRIED, EVALUATION, Bundle, Comparison, evaluation_table
from orchestrator.tracking.modelcard import Compared, model_card
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


def test_a_bundle_reads_back_as_it_was_written(made: Made) -> None:
    assert Bundle.read(made.folder) == made.bundle


@pytest.mark.parametrize(
    ("change", "message"),
    [({"format": 2}, "format"), ({"surprise": 1}, "surprise"), ({"score": "high"}, "score")],
)
def test_a_bundle_that_cannot_be_understood_is_refused(
    made: Made, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    (tmp_path / BUNDLE).write_text(json.dumps({**made.bundle.model_dump(mode="json"), **change}))
    with pytest.raises(SweepError, match=message):
        Bundle.read(tmp_path)


def test_a_folder_without_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="is not a bundle"):
        Bundle.read(tmp_path)


def test_predictions_of_other_rows_are_refused() -> None:
    rows = pa.table({"row": [1, 2], "text": ["a", "b"]})
    with pytest.raises(ValueError, match="not of these rows"):
        evaluation_table(rows, pa.table({"row": [2, 1], "label": [0, 1]}))


def test_predictor_reproduces_recorded_probabilities(made: Made) -> None:
    answers = Predictor.load(made.folder).predict(made.texts)
    np.testing.assert_allclose(probabilities(answers), recorded(made, "probabilities"), rtol=0, atol=1e-9)
    labels = answers["label"].to_pylist()
    assert labels == [LABELS[best] for best in probabilities(answers).argmax(axis=1)]
    assert len(set(labels)) > 1


def test_predictor_restores_the_number_of_threads(made: Made) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    Predictor.load(made.folder).predict(made.texts)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_predictor_answers_no_texts_with_the_same_columns(made: Made) -> None:
    predictor = Predictor.load(made.folder)
    assert predictor.predict([]).schema == predictor.predict(made.texts).schema
    assert predictor.predict([]).num_rows == 0


@pytest.mark.parametrize("place", [0, 2])
def test_predictor_names_the_row_that_is_not_a_string(made: Made, place: int) -> None:
    texts: list[object] = ["good", "bad", "fine"]
    texts[place] = None
    with pytest.raises(ValueError, match=rf"row {place + 1} is None; it must be a string"):
        Predictor.load(made.folder).predict(texts)  # type: ignore[arg-type]


def test_predictor_completes_prompts_in_their_order(make_bundle: MakeBundle) -> None:
    made = make_bundle("decoder")
    predictor = Predictor.load(made.folder)
    answers = predictor.predict(made.texts)
    assert answers.column_names == ["completion"]
    completions = answers["completion"].to_pylist()
    assert completions[::7] == [predictor.predict([prompt])["completion"][0].as_py() for prompt in made.texts[::7]]
    assert len(set(completions)) > 1
    assert predictor.predict([]).num_rows == 0


def test_a_backbone_that_is_not_carried_is_made_again_once(make_bundle: MakeBundle, cache: Path) -> None:
    made = make_bundle(carry=False)
    file = cache_folder() / backbone_path(made.bundle.backbone.digest)
    file.unlink(missing_ok=True)
    answers = Predictor.load(made.folder).predict(made.texts)
    np.testing.assert_allclose(probabilities(answers), recorded(made, "probabilities"), rtol=0, atol=1e-9)
    assert file.exists()
    (made.checkpoint / "model.safetensors").unlink()
    Predictor.load(made.folder)


def test_a_backbone_is_taken_from_the_storage(make_bundle: MakeBundle, cache: Path) -> None:
    made = make_bundle(carry=False)
    (cache_folder() / backbone_path(made.bundle.backbone.digest)).unlink()
    (made.checkpoint / "model.safetensors").unlink()
    with pytest.raises(SweepError, match="cannot be loaded here"):
        Predictor.load(made.folder)
    Predictor.load(made.folder, Storage(str(made.folder.parent / "storage")))


def test_a_changed_checkpoint_is_refused(make_bundle: MakeBundle, cache: Path) -> None:
    made = make_bundle(carry=False)
    (cache_folder() / backbone_path(made.bundle.backbone.digest)).unlink()
    with (made.checkpoint / "config.json").open("a") as config:
        config.write("\n")
    with pytest.raises(SweepError, match="is not the one that the adapter was trained on"):
        Predictor.load(made.folder)


def test_another_backbone_is_refused_by_its_checksum(make_bundle: MakeBundle) -> None:
    made = make_bundle()
    header, tensors = carried(made)
    tensors["bert.embeddings.LayerNorm.bias"][0] += 1e-3
    save_file(tensors, made.folder / CARRIED, metadata=header)
    with pytest.raises(SweepError, match="checksum differs"):
        Predictor.load(made.folder)


def test_what_the_checksum_is_not_of_changes_no_answer(make_bundle: MakeBundle) -> None:
    made = make_bundle()
    header, tensors = carried(made)
    scales = [tensor.mul_(2) for name, tensor in tensors.items() if name.endswith(f":{SCALES}")]
    assert scales
    save_file(tensors, made.folder / CARRIED, metadata=header)
    answers = Predictor.load(made.folder).predict(made.texts)
    np.testing.assert_allclose(probabilities(answers), recorded(made, "probabilities"), rtol=0, atol=1e-9)


def test_the_card_says_what_it_is_how_good_and_how_to_use_it(made: Made) -> None:
    costs = ("2.4 MB", "210 MB", "+3%")
    compared = [
        Compared(
            method="lora", trials=5, validation=0.81, test=0.8043, interval=(0.781, 0.832), seeds=3,
            verdict="recommended", costs=costs,
        ),
        Compared(method="linear_probe", trials=1, validation=0.41),
    ]  # fmt: skip
    card = model_card(made.bundle, compared, peft=True)
    assert "`lora` adapter on the frozen backbone" in card
    assert f"**macro_f1 {made.bundle.score:.3f}** [0.100, 0.900] on 30 test rows, looked at once" in card
    assert "accuracy of 0.400" in card
    assert "| lora | 0.804 [0.781, 0.832] | 3 | recommended |" in card
    assert "| lora | 5 | 0.810 | 2.4 MB | 210 MB | +3% |" in card
    assert "| linear_probe |  | 1 |  |" in card
    assert "| linear_probe | 1 | 0.410 |  |  |  |" in card
    assert 'mlflow.pyfunc.load_model("models:/mail@champion")' in card
    assert "PeftModel.from_pretrained" in card
    assert made.bundle.data_digest in card
    assert "PeftModel" not in model_card(made.bundle)


def test_the_card_says_why_this_one_was_chosen_and_what_a_tied_one_is(made: Made) -> None:
    seeds = Comparison(
        score=0.7, scores=(0.6, 0.7, 0.8), recommended="lora", reason="lora is the smallest.", tied=("lora", "ia3"),
        runner_up="ia3", runner_up_lost="it is larger.",
    )  # fmt: skip
    bundle = made.bundle.model_copy(update={"comparison": seeds, "score": 0.8})
    card = model_card(bundle)
    assert "**macro_f1 0.700** [0.100, 0.900] on 30 test rows, the mean over 3 seeds" in card
    assert "its own test score is 0.800" in card
    assert "lora is the smallest.\nThe runner-up is `ia3`: it is larger." in card
    tied = model_card(bundle.model_copy(update={"method": "ia3"}))
    assert "the sweep recommends `lora`; `ia3` is as good" in tied
