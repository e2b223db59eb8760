"""What running tasks say, and how it is shown: with a clock of the test, and with periods of milliseconds."""

import io
import os
import signal
import sys
import time

import pytest

from brainlocus.io import partial_name
from brainlocus.pipeline import heartbeats
from brainlocus.pipeline.executors import ProcessExecutor, SerialExecutor, ThreadExecutor
from brainlocus.pipeline.heartbeats import Heartbeat, Watcher, heartbeat, heartbeat_path, watching
from brainlocus.pipeline.progress import Progress
from brainlocus.pipeline.step import Context


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(heartbeats, "PERIOD", 0.01)
    monkeypatch.setattr(heartbeats, "PAUSE", 0.0)


def test_a_watcher_shows_what_a_task_says_and_for_how_long(tmp_path):
    told, here, there = [], Clock(), Clock()
    there.now = 7.0  # the clocks of two machines need not agree
    shard = tmp_path / "C32.npz"
    beat = Heartbeat(shard, clock=there)
    watcher = Watcher({"C32": heartbeat_path(shard)}, told.append, clock=here)
    watcher.look()
    assert watcher.lines() == []
    beat.say("pass 1 of at most 200")
    there.now += 5
    beat.write()
    watcher.look()
    assert watcher.lines() == ["C32: pass 1 of at most 200, 5 s"]
    here.now += 70  # nothing new, but time goes on
    assert watcher.lines() == ["C32: pass 1 of at most 200, 1 min 15 s"]
    beat.end()
    watcher.look()
    assert watcher.lines() == []
    assert not list(tmp_path.iterdir())


def test_lines_are_printed_every_thirty_seconds_and_not_at_once(tmp_path):
    told, clock = [], Clock()
    beats = [Heartbeat(tmp_path / name, clock=clock) for name in ("C8", "C16")]
    watcher = Watcher({name: heartbeat_path(tmp_path / name) for name in ("C8", "C16")}, told.append, clock=clock)
    for second in range(100):
        for beat in beats[: 1 + (second > 10)]:
            beat.say(f"iteration {second}")
            beat.write()
        watcher.look()
        clock.now += 1
    assert told == [
        "C8: iteration 30, 30 s", "C16: iteration 41, 41 s", "C8: iteration 60, 1 min 0 s",
        "C16: iteration 71, 1 min 11 s", "C8: iteration 90, 1 min 30 s",
    ]  # fmt: skip


def test_text_is_made_only_when_it_is_written(tmp_path):
    class Step:
        made = 0

        def __str__(self):
            self.made += 1
            return "step"

    beat, step = Heartbeat(tmp_path / "a"), Step()
    for _ in range(1000):
        beat.say(step)
    assert step.made == 0
    beat.write()
    beat.write()
    assert step.made == 1


def test_saying_costs_less_than_half_a_percent_of_an_iteration(tmp_path):
    from brainlocus.images.atlas import FitStep

    with heartbeat(tmp_path / "a") as say:
        start = time.perf_counter()
        for k in range(10_000):
            say(FitStep("iteration", k, 50_000, 1.0, 2.0))
        each = (time.perf_counter() - start) / 10_000
    assert each < 0.005 * 0.05


@pytest.mark.parametrize("content", ["", "{", "[]", '{"doing": "x"}', '{"doing": "x", "seconds": "long"}'])
def test_what_cannot_be_read_is_passed_over(tmp_path, content):
    path = heartbeat_path(tmp_path / "a")
    path.write_text(content)
    watcher = Watcher({"a": path, "b": tmp_path / "b"}, pytest.fail)
    watcher.look()
    assert watcher.lines() == []


def test_what_cannot_be_written_does_not_disturb_the_task(tmp_path, fast):
    with heartbeat(tmp_path / "absent" / "a") as say:
        say("something")
        time.sleep(0.05)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_task_that_fails(tmp_path, fast):
    def fails():
        with heartbeat(tmp_path / "a") as say:
            say("something")
            while not heartbeat_path(tmp_path / "a").exists():
                time.sleep(0.005)
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fails()
    assert not list(tmp_path.iterdir())


