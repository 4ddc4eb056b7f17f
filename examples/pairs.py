"""Make the rows of pairs.yaml: two sentences each, and how much of what they say is the same, from 0 to 4.

``python examples/pairs.py`` writes pairs.jsonl beside this file. A sentence has four parts, each said in one of several
ways; the score is the number of parts that mean the same, whatever their words.
"""

import json
import random
from pathlib import Path

ROWS = 900
Part = tuple[tuple[str, ...], ...]
WHO: Part = (("a man", "a guy"), ("a woman", "a lady"), ("a child", "a kid"), ("a doctor", "a physician"), ("a dog",))
DOES: Part = (
    ("is looking at", "watches"),
    ("is repairing", "fixes"),
    ("is buying", "purchases"),
    ("is carrying", "brings along"),
    ("is painting", "puts paint on"),
)
WHAT: Part = (("a car", "an automobile"), ("a bike", "a bicycle"), ("a couch", "a sofa"), ("a photo", "a picture"))
WHERE: Part = (
    ("in the street", "on the road"),
    ("at the store", "in a shop"),
    ("by the sea", "at the ocean"),
    ("in the woods", "in a forest"),
)
PARTS = (WHO, DOES, WHAT, WHERE)


def pair(draw: random.Random) -> dict[str, str | int]:
    """Return two sentences with the number of parts that mean the same."""
    first = [draw.randrange(len(part)) for part in PARTS]
    score = draw.randrange(len(PARTS) + 1)
    same = set(draw.sample(range(len(PARTS)), score))
    second = [
        meaning if number in same else draw.choice([other for other in range(len(part)) if other != meaning])
        for number, (part, meaning) in enumerate(zip(PARTS, first, strict=True))
    ]
    texts = (
        " ".join(draw.choice(part[meaning]) for part, meaning in zip(PARTS, meanings, strict=True))
        for meanings in (first, second)
    )
    return {"first": next(texts), "second": next(texts), "score": score}


def main() -> None:
    """Write the rows beside this file."""
    draw = random.Random(0)
    lines = [json.dumps(pair(draw)) + "\n" for _ in range(ROWS)]
    Path(__file__).with_name("pairs.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
