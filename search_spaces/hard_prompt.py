"""Hard prompt: the text around the input. Nothing is trained, so no hyperparameters of training are searched."""

from __future__ import annotations

from optuna.distributions import CategoricalDistribution, IntDistribution

from search_spaces._base import SearchSpace

SPACE = SearchSpace(
    distributions={
        "template": CategoricalDistribution(["label", "question", "instruction"]),
        "verbalizers": CategoricalDistribution(["names"]),
        "examples": IntDistribution(0, 8),
        "calibration": CategoricalDistribution([True, False]),
    },
    default={
        "template": "label",
        "verbalizers": "names",
        "examples": 0,
        "calibration": False,
    },
    sources={
        "template": "a pattern that ends with the class, as in arXiv:2001.07676; the wording is new here",
        "verbalizers": "the classes' names; arXiv:2001.07676 chooses words by hand",
        "examples": "none, and the 1 to 8 of arXiv:2102.09690",
        "calibration": "without and with, as arXiv:2102.09690 compares them; for classes that are about as frequent",
    },
    texts=frozenset({"template", "verbalizers"}),
)
