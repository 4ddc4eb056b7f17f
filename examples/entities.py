"""Make the rows of entities.yaml: short messages with people, places and organizations, and where they stand.

``python examples/entities.py`` writes entities.jsonl beside this file. Names are put together from parts, so that many
of those in the test rows are in no training row.
"""

import json
import random
from pathlib import Path

ROWS = 600
FIRST = [
    "Ada",
    "Bo",
    "Carla",
    "Dev",
    "Eun",
    "Femi",
    "Gita",
    "Hugo",
    "Ines",
    "Jun",
    "Kofi",
    "Lena",
    "Mara",
    "Nils",
    "Omar",
    "Pia",
    "Quang",
    "Rosa",
    "Sven",
    "Tara",
]
LAST = [
    "Abe",
    "Bauer",
    "Costa",
    "Diaz",
    "Eze",
    "Ferro",
    "Gupta",
    "Haddad",
    "Ito",
    "Jansen",
    "Khan",
    "Lopez",
    "Moreau",
    "Novak",
    "Okoro",
    "Patel",
    "Rossi",
    "Silva",
]
START = [
    "Ald",
    "Bren",
    "Cal",
    "Dor",
    "El",
    "Fair",
    "Glen",
    "Hart",
    "Kings",
    "Lang",
    "Mil",
    "North",
    "Oak",
    "Port",
    "Red",
    "Stan",
    "Thorn",
    "West",
]
END = [
    "bridge",
    "bury",
    "dale",
    "field",
    "ford",
    "ham",
    "haven",
    "mouth",
    "port",
    "ton",
    "view",
    "ville",
    "wick",
    "wood",
]
FIRM = [
    "Amber",
    "Blue",
    "Cedar",
    "Delta",
    "Ember",
    "Falcon",
    "Granite",
    "Harbor",
    "Iron",
    "Juniper",
    "Lunar",
    "Maple",
    "Orion",
    "Pioneer",
    "Summit",
]
TRADE = ["Airlines", "Bank", "Foods", "Logistics", "Motors", "Pharma", "Records", "Systems", "Telecom", "Works"]
SENTENCES = (
    "{person} moved from {place} to {place} last year.",
    "the {organization} office in {place} is closed on monday",
    "I met {person} at {organization}, and we talked about {place}.",
    "is anybody from {organization} coming to {place}?",
    "{person} and {person} work for {organization} now",
    "my order from {organization} has been stuck in {place} for a week!!",
    "Call {person} before you leave {place}.",
    "{organization} hired {person} to run its shop in {place}.",
    "nobody told {person} that {organization} had sold {organization}",
    "we drove through {place} without stopping, it rained all day",
    "the last train was late again, so I walked",
    "{place} is lovely in may, says {person}",
)


def make_name(kind: str, draw: random.Random) -> str:
    """Return a name of a person, a place or an organization, put together from parts."""
    if kind == "person":
        return f"{draw.choice(FIRST)} {draw.choice(LAST)}" if draw.random() < 0.6 else draw.choice(FIRST)
    if kind == "place":
        return draw.choice(START) + draw.choice(END)
    return f"{draw.choice(FIRM)} {draw.choice(TRADE)}"


def make_row(draw: random.Random) -> dict[str, object]:
    """Return a text and its spans, each with start, end and label."""
    text, spans = "", []
    for part in draw.choice(SENTENCES).replace("{", "\0{").replace("}", "}\0").split("\0"):
        kind = part.strip("{}") if part.startswith("{") else ""
        written = make_name(kind, draw) if kind else part
        if kind:
            spans.append({"start": len(text), "end": len(text) + len(written), "label": kind})
        text += written
    return {"text": text, "spans": spans}


def main(file: Path) -> None:
    """Write the rows, the same each time."""
    draw = random.Random(0)
    file.write_text("".join(json.dumps(make_row(draw)) + "\n" for _ in range(ROWS)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(__file__).with_suffix(".jsonl"))
