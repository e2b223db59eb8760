"""``associate voxelwise`` through the command line: planted effects, memory in parts, bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm

from brainlocus.cli.main import main
from brainlocus.core import Column, Mask, Parcellation, PhenotypeTable, SampleIndex, Volume, quantitative_table
from brainlocus.io import read_results, read_volume, write_mask, write_parcellation, write_table, write_volume
from tests.e2e.test_memory import MIB, measure

SHAPE, AFFINE = (14, 16, 12), np.array([[-8.0, 0, 0, 52], [0, 8, 0, -60], [0, 0, 8, -44], [0, 0, 0, 1.0]])
N = 40
MAPS = ("r", "beta", "standard_error", "t", "neg_log10_p", "n")
TRUTH: dict[str, np.ndarray] = {}


def code_of(*arguments) -> int:
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Forty maps; the left half rises with score_1; voxels of the middle are NaN in some."""
    root = tmp_path_factory.mktemp("voxelwise")
    rng = np.random.default_rng(0)
    index = np.indices(SHAPE) - (np.array(SHAPE) / 2 - 0.5)[:, None, None, None]
    brain, left = (index**2).sum(axis=0) < 30, index[0] > 0
    people = [f"sub-{k:02d}" for k in range(N)]
    age, score = rng.uniform(45, 75, N), rng.normal(size=(N, 3))
    score[:4, 1] = np.nan
    stack = np.empty((N, *SHAPE), dtype=np.float32)
    lines = ["participant_id\tpath"]
    (root / "maps").mkdir()
    for k, name in enumerate(people):
        data = 2.0 + 0.5 * score[k, 0] * left - 0.02 * (age[k] - 60) + rng.normal(0, 0.3, SHAPE)
        data[7, 8, 5 : 5 + max(k % 6 - 3, 0)] = np.nan
        data[~brain] = 0
        stack[k] = data
        write_volume(Volume(stack[k], AFFINE, "chi"), root / "maps" / f"{name}.nii.gz")
        lines.append(f"{name}\tmaps/{name}.nii.gz")
    (root / "maps.tsv").write_text("\n".join(lines) + "\n")
    samples = SampleIndex.of([*people[::-1], "sub-99"])
    turned = np.vstack([np.column_stack([score, np.full(N, 7.0)])[::-1], np.ones(4)])
    write_table(quantitative_table(samples, ["score_1", "score_2", "score/3", "flat"], turned), root / "scores.tsv")
    columns = (Column("age", age), Column("sex", np.array(["F", "M"])[np.arange(N) % 2], "categorical"))
    write_table(PhenotypeTable(SampleIndex.of(people), columns), root / "participants.tsv")
    write_mask(Mask(brain, AFFINE), root / "brain.nii.gz")
    TRUTH.update(brain=brain, left=left, age=age, score=score, stack=stack)
    return root


def run(study, out, *options, targets="scores.tsv", mask="brain.nii.gz"):
    return code_of(
        "associate", "voxelwise", study / "maps.tsv", "--targets", study / targets, "--mask", study / mask,
        *options, "--out", out, "--quiet",
    )  # fmt: skip


def covariates(study):
    return "--participants", study / "participants.tsv", "--covariates", "age + sex"


def test_planted_effect_and_statsmodels(study, tmp_path):
    out = tmp_path / "out"
    assert run(study, out, *covariates(study)) == 3  # one target does not vary
    truth, (brain, left, stack) = TRUTH, (TRUTH[name] for name in ("brain", "left", "stack"))
    maps = {name: read_volume(out / "score_1" / f"{name}.nii.gz").data for name in MAPS}
    assert np.median(maps["beta"][brain & left]) == pytest.approx(0.5, abs=0.05)
    assert abs(np.median(maps["t"][brain & ~left])) < 0.5
    assert np.isnan(maps["t"][~brain]).all()
    assert set(np.unique(maps["n"][~brain])) == {0.0}
    design = np.column_stack([np.ones(N), truth["age"], np.arange(N) % 2])
    checked = 0
    for target, folder in ((0, "score_1"), (1, "score_2"), (2, "score-3")):
        found = {name: read_volume(out / folder / f"{name}.nii.gz").data for name in MAPS}
        for voxel in (*map(tuple, np.argwhere(brain)[::97]), (7, 8, 5), (7, 8, 6)):
            y, x = stack[(slice(None), *voxel)].astype(float), truth["score"][:, target]
            rows = np.isfinite(y) & np.isfinite(x)
            fit = sm.OLS(y[rows], np.column_stack([x, design])[rows]).fit()
            assert found["n"][voxel] == rows.sum()
            assert found["beta"][voxel] == pytest.approx(fit.params[0], rel=2e-7)  # the file's single precision
            assert found["standard_error"][voxel] == pytest.approx(fit.bse[0], rel=2e-7)
            assert found["t"][voxel] == pytest.approx(fit.tvalues[0], rel=2e-7)
            assert found["neg_log10_p"][voxel] == pytest.approx(-np.log10(fit.pvalues[0]), rel=3e-7)
            checked += rows.sum() < N
    assert checked > 2
    table = read_results(out / "targets.tsv")
    assert table["target"].tolist() == ["score_1", "score_2", "score/3", "flat"]
    assert table["status"].tolist() == ["ok", "ok", "ok", "target has no variance"]
    assert table["n"].tolist() == [N, N - 4, N, N]
    assert table["max_abs_t"][0] == pytest.approx(np.nanmax(np.abs(maps["t"])), rel=1e-6)
    assert table["n_fdr"][0] >= table["n_bonferroni"][0] >= table["n_bonferroni_study"][0] > 0.8 * (brain & left).sum()
    assert table["n_fdr"][1] == table["n_fdr"][2] == 0
    assert not (out / "flat").exists()
    peaks = read_results(out / "peaks.tsv")
    assert set(peaks["target"]) == {"score_1"}
    # The affine turns the first axis: larger indices are left. One in twenty may be elsewhere.
    assert (peaks["x_mm"] < 0).mean() >= 0.8
    assert (peaks["q_bh"] < 0.05).all()
    mean = read_volume(out / "mean.nii.gz").data
    np.testing.assert_allclose(mean[brain], np.nanmean(stack[:, brain].astype(float), axis=0), rtol=1e-6)
    for folder in ("score_1", "score-3"):
        assert (out / folder / "overlay.png").stat().st_size > 5000
        assert (out / folder / "t.png").stat().st_size > 5000
    counts = json.loads((tmp_path / "out.json").read_text())["counts"]
    assert counts["passes"] == 1
    assert counts["voxels"] == brain.sum()
    assert json.loads((out / "score_1" / "t.json").read_text())["Target"] == "score_1"