def test_files_of_earlier_runs_are_not_shown(tmp_path, fast):
    path = heartbeat_path(tmp_path / "a")
    path.write_text('{"doing": "of yesterday", "seconds": 1.0}')
    with watching({"a": tmp_path / "a"}, pytest.fail) as watcher:
        assert not path.exists()
        assert watcher.lines() == []


def counts(task, path):
    """Say three things, one after the other; the first attempt of the task `dies` is killed on the way."""
    slow, dies = task
    with heartbeat(path) as say:
        for number in range(1, 4):
            say(f"part {number}")
            time.sleep(slow)
            if dies and not path.with_name("died").exists():
                path.with_name("died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
    path.write_text(str(slow))


def context(tmp_path, executor, **options):
    shards = tmp_path / "shards"
    shards.mkdir()
    progress = Progress(log=tmp_path / "log.txt", **options)
    return Context(executor, 1 << 30, 2, 0, progress, shards)


def logged(tmp_path):
    path = tmp_path / "log.txt"
    return [line.split(" ", 1)[1] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("executor", [SerialExecutor(), ThreadExecutor(2)])
@pytest.mark.parametrize("quiet", [False, True])
def test_running_tasks_are_printed_and_logged(tmp_path, fast, capsys, executor, quiet):
    here = context(tmp_path, executor, quiet=quiet)
    tasks = {"a.txt": (0.1, False), "b.txt": (0.1, False)}
    paths = list(here.map_shards(counts, tasks, "Counting", heartbeats=True))
    assert [p.read_text() for p in paths] == ["0.1", "0.1"]
    said = capsys.readouterr().err.splitlines()
    assert said == ([] if quiet else logged(tmp_path))
    for name in ("a", "b"):
        for number in (1, 2, 3):
            assert f"{name}: part {number}, 0 s" in logged(tmp_path)
    assert sorted(p.name for p in here.shards.iterdir()) == ["a.txt", "b.txt"]


def test_tasks_that_do_not_ask_are_not_watched(tmp_path, fast):
    here = context(tmp_path, SerialExecutor(), quiet=True)
    list(here.map_shards(counts, {"a.txt": (0.05, False)}, "Counting"))
    assert logged(tmp_path) == []
    assert sorted(p.name for p in here.shards.iterdir()) == ["a.txt"]


def test_a_killed_worker_leaves_nothing_behind(tmp_path, monkeypatch):
    """Spawned processes write once a second, as they do in earnest."""
    monkeypatch.setattr(heartbeats, "PAUSE", 0.0)
    here = context(tmp_path, ProcessExecutor(1), quiet=True)
    paths = list(here.map_shards(counts, {"a.txt": (1.2, True), "b.txt": (0.0, False)}, "Counting", heartbeats=True))
    assert [p.read_text() for p in paths] == ["1.2", "0.0"]
    assert any(line.startswith("a: part 1, ") for line in logged(tmp_path))
    assert sorted(p.name for p in here.shards.iterdir()) == ["a.txt", "b.txt", "died"]


def test_an_interrupted_run_leaves_shards_and_no_heartbeats(tmp_path, fast):
    here = context(tmp_path, SerialExecutor(), quiet=True)
    tasks = {"a.txt": (0.03, False), "b.txt": (0.03, False)}
    running = here.map_shards(counts, tasks, "Counting", heartbeats=True)
    next(running)
    heartbeat_path(partial_name(here.shards / "b.txt")).write_text("of a worker that was killed")
    running.close()
    assert sorted(p.name for p in here.shards.iterdir()) == ["a.txt"]


def test_a_terminal_shows_a_line_below_the_bar(tmp_path, fast, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    here = context(tmp_path, SerialExecutor())
    list(here.map_shards(counts, {"a.txt": (0.3, False)}, "Counting", heartbeats=True))
    shown = terminal.getvalue()
    assert "Counting" in shown
    assert "0/1" in shown
    assert "  a: part 2, 0 s" in shown
    assert "a: part 2, 0 s" in logged(tmp_path)
