"""The comparison of all methods: pieces are trained once, resumed, and told as what they are."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

import benchmarks._comparison_pieces as pieces
from benchmarks._comparison_page import compare_finals, page, publish_page, scores, simultaneous
from benchmarks._comparison_pieces import Comparison, Piece, Record, configuration, method_names, read_records
from benchmarks.comparison import Session
from orchestrator.selection.evidence import Evidence, t_quantile
from orchestrator.simulation.table import Table

WORDS = ["good", "bad", "seat", "gate", "crew", "bag", "fine", "late"]
PLAN = Comparison(methods=("linear_probe", "lora", "peft:shira", "hard_prompt"), configurations=2, steps=4,
                  finalists=2, seeds=2)  # fmt: skip


def tiny_model(folder: Path) -> str:
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32}
    sizes |= {"num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(7)
    BertModel(BertConfig(vocab_size=16, pad_token_id=0, max_position_embeddings=32, **sizes)).save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return str(folder)


def tiny_task(folder: Path) -> dict[str, Any]:
    draw = random.Random(0)
    texts = {" ".join(draw.choices(WORDS[2:], k=5)) for _ in range(120)}
    with (folder / "rows.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *((f"{t} {t[:4]}", draw.choice(WORDS[:2])) for t in texts)])
    return {"type": "classification", "data": str(folder / "rows.csv"), "text": "text", "label": "label"}


class World:
    """A folder in which calls of the comparison follow each other."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PEFT_SWEEP_CACHE", str(folder / "cache"))
        self.folder, self.file, self.model = folder, folder / "pieces.jsonl", tiny_model(folder / "model")

    def call(self, plan: Comparison = PLAN) -> list[Record]:
        records = read_records(self.file)
        Session(records, self.file, plan, self.folder, self.model, {"tiny": tiny_task}).train_task("tiny")
        return records


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_comparison_goes_on_after_a_piece_that_was_cut(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trained: list[Piece] = []
    train = pieces.train

    def counted(piece: Piece, *others: Any) -> Record:
        trained.append(piece)
        if len(trained) == 5:
            raise KeyboardInterrupt
        return train(piece, *others)

    monkeypatch.setattr("benchmarks.comparison.train", counted)
    with pytest.raises(KeyboardInterrupt):
        world.call()
    world.file.write_text(world.file.read_text() + '{"kind": "trial", "task": "ti')
    records = world.call()
    assert [piece.config_id for piece in trained[:4]] == [0] * 4, "every method's default first"
    assert len(trained) == len(set(trained)) + 1, "only the piece that was cut is trained again"
    assert not PLAN.missing(records, "tiny")
    assert PLAN.missing(read_records(world.file), "tiny") == []
    trials = [record for record in records if record["kind"] == "trial"]
    assert len(trials) == 8
    refused = [record for record in trials if record["score"] is None]
    assert {record["method"] for record in refused} == {"hard_prompt"}
    finals = [record for record in records if record["kind"] == "final"]
    assert len(finals) == 4
    assert {record["seed"] for record in finals} == {0, 1}
    (described,) = (record for record in records if record["kind"] == "task")
    for final in finals:
        true, given = (list(map(int, digits)) for digits in (described["truth"], final["predicted"]))
        assert final["score"] == pytest.approx(f1_score(true, given, average="macro", zero_division=0))
    results = compare_finals(records, PLAN, "tiny")
    for method, result in results.items():
        of_seeds = [final["score"] for final in finals if final["method"] == method]
        assert result.score == pytest.approx(np.mean(of_seeds))
        assert result.interval[0] <= result.score <= result.interval[1]
    _assert_published(records, tmp_path, monkeypatch)


def _assert_published(records: list[Record], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, place in {"FOLDER": "tables", "PAGE": "page.md", "PICTURE": "page.svg"}.items():
        monkeypatch.setattr(f"benchmarks._comparison_page.{name}", folder / place)
    publish_page(records, PLAN, ["tiny"])
    assert sorted(map(json.dumps, read_records(folder / "tables" / "records.parquet"))) == sorted(
        map(json.dumps, records)
    )
    (table,) = Table.read([folder / "tables" / "curves.parquet"])
    assert {method: len(curves) for method, curves in table.methods.items()} == {
        "linear_probe": 2, "lora": 2, "peft:shira": 2,
    }  # fmt: skip
    text = (folder / "page.md").read_text()
    rows = scores(records, PLAN, "tiny")
    assert [bool(row["final"]) for row in rows] == [True, True, False]
    assert "| tiny | 4 | 8 | 2 of 2 | hard_prompt |" in text
    assert text.count("| not retrained |") == 1
    assert (folder / "page.svg").read_text().count("<circle") == 5
    one = [record for record in records if record["kind"] != "final" or record["method"] == rows[0]["method"]]
    assert page(one, PLAN, ["tiny"]).count("no other was retrained") == 1
    assert "| tied |" not in page(one, PLAN, ["tiny"])


def test_comparison_page_names_what_is_missing() -> None:
    one = {"kind": "trial", "task": "tiny", "method": "lora", "config_id": 0, "steps": 4, "seed": -1, "score": 0.5}
    records = [{**one, "cpu_seconds": 36.0, "curve": []}]
    text = page(records, PLAN, ["tiny", "other"])
    assert "| tiny | 1 | 1 | 0 of 2 | none |" in text
    assert "| other | 0 | 0 | 0 of 2 | none |" in text
    assert "**Not compared at all** (3 of 4): `linear_probe`, `peft:shira`, `hard_prompt`." in text
    assert "some of the tasks only: `lora`." in text
    assert "(1 runs) took 0.01 CPU hours" in text
    assert "## other" not in text
    assert "23 runs are missing, about 0 CPU hours" in text, "7 and 8 trials, and two methods twice on each task"


def test_comparison_intervals_are_simultaneous() -> None:
    evidence = Evidence(np.array([0.5, 0.6]), np.diag([1e-4, 1e-4]), 0.0, np.array([0, 0]), 401, 0)
    low, high = simultaneous(evidence, 1, (0.0, 1.0))
    assert (high - low) / 2 == pytest.approx(t_quantile(0.9875, 400) * 0.01), "2.5 % over two methods"


def test_comparison_has_every_method_that_trains() -> None:
    assert len(method_names()) == 47
    assert configuration("airline", "lora", 3) == configuration("airline", "lora", 3)
    assert configuration("airline", "lora", 3) != configuration("airline", "lora", 4)
    assert configuration("negation", "lora", 5)["batch_size"] in (8, 16)
