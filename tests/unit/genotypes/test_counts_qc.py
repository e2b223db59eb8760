"""Counts against loops, and quality control against planted faults."""

from dataclasses import replace

import numpy as np
import pytest
from tests.reference.genotypes import naive_hwe_x

from brainlocus.core import AlignmentError, ArrayGenotypes, SampleIndex, VariantTable
from brainlocus.core.text import text_array
from brainlocus.genetics.genotypes import (
    PRESETS,
    QcSettings,
    count_genotypes,
    duplicate_variants,
    hwe_neg_log10_p,
    quality_control,
)
from brainlocus.genetics.genotypes.fisher import fisher_neg_log10_p


def variants_at(chromosome, position, *, effect=None, other=None, names=None):
    m = len(position)
    return VariantTable(
        np.array(chromosome, dtype=np.str_),
        np.array(position),
        text_array(effect or ["A"] * m),
        text_array(other or ["G"] * m),
        text_array(names or [f"v{k}" for k in range(m)]),
        "GRCh37",
    )


def source_of(dosage, chromosome=None, **about):
    m, n = dosage.shape
    table = variants_at(chromosome or ["1"] * m, np.arange(1, m + 1), **about)
    return ArrayGenotypes(SampleIndex.of([f"p{k}" for k in range(n)]), table, dosage)


def draw(rng, m, n, frequency=None):
    p = rng.uniform(0.2, 0.8, m) if frequency is None else frequency
    return rng.binomial(2, np.broadcast_to(p, m)[:, None], (m, n)).astype(np.float32)


def test_counts_are_those_of_a_loop_and_do_not_depend_on_the_block_size():
    rng = np.random.default_rng(1)
    dosage = draw(rng, 150, 37)
    dosage[rng.random(dosage.shape) < 0.1] = np.nan
    founders = rng.random(37) < 0.5
    sets = rng.integers(-1, 2, 150)
    small = count_genotypes(source_of(dosage), sets=sets, founders=founders, memory_bytes=4 * 37 * 3 * 64)
    large = count_genotypes(source_of(dosage), sets=sets, founders=founders)
    for j in range(150):
        row = dosage[j]
        expected = [(row == 2).sum(), (row == 1).sum(), (row == 0).sum(), np.isnan(row).sum()]
        assert small.variant[j].tolist() == expected
        assert small.founder[j, :3].tolist() == [(row[founders] == k).sum() for k in (2, 1, 0)]
        assert small.effect_allele_frequency[j] == pytest.approx(np.nanmean(row) / 2)
        assert small.missing_rate[j] == pytest.approx(np.isnan(row).mean())
    for s in (0, 1):
        assert small.sample_missing[:, s].tolist() == np.isnan(dosage[sets == s]).sum(axis=0).tolist()
        assert small.sample_het[:, s].tolist() == (dosage[sets == s] == 1).sum(axis=0).tolist()
    np.testing.assert_array_equal(small.variant, large.variant)
    np.testing.assert_allclose(small.sample_expected_het, large.sample_expected_het, rtol=1e-12)


def test_duplicates_keep_the_best_called_then_the_first():
    variants = variants_at(
        ["1", "1", "1", "1", "2", "1", "1"],
        [5, 5, 5, 5, 5, 0, 0],
        effect=["A", "G", "A", "A", "A", "A", "A"],
        other=["G", "A", "T", "G", "G", "G", "G"],
    )
    duplicate = duplicate_variants(variants, np.array([3, 1, 0, 1, 0, 0, 0]))
    assert duplicate.tolist() == [True, False, False, True, False, False, False]


def test_planted_faults_are_found_with_their_reasons():
    rng = np.random.default_rng(2)
    n, m = 300, 1300
    dosage = draw(rng, m, n)
    chromosome = ["1"] * 300 + ["X"] * 1000
    sex = np.where(np.arange(n) < 150, 1, 2).astype(np.int8)
    share = dosage[300:].mean(axis=1) / 2
    dosage[300:, :150] = 2 * rng.binomial(1, share[:, None], (1000, 150))  # males carry one X, coded 0 or 2
    sex[7], sex[200] = 2, 1  # wrongly reported
    sex[8] = 0  # unknown is no mismatch
    dosage[:300, 20][rng.random(300) < 0.2] = np.nan
    dosage[:300, 21] = 1  # far too heterozygous
    dosage[10] = 0
    dosage[10, :3] = 1  # MAF 0.5 %
    dosage[11, rng.random(n) < 0.1] = np.nan
    dosage[12] = 2 * rng.binomial(1, 0.5, n)  # no heterozygotes
    source = source_of(dosage, chromosome)
    result = quality_control(source, QcSettings(), sex=sex)
    why = dict(zip(result.samples["participant_id"].tolist(), result.samples["reason"].tolist(), strict=True))
    assert {k: v for k, v in why.items() if v} == {
        "p7": "sex_mismatch", "p200": "sex_mismatch", "p20": "sample_missing", "p21": "heterozygosity",
    }  # fmt: skip
    reasons = result.variants["reason"].tolist()
    assert {k: r for k, r in enumerate(reasons) if r} == {10: "maf", 11: "variant_missing", 12: "hwe"}
    assert len(result.keep_samples) == n - 4
    assert result.keep_variants.size == m - 3
    assert result.flow[0].step == "start"
    assert result.flow[-1].n_samples == n - 4
    # Frequencies are those of the people who stayed.
    kept = [k for k in range(n) if not why[f"p{k}"]]
    frequency = result.variants["effect_allele_frequency"]
    np.testing.assert_allclose(frequency[:300], np.nanmean(dosage[:300, kept], axis=1) / 2, rtol=1e-6)
    once = np.where(sex[kept] == 1, 0.5, 1.0)
    np.testing.assert_allclose(frequency[300:], dosage[300:, kept] @ once / (2 * once.sum()), rtol=1e-6)


