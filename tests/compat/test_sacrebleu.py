"""Names of sacrebleu that are not public: the counts of each row, from which samples of rows are scored at once."""

from __future__ import annotations

from typing import Any

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from .reliance import relied_on


@relied_on("_extract_corpus_statistics", by="orchestrator/tasks/text_metrics.py")
def test_counts_of_rows_add_up_to_the_score_of_the_corpus() -> None:
    texts = ["the cat sat down", "a dog"]
    streams: Any = [["the cat sat on it", "the dog"], ["cats sat", None]]  # the second row has one reference
    for metric, numbers in ((BLEU(), 2 + 2 * 4), (CHRF(), 3 * 6)):
        counts = metric._extract_corpus_statistics(texts, streams)
        assert [len(row) for row in counts] == [numbers] * 2
        assert counts[0] == metric._extract_corpus_statistics(texts[:1], [["the cat sat on it"], ["cats sat"]])[0]
    assert BLEU()._extract_corpus_statistics(["a b"], [["a b c"]]) == [[2, 3, 2, 1, 0, 0, 2, 1, 0, 0]]
    assert CHRF()._extract_corpus_statistics(["ab"], [["abc"]])[0][:6] == [2, 3, 2, 1, 2, 1]
