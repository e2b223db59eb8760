"""``multivariate`` through the command line: planted modes, every model, bad input."""

import json

import numpy as np
import pytest

from brainlocus.cli.main import main
from brainlocus.core import SampleIndex, VariantTable
from brainlocus.core.text import text_array
from brainlocus.io import BedWriter, read_results, read_table


def code_of(*arguments) -> int:
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def write(path, names, columns, **more):
    lines = ["\t".join(["participant_id", *names, *more])]
    for k in range(len(columns)):
        numbers = ["" if np.isnan(v) else f"{v:.6f}" for v in columns[k]]
        lines.append("\t".join([f"sub-{k}", *numbers, *(str(values[k]) for values in more.values())]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """160 people in families of two; one mode of x0 to x3 and y0 to y2; age moves everything; x19 is constant."""
    folder, rng, n = tmp_path_factory.mktemp("multivariate"), np.random.default_rng(0), 160
    age, factor = rng.uniform(20, 80, n), rng.standard_normal(n)
    x, y = rng.standard_normal((n, 20)), rng.standard_normal((n, 8))
    x[:, :4] += factor[:, None]
    y[:, :3] += factor[:, None]
    x += 0.05 * age[:, None]
    y += 0.05 * age[:, None]
    x[:, 19] = 1.0
    write(folder / "x.tsv", [f"x{k}" for k in range(20)], x)
    write(folder / "y.tsv", [f"y{k}" for k in range(8)], y)
    family = [f"F{k // 2}" for k in range(n)]
    write(
        folder / "people.tsv",
        ["age"],
        age[:, None],
        family=family,
        site=["a"] * 80 + ["b"] * 80,
        size=["s"] * 30 + ["m"] * 50 + ["l"] * 80,
    )
    x[:5, 7] = np.nan
    write(folder / "holes.tsv", [f"x{k}" for k in range(20)], x)
    return folder


def run(cohort, verb, out, *more, x="x.tsv"):
    people = ("--participants", cohort / "people.tsv", "--covariates", "age", "--groups", "family")
    small = ("--folds", "4", "--inner-folds", "2", "--modes", "2", "--permutations", "9", "--bootstrap", "8")
    paths = (cohort / x, cohort / "y.tsv")
    return code_of("multivariate", verb, *paths, *people, *small, *more, "--quiet", "--out", out)


MODELS = [
    ("cca", ("--penalty-x", "0.5,0.9", "--penalty-y", "0.5")),
    ("cca", ("--sparse", "--penalty-x", "0.3,0.6", "--penalty-y", "0.5")),
    ("pls", ("--permutations", "19")),
    ("pls", ("--sparse", "--penalty-x", "0.4", "--penalty-y", "0.5")),
    ("rrr", ("--subsamples", "25", "--penalty-x", "0.5,0.7", "--penalty-y", "0.3")),
    (
        "ica",
        (
            "--components-x",
            "3",
            "--components-y",
            "3",
            "--runs",
            "2",
            "--folds",
            "2",
            "--permutations",
            "0",
            "--bootstrap",
            "0",
        ),
    ),
]


@pytest.mark.parametrize(("verb", "options"), MODELS, ids=lambda v: "-".join(v) if isinstance(v, tuple) else v)
def test_planted_mode(cohort, tmp_path, capsys, verb, options):
    out = tmp_path / "out"
    assert run(cohort, verb, out, *options) == 0
    said = capsys.readouterr().out
    modes = read_results(out / "modes.tsv")
    assert modes["mode"].tolist() == [1, 2]
    for k in range(2):
        # In-sample r never stands without the held-out one.
        assert f"Mode {k + 1}: r {modes['r_test'][k]:.3f} held out" in said
        assert f"{modes['r_train'][k]:.3f} in training" in said
    assert modes["r_test"][0] > (0.2 if verb == "ica" else 0.5)
    assert modes["r_test_lower"][0] < modes["r_test"][0] < modes["r_test_upper"][0]
    if verb != "ica":
        count = 19 if verb == "pls" and "--sparse" not in options else 9
        assert modes["p_permutation"][0] == pytest.approx(1 / (count + 1))
        assert modes["neg_log10_p"][0] == pytest.approx(np.log10(count + 1), abs=1e-5)
        # A p of 0.1 ends the steps, one of 0.05 does not.
        tested = 2 if count == 19 else 1
        assert np.isfinite(modes["p_permutation"]).sum() == tested
        assert modes["status"][1] == ("ok" if tested == 2 else "p not tested: a mode before is not significant")
        assert len(read_results(out / "permutations.parquet")) == tested * count
        assert (out / "permutations.png").stat().st_size > 5000
        x, y = (read_results(out / f"loadings_{side}.tsv") for side in "xy")
        first = x.take(x["mode"] == 1)
        top = np.argsort(-np.abs(first["loading"]))[:4]
        assert set(first["variable"][top].tolist()) == {"x0", "x1", "x2", "x3"}
        assert np.abs(first["bootstrap_ratio"][top]).min() > 2.5
        assert "x19" not in first["variable"].tolist()
        assert set(y["variable"][np.argsort(-np.abs(y["loading"][:8]))[:3]].tolist()) == {"y0", "y1", "y2"}
    else:
        components = read_results(out / "components.tsv")
        assert set(components["input"].tolist()) == {"x", "y"}
    if verb == "rrr":
        assert set(first["variable"][first["selected"]].tolist()) == {"x0", "x1", "x2", "x3"}
        assert first["selection_frequency"][top].min() > 0.9
        assert "half-samples or more" in said
    scores, folds = read_results(out / "scores.parquet"), read_results(out / "folds.tsv")
    assert len(scores) == 320
    assert len(folds) == 2 * len(set(scores["fold"].tolist()))
    family = np.array([int(i.removeprefix("sub-")) // 2 for i in scores["participant_id"][:160]])
    for one in np.unique(family):
        assert len(set(scores["fold"][:160][family == one])) == 1
    within = [
        np.corrcoef(scores["x_variate"][:160][mine], scores["y_variate"][:160][mine])[0, 1]
        for mine in (scores["fold"][:160] == f for f in np.unique(scores["fold"]))
    ]
    assert np.mean(within) == pytest.approx(modes["r_test"][0], abs=1e-4)
    for name in ("variates.png", "loadings.png"):
        assert (out / name).stat().st_size > 5000
    counts = json.loads((tmp_path / "out.json").read_text())["counts"]
    assert counts["columns_constant_x"] == 1
    assert counts["constant_x"] == ["x19"]
    assert counts["groups"] == 80


def test_workers_change_nothing_and_fixed_penalties_are_said(cohort, tmp_path, capsys):
    found, grid = (
        [],
        ("--penalty-x", "0.5,0.9", "--penalty-y", "0.5", "--threads", "2", "--bootstrap", "0", "--permutations", "5"),
    )
    for executor in ("serial", "threads"):
        out = tmp_path / executor
        assert run(cohort, "cca", out, "--permute-penalties", "fixed", *grid, "--executor", executor) == 0
        assert "p with penalties fixed" in capsys.readouterr().out
        found.append([(out / name).read_bytes() for name in ("modes.tsv", "loadings_x.tsv", "permutations.parquet")])
    assert found[0] == found[1]


def test_missing_values_are_left_out_or_filled(cohort, tmp_path):
    none = ("--permutations", "0", "--bootstrap", "0")
    assert run(cohort, "pls", tmp_path / "left", *none, x="holes.tsv") == 0
    counts = json.loads((tmp_path / "left.json").read_text())["counts"]
    assert (counts["participants_used"], counts["participants_incomplete_x"]) == (155, 5)
    assert run(cohort, "pls", tmp_path / "filled", *none, "--impute", "mean", x="holes.tsv") == 0
    counts = json.loads((tmp_path / "filled.json").read_text())["counts"]
    assert (counts["participants_used"], counts["values_imputed_x"]) == (160, 5)


def test_genotypes(cohort, tmp_path):
    """Dosages of a PLINK file: places in the loadings, blocks of linkage disequilibrium, missing calls filled."""
    rng, n = np.random.default_rng(1), 160
    y = read_table(cohort / "y.tsv").matrix()
    chance = 1 / (1 + np.exp(-(y[:, :3].sum(axis=1) - y[:, :3].sum(axis=1).mean())))
    dosage = rng.binomial(2, 0.4, (12, n)).astype(np.float32)
    dosage[2] = rng.binomial(2, chance)
    dosage[3] = dosage[2]
    dosage[5, :4] = np.nan
    variants = VariantTable(
        np.array(["1"] * 6 + ["2"] * 6), np.arange(1, 13) * 1000, text_array(["A"] * 12), text_array(["C"] * 12),
        text_array([f"rs{k}" for k in range(12)]), "GRCh38",
    )  # fmt: skip
    people = SampleIndex.of([f"sub-{k}" for k in range(n)])
    with BedWriter(tmp_path / "g", people, variants, np.ones(n, dtype=np.int8)) as file:
        file.append(dosage)
    out = tmp_path / "out"
    small = ("--modes", "1", "--permutations", "0", "--bootstrap", "0", "--penalty-x", "0.5", "--quiet")
    assert code_of("multivariate", "cca", tmp_path / "g.bed", cohort / "y.tsv", *small, "--out", out) == 0
    loadings, blocks = read_results(out / "loadings_x.tsv"), read_results(out / "blocks.tsv")
    assert loadings["position"].tolist() == list(range(1000, 13000, 1000))
    assert set(loadings["variable"][np.argsort(-np.abs(loadings["loading"]))[:2]].tolist()) == {"rs2", "rs3"}
    strongest = int(np.abs(blocks["top_loading"]).argmax())
    assert (blocks["start"][strongest], blocks["stop"][strongest], blocks["n_variants"][strongest]) == (3000, 4000, 2)
    assert json.loads((tmp_path / "out.json").read_text())["counts"]["values_imputed_x"] == 4


BAD = [
    ("cca", ("--penalty-x", "0", "--penalty-y", "0"), "CCA without a penalty needs many more people than columns"),
    ("cca", ("--penalty-x", "1.5"), "expected 0 (CCA) to 1 (PLS), found 1.5"),
    ("cca", ("--sparse", "--penalty-x", "1.5"), "to 1 (no sparsity), found 1.5"),
    ("cca", ("--sparse", "--penalty-y", "0.1"), "expected 0.3536 (one of 8 columns)"),
    ("rrr", ("--penalty-x", "1"), "to below 1, found 1"),
    ("pls", ("--penalty-x", "0.5"), "PLS has no penalties without --sparse"),
    ("pls", ("--modes", "9"), "--modes: expected at most 8, the rank that X (19 columns), Y (8)"),
    ("pls", ("--groups", "site"), "4 folds need at least 4 groups of people"),
    ("pls", ("--groups", "size", "--folds", "2"), "No two blocks have the same size"),
    ("cca", ("--groups", "size", "--folds", "2", "--inner-folds", "3"), "Inner folds, which choose penalties"),
    ("pls", ("--groups", "tribe"), "no column 'tribe'"),
    ("pls", ("--covariates", "height"), "height"),
    ("pls", ("--columns-x", "z*"), "--columns-x: no column matches 'z*'"),
    ("pls", ("--folds", "60"), "would have 2 of 160 people"),
    ("ica", ("--components-x", "40"), "--components-x: expected at most 18"),
    ("cca", ("--penalty-x", "much"), "--penalty-x"),
]


@pytest.mark.parametrize(("verb", "options", "message"), BAD, ids=lambda v: v if isinstance(v, str) else None)
def test_bad_input(cohort, tmp_path, capsys, verb, options, message):
    assert run(cohort, verb, tmp_path / "out", *options) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_ids_that_do_not_match(cohort, tmp_path, capsys):
    other = tmp_path / "other.tsv"
    other.write_text((cohort / "y.tsv").read_text().replace("sub-", "person"))
    out = tmp_path / "out"
    assert code_of("multivariate", "pls", cohort / "x.tsv", other, "--quiet", "--out", out) == 2
    assert "No participant id is shared: X has 160" in capsys.readouterr().err
    assert not out.exists()
    assert code_of("multivariate", "pls", cohort / "x.tsv", cohort / "y.tsv", "--exchange", "within", "--modes", "1",
                   "--quiet", "--out", out) == 2  # fmt: skip
    assert "--exchange within needs the column of the groups" in capsys.readouterr().err


def test_one_column_each(cohort, tmp_path):
    one = ("--columns-x", "x0", "--columns-y", "y0", "--modes", "1", "--permutations", "0", "--bootstrap", "0")
    assert run(cohort, "cca", tmp_path / "out", *one) == 0
    modes = read_results(tmp_path / "out" / "modes.tsv")
    assert modes["r_test"][0] == pytest.approx(modes["r_train"][0], abs=0.15)
