"""The pair scan beside PLINK 1.9 --epistasis, run in the same test."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2
from tests.golden.plink.panels import DATA, needs_plink1, run

from brainlocus.core import quantitative_table, select_genotypes
from brainlocus.genetics.interactions import (
    PairRules,
    align_traits,
    prepare_cases,
    prepare_epistasis,
    prepare_variants,
    refit_pairs,
    scan_cases,
    scan_tile,
    variant_places,
)
from brainlocus.io import open_bed
from brainlocus.numerics import neg_log10_p_from_t

HAPMAP = DATA / "genotypes/hapmap3_14k/hm3"
needs_hapmap = pytest.mark.skipif(not HAPMAP.with_suffix(".bed").exists(), reason="needs BRAINLOCUS_DATA: hapmap3_14k")

M = 40
DIGITS = 6e-6
"""Six significant digits are printed."""


@needs_hapmap
@needs_plink1
def test_every_pair_of_forty_variants(tmp_path):
    """BETA and STAT (= t^2) of complete pairs to the printed digits; pairs with missing calls by the refit."""
    source = open_bed(HAPMAP.with_suffix(".bed"))
    chosen = np.arange(100, 100 + 30 * M, 30)
    rng = np.random.default_rng(5)
    trait = 3 + rng.normal(size=len(source.samples))
    ids = [line.split()[:2] for line in HAPMAP.with_suffix(".fam").read_text().splitlines()]
    (tmp_path / "p.txt").write_text("\n".join(f"{f} {i} {y!r}" for (f, i), y in zip(ids, trait.tolist(), strict=True)))
    (tmp_path / "v.txt").write_text("\n".join(source.variants.variant_id[chosen].tolist()))
    run(
        "plink1.9", tmp_path, "--bfile", HAPMAP, "--extract", tmp_path / "v.txt", "--pheno", tmp_path / "p.txt",
        "--epistasis", "--epi1", "1", "--allow-no-sex", "--keep-allele-order",
    )  # fmt: skip
    printed = pd.read_csv(tmp_path / "out.epi.qt", sep=r"\s+")
    assert len(printed) == M * (M - 1) // 2
    selected = select_genotypes(source, variants=chosen)
    table = quantitative_table(source.samples, ["y"], trait[:, None])
    group = prepare_epistasis(align_traits(table, source.samples)).groups[0]
    calls = selected.read(0, M).dosage
    place = {name: k for k, name in enumerate(selected.variants.variant_id.tolist())}
    first, second = ([place[name] for name in printed[c]] for c in ("SNP1", "SNP2"))
    fits = refit_pairs(group, 0, calls[first], calls[second])
    np.testing.assert_allclose([f.beta for f in fits], printed["BETA_INT"], rtol=DIGITS, atol=1e-12)
    np.testing.assert_allclose([f.t**2 for f in fits], printed["STAT"], rtol=1e-4)
    np.testing.assert_allclose([f.t**2 for f in fits], printed["STAT"], rtol=DIGITS, atol=1e-12)
    block = prepare_variants(group, calls, np.arange(M))
    scan = scan_tile(
        group, block, block, variant_places(selected.variants), PairRules(1.0, 0), in_rows=np.ones(M, dtype=bool)
    )
    complete = ~np.isnan(calls).any(axis=1)
    p = dict(zip(zip(scan.row.tolist(), scan.column.tolist(), strict=True), scan.neg_log10_p, strict=True))
    checked = 0
    for i, j, fit in zip(first, second, fits, strict=True):
        if complete[i] and complete[j]:
            checked += 1
            expected = neg_log10_p_from_t(np.array([fit.t]), fit.degrees_of_freedom)[0]
            assert p[min(i, j), max(i, j)] == pytest.approx(expected, rel=1e-8)
    assert checked > 20


@needs_hapmap
@needs_plink1
def test_boost_of_every_pair_of_forty_variants(tmp_path):
    """P of --fast-epistasis boost, with missing calls and with genotypes that nobody has (fewer degrees of freedom)."""
    source = open_bed(HAPMAP.with_suffix(".bed"))
    chosen = np.arange(100, 100 + 30 * M, 30)
    rng = np.random.default_rng(6)
    status = rng.integers(0, 2, len(source.samples)).astype(float)
    ids = [line.split()[:2] for line in HAPMAP.with_suffix(".fam").read_text().splitlines()]
    lines = [f"{f} {i} {int(s) + 1}" for (f, i), s in zip(ids, status, strict=True)]
    (tmp_path / "p.txt").write_text("\n".join(lines))
    (tmp_path / "v.txt").write_text("\n".join(source.variants.variant_id[chosen].tolist()))
    run(
        "plink1.9", tmp_path, "--bfile", HAPMAP, "--extract", tmp_path / "v.txt", "--pheno", tmp_path / "p.txt",
        "--fast-epistasis", "boost", "--epi1", "1", "--allow-no-sex", "--keep-allele-order",
    )  # fmt: skip
    printed = pd.read_csv(tmp_path / "out.epi.cc", sep=r"\s+")
    selected = select_genotypes(source, variants=chosen)
    data = align_traits(quantitative_table(source.samples, ["y"], status[:, None]), source.samples)
    group = prepare_epistasis(data).groups[0]
    block = prepare_cases(group, selected.read(0, M).dosage, np.arange(M), "boost")
    scan = scan_cases(
        group, block, block, variant_places(selected.variants), PairRules(1.0, 0), "boost",
        in_rows=np.ones(M, dtype=bool),
    )  # fmt: skip
    place = {name: k for k, name in enumerate(selected.variants.variant_id.tolist())}
    p = dict(zip(zip(scan.row.tolist(), scan.column.tolist(), strict=True), scan.neg_log10_p, strict=True))
    ours = np.array([
        p[tuple(sorted((place[a], place[b])))] for a, b in zip(printed["SNP1"], printed["SNP2"], strict=True)
    ])  # fmt: skip
    np.testing.assert_allclose(10**-ours, printed["P"], rtol=5.1e-4)  # four digits are printed
    np.testing.assert_allclose(chi2.isf(10**-ours, printed["DF"]), printed["STAT"], rtol=1e-5)
    assert len(printed) == M * (M - 1) // 2
    assert (printed["DF"] < 4).any()
