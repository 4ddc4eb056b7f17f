"""Make the conversations of chat.yaml: a station's help desk that answers from a timetable, always in one form.

python examples/chat.py > examples/chat.jsonl
"""

from __future__ import annotations

import json
import random

PLACES = ("Arden", "Brookhall", "Carrick", "Dunmere", "Eastwold", "Fenley", "Garth", "Holm")
FIRST = ("When is the next train to {}?", "I need to get to {}.", "{}, please.", "What goes to {} next?")
THEN = ("And to {}?", "What about {}?", "My friend goes to {}. When is that?")
THANKS = ("Thanks!", "Great, thank you.", "That is all.")


def conversation(draw: random.Random) -> list[dict[str, str]]:
    """Return a conversation of two or three questions about a timetable."""
    places = draw.sample(PLACES, 3)
    trains = {place: (f"{draw.randrange(6, 23):02}:{draw.randrange(60):02}", draw.randrange(1, 9)) for place in places}
    table = "; ".join(f"{place} {time} platform {platform}" for place, (time, platform) in trains.items())
    messages = [{"role": "system", "content": f"You answer at a station. Next trains: {table}."}]
    for number, place in enumerate(places[: draw.choice((1, 2, 2))]):
        time, platform = trains[place]
        messages.append({"role": "user", "content": draw.choice(THEN if number else FIRST).format(place)})
        messages.append({"role": "assistant", "content": f"{place}: {time}, platform {platform}."})
    messages.append({"role": "user", "content": draw.choice(THANKS)})
    messages.append({"role": "assistant", "content": "Have a good journey."})
    return messages


def main() -> None:
    """Print one conversation per line."""
    draw = random.Random(0)
    for _ in range(520):
        print(json.dumps({"messages": conversation(draw)}))


if __name__ == "__main__":
    main()
