"""Each recipe of CONTRIBUTING.md, followed word by word in a copy of the project.

A block whose first line is a comment with a path is that file; a ``diff`` block changes the file that its first line
names. What was added is then used by a process that sees nothing but the copy.
"""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from .documents import ROOT, blocks_of, prose

CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PACKAGES = ("orchestrator", "methods", "search_spaces")
RECIPES = {
    title: text
    for title, text in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", CONTRIBUTING.read_text(), re.DOTALL | re.MULTILINE)
    if title.startswith("A ")
}


class Copy:
    """A copy of the project's packages that a recipe is followed in.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for package in PACKAGES:
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))

    def follow(self, recipe: str) -> None:
        """Write the recipe's files and make its changes."""
        for language in ("python", "yaml", "toml"):
            for block in blocks_of(RECIPES[recipe], language):
                path = self.folder / _path_of(block)
                assert not path.exists(), f"{path} exists, so that the recipe should change it and not write it"
                path.write_text(block.partition("\n")[2])
        for block in blocks_of(RECIPES[recipe], "diff"):
            path = self.folder / _path_of(block)
            path.write_text(patched(path.read_text(), block.partition("\n")[2]))

    def run(self, script: str, **environment: str) -> str:
        """Run a script in a process that imports from the copy, and return what it prints."""
        return self.python("-c", textwrap.dedent(script), **environment)

    def python(self, *arguments: str, **environment: str) -> str:
        """Run Python in the copy, and return what it prints."""
        variables = {**os.environ, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1", **environment}
        result = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
        return result.stdout


@pytest.fixture
def project(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def _path_of(block: str) -> str:
    match = re.match(r"# (\S+)\n", block)
    assert match, f"a block of a recipe does not name its file:\n{block}"
    return match[1]


def patched(text: str, change: str) -> str:
    """Return a text with a change: lines that begin with a blank stay, with ``+`` are added, with ``-`` are removed."""
    lines = change.splitlines()
    before = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "+")
    after = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "-")
    assert text.count(before) == 1, f"these lines are there {text.count(before)} times:\n{before}"
    return text.replace(before, after)


def test_recipes_are_the_five() -> None:
    titles = ["A method", "A task type", "A metric", "A sampler or allocation rule", "A storage"]
    assert list(RECIPES) == titles


def test_recipe_names_existing_files() -> None:
    written = {_path_of(block) for text in RECIPES.values() for block in blocks_of(text, "python")}
    for path in re.findall(r"`((?:orchestrator|methods|search_spaces|tests)/[\w/]+\.py)`", prose(CONTRIBUTING)):
        assert (ROOT / path).exists() or path in written, path


@pytest.mark.slow
def test_method_recipe_gives_a_method_that_keeps_the_contract(project: Copy) -> None:
    project.follow("A method")
    for folder in ("methods", "search_spaces"):
        shutil.copytree(ROOT / "tests" / folder, project.folder / "tests" / folder)
    for file in [*(ROOT / "tests").glob("*.py"), ROOT / "pyproject.toml"]:
        shutil.copy(file, project.folder / file.relative_to(ROOT))
    contract = ["tests/methods/test_contract.py", "tests/search_spaces"]
    chosen = "block_scale and (encoder-classification-nf4 or decoder-causal-lm-nf4 or not test_contract)"
    printed = project.python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *contract)
    passed = re.search(r"(\d+) passed", printed)
    assert passed, printed
    assert int(passed[1]) > 20, printed


@pytest.mark.slow
def test_task_type_recipe_gives_a_type_that_plans_and_scores(project: Copy) -> None:
    project.follow("A task type")
    printed = project.run("""
        from pathlib import Path

        import numpy as np
        from tokenizers import Tokenizer, models
        from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

        words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))
        PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]").save_pretrained("model")
        shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        BertModel(BertConfig(vocab_size=20, max_position_embeddings=64, **shape)).save_pretrained("model")
        rows = [f"text number {row},{1 + row % 4}" for row in range(40)]
        Path("reviews.csv").write_text("\\n".join(["text,stars", *rows]))

        from orchestrator.config import load_config
        from orchestrator.planning.plan import make_plan

        plan = make_plan(load_config(Path("reviews.yaml")))
        task = plan.tasks["reviews"]
        print(task.type.name, task.data.labels, task.available)
        rows = task.type.tokenize(task.data.splits["test"], plan.tokenizer, 16)
        config = BertConfig.from_pretrained("model", num_labels=len(task.data.labels))
        model, batches = BertForSequenceClassification(config).eval(), [np.arange(rows.num_rows)]
        task.type.loss(model, task.type.collate(rows, batches[0], 0)).backward()
        metrics = task.type.evaluate(model, rows, batches, 0).metrics
        print(list(metrics), 0 <= metrics["mean_absolute_error"] <= 3, task.type.metrics[0].higher_is_better)
    """)
    assert printed.splitlines() == [
        "ordinal ('1', '2', '3', '4') ('lora', 'linear_probe')",
        "['mean_absolute_error'] True False",
    ]


