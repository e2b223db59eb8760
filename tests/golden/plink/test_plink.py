"""Frequencies, Hardy-Weinberg, linear regression, clumping and export beside PLINK, run in the same test."""

import numpy as np
import pandas as pd
import pytest
from tests.golden.plink.panels import (
    CHR22,
    EUR,
    HEIGHT,
    MOUSE,
    needs_chr22,
    needs_eur,
    needs_mouse,
    needs_plink1,
    needs_plink2,
    run,
)  # fmt: skip

from brainlocus.core import Column, PhenotypeTable, ResultTable, SampleIndex, quantitative_table, select_genotypes
from brainlocus.core.text import text_array
from brainlocus.genetics.genotypes import count_genotypes, genetic_relationships, hwe_neg_log10_p, principal_components
from brainlocus.genetics.gwas import ScanSettings, full_results, prepare_scan, scan
from brainlocus.genetics.loci import ClumpSettings, clump
from brainlocus.io import BedWriter, PgenWriter, open_bed, open_genotypes, open_pgen, read_grm

SIX_DIGITS = 6e-6
"""PLINK prints six significant digits: half a unit of the last is 5e-6 of the value at most."""


def agree(printed, ours, what, *, digits=SIX_DIGITS):
    """Check that numbers agree to the printed digits."""
    printed = np.asarray(printed, dtype=float)
    assert np.isfinite(printed).sum() > 0
    assert np.array_equal(np.isfinite(printed), np.isfinite(ours)), what
    known = np.isfinite(printed)
    np.testing.assert_allclose(ours[known], printed[known], rtol=digits, atol=1e-12, err_msg=what)


@needs_eur
@needs_plink2
def test_frequencies_counts_and_hardy_weinberg(tmp_path):
    run("plink2", tmp_path, "--bfile", EUR, "--freq", "--hardy", "--geno-counts")
    source = open_bed(EUR.with_suffix(".bed"))
    counts = count_genotypes(source)
    freq = pd.read_csv(tmp_path / "out.afreq", sep="\t")
    a1 = source.variants.effect_allele
    assert freq["ALT"].tolist() == a1.tolist()
    agree(freq["ALT_FREQS"], counts.effect_allele_frequency, "frequency")
    hardy = pd.read_csv(tmp_path / "out.hardy", sep="\t")
    c = counts.variant
    p = 10 ** -hwe_neg_log10_p(c[:, 0], c[:, 1], c[:, 2])
    agree(hardy["P"], p, "Hardy-Weinberg p")


@needs_mouse
@needs_plink2
def test_hardy_weinberg_with_extreme_p(tmp_path):
    """Related animals: p down to 1e-50."""
    run("plink2", tmp_path, "--bfile", MOUSE, "--hardy", "midp", "--nonfounders", "--chr-set", "19")
    source = open_bed(MOUSE.with_suffix(".bed"))
    hardy = pd.read_csv(tmp_path / "out.hardy", sep="\t")  # without the variants of unknown position
    row = {name: k for k, name in enumerate(source.variants.variant_id.tolist())}
    c = count_genotypes(source).variant[[row[name] for name in hardy["ID"]]]
    agree(hardy["MIDP"], 10 ** -hwe_neg_log10_p(c[:, 0], c[:, 1], c[:, 2], mid_p=True), "mid-p")
    assert hardy["MIDP"].min() < 1e-45


@needs_eur
@needs_plink2
@pytest.mark.parametrize("kind", ["bed", "pgen"])
def test_files_we_write_are_read_by_plink(tmp_path, kind):
    source = open_bed(EUR.with_suffix(".bed"))
    rows = np.arange(0, 54_051, 37)
    chosen = select_genotypes(source, variants=rows)
    dosage = chosen.read(0, rows.size).dosage.copy()
    dosage[np.random.default_rng(0).random(dosage.shape) < 0.03] = np.nan
    writer = BedWriter if kind == "bed" else PgenWriter
    with writer(tmp_path / "ours", source.samples, chosen.variants, source.pedigree.sex) as out:
        out.append(dosage)
    load = "--bfile" if kind == "bed" else "--pfile"
    run("plink2", tmp_path, load, tmp_path / "ours", "--export", "A", "--make-pgen")
    raw = pd.read_csv(tmp_path / "out.raw", sep="\t")
    assert raw["IID"].tolist() == source.samples.ids.tolist()
    assert raw["SEX"].tolist() == source.pedigree.sex.tolist()
    theirs = raw.iloc[:, 6:].to_numpy().T
    counted = [name.rsplit("_", 1)[1] for name in raw.columns[6:]]
    flipped = np.array(counted) != np.array(chosen.variants.effect_allele.tolist())
    theirs[flipped] = 2 - theirs[flipped]
    np.testing.assert_array_equal(theirs, dosage)
    np.testing.assert_array_equal(open_pgen(tmp_path / "out.pgen").read(0, rows.size).dosage, dosage)