def test_parts_change_nothing(study, tmp_path, monkeypatch):
    from brainlocus.pipeline import voxelwise_scan

    options = (*covariates(study), "--columns", "score_*", "--figures", 0)
    assert run(study, tmp_path / "whole", *options) == 0
    monkeypatch.setattr(voxelwise_scan, "_plan", lambda *_: voxelwise_scan._Pass(300, 1, 32))
    assert run(study, tmp_path / "parts", *options, "--executor", "threads") == 0
    assert json.loads((tmp_path / "parts.json").read_text())["counts"]["passes"] == 4  # three ranges, one voxel put off
    for folder in ("score_1", "score_2"):
        for name in MAPS:
            here, there = (read_volume(tmp_path / part / folder / f"{name}.nii.gz").data for part in ("whole", "parts"))
            np.testing.assert_allclose(here, there, rtol=1e-6)


def naive_scores(y, mads):
    """Return normal scores without outliers, literally; NaN throughout where more than half of the values are equal."""
    y, known = y.astype(np.float64), np.isfinite(y)
    distance = np.abs(y - np.median(y[known]))
    mad = np.median(distance[known])
    if mad == 0:
        return np.full(y.shape, np.nan)
    known &= distance <= mads * mad
    scores = np.full(y.shape, np.nan)
    scores[known] = scipy.stats.norm.ppf((scipy.stats.rankdata(y[known]) - 0.375) / (known.sum() + 0.25))
    return (scores - np.nanmean(scores)) / np.nanstd(scores, ddof=1)


def test_normal_scores_and_statsmodels(study, tmp_path, capsys):
    """Rank mode: each voxel's own people, its outliers removed, ranked over all images; against one OLS a voxel."""
    out = tmp_path / "out"
    options = ("--columns", "score_*", "--figures", 0, "--outliers", "mad:3", "--normalise", "rank")
    assert run(study, out, *covariates(study), *options, "--executor", "threads") == 0
    stack, brain = TRUTH["stack"], TRUTH["brain"]
    design = np.column_stack([np.ones(N), TRUTH["age"], np.arange(N) % 2])
    removed = checked = 0
    for target in (0, 1):
        folder = out / f"score_{target + 1}"
        found = {name: read_volume(folder / f"{name}.nii.gz").data for name in MAPS}
        for voxel in (*map(tuple, np.argwhere(brain)[::29]), (7, 8, 5), (7, 8, 6)):
            y, x = naive_scores(stack[(slice(None), *voxel)], 3.0), TRUTH["score"][:, target]
            rows = np.isfinite(y) & np.isfinite(x)
            fit = sm.OLS(y[rows], np.column_stack([x, design])[rows]).fit()
            assert found["n"][voxel] == rows.sum()
            assert found["t"][voxel] == pytest.approx(fit.tvalues[0], rel=2e-7)  # the file's single precision
            assert found["beta"][voxel] == pytest.approx(fit.params[0], rel=2e-7)
            assert found["standard_error"][voxel] == pytest.approx(fit.bse[0], rel=2e-7)
            removed += np.isnan(y).sum() - np.isnan(stack[(slice(None), *voxel)]).sum()
            checked += 1
    assert removed > 5
    counts = json.loads((tmp_path / "out.json").read_text())["counts"]
    assert counts["outliers"] == sum(
        np.isfinite(y).sum() - np.isfinite(naive_scores(y, 3.0)).sum() for y in stack[:, brain].T
    )
    assert counts["people_normalised_over"] == N
    mean = read_volume(out / "mean.nii.gz").data
    np.testing.assert_allclose(mean[brain], np.nanmean(stack[:, brain].astype(float), axis=0), rtol=1e-6)
    assert json.loads((out / "score_1" / "beta.json").read_text())["Normalise"] == "rank"


