"""Outputs that grow: each run adds its subjects, none replaces those of another."""

import json
from pathlib import Path

import pytest
from pydantic import Field

from brainlocus.core import FormatError, SchemaError
from brainlocus.pipeline.config import CommaList, InputTree, StepConfig
from brainlocus.pipeline.runner import RunOptions, execute
from brainlocus.pipeline.step import Context, Step, StepResult


class Config(StepConfig):
    source: InputTree = Field(description="Folder")
    labels: CommaList = Field(description="Subjects")
    fail: bool = Field(False, description="Fail")


def add(config: Config, out: Path, context: Context) -> StepResult:
    for label in config.labels:
        (out / f"sub-{label}").mkdir(exist_ok=True)
        (out / f"sub-{label}" / "map.txt").write_text(str(context.resume))
    if config.fail:
        raise FormatError("bad input")
    return StepResult({"subjects": len(config.labels)})


STEP = Step("test grow", "Add.", Config, add, out="derivatives")
OPTIONS = RunOptions(threads=1, executor="serial", quiet=True)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "bids"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    return folder


def test_runs_add_and_leave_what_is_there(tmp_path, source):
    out = tmp_path / "new" / "out"
    execute(STEP, Config(source=source, labels=("01",)), out, OPTIONS)
    outcome = execute(STEP, Config(source=source, labels=("02",)), out, OPTIONS)
    assert sorted(p.name for p in out.glob("sub-*")) == ["sub-01", "sub-02"]
    assert not outcome.skipped
    manifest = json.loads((out.parent / "out.json").read_text())
    assert manifest["counts"] == {"subjects": 1}
    # Hashed by the step, subject by subject; the runner does not read a whole dataset.
    assert manifest["inputs"][0]["sha256"] == ""
    assert sorted(p.name for p in out.parent.iterdir()) == ["out", "out.json"]


def test_resume_reaches_the_step(tmp_path, source):
    options = RunOptions(threads=1, executor="serial", quiet=True, resume=True)
    execute(STEP, Config(source=source, labels=("01",)), tmp_path / "out", OPTIONS)
    outcome = execute(STEP, Config(source=source, labels=("01",)), tmp_path / "out", options)
    assert not outcome.skipped
    assert (tmp_path / "out/sub-01/map.txt").read_text() == "True"


def test_failure_keeps_what_is_finished_and_leaves_nothing_else(tmp_path, source):
    with pytest.raises(FormatError):
        execute(STEP, Config(source=source, labels=(), fail=True), tmp_path / "deep" / "out", OPTIONS)
    assert not (tmp_path / "deep").exists()
    with pytest.raises(FormatError):
        execute(STEP, Config(source=source, labels=("01",), fail=True), tmp_path / "out", OPTIONS)
    assert (tmp_path / "out/sub-01").is_dir()


def test_a_folder_of_something_else_is_not_added_to(tmp_path, source):
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("1")
    with pytest.raises(SchemaError, match="expected a new or empty folder"):
        execute(STEP, Config(source=source, labels=("01",)), other, OPTIONS)
    (other / "dataset_description.json").write_text("{}")
    execute(STEP, Config(source=source, labels=("01",)), other, OPTIONS)
    assert (other / "chapter.txt").exists()


def test_an_option_of_several_values_takes_them_up_to_the_next_option():
    from brainlocus.cli.options import command_from_step
    from brainlocus.pipeline.config import Labels

    class Several(StepConfig):
        participant_label: Labels = Field((), description="Subjects")
        flag: bool = Field(False, description="Flag")

    def nothing(config: Several, out: Path, context: Context) -> StepResult:
        return StepResult()

    command = command_from_step(Step("test several", "Nothing.", Several, nothing, out="file"))
    for words, expected in [
        (["01", "02"], ("01", "02")),
        (["01,02"], ("01", "02")),
        (["01", "--flag", "--participant-label", "02"], ("01", "02")),
    ]:
        found = command.make_context("several", ["--participant-label", *words, "--out", "x"]).params
        assert Several(participant_label=found["participant_label"]).participant_label == expected
