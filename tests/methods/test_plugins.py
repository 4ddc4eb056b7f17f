"""Plugins: which files can be one, and the errors of those that break the contract."""

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import methods
import search_spaces
from methods.base.spec import MethodError
from methods.plugins import loader
from methods.plugins.check import check_plugin

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_method.py"


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start each test without plugins, which are registered per process."""
    monkeypatch.setattr(loader, "_SOURCES", {})
    yield
    for name in [name for name in sys.modules if name.startswith(f"{loader.PACKAGE}.")]:
        del sys.modules[name]


@pytest.fixture
def broken(tmp_path: Path) -> Callable[..., str]:
    """Register the example with some of its text replaced."""

    def register(*changes: tuple[str, str]) -> str:
        text = EXAMPLE.read_text()
        for before, after in changes:
            assert before in text
            text = text.replace(before, after)
        file = tmp_path / "my_method.py"
        file.write_text(text)
        return methods.register(file)

    return register


def test_plugin_example_keeps_contract_and_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 60
    name = methods.register(EXAMPLE)
    check_plugin(name)
    assert (name, methods.get(name).name) == ("my_method", "my_method")
    assert "first" in search_spaces.get(name).distributions
    assert name not in methods.names()


def test_plugin_check_leaves_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver of a sweep checks plugins; a generator's state would cost a context on each GPU of its machine."""
    name = loader.register(EXAMPLE)
    touched: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: touched.append("read"))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: touched.append("set"))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: touched.append("seeded"))
    check_plugin(name)
    assert touched == []


def test_plugin_example_scales_blocks(make_case, tmp_path: Path) -> None:
    """Longhand: all of a block's stream times the factor, block after block."""
    methods.register(EXAMPLE)
    case = make_case("encoder", "classification", "none")
    spec = methods.get("my_method")
    attached = case.attach(spec, spec.params_type(first=0.5))
    attached.train(False)
    scales = [p for name, p in attached.trainable().items() if "scale" in name]
    assert len(scales) == 2  # of three blocks
    torch.testing.assert_close(case.logits(attached.module), case.logits(case.view()), atol=1e-6, rtol=1e-6)
    with torch.no_grad():
        scales[-1].fill_(0.0)
        attached.module.bert.pooler.dense.weight.fill_(1.0)
        attached.module.bert.pooler.dense.bias.fill_(0.0)
    assert torch.equal(case.logits(attached.module), attached.module.classifier.bias.expand(4, -1))


def test_plugin_can_be_part_of_composition(make_case, tmp_path: Path) -> None:
    methods.register(EXAMPLE)
    case = make_case("encoder", "classification", "nf4")
    spec = methods.get("compose:my_method+lora")
    attached = case.attach(spec, spec.params_type.from_dict(search_spaces.get(spec.name).default))
    attached.train(False)
    with torch.no_grad():
        for parameter in attached.trainable().values():
            parameter += 0.1
    attached.save(tmp_path)
    back = methods.load_adapter(case.view(), tmp_path, case.shared.context)
    back.train(False)
    assert torch.equal(case.logits(back.module), case.logits(attached.module))


