"""What ``atlas fit`` says while a scale is fitted."""

import re
import time

import pytest

from brainlocus.images.atlas import em
from brainlocus.pipeline import heartbeats
from tests.e2e.test_atlas_reproducibility import study  # noqa: F401 - a fixture
from tests.e2e.test_atlas_solvers import fit, root, run  # noqa: F401 - a fixture

LOSS = r"relative loss 0\.\d{4}, \d+ s$"


def logged(path):
    return [line.split(" ", 1)[1] for line in path.read_text().splitlines()]


def test_processes_tell_of_iterations_and_losses_and_leave_nothing(root, tmp_path, monkeypatch, capsys):  # noqa: F811
    """More components than there are parcels, and a limit of time, make the fits long enough to be seen."""
    monkeypatch.setattr(heartbeats, "PAUSE", 0.0)
    command = [a for a in fit(root, tmp_path / "a", "--scales", "16,12", "--solver", "mu") if a != "--quiet"]
    more = ("--max-seconds", 3, "--tolerance", 1e-14, "--max-iterations", 1_000_000, "--no-figures")
    code, said = run(
        capsys, *command, *more, "--executor", "processes", "--threads", 2, "--log", tmp_path / "log.txt"
    )  # fmt: skip
    assert code == 3
    for scale in (12, 16):
        told = [line for line in logged(tmp_path / "log.txt") if line.startswith(f"C{scale}: ")]
        assert len(told) < 20
        iterations = [line for line in told if "iteration" in line]
        assert iterations  # before them, the images are read and the start is chosen
        for line in iterations:
            assert re.match(rf"C{scale}: iteration [\d,]+ of at most 1,000,000, {LOSS}", line)
            assert line in said.splitlines()
    assert re.search(r"^C12: relative loss 0\.\d{4} after \d+ iterations, 0 vanished; Not converged", said, re.M)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "a.json", "log.txt"]
    assert not [p for p in tmp_path.rglob("*") if "heartbeat" in p.name]


def test_passes_and_seeding_are_told_and_quiet_is_quiet(root, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(heartbeats, "PERIOD", 0.01)
    monkeypatch.setattr(heartbeats, "PAUSE", 0.0)
    once = em._pass
    monkeypatch.setattr(em, "_pass", lambda *given: (time.sleep(0.05), once(*given))[1])
    more = ("--scales", 4, "--restarts", 2, "--no-figures", "--log", tmp_path / "log.txt")
    code, said = run(capsys, *fit(root, tmp_path / "a", *more))
    assert code == 0
    assert "pass" not in said.split("C4: relative loss")[0]
    text = "\n".join(logged(tmp_path / "log.txt"))
    assert "C4: seeding restart 1 of 2, pass 1 of at most 40, 0 s" in text
    for line in ("seeding restart 2 of 2, pass 2 of at most 40", "pass 2 of at most 200"):
        assert re.search(rf"^C4: {line}, {LOSS}", text, re.M)


@pytest.mark.parametrize("quiet", [False, True])
def test_reproducibility_tells_of_both_halves(study, tmp_path, monkeypatch, capsys, quiet):  # noqa: F811
    monkeypatch.setattr(heartbeats, "PERIOD", 0.01)
    monkeypatch.setattr(heartbeats, "PAUSE", 0.0)
    once = em._pass
    monkeypatch.setattr(em, "_pass", lambda *given: (time.sleep(0.03), once(*given))[1])
    code, said = run(
        capsys, "atlas", "reproducibility", study / "bids", "--mask", study / "mask.nii.gz", "--scales", 4,
        "--out", tmp_path / "r", "--log", tmp_path / "log.txt", "--no-figures", *(["--quiet"] if quiet else []),
    )  # fmt: skip
    assert code == 0, said
    lines = logged(tmp_path / "log.txt")
    halves = [k for k, line in enumerate(lines) if line == "Split 1 of 1: fitting 24 people"]
    assert len(halves) == 2
    for start, stop in ((halves[0], halves[1]), (halves[1], len(lines))):
        told = [line for line in lines[start:stop] if re.match(rf"C4: pass \d of at most 200, {LOSS}", line)]
        assert told
        assert (told[0] in said.splitlines()) == (not quiet)