def test_presets_hold_the_published_thresholds():
    first = PRESETS["covariance"]
    assert (first.max_sample_missing, first.min_maf, first.max_variant_missing, first.min_hwe_p) == (
        0.03, 0.01, 0.03, 1e-10,
    )  # fmt: skip
    assert (PRESETS["susceptibility"].min_maf, PRESETS["susceptibility"].min_hwe_p) == (0.01, 1e-7)


def test_keep_list_founders_and_bad_input():
    rng = np.random.default_rng(3)
    source = source_of(draw(rng, 60, 50))
    loose = QcSettings(max_heterozygosity_sd=None)
    result = quality_control(source, loose, keep=SampleIndex.of(["p3", "p4", "p5", "p9", "p11", "p12", "stranger"]))
    assert result.keep_samples.ids.tolist() == ["p3", "p4", "p5", "p9", "p11", "p12"]
    assert (result.samples["reason"] == "not_listed").sum() == 44
    nobody = quality_control(source, loose, founders=np.zeros(50, dtype=bool))
    assert nobody.notes == ("No founders: Hardy-Weinberg was tested among everyone.",)
    with pytest.raises(AlignmentError, match=r"None of the 1 listed participants \(\['x'\]"):
        quality_control(source, keep=SampleIndex.of(["x"]))
    with pytest.raises(AlignmentError, match="0 variants"):
        quality_control(source_of(np.zeros((5, 50), dtype=np.float32)), loose)
    with pytest.raises(ValueError, match="min_maf lies in"):
        QcSettings(min_maf=2.0)


def test_fisher_is_that_of_scipy():
    from scipy.stats import fisher_exact

    rng = np.random.default_rng(0)
    tables = np.array([[rng.integers(0, top) for top in (30, 400, 50, 1000)] for _ in range(100)])
    tables = np.vstack([tables, [[8, 2, 1, 5], [0, 10, 10, 0], [100, 0, 0, 100], [0, 0, 5, 5], [3, 0, 4, 0]]])
    expected = [-np.log10(fisher_exact([[a, b], [c, d]])[1]) for a, b, c, d in tables]
    np.testing.assert_allclose(fisher_neg_log10_p(*tables.T), expected, atol=1e-11)
    far = fisher_neg_log10_p(*(np.array([k]) for k in (3000, 0, 0, 3000)))
    assert 1800 < far[0] < 1810  # 1 / C(6000, 3000), twice: far below the smallest double