def test_plugin_registration_runs_nothing_and_imports_no_torch(tmp_path: Path) -> None:
    file = tmp_path / "loud.py"
    file.write_text("raise SystemExit('it ran')\nSPEC = SPACE = None\n")
    code = f"""
        import sys
        from pathlib import Path
        import methods
        assert methods.register(Path({str(file)!r})) == "loud"
        assert "torch" not in sys.modules and "optuna" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_plugin_registration_replaces_changed_file(broken) -> None:
    assert methods.get(broken()).reference == "this file"
    assert methods.get(broken(("this file", "another"))).reference == "another"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("lora.py", "SPEC = SPACE = 1", "lora is the name of a built-in method; give the file another name"),
        ("_mine.py", "SPEC = SPACE = 1", "_mine is the name of a built-in"),
        (
            "my-method.py",
            "SPEC = SPACE = 1",
            "is not a Python file whose name can be a method's; write letters, digits",
        ),
        ("mine.txt", "SPEC = SPACE = 1", "is not a Python file"),
        ("mine.py", "SPEC = 1", "defines no SPACE; a plugin defines SPEC and SPACE"),
        ("mine.py", "def SPEC(): ...", "defines no SPEC and no SPACE"),
        ("mine.py", "SPEC = 1\nSPACE == 2 3", "line 2 is not valid Python: invalid syntax"),
        ("mine.py", "SPEC = 1\n\0", "is not"),
        ("mine.py", None, "cannot be read"),
    ],
)
def test_plugin_registration_refuses_other_files_in_one_line(name, text, message, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        methods.register(tmp_path / name)
    assert "\n" not in str(raised.value)
    with pytest.raises(KeyError):
        methods.get("mine")


RETURN = "    return attached("
NO_IDENTITY = ("params_type=MyParams", "starts_as_identity=False, params_type=MyParams")
UNFREEZE = "view.get_input_embeddings().weight.requires_grad_(True)"
BREAKS = {
    "does not import": (
        [("import torch\n", "import torhc\n")],
        "cannot be imported: ModuleNotFoundError: No module named 'torhc'",
    ),
    "another name": ([('name="my_method"', 'name="mine"')], "SPEC.name is 'mine'; it must be the file's own, 'my_met"),
    "no spec": ([("SPEC = MethodSpec(", "SPEC = dict(")], "SPEC is a dict; it must be a MethodSpec"),
    "not frozen": (
        [("@dataclass(frozen=True, kw_only=True)\n", ""), ("params_type=MyParams", "params_type=dict")],
        "SPEC.params_type must be a frozen dataclass that derives from Hyperparameters",
    ),
    "no space": ([("SPACE = SearchSpace(", "SPACE = tuple(")], "cannot be imported: TypeError: tuple"),
    "unknown parameter": ([('"first": Float', '"fist": Float')], "SPACE searches 'fist', which MyParams does not have"),
    "no default": ([(', "first": 0.0}', "}")], "SPACE names 'first' in one of distributions and default; it must be"),
    "default out of range": ([('"first": 0.0}', '"first": 1.0}')], "SPACE.default makes no parameters: first is 1.0"),
    "attach fails": (
        [("chosen, device = blocks(view, context.layers)", "chosen, device = view.blocks")],
        "attach fails on a tiny BertForSequenceClassification: AttributeError: ",
    ),
    "returns the view": (
        [("return attached(view", "attached(view"), ("train_head(view, context))\n", "[])\n    return view\n")],
        "attach returns a BertForSequenceClassification; it must return an Attached",
    ),
    "16 bit": (
        [("torch.ones(width)", "torch.ones(width, dtype=torch.bfloat16)")],
        "it must|is not float32, in which everything trains",
    ),
    "no identity": ([("torch.ones(width)", "torch.zeros(width)")], "SPEC declares starts_as_identity, and a fresh"),
    "undeclared": (
        [
            (RETURN, "    made = attached("),
            ("train_head(view, context))", f"train_head(view, context))\n    {UNFREEZE}\n    return made"),
        ],
        "['bert.embeddings.word_embeddings.weight'] requires a gradient and is in no group of Attached.groups",
    ),
    "never used": (
        [("block.module.register_forward_hook(block.module.scale)", "pass")],
        "scale.factor'] trains and gets no gradient",
    ),
    "merges": (
        [("params_type=MyParams", "supports_merge=True, params_type=MyParams")],
        "SPEC.supports_merge and Attached.merge disagree",
    ),
    "writes": (
        [(RETURN, f"    chosen[0].module.attention.output.dense.weight.data += 0.1\n{RETURN}"), NO_IDENTITY],
        "it writes to the shared backbone",
    ),
    "forgets": (
        [
            ("torch.ones(width))", "torch.ones(width))\n        self.register_buffer('drawn', torch.rand(width))"),
            ("self.factor).to", "self.factor * self.drawn).to"),
            NO_IDENTITY,
        ],
        "a loaded adapter gives other results than the saved one",
    ),
    "calls something else": (
        [("return (scaled, *rest) if isinstance(output, tuple) else scaled", "return scaled.unknown")],
        "fails when it is called like the bare model: AttributeError",
    ),
}


@pytest.mark.parametrize("case", BREAKS)
def test_plugin_check_reports_violation_in_one_line(case, broken) -> None:
    changes, message = BREAKS[case]
    with pytest.raises(MethodError) as raised:
        check_plugin(broken(*changes))
    assert any(part in str(raised.value) for part in message.split("|")), str(raised.value)
    assert "\n" not in str(raised.value)


def test_plugin_check_accepts_method_for_decoders_alone(broken) -> None:
    line = "    chosen, device ="
    refuses = "    if 'Bert' in type(view).__name__:\n        raise methods.MethodError('decoders only')\n"
    fine = broken((line, refuses + line), ("import torch\n", "import torch\nimport methods\n"))
    check_plugin(fine)
    refuses = "    raise methods.MethodError('nowhere')\n"
    with pytest.raises(MethodError, match=r"^nowhere$"):
        check_plugin(broken((line, refuses + line), ("import torch\n", "import torch\nimport methods\n")))


@pytest.mark.parametrize(
    ("declared", "read"),
    [
        ('{"classification"}', {"SEQ_CLS"}),
        ('{"causal-lm"}', {"CAUSAL_LM"}),
        ('{"classification", "causal-lm"}', {"SEQ_CLS", "CAUSAL_LM"}),
        ('{"classification", "TOKEN_CLS"}', {"SEQ_CLS", "TOKEN_CLS"}),
    ],
)
def test_plugin_of_release_0_1_may_declare_its_task_names(declared, read, broken) -> None:
    name = broken(("params_type=MyParams", f"params_type=MyParams, tasks=frozenset({declared})"))
    check_plugin(name)
    assert methods.get(name).tasks == read


def test_plugin_check_gives_task_names_that_release_0_1_gave(broken) -> None:
    line = "    chosen, device ="
    check = "    assert context.task in ('classification', 'causal-lm'), context.task\n"
    check_plugin(broken((line, check + line)))


def test_load_adapter_runs_no_code_in_folder(make_case, tmp_path: Path) -> None:
    """An adapter of a plugin that is not registered is refused, even if its folder holds the plugin's source."""
    methods.register(EXAMPLE)
    case = make_case("encoder", "classification", "none")
    spec = methods.get("my_method")
    case.attach(spec, spec.params_type()).save(tmp_path)
    (tmp_path / "my_method.py").write_text("raise SystemExit('it ran')")
    (tmp_path / loader.PACKAGE).mkdir()
    (tmp_path / loader.PACKAGE / "my_method.py").write_text("raise SystemExit('it ran')")
    loader._SOURCES.clear()
    del sys.modules[f"{loader.PACKAGE}.my_method"]
    with pytest.raises(MethodError, match="names an unknown method 'my_method'"):
        methods.load_adapter(case.view(), tmp_path, case.shared.context)


def test_plugin_is_found_in_code_folder_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / loader.PACKAGE).mkdir()
    (tmp_path / loader.PACKAGE / "my_method.py").write_text(EXAMPLE.read_text())
    monkeypatch.syspath_prepend(tmp_path)
    assert methods.get("my_method").name == "my_method"
    assert search_spaces.get("my_method").default["first"] == 0.0
    assert loader.source_of("my_method") == EXAMPLE.read_text()