def panel_study(rng, source, *, missing):
    people = source.samples
    n = len(people)
    g = source.read(100, 101).dosage[0]
    age = rng.uniform(40, 80, n).round(2)
    traits = rng.normal(size=(n, 3)).round(6)
    traits[:, 0] += (0.5 * g + 0.02 * age).round(6)
    if missing:
        traits[rng.random(n) < 0.23, 1] = np.nan
        traits[rng.random(n) < 0.05, 2] = np.nan
    covariates = PhenotypeTable(
        people,
        (
            Column("age", age),
            Column("sex", source.pedigree.sex.astype(float)),
            Column("x", rng.normal(size=n).round(5)),
        ),
    )
    return quantitative_table(people, ["t1", "t2", "t3"], traits.round(6)), covariates


@needs_eur
@needs_plink2
@pytest.mark.parametrize("missing_traits", [False, True])
@pytest.mark.parametrize("missing_calls", [False, True])
def test_linear_regression_to_the_printed_digits(tmp_path, missing_traits, missing_calls):
    panel = open_bed(EUR.with_suffix(".bed"))
    rng = np.random.default_rng(1)
    traits, covariates = panel_study(rng, panel, missing=missing_traits)
    step = 9 if missing_calls else 1
    chosen = select_genotypes(panel, variants=np.arange(0, len(panel.variants), step))
    prefix = EUR
    if missing_calls:
        prefix = tmp_path / "holes"
        dosage = chosen.read(0, len(chosen.variants)).dosage.copy()
        dosage[rng.random(dosage.shape) < rng.choice([0, 0.01, 0.05], (dosage.shape[0], 1))] = np.nan
        with BedWriter(prefix, panel.samples, chosen.variants, panel.pedigree.sex) as out:
            out.append(dosage)
    source = open_bed(prefix.with_suffix(".bed"))
    families = dict(
        zip(
            panel.samples.ids.tolist(),
            (line.split()[0] for line in prefix.with_suffix(".fam").read_text().splitlines()),
            strict=True,
        )
    )
    for table, name in ((traits, "pheno"), (covariates, "covar")):
        frame = pd.DataFrame({c.name: c.values for c in table.columns})
        frame.insert(0, "IID", panel.samples.ids)
        frame.insert(0, "#FID", [families[i] for i in panel.samples.ids])
        frame.to_csv(tmp_path / f"{name}.txt", sep="\t", index=False, na_rep="NA")
    run(
        "plink2", tmp_path, "--bfile", prefix, "--no-psam-pheno", "--pheno", tmp_path / "pheno.txt",
        "--covar", tmp_path / "covar.txt",
        "--glm", "hide-covar", "omit-ref", "cols=+a1freq,+nobs,+beta,+se,+tz", "--mac", "20",
        "--covar-variance-standardize",
    )  # fmt: skip
    settings = ScanSettings(hits=1.0, missing="exact", min_mac=5.0)
    result = scan(source, traits, covariates=covariates, settings=settings)
    for name in traits.names:
        theirs = pd.read_csv(tmp_path / f"out.{name}.glm.linear", sep="\t").set_index("ID")
        theirs = theirs[theirs["ERRCODE"] == "."]
        hits = result.hits.take(result.hits["trait"] == name)
        row = {v: k for k, v in enumerate(hits["variant_id"].tolist())}
        # --mac there counts all people, here those with the trait: with 5 here, all of theirs are among ours.
        ours = hits.take(np.array([row[v] for v in theirs.index]))
        sign = np.where(theirs["A1"].to_numpy() == np.array(ours["effect_allele"].tolist()), 1, -1)
        agree(theirs["BETA"], sign * ours["beta"], f"{name} beta")
        agree(theirs["SE"], ours["standard_error"], f"{name} se")
        agree(theirs["P"], 10 ** -ours["neg_log10_p"], f"{name} p", digits=2e-5)  # plink2's own p: 5 digits at the ends
        assert theirs["OBS_CT"].tolist() == ours["n"].tolist()
        agree(
            theirs["A1_FREQ"],
            np.where(sign > 0, ours["effect_allele_frequency"], 1 - ours["effect_allele_frequency"]),
            "f",
        )


