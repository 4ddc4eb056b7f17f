"""Make the rows of retrieval.yaml: questions of a plant's staff, and the title of the instruction that answers each.

``python examples/retrieval.py`` writes retrieval.jsonl beside this file. The staff call machines and faults by names of
their own, which no public text links to those of the instructions. The pairs of machine and fault in the test rows are
in no training row.
"""

import json
import random
from pathlib import Path

MACHINES = {  # what the staff say: what the instructions say
    "the old lady": "extruder KX-40",
    "Goliath": "hydraulic press P9",
    "the snail": "screw conveyor C-12",
    "Blue": "palletizer R2",
    "the toaster": "shrink tunnel T300",
    "Twitchy": "labelling head L5",
    "the barrel": "mixing drum M-7",
    "the choir": "compressor bank B4",
    "Long John": "belt line F-18",
    "the kettle": "steam generator S2",
    "Squeaky": "bag sealer V-6",
    "the spider": "pick-and-place robot D3",
    "the oven": "curing chamber H-90",
    "Number Five": "filling station N5",
    "the fountain": "cooling tower W1",
    "the guillotine": "sheet cutter G-8",
    "Moby": "water tank Q-20",
    "the attic": "dust filter A-3",
    "the drummer": "vibrating sieve Z-14",
    "Little Joe": "feed hopper J-2",
    "the dragon": "burner unit E-60",
    "the clock": "indexing table I-5",
    "Rusty": "conveyor chain K-33",
    "the owl": "inspection camera O2",
    "the bathtub": "washing basin Y-1",
}
FAULTS = {
    "sings": "bearing wear on the main shaft",
    "has the hiccups": "irregular feed pressure",
    "is sulking": "emergency stop not released",
    "drinks too much": "excess oil consumption",
    "has a fever": "overtemperature of the drive",
    "is sleepwalking": "drift of the position encoder",
    "sees ghosts": "false signals of the light barrier",
    "is on a diet": "low material level",
    "chews its nails": "worn cutting edge",
    "forgets the time": "clock of the controller out of step",
    "holds its breath": "blocked exhaust valve",
    "is limping": "uneven belt tension",
    "lost its voice": "no connection to the control room",
    "sweats": "condensation in the cabinet",
    "counts its toes": "restart loop after power loss",
    "is shivering": "loose foundation bolts",
    "plays dead": "blown main fuse",
    "sees double": "two labels on one item",
    "spits": "leaking gasket at the outlet",
    "is dizzy": "unbalanced rotor",
}
QUESTIONS = ("{machine} {fault} again", "Why is it that {machine} {fault}?", "{machine} {fault}, what now?")
TITLES = ("{machine}: {fault}", "{fault} ({machine})")


def main() -> None:
    """Write one row for each machine with each fault."""
    draw = random.Random(5)
    with Path(__file__).with_suffix(".jsonl").open("w", encoding="utf-8") as file:
        for nickname, machine in MACHINES.items():
            for saying, fault in FAULTS.items():
                question = draw.choice(QUESTIONS).format(machine=nickname, fault=saying)
                title = draw.choice(TITLES).format(machine=machine, fault=fault)
                row = {"question": question[:1].upper() + question[1:], "instruction": title[:1].upper() + title[1:]}
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
