"""``idp template`` through the command line: planted ageing, memory in parts, other sites of the same result."""

import json
from pathlib import Path

import numpy as np
import pytest

from brainlocus.cli.main import main
from brainlocus.core import Column, Mask, PhenotypeTable, SampleIndex, Volume
from brainlocus.io import read_volume, write_mask, write_table, write_volume
from tests.archives import read_archive
from tests.e2e.test_memory import MIB, measure

SHAPE, AFFINE = (22, 26, 20), np.array([[-8.0, 0, 0, 88], [0, 8, 0, -120], [0, 0, 8, -70], [0, 0, 0, 1.0]])
N = 40


def code_of(*arguments) -> int:
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Forty maps, 0 outside the brain, whose left half loses 0.001 ppm a year."""
    root = tmp_path_factory.mktemp("template")
    rng = np.random.default_rng(0)
    index = np.indices(SHAPE) - (np.array(SHAPE) / 2 - 0.5)[:, None, None, None]
    brain = (index**2).sum(axis=0) < 90
    age = rng.uniform(45, 75, N)
    people = [f"sub-{k:02d}" for k in range(N)]
    for k, name in enumerate(people):
        data = 0.05 - 0.001 * (age[k] - 60) * (index[0] > 0) + rng.normal(0, 0.005, SHAPE)
        data[~brain] = 0
        data[11, 13, 10 : 10 + k % 3] = 0
        folder = root / "maps" / name / "anat"
        path = folder / f"{name}_space-MNI152NLin6Asym_Chimap.nii.gz"
        write_volume(Volume(data.astype(np.float32), AFFINE, "chi"), path)
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text('{"Units": "ppm"}')
    columns = (Column("age", age), Column("sex", np.array(["F", "M"])[np.arange(N) % 2], "categorical"))
    write_table(PhenotypeTable(SampleIndex.of(people[::-1]), tuple(
        Column(c.name, c.values[::-1], c.kind) for c in columns
    )), root / "participants.tsv")  # fmt: skip
    write_mask(Mask(brain, AFFINE), root / "brain.nii.gz")
    np.savez(root / "truth.npz", brain=brain, left=index[0] > 0, age=age)
    return root


def run(study, out, *options):
    return code_of("idp", "template", study / "maps", *options, "--out", out, "--quiet")


def test_planted_ageing(study, tmp_path):
    out = tmp_path / "out"
    options = ("--participants", study / "participants.tsv", "--contrast", "age", "--covariates", "sex")
    assert run(study, out, *options, "--bins", "45,55,65,75") == 0
    truth = read_archive(study / "truth.npz")
    brain, left = truth["brain"], truth["left"]
    mean, sd, n = (read_volume(out / f"{name}.nii.gz").data for name in ("mean", "sd", "n"))
    assert np.isnan(mean[~brain]).all()
    assert (n[brain] >= 13).all()
    assert set(np.unique(n[~brain])) == {0.0}
    assert np.median(mean[brain & ~left]) == pytest.approx(0.05, abs=0.001)
    assert np.median(sd[brain & ~left]) == pytest.approx(0.005, abs=0.001)
    median = read_volume(out / "median.nii.gz").data
    assert np.nanmax(np.abs(median - mean)) < 0.02
    beta, t, p = (read_volume(out / f"{name}.nii.gz").data for name in ("beta", "t", "neg_log10_p"))
    assert np.nanmedian(beta[brain & left]) == pytest.approx(-0.001, rel=0.05)
    assert np.nanmedian(t[brain & left]) < -8
    assert abs(np.nanmedian(t[brain & ~left])) < 0.3
    assert np.nanmean(p[brain & ~left]) == pytest.approx(np.log10(np.e), rel=0.1)  # uniform p
    difference = read_volume(out / "difference.nii.gz").data
    assert np.nanmedian(difference[brain & left]) == pytest.approx(-0.02, abs=0.004)
    manifest = json.loads(next(out.glob("*.json")).read_text()) if list(out.glob("*.json")) else None
    found = manifest or json.loads((tmp_path / "out.json").read_text())
    assert found["counts"]["participants_in_regression"] == N
    assert sum(found["counts"]["participants_in_bins"]) == N
    for name in ("mean", "sd", "median", "t", "neg_log10_p", "bin_45-55", "difference"):
        assert (out / f"{name}.png").stat().st_size > 5000


def test_parts_change_nothing(study, tmp_path, monkeypatch):
    from brainlocus.pipeline.steps import template

    options = ("--participants", study / "participants.tsv", "--contrast", "age", "--mask", study / "brain.nii.gz")
    assert run(study, tmp_path / "whole", *options) == 0
    monkeypatch.setattr(template, "_range_size", lambda *a, **k: 1500)
    assert run(study, tmp_path / "parts", *options, "--executor", "threads") == 0
    for name in ("mean", "sd", "median", "n", "beta", "standard_error", "t"):
        here, there = (read_volume(tmp_path / part / f"{name}.nii.gz").data for part in ("whole", "parts"))
        np.testing.assert_allclose(here, there, rtol=1e-6)


def test_median_and_zeros(study, tmp_path):
    assert run(study, tmp_path / "a", "--no-median", "--zeros", "value") == 0
    assert not (tmp_path / "a" / "median.nii.gz").exists()
    assert (read_volume(tmp_path / "a" / "n.nii.gz").data == N).all()
    assert run(study, tmp_path / "b") == 0
    stack = np.array([read_volume(p).data for p in sorted(study.glob("maps/sub-*/anat/*.nii.gz"))])
    stack[stack == 0] = np.nan
    brain = read_archive(study / "truth.npz")["brain"]
    found = read_volume(tmp_path / "b" / "median.nii.gz").data
    np.testing.assert_allclose(found[brain], np.nanmedian(stack[:, brain], axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--contrast", "age"), "give the table that has it with --participants"),
        (("--covariates", "sex"), "go with --contrast"),
        (("--contrast", "sex", "--participants", "PEOPLE"), "'sex' holds text"),
        (("--contrast", "weight", "--participants", "PEOPLE"), "no column 'weight'"),
        (("--contrast", "age", "--participants", "PEOPLE", "--bins", "60,50"), "increasing bounds"),
        (("--memory", "1MiB"), "MiB"),
    ],
)
def test_bad_input(study, tmp_path, capsys, options, message):
    options = [str(study / "participants.tsv") if o == "PEOPLE" else o for o in options]
    assert run(study, tmp_path / "out", *options) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_images_on_another_grid_are_named(study, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("\n".join(str(p) for p in sorted(study.glob("maps/sub-*/anat/*.nii.gz"))))
    odd = tmp_path / "sub-99_Chimap.nii.gz"
    write_volume(Volume(np.ones((3, 3, 3), dtype=np.float32), AFFINE, "chi"), odd)
    with (tmp_path / "list.txt").open("a") as stream:
        stream.write(f"\n{odd}\n")
    assert code_of("idp", "template", tmp_path / "list.txt", "--out", tmp_path / "out", "--quiet") == 2
    assert "sub-99_Chimap.nii.gz has shape (3, 3, 3)" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc (Linux)")
def test_images_stream_within_the_memory_given(study, tmp_path):
    """Eighty images of 3.6 MB, with the median, in 160 MiB; 48 MiB are refused."""
    rng = np.random.default_rng(0)
    shape = (91, 109, 91)
    for k in range(80):
        data = rng.normal(0.02, 0.01, shape).astype(np.float32)
        write_volume(Volume(data, np.diag([2.0, 2, 2, 1]), "chi"), tmp_path / "large" / f"sub-{k:02d}_Chimap.nii")
    people = SampleIndex.of([f"sub-{k:02d}" for k in range(80)])
    write_table(PhenotypeTable(people, (Column("age", rng.uniform(45, 80, 80)),)), tmp_path / "large.tsv")
    options = ("--contrast", "age", "--participants")
    warm = ("idp", "template", study / "maps", *options, study / "participants.tsv")
    large = ("idp", "template", tmp_path / "large", "--pattern", "*_Chimap.nii", *options, tmp_path / "large.tsv")
    code, peak, message, _ = measure(tmp_path / "a", warm, list(map(str, large)), 160)
    assert code == 0, message
    assert peak <= 160 * MIB, f"{peak / MIB:.0f} MiB"
    code, _, message, out = measure(tmp_path / "b", warm, list(map(str, large)), 48)
    assert code == 2
    assert "--memory" in message
    assert not out.exists()