def test_relatives_status_counts_and_females():
    rng = np.random.default_rng(3)
    n, m = 400, 500
    dosage = draw(rng, m, n)
    chromosome = ["1"] * 297 + ["0"] * 3 + ["X"] * 200
    sex = np.where(np.arange(n) < 200, 1, 2).astype(np.int8)
    share = dosage[300:].mean(axis=1) / 2
    dosage[300:, :200] = 2 * rng.binomial(1, share[:, None], (200, 200))
    status = np.tile([0.0, 1.0], n // 2)
    status[:20] = np.nan
    dosage[5, (status == 1) & (rng.random(n) < 0.15)] = np.nan
    dosage[6] = 0
    dosage[6, :3] = 1
    source = source_of(dosage, chromosome)
    unrelated = source.samples.take(np.arange(n) != 9)
    settings = QcSettings(min_mac=5.0, min_maf=None, max_variant_missing=None, max_heterozygosity_sd=None)
    result = quality_control(source, settings, unrelated=unrelated, status=status, sex=sex)
    assert result.samples["reason"][9] == "related"
    assert [row.step for row in result.flow][1:3] == ["relatives", "listed people"]
    assert result.flow[1].n_samples == n - 1
    reason = result.variants["reason"]
    assert (reason[297:300] == "unplaced").all()
    assert reason[5] == "status_missing"
    assert reason[6] == "mac"
    assert result.variants["status_missing_neg_log10_p"][5] > 5
    assert (result.samples["sex_f"][:9] > 0.8).all()
    assert (result.samples["sex_f"][200:] < 0.3).all()
    females = dosage[300:, sex == 2]
    p = hwe_neg_log10_p((females == 2).sum(axis=1), (females == 1).sum(axis=1), (females == 0).sum(axis=1))
    women = quality_control(source, replace(settings, x_hwe="females"), unrelated=unrelated, sex=sex)
    np.testing.assert_allclose(women.variants["hwe_neg_log10_p"][300:], p, rtol=1e-12)
    men = np.delete(dosage[300:], 9, axis=1)[:, sex[np.arange(n) != 9] == 1]
    joint = [-float(np.log10(float(naive_hwe_x(*counts)))) for counts in sex_counts(men, females)[:5]]
    np.testing.assert_allclose(result.variants["hwe_neg_log10_p"][300:305], joint, atol=1e-9)
    nobody = quality_control(source, settings, status=np.full(n, 1.0), sex=sex)
    assert np.isnan(nobody.variants["status_missing_neg_log10_p"]).all()


def sex_counts(men, women):
    """Men with either allele and the three genotypes of women, for every variant."""
    rows = [*((men == k).sum(axis=1) for k in (2, 0)), *((women == k).sum(axis=1) for k in (2, 1, 0))]
    return [tuple(int(k) for k in counts) for counts in np.stack(rows, axis=1)]


def test_calls_that_a_sex_cannot_have_are_missing_and_said():
    rng = np.random.default_rng(6)
    sex = np.repeat([1, 2, 0], [60, 80, 10]).astype(np.int8)
    dosage = draw(rng, 120, 150)
    dosage[100:, :60] = 2 * rng.binomial(1, 0.4, (20, 60))
    dosage[110:, 60:] = np.nan  # Y
    dosage[100, :7] = 1
    dosage[110, :2], dosage[111, 70] = 1, 2
    source = source_of(dosage, ["1"] * 100 + ["X"] * 10 + ["Y"] * 10)
    loose = QcSettings(max_heterozygosity_sd=None, check_sex=False, max_variant_missing=0.1)
    result = quality_control(source, loose, sex=sex)
    assert result.notes == (
        "Heterozygous calls of men on X, counted as missing: 7 (of 1 variants).",
        "Heterozygous calls of men on Y, counted as missing: 2 (of 1 variants).",
        "Calls of women on Y, not counted: 1 (of 1 variants).",
    )
    missing = result.variants["missing_rate"]
    assert missing[100] == 7 / 150
    assert missing[110] == 2 / 60
    assert not missing[111:].any()
    men = dosage[110:, :60] == 2
    np.testing.assert_allclose(result.variants["effect_allele_frequency"][111:], men[1:].mean(axis=1))
    assert result.variants["minor_allele_count"][110] == min(men[0].sum(), 58 - men[0].sum())
    # A dosage that is not whole is uncertain, not an error.
    soft = dosage.copy()
    soft[101, :60] = 0.9
    uncertain = quality_control(source_of(soft, ["1"] * 100 + ["X"] * 10 + ["Y"] * 10), loose, sex=sex)
    assert uncertain.variants["missing_rate"][101] == 0.0
    expected = (0.45 * 60 + soft[101, 60:].sum()) / (60 + 2 * 90)
    assert uncertain.variants["effect_allele_frequency"][101] == pytest.approx(expected, rel=1e-6)
    unknown = quality_control(source, loose)
    assert "No man is known to have a call on Y: its variants have no frequency." in unknown.notes


def test_duplicates_of_the_other_strand():
    variants = variants_at(
        ["1"] * 8,
        [5, 5, 6, 6, 7, 7, 8, 8],
        effect=["A", "G", "A", "T", "A", "TAG", "A", "C"],
        other=["C", "T", "T", "A", "CTA", "T", "G", "A"],
    )
    nothing = np.zeros(8, dtype=np.int64)
    plain = duplicate_variants(variants, nothing)
    assert plain.tolist() == [False, False, False, True, False, False, False, False]
    either = duplicate_variants(variants, nothing, strand=True)
    assert either.tolist() == [False, True, False, True, False, True, False, False]


def test_packed_calls_count_as_dosages_do(tmp_path):
    from brainlocus.core import select_genotypes
    from brainlocus.io import BedWriter, open_bed

    rng = np.random.default_rng(4)
    dosage = draw(rng, 700, 137)
    dosage[rng.random(dosage.shape) < 0.08] = np.nan
    plain = source_of(dosage)
    with BedWriter(tmp_path / "g", plain.samples, plain.variants) as out:
        out.append(dosage)
    packed = open_bed(tmp_path / "g.bed")
    people = plain.samples.take(np.sort(rng.permutation(137)[:90]))
    rows, sets, founders = rng.random(700) < 0.6, rng.integers(-1, 2, 700), rng.random(90) < 0.5
    for which in (None, people):
        some = founders if which is not None else None
        chosen = None if which is None else rows
        inside = sets if chosen is None else sets[rows]
        one, two = (
            count_genotypes(select_genotypes(s, samples=which, variants=chosen), sets=inside, founders=some)
            for s in (plain, packed)
        )
        for name in ("variant", "founder", "dosage_sum", "sample_missing", "sample_het", "set_size"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
        np.testing.assert_allclose(one.sample_expected_het, two.sample_expected_het, rtol=1e-11)