def test_store_is_reused_for_other_targets_and_refused_for_others(study, tmp_path, capsys):
    store = tmp_path / "store"
    options = ("--figures", 0, "--normalise", "rank", "--store", store)
    assert run(study, tmp_path / "a", *covariates(study), "--columns", "score_2", *options) == 0
    written = (store / "values.f32").stat().st_mtime_ns
    for part, more in (("kept", options), ("fresh", options[:-2])):
        assert run(study, tmp_path / part, *covariates(study), "--columns", "score_1", *more) == 0
    assert (store / "values.f32").stat().st_mtime_ns == written
    said = [json.loads((tmp_path / f"{part}.json").read_text())["counts"]["store"] for part in ("kept", "fresh")]
    assert said == ["reused", "written"]
    kept, fresh = (read_volume(tmp_path / part / "score_1" / "t.nii.gz").data for part in ("kept", "fresh"))
    np.testing.assert_array_equal(kept, fresh)
    smaller = TRUTH["brain"].copy()
    smaller[7] = False
    write_mask(Mask(smaller, AFFINE), tmp_path / "smaller.nii.gz")
    capsys.readouterr()
    for mask, more, message in (
        (tmp_path / "smaller.nii.gz", (), "made from others (mask)"),
        ("brain.nii.gz", ("--zeros", "missing"), "made from others (zeros)"),
    ):
        assert run(study, tmp_path / "b", "--columns", "score_1", *options, *more, mask=mask) == 2
        assert "".join(message.split()) in "".join(capsys.readouterr().err.split())
        assert not (tmp_path / "b").exists()
    other = tmp_path / "maps.tsv"
    lines = (study / "maps.tsv").read_text().replace("maps/", f"{study}/maps/").splitlines()
    other.write_text("\n".join(lines[:-1]) + "\n")
    assert code_of("associate", "voxelwise", other, "--targets", study / "scores.tsv", "--mask",
                   study / "brain.nii.gz", *options, "--out", tmp_path / "b") == 2  # fmt: skip
    assert "madefromothers(images)" in "".join(capsys.readouterr().err.split())
    with (store / "values.f32").open("r+b") as stream:
        stream.truncate(1000)
    assert run(study, tmp_path / "b", "--columns", "score_1", *options) == 2
    assert "found1000." in "".join(capsys.readouterr().err.split())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("mine")
    assert run(study, tmp_path / "b", "--columns", "score_1", *options[:-1], tmp_path / "full") == 2
    assert "newor" in "".join(capsys.readouterr().err.split())
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["a.txt"]


def test_a_store_in_the_output_is_refused(study, tmp_path, capsys):
    """The output is replaced as a whole, and the store with it."""
    for store, out in (("out/store", "out"), ("out", "out"), ("store", "store/out")):
        options = ("--normalise", "rank", "--store", tmp_path / store)
        assert run(study, tmp_path / out, *options) == 2
        assert "lieinoneanother" in "".join(capsys.readouterr().err.split())
        assert not list(tmp_path.iterdir())


def test_store_of_a_run_that_fails_goes_again(study, tmp_path):
    """An image on another grid stops the writing; nothing stays."""
    lines = (study / "maps.tsv").read_text().replace("maps/", f"{study}/maps/").splitlines()
    write_volume(Volume(np.ones((5, 5, 5), dtype=np.float32), AFFINE, "chi"), tmp_path / "odd.nii.gz")
    (tmp_path / "maps.tsv").write_text("\n".join([*lines[:30], f"sub-odd\t{tmp_path / 'odd.nii.gz'}"]) + "\n")
    code = code_of(
        "associate", "voxelwise", tmp_path / "maps.tsv", "--targets", study / "scores.tsv", "--mask",
        study / "brain.nii.gz", "--normalise", "rank", "--store", tmp_path / "store", "--out", tmp_path / "out",
        "--quiet",
    )  # fmt: skip
    assert code == 2
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "out").exists()


def test_chunks_and_ranges_change_nothing(study, tmp_path, monkeypatch):
    from brainlocus.pipeline import voxel_store, voxelwise_scan

    options = (*covariates(study), "--columns", "score_*", "--figures", 0, "--normalise", "rank", "--outliers", "mad:4")
    assert run(study, tmp_path / "whole", *options) == 0
    monkeypatch.setattr(voxel_store, "store_width", lambda *_: 50)
    monkeypatch.setattr(voxel_store, "_plan", lambda *_: (150, 16))
    monkeypatch.setattr(voxelwise_scan, "_PEOPLE", 7)
    assert run(study, tmp_path / "parts", *options, "--executor", "threads") == 0
    for folder in ("score_1", "score_2"):
        for name in MAPS:
            here, there = (read_volume(tmp_path / part / folder / f"{name}.nii.gz").data for part in ("whole", "parts"))
            np.testing.assert_allclose(here, there, rtol=1e-6)


