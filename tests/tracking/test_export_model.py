"""A registered model is exported from the registry alone: by then its sweep's folder may be gone."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import parquet
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from orchestrator.common.errors import InputError
from orchestrator.export import Exported, export
from orchestrator.tracking.bundle import EVALUATION
from orchestrator.tracking.connection import open_client
from orchestrator.tracking.registry import register

from .conftest import MakeBundle
from .small import LABELS


def exported(reference: str, out: Path | None, uri: str, *, merged: bool = False) -> Exported:
    return export(reference, merged=merged, out=out, dtype=None, storage="sweeps", tracking_uri=uri)


def test_exported_model_reproduces_recorded_probabilities_after_merging(
    make_bundle: MakeBundle, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made, client = make_bundle(), open_client(uri)
    run = client.create_run(client.create_experiment("mail", str(tmp_path / "mlruns"))).info.run_id
    register(made.folder, run_id=run, tracking_uri=uri)
    recorded = parquet.read_table(made.folder / EVALUATION)
    shutil.rmtree(made.checkpoint)
    shutil.rmtree(made.folder.parent / "storage")
    monkeypatch.setenv("PEFT_SWEEP_CACHE", str(tmp_path / "empty"))

    adapter = exported("mail@champion", None, uri)
    assert adapter.folder == Path("mail-1")
    assert {"adapter_config.json", "method.json", "tokenizer.json"} <= {file.name for file in Path("mail-1").iterdir()}
    plain = exported("mail/1", None, uri, merged=True)
    assert plain.folder == Path("mail-1-merged")

    model = AutoModelForSequenceClassification.from_pretrained("mail-1-merged")
    tokenizer = AutoTokenizer.from_pretrained("mail-1-merged")
    assert tuple(model.config.id2label.values()) == LABELS
    tokens = tokenizer(recorded["text"].to_pylist(), padding=True, truncation=True, max_length=16, return_tensors="pt")
    with torch.no_grad():
        found = model(tokens["input_ids"], tokens["attention_mask"]).logits.double().softmax(dim=-1)
    np.testing.assert_allclose(found, np.array(recorded["probabilities"].to_pylist()), rtol=0, atol=1e-5)

    with pytest.raises(InputError, match="there is no such version; known: mail@champion, mail/1"):
        exported("mail/2", tmp_path / "other", uri)
