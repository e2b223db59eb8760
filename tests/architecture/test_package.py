"""What holds for the whole package: layers, exports, help, documentation, import time."""

import ast
import importlib
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import brainlocus
from brainlocus.cli.main import cli
from brainlocus.core.errors import BrainlocusError
from brainlocus.pipeline.registry import STEPS, load_step
from brainlocus.pipeline.wiring import STUDY_STEPS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "brainlocus"
MODULES = [m.name for m in pkgutil.walk_packages(brainlocus.__path__, "brainlocus.") if "._web" not in m.name]


def test_layers_and_independence_of_stages():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(linter), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", MODULES)
def test_exports_exist(name):
    module = importlib.import_module(name)
    if "__all__" in vars(module):
        for export in module.__all__:
            assert hasattr(module, export), export


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_public_functions_have_docstrings(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), path
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path}: {node.name}"


def test_importing_is_light():
    """Importing brainlocus loads no library of an extra, and none that is slow (times: benchmarks/bench_start.py)."""
    code = (
        "import sys, brainlocus, brainlocus.core\n"
        "heavy = {'nibabel', 'nilearn', 'sklearn', 'matplotlib', 'fastapi', 'duckdb', 'msprime', 'numba', 'pandas'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(STEPS))
def test_every_step_exists_and_explains_itself(name):
    step = load_step(name)
    assert step.name == name
    assert step.help == STEPS[name].help
    assert step.help.endswith(".")
    for field_name, field in step.config.model_fields.items():
        assert field.description, f"{name}: {field_name} has no description"


@pytest.mark.parametrize("name", sorted(STEPS))
def test_every_option_has_help(name):
    group, verb = name.split()
    stage = cli.commands[group]
    assert isinstance(stage, click.Group)
    command = stage.get_command(click.Context(stage), verb)
    assert command is not None
    options = {o for p in command.params if isinstance(p, click.Option) for o in p.opts}
    assert {"--threads", "--memory", "--seed", "--executor", "--resume", "--quiet", "--log"} <= options
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.parametrize("name", sorted(STEPS))
def test_every_command_is_documented(name):
    pages = "\n".join(p.read_text() for p in (ROOT / "docs").rglob("*.md"))
    assert f"brainlocus {name}" in pages


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda p: p.name)
def test_commands_of_the_documentation_exist_with_their_options(path):
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE))
    for line in blocks.replace("\\\n", " ").splitlines():
        found = re.match(r"(?:\S*/)?brainlocus (.*)", line.split(" #")[0])
        words = found[1].split() if found else []
        command: click.Command = cli
        while words and isinstance(command, click.Group):
            inner = command.get_command(click.Context(command), words.pop(0))
            assert inner is not None, line
            command = inner
        known = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_help_of_executor_names_every_executor():
    from brainlocus.pipeline.executors import EXECUTORS

    option = next(p for p in cli.commands["demo"].params if p.name == "executor")
    assert isinstance(option, click.Option)
    assert f"{', '.join(EXECUTORS)}." in (option.help or "")


def test_help_needs_nothing_heavy():
    """`brainlocus --help` loads click alone: no numpy, no pydantic (time: benchmarks/bench_start.py)."""
    code = (
        "import sys, brainlocus.cli.main\n"
        "print(sorted({'numpy', 'scipy', 'pydantic', 'pyarrow', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_error_is_ours():
    from brainlocus.core import errors

    for name in errors.__all__:
        member = getattr(errors, name)
        if isinstance(member, type):
            assert issubclass(member, BrainlocusError)


def test_the_study_schema_is_current():
    from brainlocus.pipeline.study import study_schema

    committed = json.loads((ROOT / "docs" / "study.schema.json").read_text())
    assert committed == study_schema(), "run: brainlocus run --schema > docs/study.schema.json"


def test_the_steps_of_a_study_are_documented():
    """The table of docs/study.md has exactly the steps of a study, in order, with their command and output."""
    page = (ROOT / "docs" / "study.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `[")]
    documented = [(table.strip("`[]"), command.strip("`")) for table, command, *_ in rows]
    assert documented == [(step.key, step.step) for step in STUDY_STEPS]
    for row, step in zip(rows, STUDY_STEPS, strict=True):
        assert len(row) == 5
        assert row[4].startswith(f"`{step.out}"), f"{step.key} writes {step.out}"


def test_nothing_names_a_machine():
    """No machine paths and no package-registry addresses in tracked text."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    needles = ("/" + "work/", "/" + "root/", "registry." + "npmjs", "pypi." + "org", "files.python" + "hosted")
    for name in tracked.stdout.split():
        path = ROOT / name
        if path.suffix in {".png", ".gz", ".ico", ".woff2"} or not path.is_file():
            continue
        text = path.read_text(errors="replace")
        for needle in needles:
            assert needle not in text, f"{name} contains {needle}"