def test_permuted_normal_scores(study, tmp_path, capsys):
    """All voxels that everybody has are permuted; with outliers removed, fewer, and that is said."""
    options = (*covariates(study), "--columns", "score_1", "--figures", 0, "--permutations", 100, "--normalise", "rank")
    assert run(study, tmp_path / "all", *options) == 0
    brain = TRUTH["brain"]
    assert read_results(tmp_path / "all" / "targets.tsv")["n_permuted"][0] == brain.sum() - 2
    t, p = (read_volume(tmp_path / "all" / "score_1" / f"{m}.nii.gz").data for m in ("t", "neg_log10_p_fwe"))
    largest = read_results(tmp_path / "all" / "null.parquet")["max_abs_t"]
    known = np.isfinite(p) & (np.abs(t) < np.sort(largest)[-12])
    counted = (1 + (largest[:, None] >= np.abs(t[known])).sum(axis=0)) / 101
    np.testing.assert_allclose(10.0 ** -p[known], counted, rtol=1e-5)
    capsys.readouterr()
    assert run(study, tmp_path / "some", *options, "--outliers", "mad:3") == 0
    table = read_results(tmp_path / "some" / "targets.tsv")
    whole = sum(np.isfinite(naive_scores(y, 3.0)).all() for y in TRUTH["stack"][:, brain].T)
    assert table["n_permuted"][0] == whole < brain.sum() - 20
    assert "--outliers none" in capsys.readouterr().out


def test_zeros_as_missing(study, tmp_path, capsys):
    whole = Mask(np.ones(SHAPE, dtype=bool), AFFINE)
    write_mask(whole, tmp_path / "whole.nii.gz")
    options = ("--columns", "score_1", "--figures", 0)
    assert run(study, tmp_path / "a", *options, mask=tmp_path / "whole.nii.gz") == 0
    assert (read_volume(tmp_path / "a" / "score_1" / "n.nii.gz").data >= N - 13).all()
    assert json.loads((tmp_path / "a.json").read_text())["counts"]["values_of_exactly_0"] > 1000
    assert run(study, tmp_path / "b", *options, "--zeros", "missing", mask=tmp_path / "whole.nii.gz") == 0
    brain = TRUTH["brain"]
    assert (read_volume(tmp_path / "b" / "score_1" / "n.nii.gz").data[~brain] == 0).all()
    for part in "ab":
        assert np.isnan(read_volume(tmp_path / part / "score_1" / "t.nii.gz").data[~brain]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--columns", "scor_1"), "no column matches 'scor_1'"),
        (("--covariates", "age"), "names 'age', which is not a column"),
        (("--participants", "PEOPLE", "--covariates", "age", "--targets", "OTHER"), "No participant id is shared"),
        (("--mask", "SMALL"), "has shape (5, 5, 5), expected (14, 16, 12)"),
        (("--targets", "TWICE"), "would both be written to a-b/"),
        (("--targets", "PEOPLE", "--columns", "sex"), "'sex' holds text"),
        (("--outliers", "sd:3"), "expected mad:K with K above 0"),
        (("--store", "STORE"), "--store goes with --outliers or --normalise"),
        (("--memory", "256KiB", "--normalise", "rank"), "in chunks of"),
        (("--memory", "256KiB"), "MiB are given. Raise --memory"),
    ],
)
def test_bad_input(study, tmp_path, capsys, options, message):
    write_mask(Mask(np.ones((5, 5, 5), dtype=bool), AFFINE), tmp_path / "small.nii.gz")
    people = SampleIndex.of([f"{k:02d}" for k in range(N)])
    write_table(quantitative_table(people, ["score_1"], np.ones((N, 1))), tmp_path / "other.tsv")
    people = SampleIndex.of([f"sub-{k:02d}" for k in range(N)])
    write_table(quantitative_table(people, ["a/b", "a b"], np.ones((N, 2))), tmp_path / "twice.tsv")
    names = {
        "PEOPLE": study / "participants.tsv", "OTHER": tmp_path / "other.tsv", "SMALL": tmp_path / "small.nii.gz",
        "TWICE": tmp_path / "twice.tsv",
    }  # fmt: skip
    given = {"--targets": study / "scores.tsv", "--mask": study / "brain.nii.gz"}
    given |= {o: names.get(v, v) for o, v in zip(options[::2], options[1::2], strict=True)}
    arguments = [part for pair in given.items() for part in pair]
    assert code_of("associate", "voxelwise", study / "maps.tsv", *arguments, "--out", tmp_path / "out") == 2
    # rich breaks lines where it pleases
    assert "".join(message.split()) in "".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc (Linux)")
