"""``simulate twas`` plants what ``twas associate`` finds."""

import numpy as np
import pytest
from scipy import stats

from brainlocus.cli.main import main
from brainlocus.io import read_gene_associations, read_results


def code_of(*arguments) -> int:
    try:
        main([*map(str, arguments), "--quiet"])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "sim"
    assert code_of("simulate", "twas", folder, "--genes", "150", "--regions", "6") == 0
    out = folder.parent
    for cohort in ("discovery", "replication"):
        assert code_of(
            "twas", "associate", folder / f"{cohort}.tsv", "--models", folder / "models",
            "--out", out / f"{cohort}.parquet",
        ) == 0  # fmt: skip
    return folder, out


def planted(folder, tests):
    """Return found and planted z of every planted effect."""
    truth = read_results(folder / "truth.tsv")
    names = zip(tests.genes[tests.gene], tests.tissues[tests.tissue], tests.phenotypes[tests.phenotype], strict=True)
    found = {tuple(map(str, key)): z for key, z in zip(names, tests.z.tolist(), strict=True)}
    keys = zip(truth["gene"].tolist(), truth["tissue"].tolist(), truth["phenotype"].tolist(), strict=True)
    return np.array([found[tuple(map(str, k))] for k in keys]), truth["zscore"], set(truth["gene"].tolist())


def test_planted_effects_have_their_mean_and_variance_one(study):
    folder, out = study
    for cohort, share in (("discovery", 1.0), ("replication", 0.5)):
        found, truth, _ = planted(folder, read_gene_associations([out / f"{cohort}.parquet"]))
        difference = found - truth * np.sqrt(share)
        assert abs(difference.mean()) < 4 / np.sqrt(difference.size / 2)  # two sides of a region are correlated
        assert 0.7 < difference.std() < 1.4


def test_other_genes_are_null(study):
    folder, out = study
    tests = read_gene_associations([out / "discovery.parquet"])
    _, _, causal = planted(folder, tests)
    null = tests.take(~np.isin(tests.genes[tests.gene], list(causal)))
    assert null.z.std() == pytest.approx(1.0, abs=0.05)
    assert (null.neg_log10_p > -np.log10(0.05)).mean() == pytest.approx(0.05, abs=0.012)
    # A causal gene shows in other tissues that share its SNPs, but is strongest in its own or near it.
    q = read_results(out / "discovery.parquet")
    hits = q["gene"][q["q_bh_study"] < 0.05]
    assert causal <= set(hits.tolist())
    # Expected share of false discoveries 5 %; their number is below its 99.9th percentile.
    assert (~np.isin(hits, list(causal))).sum() <= stats.poisson.ppf(0.999, 0.05 * hits.size)


def test_same_seed_same_files(study, tmp_path):
    folder, _ = study
    assert code_of("simulate", "twas", tmp_path / "again", "--genes", "150", "--regions", "6") == 0
    for path in folder.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "again" / path.relative_to(folder)).read_bytes(), path.name


def test_smallest_and_impossible(tmp_path, capsys):
    small = ("--genes", "2", "--tissues", "1", "--regions", "1", "--causal", "0", "--participants", "100")
    assert code_of("simulate", "twas", tmp_path / "small", *small) == 0
    assert code_of(
        "twas", "associate", tmp_path / "small" / "discovery.tsv", "--models", tmp_path / "small" / "models",
        "--out", tmp_path / "t.tsv",
    ) == 0  # fmt: skip
    assert code_of("simulate", "twas", tmp_path / "x", "--genes", "2", "--causal", "3") == 2
    assert "at most as many causal genes as genes (2), found 3" in capsys.readouterr().err
