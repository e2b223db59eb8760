"""``gwas run --method ridge`` from the command line: predictions, reuse, resume, bad input."""

import json

import numpy as np
import pytest

from brainlocus.cli.main import main
from brainlocus.core import Column, PhenotypeTable, SampleIndex, VariantTable, quantitative_table
from brainlocus.core.text import text_array
from brainlocus.io import BedWriter, read_results, read_table, write_table
from tests.reference.gwas import naive_linear
from tests.reference.ridge import naive_logistic_ridge

N, M = 300, 160
CHROMOSOMES = ["1"] * 60 + ["2"] * 50 + ["3"] * 30 + ["X"] * 20


def command(*arguments):
    try:
        main([str(a) for a in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ridge")
    rng = np.random.default_rng(0)
    people = SampleIndex.of([f"p{k}" for k in range(N)])
    g = rng.binomial(2, rng.uniform(0.2, 0.8, M)[:, None], (M, N)).astype(np.float32)
    names = text_array([f"v{k}" for k in range(M)])
    alleles = text_array(["A"] * M), text_array(["C"] * M)
    variants = VariantTable(np.array(CHROMOSOMES), np.arange(M) + 5_000_000, *alleles, names, "GRCh37")
    age = rng.uniform(40, 80, N)
    y = (0.4 * g[:140:6]).sum(axis=0)[:, None] + 0.02 * age[:, None] + rng.normal(size=(N, 3))
    y[rng.random(N) < 0.08, 1] = np.nan
    y[: N // 2, 2] = np.nan
    g[rng.random(g.shape) < 0.01] = np.nan
    with BedWriter(folder / "g", people, variants, rng.integers(1, 3, N).astype(np.int8)) as out:
        out.append(g)
    write_table(quantitative_table(people, ["a", "b", "c"], y), folder / "y.parquet")
    write_table(PhenotypeTable(people, (Column("age", age),)), folder / "age.tsv")
    return folder, g, y, age


def run(folder, out, *more):
    return command(
        "gwas", "run", folder / "g.bed", folder / "y.parquet", "--covariates", folder / "age.tsv", "--method", "ridge",
        "--hits", "1", "--min-mac", "0", "--ridge-block", "25", "--missing", "mean", "--out", out, *more,
    )  # fmt: skip


def same(first, second, names=("beta", "standard_error", "neg_log10_p")):
    a, b = (read_results(out / "hits.parquet") for out in (first, second))
    assert a["variant_id"].tolist() == b["variant_id"].tolist()
    for name in names:
        np.testing.assert_array_equal(a[name], b[name])


def test_tests_are_those_of_the_trait_without_its_prediction(cohort, tmp_path, capsys):
    folder, g, y, age = cohort
    assert run(folder, tmp_path / "out") == 0
    assert "Whole-genome regression on 140 variants in 7 blocks" in capsys.readouterr().out
    about = read_results(tmp_path / "out/loco/traits.parquet")
    assert about["n"].tolist() == np.sum(~np.isnan(y), axis=0).tolist()
    assert (about["cv_r2"][:2] > 0.1).all()
    counts = json.loads((tmp_path / "out.json").read_text())["counts"]["whole_genome"]
    assert (counts["blocks"], counts["chromosomes"], counts["sets_of_people"]) == (7, 3, 2)
    hits = read_results(tmp_path / "out/hits.parquet")
    sex = np.array([int(line.split("\t")[4]) for line in (folder / "g.fam").read_text().splitlines()])
    for k, trait in enumerate("abc"):
        for j in (0, 70, 120, 150):
            file = CHROMOSOMES[j] if CHROMOSOMES[j] != "X" else "whole"
            loco = read_table(tmp_path / f"out/loco/{file}.parquet").column(trait).values
            assert (np.isnan(loco) == np.isnan(y[:, k])).all()
            covariates = np.column_stack([age, sex]) if file == "whole" else age[:, None]
            beta, error, _, _, p = naive_linear(g[j], y[:, k] - loco, covariates, missing="mean")
            row = hits.take((hits["trait"] == trait) & (hits["variant_id"] == f"v{j}"))
            assert row["beta"][0] == pytest.approx(beta, rel=1e-9)
            assert row["standard_error"][0] == pytest.approx(error, rel=1e-9)
            assert row["neg_log10_p"][0] == pytest.approx(p, rel=1e-8)


def test_cases_are_tested_beside_their_predicted_log_odds(cohort, tmp_path, capsys):
    folder, g, y, age = cohort
    people = read_table(folder / "y.parquet").samples
    cases = np.where(np.isnan(y[:, :2]), np.nan, y[:, :2] > np.nanquantile(y[:, :2], 0.6, axis=0))
    write_table(quantitative_table(people, ["a", "b"], cases), tmp_path / "cases.parquet")
    out = tmp_path / "out"
    assert command(
        "gwas", "run", folder / "g.bed", tmp_path / "cases.parquet", "--covariates", folder / "age.tsv",
        "--method", "ridge", "--ridge-binary",
        "--ridge-block", "25", "--hits", "1", "--min-mac", "0", "--missing", "exact", "--screen", "1",
        "--correction", "none", "--test", "wald", "--out", out,
    ) == 0  # fmt: skip
    assert "Controls 0, cases 1: a, b" in capsys.readouterr().out
    about = read_results(out / "loco/traits.parquet")
    assert (about["cv_r2"] > 0.02).all()
    hits = read_results(out / "hits.parquet")
    for k, trait in enumerate("ab"):
        for j in (0, 70, 120):
            loco = read_table(out / f"loco/{CHROMOSOMES[j]}.parquet").column(trait).values
            with_all = np.isfinite(loco) & ~np.isnan(g[j])
            x = np.column_stack([np.ones(N), age - 60, g[j]])[with_all]
            b = naive_logistic_ridge(x, cases[with_all, k], loco[with_all], 0.0)
            row = hits.take((hits["trait"] == trait) & (hits["variant_id"] == f"v{j}"))
            assert row["beta"][0] == pytest.approx(b[-1], rel=1e-5, abs=1e-6)
            assert row["n"][0] == with_all.sum()
    quantitative = ("gwas", "run", folder / "g.bed", folder / "y.parquet", "--method", "ridge", "--ridge-binary")
    assert command(*quantitative, "--out", tmp_path / "x") == 2
    assert "binary" in capsys.readouterr().err


def test_executors_and_reuse_give_the_same(cohort, tmp_path):
    folder = cohort[0]
    assert run(folder, tmp_path / "a", "--executor", "threads", "--threads", "2") == 0
    assert run(folder, tmp_path / "b", "--executor", "serial") == 0
    same(tmp_path / "a", tmp_path / "b")
    for file in sorted((tmp_path / "a/loco").iterdir()):
        assert file.read_bytes() == (tmp_path / "b/loco" / file.name).read_bytes(), file.name
    assert run(folder, tmp_path / "c", "--loco", tmp_path / "a/loco") == 0
    same(tmp_path / "a", tmp_path / "c")
    assert not (tmp_path / "c/loco").exists()


def test_other_traits_change_nothing_where_patterns_are_kept_apart(cohort, tmp_path):
    folder = cohort[0]
    exact = ("--ridge-max-missing", "0")
    assert run(folder, tmp_path / "all", *exact) == 0
    assert run(folder, tmp_path / "one", *exact, "--columns", "b") == 0
    found = read_results(tmp_path / "all/hits.parquet")
    found = found.take(found["trait"] == "b")
    alone = read_results(tmp_path / "one/hits.parquet")
    order = [dict(zip(t["variant_id"].tolist(), t["beta"].tolist(), strict=True)) for t in (found, alone)]
    np.testing.assert_allclose([order[0][v] for v in order[1]], list(order[1].values()), rtol=1e-4, atol=1e-5)


def test_one_chromosome_is_linear_regression(cohort, tmp_path):
    """Nothing is left to predict from."""
    folder = cohort[0]
    (tmp_path / "one.txt").write_text("\n".join(f"v{k}" for k in range(60)))
    only = ("--variants", tmp_path / "one.txt", "--columns", "a")
    assert run(folder, tmp_path / "ridge", *only, "--ridge-variants", tmp_path / "one.txt") == 0
    assert run(folder, tmp_path / "linear", *only, "--method", "linear") == 0
    same(tmp_path / "ridge", tmp_path / "linear")


def test_leaving_out_one_person_at_a_time(cohort, tmp_path):
    folder = cohort[0]
    assert run(folder, tmp_path / "folds", "--columns", "a") == 0
    assert run(folder, tmp_path / "loo", "--columns", "a", "--ridge-loo") == 0
    folds, loo = (read_table(tmp_path / name / "loco/1.parquet").column("a").values for name in ("folds", "loo"))
    assert 0.8 < np.corrcoef(folds, loo)[0, 1] < 1.0


def test_bad_input(cohort, tmp_path, capsys):
    folder = cohort[0]
    (folder / "few.txt").write_text("v0\nv1\n")
    assert run(folder, tmp_path / "x", "--loco", folder) == 2
    assert "expected the folder loco/" in capsys.readouterr().err
    assert run(folder, tmp_path / "a", "--columns", "a") == 0
    assert run(folder, tmp_path / "x", "--loco", tmp_path / "a/loco", "--columns", "a,b") == 2
    assert "there are no predictions of b; it has a" in capsys.readouterr().err
    assert run(folder, tmp_path / "x", "--ridge-min-maf", "0.5", "--ridge-variants", folder / "few.txt") == 2
    assert "none of the 2 autosomal variants" in capsys.readouterr().err
    assert run(folder, tmp_path / "x", "--method", "linear", "--ridge-binary") == 2
    assert "--ridge-binary: only with --method ridge" in capsys.readouterr().err
    assert run(folder, tmp_path / "x", "--memory", "20MiB") == 2
    assert "Raise --memory" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