def test_images_stream_within_the_memory_given(tmp_path):
    """120 maps of 110,592 voxels, 53 MB, some voxels of each missing, against 20 targets."""
    rng = np.random.default_rng(0)
    shape, people = (48, 48, 48), [f"sub-{k:03d}" for k in range(120)]
    lines = ["participant_id\tpath"]
    for name in people:
        data = rng.normal(size=shape).astype(np.float32)
        data[rng.random(shape) < 0.001] = np.nan
        write_volume(Volume(data, AFFINE, "chi"), tmp_path / f"{name}.nii")
        lines.append(f"{name}\t{name}.nii")
    (tmp_path / "maps.tsv").write_text("\n".join(lines) + "\n")
    table = quantitative_table(SampleIndex.of(people), [f"s{k}" for k in range(23)], rng.normal(size=(120, 23)))
    write_table(table, tmp_path / "scores.tsv")
    write_mask(Mask(np.ones(shape, dtype=bool), AFFINE), tmp_path / "mask.nii")

    common = ("associate", "voxelwise", tmp_path / "maps.tsv", "--targets", tmp_path / "scores.tsv",
              "--mask", tmp_path / "mask.nii", "--covariates", "s20 + s21 + s22", "--figures", "1")  # fmt: skip
    for limit in (64, 160):
        code, peak, message, out = measure(tmp_path / f"{limit}", (*common, "--columns", "s0"), common, limit)
        assert code == 0, message
        assert peak <= limit * MIB, f"{peak / MIB:.0f} MiB"
        passes = json.loads(out.with_name(f"{out.name}.json").read_text())["counts"]["passes"]
        assert (passes > 1) == (limit == 64), passes
    # Voxels that somebody lacks are not permuted: 89 % are left.
    permuted = (*common, "--columns", "s0,s1", "--permutations", "70", "--tfce")
    code, peak, message, out = measure(tmp_path / "p", (*common, "--columns", "s0"), permuted, 256)
    assert code == 0, message
    assert peak <= 256 * MIB, f"{peak / MIB:.0f} MiB"
    code, _, message, out = measure(tmp_path / "q", (*common, "--columns", "s0"), permuted, 64)
    assert code == 2
    assert "Permuting 110592 voxels" in message
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc (Linux)")
def test_rank_mode_needs_no_more_memory_for_more_people(tmp_path):
    """150 and 600 maps of 46,656 voxels, 28 and 112 MB, through a store, in 48 MiB."""
    rng = np.random.default_rng(0)
    shape, people = (36, 36, 36), [f"sub-{k:03d}" for k in range(600)]
    lines = ["participant_id\tpath"]
    for name in people:
        data = rng.normal(size=shape).astype(np.float32)
        data[rng.random(shape) < 0.001] = np.nan
        write_volume(Volume(data, AFFINE, "chi"), tmp_path / f"{name}.nii")
        lines.append(f"{name}\t{name}.nii")
    for n in (150, 600):
        (tmp_path / f"maps-{n}.tsv").write_text("\n".join(lines[: n + 1]) + "\n")
    write_table(quantitative_table(SampleIndex.of(people), ["a", "b", "c"], rng.normal(size=(600, 3))),
                tmp_path / "scores.tsv")  # fmt: skip
    write_mask(Mask(np.ones(shape, dtype=bool), AFFINE), tmp_path / "mask.nii")
    peaks = []
    for n in (150, 600):
        common = ("associate", "voxelwise", tmp_path / f"maps-{n}.tsv", "--targets", tmp_path / "scores.tsv",
                  "--mask", tmp_path / "mask.nii", "--covariates", "c", "--outliers", "mad:6", "--normalise", "rank",
                  "--figures", "0")  # fmt: skip
        code, peak, message, out = measure(tmp_path / f"{n}", (*common, "--columns", "a"), common, 48)
        assert code == 0, message
        assert peak <= 48 * MIB, f"{peak / MIB:.0f} MiB"
        counts = json.loads(out.with_name(f"{out.name}.json").read_text())["counts"]
        assert counts["values"] == pytest.approx(0.999 * n * 46_656, rel=1e-3)
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 12 * MIB, peaks


def test_permutations(study, tmp_path):
    """The planted effect survives, the others do not, threads and parts change nothing, small p come from the tail."""
    options = (*covariates(study), "--columns", "score_*", "--figures", 0, "--permutations", 200, "--tfce")
    assert run(study, tmp_path / "a", *options) == 0
    table = read_results(tmp_path / "a" / "targets.tsv")
    left = TRUTH["brain"] & TRUTH["left"]
    assert table["n_fwe"][0] > 0.5 * left.sum()
    assert table["n_fwe_tfce"][0] > 0.8 * left.sum()
    assert table["n_fwe"][1] == 0
    assert (table["n_permuted"] == TRUTH["brain"].sum() - 2).all()
    maps = {
        name: read_volume(tmp_path / "a" / "score_1" / f"{name}.nii.gz").data
        for name in ("t", "neg_log10_p_fwe", "tfce", "neg_log10_p_fwe_tfce")
    }
    null = read_results(tmp_path / "a" / "null.parquet")
    largest = null["max_abs_t"][null["target"] == "score_1"]
    assert largest.size == 200
    known = np.isfinite(maps["neg_log10_p_fwe"])
    assert np.isnan(maps["neg_log10_p_fwe"][7, 8, 5])
    assert np.isfinite(maps["t"][7, 8, 5])
    counted = (1 + (largest[:, None] >= np.abs(maps["t"][known])).sum(axis=0)) / 201
    often = counted > 11 / 201
    np.testing.assert_allclose(10.0 ** -maps["neg_log10_p_fwe"][known][often], counted[often], rtol=1e-5)
    assert np.nanmax(maps["neg_log10_p_fwe"]) > np.log10(201)
    assert (maps["tfce"][known & left] > 0).mean() > 0.95
    assert run(study, tmp_path / "b", *options, "--executor", "threads", "--no-tail") == 0
    again = read_results(tmp_path / "b" / "null.parquet")
    np.testing.assert_allclose(again["max_abs_t"], null["max_abs_t"], rtol=1e-6)
    found = read_volume(tmp_path / "b" / "score_1" / "neg_log10_p_fwe.nii.gz").data
    assert np.nanmax(found) == pytest.approx(np.log10(201), rel=1e-6)


