"""Tags and entities, against seqeval's default mode."""

import random

import numpy as np
import pytest
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities

from orchestrator.tasks.tagging import NO_TAG, TagScheme, first_tokens, row_counts, span_tags, word_spans

BIO = ("B-a", "B-b-c", "E-a", "I-a", "I-b-c", "O", "S-a")


def drawn_rows(tags, seed, rows=60):
    draw = random.Random(seed)
    return [[draw.choice(tags) for _ in range(draw.randint(1, 9))] for _ in range(rows)]


def flat(scheme, rows):
    offsets = np.cumsum([0, *map(len, rows)])
    return np.array([scheme.tags.index(tag) for row in rows for tag in row]), offsets


@pytest.mark.parametrize("seed", range(4))
def test_entities_are_those_of_seqeval(seed):
    scheme, rows = TagScheme(BIO), drawn_rows(BIO, seed)
    tags, offsets = flat(scheme, rows)
    found = scheme.entities(tags, offsets)
    expected = [
        (scheme.kinds.index(kind), offsets[number] + first, offsets[number] + last)
        for number, row in enumerate(rows)
        for kind, first, last in get_entities(row)
    ]
    assert list(zip(found.kind, found.first, found.last, strict=True)) == expected
    assert row_counts(found.first, offsets).tolist() == [len(get_entities(row)) for row in rows]


def test_matching_entities_give_the_precision_and_recall_of_seqeval():
    scheme, true, predicted = TagScheme(BIO), drawn_rows(BIO, 0), drawn_rows(BIO, 0)
    draw = random.Random(1)
    predicted = [[tag if draw.random() < 0.8 else draw.choice(BIO) for tag in row] for row in predicted]
    (tags, offsets), (guesses, _) = flat(scheme, true), flat(scheme, predicted)
    entities, found = scheme.entities(tags, offsets), scheme.entities(guesses, offsets)
    correct = len(found.matching(entities))
    assert correct / len(found.first) == pytest.approx(precision_score(true, predicted))
    assert correct / len(entities.first) == pytest.approx(recall_score(true, predicted))
    assert 2 * correct / (len(found.first) + len(entities.first)) == pytest.approx(f1_score(true, predicted))


def test_plain_tags_join_equal_neighbours_within_a_row():
    scheme = TagScheme(("O", "city", "person"))
    rows = [["city", "city", "O", "person"], ["person", "city"]]
    found = scheme.entities(*flat(scheme, rows))
    assert [
        (scheme.kinds[kind], first, last) for kind, first, last in zip(found.kind, found.first, found.last, strict=True)
    ] == [
        ("city", 0, 1),
        ("person", 3, 3),
        ("person", 4, 4),
        ("city", 5, 5),
    ]


def test_words_without_a_prediction_are_outside_entities():
    scheme = TagScheme(("B-a", "I-a", "O"))
    found = scheme.entities(np.array([0, NO_TAG, 1]), np.array([0, 3]))
    assert (found.first.tolist(), found.last.tolist()) == ([0, 2], [0, 2])
    assert scheme.continuing(np.array([0, 2, NO_TAG])).tolist() == [1, 2, NO_TAG]


def test_words_are_runs_of_letters_and_single_signs():
    text = "Dr. O'Neil, 東京 ok_3"
    assert [text[start:end] for start, end in word_spans(text)] == [
        "Dr", ".", "O", "'", "Neil", ",", "東", "京", "ok_3",
    ]  # fmt: skip


def test_first_tokens_skip_special_tokens_and_leading_spaces():
    offsets = [(0, 0), (0, 2), (2, 5), (5, 9), (9, 10), (0, 0)]  # the third token begins with the space before a word
    assert first_tokens(offsets, [(0, 5), (6, 9), (9, 10), (11, 12)]).tolist() == [1, 3, 4, -1]
    assert first_tokens([(0, 0)], [(0, 1)]).tolist() == [-1]
    assert first_tokens([(0, 3)], [(0, 1), (1, 3)]).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("spans", "problem"),
    [
        ([(0, 3, "x"), (4, 9, "y")], ""),
        ([(0, 2, "x")], "span 0..2 ('An') begins or ends inside the word 'Ann'"),
        ([(1, 3, "x")], "span 1..3 ('nn') begins or ends inside the word 'Ann'"),
        ([(0, 3, "x"), (0, 9, "y")], "span 0..9 ('Ann Smith') overlaps another"),
        ([(3, 4, "x")], "span 3..4 holds white space alone"),
        ([(4, 99, "x")], "span 4..99 is not inside the text, which has 9 characters"),
    ],
)
def test_spans_must_be_of_whole_words(spans, problem):
    text = "Ann Smith"
    assert span_tags(word_spans(text), spans, text)[1] == problem


def test_spans_become_tags_of_their_words():
    text = "Ann Smith saw Oslo"
    assert span_tags(word_spans(text), [(14, 18, "city"), (0, 10, "person")], text)[0] == [
        "B-person", "I-person", "O", "B-city",
    ]  # fmt: skip
