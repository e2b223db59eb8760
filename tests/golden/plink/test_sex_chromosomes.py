"""Frequencies, Hardy-Weinberg and sex on X and Y beside PLINK, on a simulated panel run in the same test."""

import numpy as np
import pandas as pd
import pytest
from tests.golden.plink.panels import needs_plink1, needs_plink2, run

from brainlocus.core import SampleIndex, VariantTable
from brainlocus.core.text import text_array
from brainlocus.genetics.genotypes import count_by_sex, count_genotypes
from brainlocus.io import BedWriter, open_bed

N_X, N_Y = 300, 40


def write_panel(prefix, *, wrong_calls):
    """400 people, 300 variants of X and 40 of Y, with missing calls; two sexes reported wrongly, three not at all."""
    rng = np.random.default_rng(11)
    n = 400
    sex = np.where(rng.random(n) < 0.45, 1, 2).astype(np.int8)
    p = rng.uniform(0.02, 0.98, N_X + N_Y)[:, None]
    p_men = np.clip(p + rng.normal(0, 0.05, p.shape), 0.01, 0.99)
    men = 2 * rng.binomial(1, p_men, (N_X + N_Y, n))
    women = rng.binomial(2, p, (N_X + N_Y, n)).astype(float)
    women[:50][rng.random((50, n)) < 0.2] = 0  # out of proportions
    women[N_X:] = np.nan
    dosage = np.where(sex == 1, men, women).astype(np.float32)
    dosage[rng.random(dosage.shape) < 0.02] = np.nan
    if wrong_calls:
        wrong = rng.random(dosage.shape) < 0.01
        dosage[wrong & (sex == 1)] = 1
        dosage[N_X:][wrong[N_X:] & (sex == 2)] = 2
    reported = sex.copy()
    reported[[4, 9, 17]] = 0
    reported[[30, 31]] = 3 - reported[[30, 31]]
    chromosome = np.array(["X"] * N_X + ["Y"] * N_Y)
    position = 5_000_000 + 1000 * np.arange(N_X + N_Y)
    names = text_array([f"v{k}" for k in range(N_X + N_Y)])
    alleles = (text_array([a] * (N_X + N_Y)) for a in "AG")
    table = VariantTable(chromosome, position, *alleles, names, "GRCh37")
    with BedWriter(prefix, SampleIndex.of([f"p{k}" for k in range(n)]), table, reported) as out:
        out.append(dosage)
    return open_bed(prefix.with_suffix(".bed"))


def exact(printed):
    return pd.read_csv(printed, sep=r"\s+")


@needs_plink2
@pytest.mark.parametrize("wrong_calls", [False, True])
def test_frequencies_with_men_counted_once(tmp_path, wrong_calls):
    source = write_panel(tmp_path / "panel", wrong_calls=wrong_calls)
    # Heterozygous men, among them the woman reported as one, are left out where PLINK is told to.
    run("plink2", tmp_path, "--bfile", tmp_path / "panel", "--set-hh-missing", "--make-bed")
    run("plink2", tmp_path, "--bfile", tmp_path / "out", "--freq")
    freq = exact(tmp_path / "out.afreq")
    for chromosome in ("X", "Y"):
        counts = count_by_sex(source, chromosome, source.pedigree.sex)
        theirs = freq[freq["#CHROM"] == chromosome]
        assert theirs["ALT"].tolist() == ["A"] * counts.rows.size
        assert theirs["OBS_CT"].tolist() == counts.chromosomes.tolist()
        np.testing.assert_allclose(counts.frequency, theirs["ALT_FREQS"], rtol=6e-6)


@needs_plink2
@pytest.mark.parametrize("column", ["P", "MIDP"])
def test_joint_hardy_weinberg_test_of_both_sexes(tmp_path, column):
    source = write_panel(tmp_path / "panel", wrong_calls=False)
    run("plink2", tmp_path, "--bfile", tmp_path / "panel", "--hardy", *(["midp"] if column == "MIDP" else []))
    theirs = exact(tmp_path / "out.hardy.x")
    counts = count_by_sex(source, "X", source.pedigree.sex)
    p = 10 ** -counts.hwe("joint", mid_p=column == "MIDP")
    # Six digits are printed.
    np.testing.assert_allclose(p, theirs[column], rtol=6e-6)
    assert theirs[column].min() < 1e-8


@needs_plink1
@pytest.mark.parametrize("wrong_calls", [False, True])
def test_sex_is_judged_as_by_plink(tmp_path, wrong_calls):
    source = write_panel(tmp_path / "panel", wrong_calls=wrong_calls)
    run("plink1.9", tmp_path, "--bfile", tmp_path / "panel", "--check-sex")
    theirs = exact(tmp_path / "out.sexcheck")
    x = count_by_sex(source, "X", source.pedigree.sex)
    expected, sets = np.full(len(source.variants), np.nan), np.full(len(source.variants), -1)
    expected[x.rows], sets[x.rows] = x.expected_het, 0
    counts = count_genotypes(source, sets=sets, expected_het=expected)
    f = 1.0 - counts.sample_het[:, 0] / counts.sample_expected_het[:, 0]
    np.testing.assert_allclose(f, theirs["F"], rtol=6e-4, atol=6e-6)  # four digits are printed