def test_permutations_within_blocks(study, tmp_path):
    options = (*covariates(study), "--columns", "score_1", "--figures", 0, "--permutations", 100, "--blocks", "sex")
    assert run(study, tmp_path / "within", *options) == 0
    assert run(study, tmp_path / "free", *options[:-2]) == 0
    within, free = (read_results(tmp_path / part / "null.parquet")["max_abs_t"] for part in ("within", "free"))
    assert (within != free).all()
    assert np.isnan(read_results(tmp_path / "within" / "null.parquet")["max_tfce"]).all()
    assert read_results(tmp_path / "within" / "targets.tsv")["n_fwe"][0] > 50


def test_clusters(study, tmp_path):
    """The planted half is one cluster; p are counted from the null; the label image has the sizes of the table."""
    options = (*covariates(study), "--columns", "score_*", "--figures", 0, "--permutations", 150)
    assert run(study, tmp_path / "out", *options, "--cluster-threshold", 3.1) == 0
    clusters, null, table = (
        read_results(tmp_path / "out" / name) for name in ("clusters.tsv", "null.parquet", "targets.tsv")
    )
    first = clusters["target"] == "score_1"
    assert clusters["sign"][0] == 1
    assert clusters["n_voxels"][0] > 0.8 * (TRUTH["brain"] & TRUTH["left"]).sum()
    assert table["n_clusters_fwe"][0] >= 1
    assert table["n_clusters_fwe"][1] == 0
    labels = read_volume(tmp_path / "out" / "score_1" / "clusters.nii.gz").data.astype(int)
    t = read_volume(tmp_path / "out" / "score_1" / "t.nii.gz").data
    assert np.bincount(labels.ravel())[1:].tolist() == clusters["n_voxels"][first].tolist()
    for number, mass, peak in zip(
        clusters["cluster_number"][first], clusters["mass"][first], clusters["t"][first], strict=True
    ):
        inside = labels == number
        assert mass == pytest.approx((np.abs(t[inside]) - 3.1).sum(), rel=1e-4)
        assert abs(peak) == pytest.approx(np.abs(t[inside]).max(), rel=1e-6)
    for target in ("score_1", "score_2"):
        here, those = clusters["target"] == target, null["target"] == target
        for observed, largest, p in (("n_voxels", "max_cluster_size", "size"), ("mass", "max_cluster_mass", "mass")):
            counted = (1 + (null[largest][those][:, None] >= clusters[observed][here] - 1e-9).sum(axis=0)) / 151
            np.testing.assert_allclose(10.0 ** -clusters[f"neg_log10_p_fwe_{p}"][here], counted, rtol=1e-5)
    peaks = np.stack([clusters[f"{axis}_mm"][first] for axis in "xyz"])
    index = np.rint(np.linalg.inv(AFFINE) @ np.vstack([peaks, np.ones(peaks.shape[1])]))[:3].astype(int)
    assert (labels[tuple(index)] == clusters["cluster_number"][first]).all()


def test_signs_that_flip(study, tmp_path):
    """The same effect is found by flips, and by flips of sites as wholes the p cannot be below 1 of 2 x 2."""
    options = (*covariates(study), "--columns", "score_1", "--figures", 0, "--permutations", 100)
    largest = {}
    for part in ("shuffle", "flip", "both"):
        assert run(study, tmp_path / part, *options, "--permute", part) == 0
        largest[part] = read_results(tmp_path / part / "null.parquet")["max_abs_t"]
        assert read_results(tmp_path / part / "targets.tsv")["n_fwe"][0] > 50
        sidecar = json.loads((tmp_path / part / "score_1" / "neg_log10_p_fwe.json").read_text())
        assert sidecar["Exchange"] == part
    assert run(study, tmp_path / "default", *options) == 0
    np.testing.assert_array_equal(read_results(tmp_path / "default" / "null.parquet")["max_abs_t"], largest["shuffle"])
    assert (largest["flip"] != largest["both"]).all()
    wholes = ("--permute", "flip", "--blocks", "sex", "--block-mode", "whole")
    assert run(study, tmp_path / "whole", *options, *wholes) == 0
    assert len(np.unique(read_results(tmp_path / "whole" / "null.parquet")["max_abs_t"].round(4))) == 2


def test_mean_of_the_maps(study, tmp_path):
    """--one-sample: t as scipy's, with and without a table of people."""

    def one(out, *options):
        return code_of(
            "associate", "voxelwise", study / "maps.tsv", "--one-sample", "--mask", study / "brain.nii.gz", "--figures",
            1, *options, "--out", out, "--quiet",
        )  # fmt: skip

    assert one(tmp_path / "a", "--permutations", 60, "--cluster-threshold", 3.1) == 0
    brain, stack = TRUTH["brain"], TRUTH["stack"]
    found = {name: read_volume(tmp_path / "a" / "mean" / f"{name}.nii.gz").data for name in (*MAPS, "neg_log10_p_fwe")}
    expected = scipy.stats.ttest_1samp(stack[:, brain].astype(float), 0.0, nan_policy="omit")
    np.testing.assert_allclose(found["t"][brain], expected.statistic, rtol=3e-7)
    np.testing.assert_allclose(found["beta"][brain], np.nanmean(stack[:, brain].astype(float), axis=0), rtol=3e-7)
    assert read_results(tmp_path / "a" / "targets.tsv")["n_fwe"][0] == brain.sum() - 2
    assert json.loads((tmp_path / "a" / "mean" / "beta.json").read_text())["Units"] == "map units"
    assert one(tmp_path / "b", *covariates(study)) == 0
    design = np.column_stack([np.ones(N), TRUTH["age"] - TRUTH["age"].mean(), np.arange(N) % 2 - 0.5])
    fit = sm.OLS(stack[:, 7, 8, 4].astype(float), design).fit()
    assert read_volume(tmp_path / "b" / "mean" / "t.nii.gz").data[7, 8, 4] == pytest.approx(fit.tvalues[0], rel=3e-7)