@needs_eur
@needs_plink2
def test_float32_statistics_stay_within_their_bound():
    """methods/gwas.md 2.4: 2e-4 absolute away from hits, 1e-6 max(1, |t|) on them."""
    source = open_bed(EUR.with_suffix(".bed"))
    traits, covariates = panel_study(np.random.default_rng(2), source, missing=True)
    settings = ScanSettings(hits=1e-4, full=True)
    result = scan(source, traits, covariates=covariates, settings=settings)
    exact = scan(source, traits, covariates=covariates, settings=ScanSettings(hits=1.0)).hits
    plan = prepare_scan(traits, source.samples, covariates=covariates, settings=settings)
    for k, name in enumerate(plan.method.names):
        rows = exact.take(exact["trait"] == name)
        t = rows["beta"] / rows["standard_error"]
        place = {v: j for j, v in enumerate(source.variants.variant_id.tolist())}
        stored = result.full.traits["t"][[place[v] for v in rows["variant_id"].tolist()], k]
        assert np.abs(stored - t).max() < 2e-4
        far = np.abs(t) > 4
        assert (np.abs(stored - t)[far] <= 1e-6 * np.maximum(1, np.abs(t[far]))).all()
    assert len(full_results(plan, source.variants, result.full, "t2")) == 54_051


def height():
    table = pd.read_csv(HEIGHT, sep="\t")
    return ResultTable(
        {
            "trait": text_array(["height"] * len(table)),
            "variant_id": text_array(table["SNP"]),
            "neg_log10_p": -np.log10(table["P"].to_numpy()),
        }
    )


@needs_chr22
def test_stated_figures_of_height_on_chromosome_22():
    """363 SNPs at 5e-8, 68 clumps at r2 0.6, 31 at 0.1 (methods/sumstats.md 5; r2 of haplotypes, as PLINK)."""
    results, panel = height(), open_bed(CHR22.with_suffix(".bed"))
    assert int((results["neg_log10_p"] >= -np.log10(5e-8)).sum()) == 363
    for r2, clumps in ((0.6, 68), (0.1, 31)):
        found = clump(results, panel, ClumpSettings(r2=r2, ld="haplotypes"))
        assert np.unique(found.variants["index_variant_id"]).size == clumps


@needs_chr22
@needs_plink1
@pytest.mark.parametrize("r2", [0.6, 0.1])
def test_clumps_are_those_of_plink(tmp_path, r2):
    table = pd.read_csv(HEIGHT, sep="\t")
    table.to_csv(tmp_path / "height.txt", sep="\t", index=False)
    run(
        "plink1.9", tmp_path, "--bfile", CHR22, "--clump", tmp_path / "height.txt", "--clump-p1", "5e-8",
        "--clump-p2", "0.05", "--clump-r2", r2, "--clump-kb", "250",
    )  # fmt: skip
    theirs = pd.read_csv(tmp_path / "out.clumped", sep=r"\s+")
    expected = {
        snp: {snp} | {name.split("(")[0] for name in members.split(",") if name != "NONE"}
        for snp, members in zip(theirs["SNP"], theirs["SP2"], strict=True)
    }
    found = clump(height(), open_bed(CHR22.with_suffix(".bed")), ClumpSettings(r2=r2, ld="haplotypes"))
    ours: dict[str, set[str]] = {}
    for name, index in zip(
        found.variants["variant_id"].tolist(), found.variants["index_variant_id"].tolist(), strict=True
    ):
        ours.setdefault(index, set()).add(name)
    assert ours == expected


@needs_eur
@needs_plink2
def test_grm_and_components_are_those_of_plink(tmp_path):
    run("plink2", tmp_path, "--bfile", EUR, "--maf", "0.05", "--make-grm-bin", "--pca", "10")
    source = open_genotypes(EUR.with_suffix(".bed"))
    frequency = count_genotypes(source).effect_allele_frequency
    common = np.minimum(frequency, 1 - frequency) >= 0.05
    chosen = select_genotypes(source, variants=common)
    grm, theirs = genetic_relationships(chosen), read_grm(tmp_path / "out.grm.bin")
    assert theirs.samples == SampleIndex.of(grm.samples.ids)
    np.testing.assert_allclose(grm.matrix, theirs.matrix, atol=2e-6)  # both files are float32
    assert grm.n_variants == theirs.n_variants
    values = np.loadtxt(tmp_path / "out.eigenval")
    found = principal_components(chosen, 10)
    np.testing.assert_allclose(found.eigenvalues, values, rtol=1e-4)
    vectors = pd.read_csv(tmp_path / "out.eigenvec", sep="\t").iloc[:, -10:].to_numpy()
    overlap = np.linalg.svd(vectors.T @ found.scores)[1]
    assert np.sqrt(max(0.0, 1 - overlap.min() ** 2)) < 2e-3
