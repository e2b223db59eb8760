"""The runner: atomic outputs, manifests, resuming, refusing."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from brainlocus.core import FormatError, SchemaError
from brainlocus.pipeline import (
    InputPath,
    Positional,
    RunOptions,
    Step,
    StepConfig,
    StepResult,
    execute,
    manifest_path,
    parse_memory,
)

QUIET = RunOptions(threads=1, quiet=True)
RESUME = RunOptions(threads=1, quiet=True, resume=True)


class CountConfig(StepConfig):
    source: Annotated[InputPath, Positional()] = Field(description="Text")
    factor: int = Field(1, description="Multiplier")
    fail_at: int = Field(-1, description="Part that fails")


CALLS: list[str] = []


def count_part(task, path):
    CALLS.append(path.name)
    text, factor, fail = task
    if fail:
        raise RuntimeError("interrupted")
    path.write_text(str(len(text) * factor))


def count(config, out, context):
    words = config.source.read_text().split()
    if not words:
        raise FormatError(f"{config.source}: expected words, found none.")
    tasks = {f"{k}.txt": (w, config.factor, k == config.fail_at) for k, w in enumerate(words)}
    parts = [p.read_text() for p in context.map_shards(count_part, tasks, "Counting")]
    (out / "counts.txt").write_text(" ".join(parts))
    return StepResult({"words": len(words)}, summary=(f"{len(words)} words",))


COUNT = Step("test count", "Count.", CountConfig, count, out="folder")


@pytest.fixture(autouse=True)
def _clear_calls():
    CALLS.clear()


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("one two three")
    return path


def test_output_and_manifest(source, tmp_path):
    outcome = execute(COUNT, CountConfig(source=source, factor=2), tmp_path / "out", QUIET)
    assert (tmp_path / "out" / "counts.txt").read_text() == "6 6 10"
    manifest = json.loads(manifest_path(tmp_path / "out").read_text())
    assert manifest["step"] == "test count"
    assert manifest["parameters"] == {"factor": 2, "fail_at": -1, "seed": 0}
    assert manifest["inputs"][0]["size_bytes"] == 13
    assert len(manifest["inputs"][0]["sha256"]) == 64
    assert manifest["counts"] == {"words": 3}
    assert manifest["run"]["peak_memory_bytes"] > 0
    assert outcome.exit_code == 0
    assert {p.name for p in tmp_path.iterdir()} == {"words.txt", "out", "out.json"}


def test_bad_input_leaves_nothing(tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    with pytest.raises(FormatError, match="expected words"):
        execute(COUNT, CountConfig(source=empty), tmp_path / "out", QUIET)
    with pytest.raises(FormatError, match="found nothing"):
        execute(COUNT, CountConfig(source=tmp_path / "absent.txt"), tmp_path / "out", QUIET)
    assert [p.name for p in tmp_path.iterdir()] == ["empty.txt"]


def test_an_old_result_survives_a_failed_run(source, tmp_path):
    execute(COUNT, CountConfig(source=source), tmp_path / "out", QUIET)
    with pytest.raises(RuntimeError):
        execute(COUNT, CountConfig(source=source, fail_at=1), tmp_path / "out", QUIET)
    assert (tmp_path / "out" / "counts.txt").read_text() == "3 3 5"


def test_resume_skips_finished_work(source, tmp_path):
    config = CountConfig(source=source)
    execute(COUNT, config, tmp_path / "out", QUIET)
    CALLS.clear()
    assert execute(COUNT, config, tmp_path / "out", RESUME).skipped
    assert CALLS == []


def test_resume_takes_up_finished_shards(source, tmp_path, monkeypatch):
    config = CountConfig(source=source)
    real = count_part

    def broken(task, path):
        if path.name.startswith(".2"):
            raise RuntimeError("power cut")
        real(task, path)

    monkeypatch.setattr(sys.modules[__name__], "count_part", broken)
    with pytest.raises(RuntimeError, match="power cut"):
        execute(COUNT, config, tmp_path / "out", QUIET)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(sys.modules[__name__], "count_part", real)
    CALLS.clear()
    execute(COUNT, config, tmp_path / "out", RESUME)
    assert len(CALLS) == 1
    assert (tmp_path / "out" / "counts.txt").read_text() == "3 3 5"


def test_resume_refuses_other_settings_and_inputs(source, tmp_path):
    execute(COUNT, CountConfig(source=source), tmp_path / "out", QUIET)
    with pytest.raises(SchemaError, match="factor: was 1, now 3"):
        execute(COUNT, CountConfig(source=source, factor=3), tmp_path / "out", RESUME)
    source.write_text("other words here")
    with pytest.raises(SchemaError, match="contents of the inputs"):
        execute(COUNT, CountConfig(source=source), tmp_path / "out", RESUME)


def test_foreign_folders_are_not_replaced(source, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(SchemaError, match="expected a new or empty folder"):
        execute(COUNT, CountConfig(source=source), tmp_path / "thesis", QUIET)
    assert (tmp_path / "thesis" / "chapter.tex").exists()


def test_killed_run_resumes_to_the_same_bytes(source, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, signal, sys
            from pathlib import Path
            from brainlocus.pipeline import execute
            from tests.unit.pipeline import test_runner as t

            real = t.count_part
            def killing(task, path):
                if sys.argv[2] == "kill" and path.name.startswith(".2"):
                    os.kill(os.getpid(), signal.SIGKILL)
                real(task, path)
            t.count_part = killing
            root = Path(sys.argv[1])
            options = t.RESUME if sys.argv[2] == "resume" else t.QUIET
            execute(t.COUNT, t.CountConfig(source=root / "words.txt"), root / sys.argv[3], options)
            """
        )
    )
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"}

    def run(mode, out):
        return subprocess.run([sys.executable, str(script), str(tmp_path), mode, out], env=environment, check=False)

    assert run("kill", "out").returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert run("resume", "out").returncode == 0
    assert run("whole", "whole").returncode == 0
    assert (tmp_path / "out" / "counts.txt").read_bytes() == (tmp_path / "whole" / "counts.txt").read_bytes()
    first, second = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("out", "whole"))
    for manifest in (first, second):
        del manifest["run"], manifest["outputs"]
    assert first == second


@pytest.mark.parametrize(("text", "size"), [("8GiB", 8 * 2**30), ("500MB", 500_000_000), ("1.5g", 1_500_000_000)])
def test_memory_sizes(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "8 apples", "-1GiB", "GiB"])
def test_bad_memory_sizes(text):
    with pytest.raises(ValueError, match="expected a size such as 8GiB"):
        parse_memory(text)


def test_peak_memory_is_not_that_of_the_starting_process(source, tmp_path):
    """A command started from a large process, such as a notebook, reports its own memory."""
    ballast = bytearray(b"x") * (800 << 20)
    arguments = ["cohort", "join", str(tmp_path / "t.tsv"), "--out", str(tmp_path / "out.tsv"), "--quiet"]
    (tmp_path / "t.tsv").write_text("participant_id\tx\na\t1\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}
    subprocess.run([sys.executable, "-m", "brainlocus.cli.main", *arguments], env=environment, check=True)
    peak = json.loads((tmp_path / "out.tsv.json").read_text())["run"]["peak_memory_bytes"]
    assert 0 < peak < len(ballast)