@pytest.fixture(scope="module")
def surroundings(study):
    """An atlas of two halves, a template with an edge, tissue, a map of ageing that is the planted effect."""
    brain, left = TRUTH["brain"], TRUTH["left"]
    halves = np.where(brain, np.where(left, 1, 2), 0).astype(np.int16)
    write_parcellation(Parcellation(halves, AFFINE, {1: "left half", 2: "right half"}), study / "atlas.nii.gz")
    index = np.indices(SHAPE) - (np.array(SHAPE) / 2 - 0.5)[:, None, None, None]
    radius = np.sqrt((index**2).sum(axis=0))
    write_volume(Volume(np.float32(np.clip(6 - radius, 0, 2)), AFFINE, "mean"), study / "template.nii.gz")
    write_volume(Volume(np.float32(0.5 * left), AFFINE, "beta"), study / "ageing.nii.gz")
    tissue = np.where(radius < 3, 2, np.where(brain, 1, 0)).astype(np.int16)
    write_parcellation(Parcellation(tissue, AFFINE), study / "tissue.nii.gz")
    names = ("atlas", "template", "ageing", "tissue")
    return [part for name in names for part in (f"--{name}", study / f"{name}.nii.gz")]


def test_regions_edges_sides_and_background(study, surroundings, tmp_path, capsys):
    out = tmp_path / "out"
    options = (*covariates(study), "--columns", "score_*", "--figures", 1, "--permutations", 60, *surroundings)
    assert run(study, out, *options, "--background", study / "template.nii.gz", "--cluster-threshold", 3.1) == 0
    table, peaks, regions = (read_results(out / f"{name}.tsv") for name in ("targets", "peaks", "regions"))
    t = read_volume(out / "score_1" / "t.nii.gz").data
    brain, left = TRUTH["brain"], TRUTH["left"]
    # The planted half is the map of ageing, one-sided, and inside of tissue as well as outside.
    assert table["ageing_r"][0] == pytest.approx(np.corrcoef(t[brain], left[brain])[0, 1], rel=1e-5)
    assert table["ageing_r"][0] > 0.9
    assert table["symmetry_r"][0] == pytest.approx(np.corrcoef(t[brain], t[::-1][brain])[0, 1], rel=1e-5)
    assert table["symmetry_r"][0] < -0.8
    assert abs(table["gradient_r"][0]) < 0.3
    assert table["boundary_share"][0] < 0.02  # one voxel in twenty at FDR 5 % may have the other sign
    assert regions["target"].tolist() == [name for name in ("score_1", "score_2") for _ in range(2)]
    assert regions["region"].tolist()[:2] == ["left half", "right half"]
    assert regions["n_voxels"][0] == (brain & left).sum()
    assert regions["mean_abs_t"][0] == pytest.approx(np.abs(t[brain & left]).mean(), rel=1e-6)
    assert regions["max_abs_t"][1] == pytest.approx(np.abs(t[brain & ~left]).max(), rel=1e-6)
    assert regions["n_fdr"][:2].sum() == table["n_fdr"][0]
    assert regions["n_fwe"][:2].sum() == table["n_fwe"][0]
    assert set(peaks["region"]) <= {"left half", "right half"}
    sides = np.where(peaks["x_mm"] < 0, "left half", "right half")
    assert (peaks["region"] == sides).all()
    assert set(read_results(out / "clusters.tsv")["region"]) <= {"left half", "right half"}
    assert (out / "score_1" / "overlay.png").stat().st_size > 5000
    sidecar = json.loads((out / "score_1" / "beta.json").read_text())
    assert sidecar["Units"] == "map units per unit of score_1"
    assert sidecar["Statistic"].startswith("Slope")
    assert "rank of intercept and covariates" in sidecar["DegreesOfFreedom"]
    assert "follow the edges" not in capsys.readouterr().out


def test_a_map_of_moved_edges_is_named(study, tmp_path, capsys):
    """Maps of people that are the template a little larger or smaller with the target."""
    rng = np.random.default_rng(3)
    shape, affine = (20, 20, 20), np.diag([2.0, 2, 2, 1])
    radius = np.sqrt(((np.indices(shape) - 9.5) ** 2).sum(axis=0))

    def ribbon(shift):
        return np.exp(-(((radius - 6.5 - shift) / 1.2) ** 2))

    score, lines = rng.normal(size=30), ["participant_id\tpath"]
    for k, x in enumerate(score):
        data = ribbon(0.2 * x) + rng.normal(0, 0.05, shape)
        write_volume(Volume(data.astype(np.float32), affine, "grey"), tmp_path / f"{k}.nii")
        lines.append(f"sub-{k}\t{k}.nii")
    (tmp_path / "maps.tsv").write_text("\n".join(lines) + "\n")
    people = SampleIndex.of([f"sub-{k}" for k in range(30)])
    write_table(quantitative_table(people, ["score"], score[:, None]), tmp_path / "scores.tsv")
    write_mask(Mask(radius < 9, affine), tmp_path / "mask.nii")
    write_volume(Volume(ribbon(0).astype(np.float32), affine, "mean"), tmp_path / "template.nii")
    tissue = np.where(radius < 5.5, 2, np.where(radius < 7.5, 1, 0)).astype(np.int16)
    write_parcellation(Parcellation(tissue, affine), tmp_path / "tissue.nii")
    assert code_of(
        "associate", "voxelwise", tmp_path / "maps.tsv", "--targets", tmp_path / "scores.tsv", "--mask",
        tmp_path / "mask.nii", "--template", tmp_path / "template.nii", "--tissue", tmp_path / "tissue.nii", "--out",
        tmp_path / "out", "--figures", 0, "--quiet",
    ) == 0  # fmt: skip
    table = read_results(tmp_path / "out" / "targets.tsv")
    assert table["gradient_r"][0] > 0.6
    assert table["boundary_share"][0] > 0.6
    assert "followtheedgesoftissue,asatrophymakesthem:score" in "".join(capsys.readouterr().out.split())