def test_metric_recipe_gives_a_metric_that_is_searched_by(project: Copy) -> None:
    project.follow("A metric")
    (project.folder / "rows.csv").write_text("text,label\n" + "".join(f"t{row},{'ab'[row % 2]}\n" for row in range(20)))
    printed = project.run("""
        import numpy as np
        import pyarrow as pa

        from orchestrator.config import config_of
        from orchestrator.tasks import task_type
        from pathlib import Path

        task = {"type": "classification", "data": "rows.csv", "text": "text", "label": "label"}
        values = {
            "backbone": {"model": "hub/model"},
            "tasks": {"mail": {**task, "metric": "cohen_kappa"}},
            "budget": {"trials": 1},
        }
        config = config_of(values, Path(), "mail.yaml")
        kind = task_type(config.tasks["mail"])
        probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4], [0.1, 0.9]])
        predictions = pa.table({
            "label": pa.array([0, 0, 0, 1, 1], pa.int32()),
            "probabilities": pa.FixedSizeListArray.from_arrays(pa.array(probabilities.ravel()), 2),
        })
        one_class = kind.score_many("cohen_kappa", predictions, np.array([[0, 1, 2, 0, 1]]))
        print(round(kind.score("cohen_kappa", predictions), 6), one_class.tolist(), kind.metric("cohen_kappa").label)
    """)
    # 4 of 5 rows are right, of which chance has (3 * 4 + 2 * 1) / 25: (0.8 - 0.56) / (1 - 0.56)
    assert printed.strip() == "0.545455 [0.0] Cohen's kappa"


def test_search_recipe_gives_a_rule_and_a_sampler_in_use(project: Copy) -> None:
    project.follow("A sampler or allocation rule")
    printed = project.run("""
        from collections import Counter
        from pathlib import Path

        from orchestrator.config.sections import SearchConfig
        from orchestrator.search.allocation import ALLOCATIONS
        from orchestrator.search.budget import SpendingLimits
        from orchestrator.search.core import Search
        from orchestrator.simulation.fleet import Fleet
        from orchestrator.simulation.sweep import Clock, Simulation
        from orchestrator.simulation.synthetic import Synthetic
        from orchestrator.journal.events import Journal

        config = SearchConfig(allocation="thrifty", sampler="univariate_tpe")
        clock, curves, rungs = Clock(), Synthetic(), (10, 20, 40, 80)
        search = Search(
            curves.plans("mail"),
            rungs,
            storage_path=None,
            journal=Journal(Path("journal.jsonl"), clock),
            allocation=ALLOCATIONS[config.allocation](),
            sampler=config.sampler,
            budget=SpendingLimits(trials=120),
            clock=clock,
        )
        Simulation(curves, rungs, Fleet(nodes=1, lanes_per_node=2), clock).run(search)
        trials = Counter(record.key.method for record in search.trials())
        print(len(trials), sum(trials.values()), trials["lora"] > trials["full"])
    """)
    assert printed.strip() == "8 120 True"


def test_storage_recipe_gives_a_storage_that_keeps_a_sweeps_files(project: Copy) -> None:
    project.follow("A storage")
    script = """
        import fsspec
        from pathlib import Path
        from team_storage import TeamFileSystem

        fsspec.register_implementation("team", TeamFileSystem)  # as the entry point does in an installed package

        import yaml
        from orchestrator.common.storage import Storage

        storage = Storage.at(yaml.safe_load(Path("mail.yaml").read_text())["storage"]).sub("mail-1")
        for text in ("first", "second"):
            step = Path(text)
            (step / "adapter").mkdir(parents=True)
            (step / "state.json").write_text(text)
            (step / "adapter" / f"{text}.safetensors").write_bytes(b"weights")
            storage.upload(step, "checkpoints/mail/lora/0/step-20")
        storage.download("checkpoints/mail/lora/0/step-20", Path("back"))
        names = sorted(str(file.relative_to("back")) for file in Path("back").rglob("*") if file.is_file())
        print(storage.is_local, storage.exists("checkpoints"), storage.exists("tokenizer"), names)
    """
    printed = project.run(script, TEAM_STORAGE=str(project.folder / "disk"))
    assert printed.strip() == "False True False ['adapter/second.safetensors', 'state.json']"
    assert (project.folder / "disk" / "sweeps" / "mail-1" / "checkpoints").is_dir()
