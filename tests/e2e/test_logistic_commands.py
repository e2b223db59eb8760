"""``gwas run --method logistic`` from the command line: planted effects, codings, skipped traits, bad input."""

import json

import numpy as np
import pytest

from brainlocus.cli.main import main
from brainlocus.core import Column, PhenotypeTable, SampleIndex, VariantTable
from brainlocus.core.text import text_array
from brainlocus.io import BedWriter, read_results, write_table
from brainlocus.pipeline.full_store import read_full

N, M, CAUSAL, RARE = 1200, 400, 100, 250


def command(*arguments):
    try:
        main([str(a) for a in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(0)
    people = SampleIndex.of([f"sub-{k:04d}" for k in range(N)])
    calls = rng.binomial(2, rng.uniform(0.2, 0.8, M)[:, None], (M, N)).astype(np.float32)
    age = rng.uniform(40, 80, N)
    sick = (rng.random(N) < 1 / (1 + np.exp(2 - 0.8 * calls[CAUSAL] - 0.02 * (age - 60)))).astype(float)
    other = (rng.random(N) < 0.2).astype(float) + 1.0
    calls[RARE] = 0.0
    calls[RARE, rng.choice(np.flatnonzero(other == 2.0), 30, replace=False)] = 1.0  # all carriers are cases
    calls[rng.random(calls.shape) < 0.005] = np.nan
    other[rng.random(N) < 0.1] = np.nan
    few = np.zeros(N)
    few[:7] = 1.0
    variants = VariantTable(
        np.array(["1"] * M), np.arange(M) * 10_000 + 1, text_array(["A"] * M), text_array(["C"] * M),
        text_array([f"rs{k}" for k in range(M)]), "GRCh37",
    )  # fmt: skip
    with BedWriter(folder / "g", people, variants, np.ones(N, dtype=np.int8)) as out:
        out.append(calls)
    columns = {"sick": sick, "other": other, "few": few, "age": age}
    table = PhenotypeTable(people, tuple(Column(name, values) for name, values in columns.items()))
    write_table(table, folder / "traits.tsv")
    return folder


def run(cohort, out, *more):
    columns = ("--columns", "sick,other", "--formula", "age", "--method", "logistic")
    return command("gwas", "run", cohort / "g.bed", cohort / "traits.tsv", *columns, *more, "--out", out)


def test_hits_traits_and_manifest(cohort, tmp_path, capsys):
    assert run(cohort, tmp_path / "gwas") == 0
    hits = read_results(tmp_path / "gwas/hits.parquet")
    assert hits["variant_id"].tolist() == [f"rs{CAUSAL}", f"rs{RARE}"]
    assert hits["trait"].tolist() == ["sick", "other"]
    assert hits["method"].tolist() == ["logistic", "firth"]
    assert hits["status"].tolist() == ["ok", "ok"]
    assert abs(hits["beta"][0] - 0.8) < 3 * hits["standard_error"][0]
    assert (hits["n_cases"] + hits["n_controls"] == hits["n"]).all()
    assert hits["effect_allele_frequency_cases"][0] > hits["effect_allele_frequency_controls"][0]
    assert hits["effect_allele_frequency_controls"][1] == 0
    traits = read_results(tmp_path / "gwas/traits.parquet")
    assert (traits["n_cases"] + traits["n_controls"]).tolist() == traits["n"].tolist()
    assert (traits["lambda_gc"] > 0.8).all()
    assert (traits["lambda_gc"] < 1.3).all()
    shown = capsys.readouterr().out
    assert "Controls 0, cases 1: sick\n" in shown
    assert "Controls 1, cases 2: other\n" in shown
    assert "Hits by test: firth 1, logistic 1" in shown
    manifest = json.loads((tmp_path / "gwas.json").read_text())
    assert manifest["counts"]["coding"] == {"sick": "0/1", "other": "1/2"}


@pytest.mark.parametrize("correction", ["none", "firth", "firth-approx", "spa"])
def test_every_correction_and_every_test_on_disk(cohort, tmp_path, correction):
    out = tmp_path / "gwas"
    assert run(cohort, out, "--correction", correction, "--full", "--shard-size", "64") == 0
    hits = read_results(out / "hits.parquet")
    assert hits["status"].tolist() == ["ok", "separated" if correction == "none" else "ok"]
    for k, (trait, row) in enumerate((("sick", CAUSAL), ("other", RARE))):
        full = read_full(out / "full", trait)
        assert len(full) == M
        for name in ("beta", "standard_error", "neg_log10_p"):  # stored in float32
            np.testing.assert_allclose(full[name][row], hits[name][k], rtol=2e-7, equal_nan=True)
        assert full["n"][row] == hits["n"][k]


def test_a_wald_test_misses_what_separates_perfectly(cohort, tmp_path):
    """Its standard error grows with the effect (Hauck & Donner 1977): a reason for the likelihood ratio as default."""
    assert run(cohort, tmp_path / "gwas", "--test", "wald", "--hits", "0.05") == 0
    hits = read_results(tmp_path / "gwas/hits.parquet")
    np.testing.assert_allclose(hits["z"], hits["beta"] / hits["standard_error"], rtol=1e-12)
    p = dict(zip(hits["variant_id"].tolist(), hits["neg_log10_p"], strict=True))
    assert p.get(f"rs{RARE}", 0.0) < 5 < p[f"rs{CAUSAL}"]


def test_a_trait_with_few_cases_is_skipped_and_said(cohort, tmp_path):
    assert run(cohort, tmp_path / "gwas", "--columns", "sick,few") == 3
    traits = read_results(tmp_path / "gwas/traits.parquet")
    assert traits["reason"].tolist() == ["", "too_few_cases"]
    assert traits["n_cases"].tolist()[1] == 0


def test_a_trait_that_is_not_binary(cohort, tmp_path, capsys):
    out = tmp_path / "gwas"
    bed, table = cohort / "g.bed", cohort / "traits.tsv"
    assert command("gwas", "run", bed, table, "--columns", "sick,age", "--method", "logistic", "--out", out) == 2
    message = capsys.readouterr().err
    assert "Trait 'age' is not binary: expected 0 (control) and 1 (case), or 1 and 2, found" in message
    assert not out.exists()
    assert run(cohort, out, "--device", "cuda") == 2
    assert "logistic regression runs on cpu" in capsys.readouterr().err
    assert run(cohort, out, "--correction", "some") == 2
    assert run(cohort, out, "--screen", "0") == 2


def test_no_variant_and_no_hit(cohort, tmp_path):
    (tmp_path / "none.tsv").write_text("variant_id\tposition\n")
    assert run(cohort, tmp_path / "gwas", "--variants", tmp_path / "none.tsv") == 0
    assert len(read_results(tmp_path / "gwas/hits.parquet")) == 0
    assert run(cohort, tmp_path / "few", "--hits", "1e-200", "--full") == 0
    hits = read_results(tmp_path / "few/hits.parquet")
    assert len(hits) == 0
    assert "n_cases" in hits.names


def test_workers_and_shards_change_nothing(cohort, tmp_path):
    more = ("--hits", "0.2", "--correction", "firth-approx")
    assert run(cohort, tmp_path / "one", *more) == 0
    assert run(cohort, tmp_path / "two", *more, "--shard-size", "64", "--executor", "threads", "--threads", "2") == 0
    one, two = (read_results(tmp_path / name / "hits.parquet") for name in ("one", "two"))
    assert one["variant_id"].tolist() == two["variant_id"].tolist()
    assert one["method"].tolist() == two["method"].tolist()
    for name in ("beta", "z", "standard_error"):
        # The screen's float32 products choose the tests; their numbers are of float64 sums.
        np.testing.assert_allclose(one[name], two[name], rtol=1e-9)