def test_no_mirror_image_is_said(study, tmp_path, capsys):
    """A mask of one side only."""
    half = TRUTH["brain"] & TRUTH["left"]
    write_mask(Mask(half, AFFINE), tmp_path / "half.nii.gz")
    options = ("--columns", "score_1", "--figures", 0)
    assert run(study, tmp_path / "out", *options, mask=tmp_path / "half.nii.gz") == 0
    assert np.isnan(read_results(tmp_path / "out" / "targets.tsv")["symmetry_r"]).all()
    assert "symmetry_risempty" in "".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--one-sample",), "found both."),
        (("--atlas", "SMALL"), "has shape (5, 5, 5), expected (14, 16, 12)"),
        (("--template", "SMALL"), "has shape (5, 5, 5), expected (14, 16, 12)"),
        (("--atlas", "MAP"), "expected integer labels from 0 up"),
        (("--mask", "EMPTY"), "the mask is empty, expected voxels above 0"),
        (("--permute", "flip"), "--permute goes with --permutations"),
        (("--cluster-threshold", "3.1", "--tfce"), "--tfce and --cluster-threshold go with --permutations"),
        (("--cluster-threshold", "-1", "--permutations", "5"), "--cluster-threshold"),
        (("--permutations", "5", "--permute", "flip", "--blocks", "all", "--block-mode", "whole"), "in one block"),
        (("--template", "NOWHERE"), "expected a file or folder at"),
    ],
)
def test_more_bad_input(study, tmp_path, capsys, options, message):
    write_mask(Mask(np.ones((5, 5, 5), dtype=bool), AFFINE), tmp_path / "small.nii.gz")
    write_mask(Mask(np.zeros(SHAPE, dtype=bool), AFFINE), tmp_path / "empty.nii.gz")
    columns = (Column("all", np.array(["x"] * N), "categorical"),)
    write_table(PhenotypeTable(SampleIndex.of([f"sub-{k:02d}" for k in range(N)]), columns), tmp_path / "one.tsv")
    names = {
        "SMALL": tmp_path / "small.nii.gz", "EMPTY": tmp_path / "empty.nii.gz", "NOWHERE": tmp_path / "no.nii",
        "MAP": study / "maps" / "sub-00.nii.gz",
    }  # fmt: skip
    given = [names.get(str(part), part) for part in options]
    if "--mask" not in given:
        given += ["--mask", study / "brain.nii.gz"]
    code = code_of(
        "associate", "voxelwise", study / "maps.tsv", "--targets", study / "scores.tsv", "--columns", "score_1",
        "--participants", tmp_path / "one.tsv", *given, "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 2
    assert "".join(message.split()) in "".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "found neither."),
        (("--one-sample", "--normalise", "rank"), "normal scores have a mean of 0"),
        (("--one-sample", "--permutations", 5, "--permute", "both"), "tests nothing"),
        (("--one-sample", "--covariates", "age"), "give it with --participants"),
        (("--one-sample", "--columns", "a"), "--one-sample has none"),
    ],
)
def test_bad_one_sample(study, tmp_path, capsys, options, message):
    code = code_of(
        "associate", "voxelwise", study / "maps.tsv", "--mask", study / "brain.nii.gz", *options, "--out",
        tmp_path / "out",
    )  # fmt: skip
    assert code == 2
    assert "".join(message.split()) in "".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_targets_all_missing(study, tmp_path, capsys):
    people = SampleIndex.of([f"sub-{k:02d}" for k in range(N)])
    write_table(quantitative_table(people, ["a"], np.full((N, 1), np.nan)), tmp_path / "none.tsv")
    assert run(study, tmp_path / "out", targets=tmp_path / "none.tsv") == 2
    shown = "".join(capsys.readouterr().err.split())
    assert "hasatargetandallcovariates" in shown or "nonumericcolumn" in shown
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tfce",), "--tfce goes with --permutations"),
        (("--permutations", 5, "--blocks", "family"), "no column 'family'"),
        (("--permutations", 5, "--blocks", "age"), "--blocks: Every block is of one person"),
    ],
)
def test_bad_permutations(study, tmp_path, capsys, options, message):
    given = (*covariates(study), "--columns", "score_1", *options)
    assert run(study, tmp_path / "out", *given) == 2
    assert "".join(message.split()) in "".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
