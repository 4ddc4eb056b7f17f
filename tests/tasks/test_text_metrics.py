"""Metrics of generated text against the libraries that define them, and against longhand values."""

import math
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from orchestrator.common.metric import Metric
from orchestrator.tasks import text_metrics
from orchestrator.tasks.row_sums import RowSums
from orchestrator.tasks.text_metrics import BITS_PER_BYTE, EXACT_MATCH, JSON_FIELDS, PERPLEXITY, TOKEN_F1, VALID_JSON

WORDS = ["the", "a", "cat", "dog", "sat", "on", "mat", ",", ".", "東京", "Größe", "runs", "quickly", "and"]


def table(generated, references):
    rows = pa.array(range(1, len(generated) + 1), pa.int64())
    return pa.table({"row": rows, "generated": generated, "references": pa.array(references, pa.list_(pa.string()))})


def statistic(metric: Metric) -> Callable[[pa.Table, np.ndarray], np.ndarray]:
    assert metric.statistic is not None
    return metric.statistic


def score(metric, generated, references):
    predictions = table(generated, references)
    return metric.statistic(predictions, np.arange(len(generated))[None])[0]


@pytest.fixture(scope="module")
def corpus():
    """Random texts of 0 to 12 words with 1 to 3 references, some of them close."""
    random = np.random.default_rng(0)

    def text():
        return " ".join(random.choice(WORDS, random.integers(0, 13)))

    references = [[text() or "x" for _ in range(random.integers(1, 4))] for _ in range(60)]
    generated = [row[0] if random.random() < 0.2 else f"{row[-1]} {text()}"[:-3] for row in references]
    return generated, references


def streams(references, rows):
    chosen = [references[row] for row in rows]
    return [[row[k] if k < len(row) else None for row in chosen] for k in range(max(map(len, chosen)))]


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_corpus_metrics_of_resamples_equal_sacrebleu(corpus, name):
    generated, references = corpus
    draws = np.random.default_rng(1).integers(len(generated), size=(25, len(generated)))
    draws[0], draws[1] = np.arange(len(generated)), 0
    reference = BLEU(force=True) if name == "bleu" else CHRF()
    expected = [
        reference.corpus_score([generated[row] for row in draw], streams(references, draw)).score for draw in draws
    ]
    metric = getattr(text_metrics, name.upper())
    assert metric.statistic(table(generated, references), draws) == pytest.approx(expected, abs=1e-9)


def test_bleu_smooths_orders_without_a_match_as_sacrebleu_does():
    for generated in ("the cat sat", "the cat runs away now", "a b c d e", "", "the dog sat on mats there"):
        expected = BLEU(force=True).corpus_score([generated], [["the cat sat on the mat"]]).score
        assert score(text_metrics.BLEU, [generated], [["the cat sat on the mat"]]) == pytest.approx(expected, abs=1e-9)


def test_rouge_l_is_the_best_reference_by_rouge_score(corpus):
    generated, references = corpus
    scorer = RougeScorer(["rougeL"])
    best = [max(scorer.score(r, text)["rougeL"].fmeasure for r in row) for text, row in zip(*corpus, strict=True)]
    draws = np.random.default_rng(2).integers(len(generated), size=(5, len(generated)))
    scores = statistic(text_metrics.ROUGE_L)(table(generated, references), draws)
    assert scores == pytest.approx(np.array(best)[draws].mean(axis=1), abs=1e-12)


def test_token_f1_follows_the_definition_of_squad():
    # 2 of 3 words are in the reference's 4: precision 2/3, recall 2/4, F1 4/7.
    assert score(TOKEN_F1, ["The cat, sat down"], [["a CAT sat on mats!"]]) == pytest.approx(4 / 7)
    assert score(TOKEN_F1, ["cat cat"], [["cat"]]) == pytest.approx(2 / 3)
    assert score(TOKEN_F1, ["", "the", "x"], [["an"], ["cat"], ["y", "X."]]) == pytest.approx(2 / 3)


def test_exact_match_takes_any_reference_without_surrounding_space():
    assert score(EXACT_MATCH, [" yes\n", "no", "No"], [["maybe", "yes"], ["no "], ["no"]]) == pytest.approx(2 / 3)


def test_exact_match_of_release_0_1_is_read_without_texts():
    predictions = pa.table({"row": [1, 2], "exact": [True, False]})
    assert statistic(EXACT_MATCH)(predictions, np.array([[0, 1], [0, 0]])).tolist() == [0.5, 1.0]


def test_valid_json_is_the_whole_text():
    texts = ['{"a": 1}', "[1, 2]", " 3 ", '{"a": 1} done', "```json\n{}\n```", "NaN", "", "[" * 100_000]
    assert score(VALID_JSON, texts, [["{}"]] * len(texts)) == pytest.approx(3 / 8)


def test_json_fields_are_compared_by_path_and_value():
    reference = '{"name": "Bo", "size": {"x": 1, "y": [1, 2]}, "open": true}'
    generated = '{"open": 1, "size": {"y": [1, 2], "x": 1.5}, "name": "Bo", "more": 3}'
    assert score(JSON_FIELDS, [generated], [[reference]]) == pytest.approx(2 / 4)
    assert score(JSON_FIELDS, ["nothing", "[1]", '{"a": {}}'], [[reference], ["[1]"], ['{"a": {}}']]) == pytest.approx(
        2 / 3
    )


def test_json_fields_names_the_row_whose_reference_is_not_json():
    with pytest.raises(ValueError, match="that of row 2 is not"):
        score(JSON_FIELDS, ["{}", "{}"], [["{}"], ["name: Bo"]])


def test_bits_per_byte_is_nats_over_all_bytes():
    predictions = pa.table({"nll": [math.log(2) * 8, math.log(2) * 4], "tokens": [2, 2], "bytes": [4, 8]})
    draws = np.array([[0, 1], [0, 0]])
    assert statistic(BITS_PER_BYTE)(predictions, draws).tolist() == pytest.approx([1.0, 2.0])
    assert statistic(PERPLEXITY)(predictions, draws).tolist() == pytest.approx([8.0, 16.0])


def test_text_metrics_refuse_predictions_without_generated_text():
    predictions = pa.table({"row": [1], "generated": pa.nulls(1, pa.string()), "reference": ["yes"]})
    with pytest.raises(ValueError, match="no metric 'token_f1': no text was generated"):
        statistic(TOKEN_F1)(predictions, np.array([[0]]))


def test_row_sums_read_a_table_once_and_another_anew():
    calls = []

    def values(predictions):
        calls.append(predictions.num_rows)
        return predictions["x"].to_numpy()[:, None].astype(float)

    statistic = RowSums("mean", values)
    first = pa.table({"x": [1, 2, 6]})
    assert statistic(first, np.array([[0, 1, 2], [0, 0, 0]])).tolist() == [3.0, 1.0]
    assert statistic(first, np.array([[2, 2, 1]])).tolist() == pytest.approx([14 / 3])
    del first
    assert statistic(pa.table({"x": [5]}), np.array([[0]])).tolist() == [5.0]
    assert calls == [3, 1]
