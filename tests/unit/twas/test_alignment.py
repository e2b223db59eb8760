"""Union of SNPs, alleles, duplicates, statistics of rows, and why nothing matches."""

import numpy as np
import pytest

from brainlocus.core import ExpressionModel, SchemaError
from brainlocus.genetics.twas import (
    AlignmentRules,
    align_gwas,
    explain_no_overlap,
    genome_build_of,
    gwas_statistics,
    unite_snps,
)
from brainlocus.numerics import neg_log10_p_from_z


def model(rows, tissue="T"):
    """A model of one gene from (snp, effect, other)."""
    n = len(rows)
    return ExpressionModel(
        tissue, np.array(["G"]), np.array(["g"]), np.array([0, n]), np.array([r[0] for r in rows]),
        np.array([r[1] for r in rows]), np.array([r[2] for r in rows]), np.ones(n), np.array([n]),
        *[np.full(1, np.nan)] * 4,
    )  # fmt: skip


def align(snps, rows, rules=None, reference=None, with_beta=True):
    """Align rows (name, effect, other, z[, frequency])."""
    place = {name: k for k, name in enumerate(snps.names.tolist())}
    levels = list(dict.fromkeys(a for r in rows for a in r[1:3])) or ["A"]
    z = np.array([r[3] for r in rows], dtype=float)
    return align_gwas(
        snps,
        snp=np.array([place[r[0]] for r in rows], dtype=np.int32),
        alleles=np.array(levels, dtype=np.dtypes.StringDType()),
        effect_allele=np.array([levels.index(r[1]) for r in rows], dtype=np.int32),
        other_allele=np.array([levels.index(r[2]) for r in rows], dtype=np.int32),
        z=z,
        beta=z / 10 if with_beta else None,
        frequency=np.array([r[4] for r in rows]) if rows and len(rows[0]) > 4 else None,
        reference_frequency=reference,
        rules=rules,
    )


def test_union_of_models():
    one = model([("rs2", "A", "G"), ("rs1", "C", "T")])
    two = model([("rs1", "T", "C"), ("rs1", "C", "A"), ("rs3", "AT", "A")])
    snps = unite_snps([one, two], [one.snps, two.snps])
    assert snps.names.tolist() == ["rs1", "rs2", "rs3"]
    assert snps.n_entries == 4
    assert snps.entry_names.tolist() == ["rs1", "rs1", "rs2", "rs3"]
    assert snps.entry[1][0] == snps.entry[0][1]
    assert snps.sign[0].tolist() == [1, 1]
    assert snps.sign[1].tolist() == [-1, 1, 1]


def test_same_swapped_other():
    m = model([("rs1", "A", "G"), ("rs2", "A", "G"), ("rs3", "A", "G"), ("rs4", "AT", "A"), ("rs5", "A", "G")])
    snps = unite_snps([m], [m.snps])
    found = align(
        snps,
        [("rs1", "A", "G", 1.0), ("rs2", "G", "A", 2.0), ("rs3", "A", "C", 3.0), ("rs4", "A", "AT", 4.0),
         ("rs5", "T", "C", 5.0)],
    )  # fmt: skip
    np.testing.assert_array_equal(found.z, [1, -2, np.nan, -4, np.nan])
    np.testing.assert_allclose(found.beta, [0.1, -0.2, np.nan, -0.4, np.nan])
    assert (found.counts["swapped"], found.counts["other_alleles"], found.counts["entries"]) == (2, 2, 3)
    other_strand = align(snps, [("rs5", "T", "C", 5.0), ("rs1", "C", "T", 1.0)], AlignmentRules(strand="complement"))
    assert other_strand.z[4] == 5.0
    assert other_strand.z[0] == -1.0
    assert other_strand.counts["other_strand"] == 2


def test_palindromic():
    m = model([("rs1", "A", "T"), ("rs2", "C", "G"), ("rs3", "A", "T"), ("rs4", "A", "G")])
    snps = unite_snps([m], [m.snps])
    rows = [
        ("rs1", "A", "T", 1.0, 0.2),
        ("rs2", "C", "G", 2.0, 0.8),
        ("rs3", "T", "A", 3.0, 0.45),
        ("rs4", "A", "G", 4.0, 0.9),
    ]
    kept = align(snps, rows)
    assert kept.z.tolist() == [1, 2, -3, 4]
    assert kept.counts["palindromic"] == 3
    dropped = align(snps, rows, AlignmentRules(palindromic="drop"))
    np.testing.assert_array_equal(dropped.z, [np.nan, np.nan, np.nan, 4])
    told = align(snps, rows, AlignmentRules(palindromic="frequency"), reference=np.array([0.25, 0.1, 0.9, 0.1]))
    # rs1 agrees, rs2 is of the other strand, rs3 is too near a half; rs4 is not palindromic.
    np.testing.assert_array_equal(told.z, [1, -2, np.nan, 4])
    assert (told.counts["palindromic_flipped"], told.counts["palindromic_not_told"]) == (1, 1)
    with pytest.raises(SchemaError, match="--frequencies"):
        align(snps, rows, AlignmentRules(palindromic="frequency"))
    # Complement never applies to a palindromic SNP.
    wrong = align(snps, [("rs1", "G", "C", 1.0)], AlignmentRules(strand="complement"))
    assert np.isnan(wrong.z).all()


def test_one_name_with_two_pairs_of_alleles():
    m = model([("rs1", "A", "G"), ("rs1", "A", "C")])
    snps = unite_snps([m], [m.snps])
    found = align(snps, [("rs1", "C", "A", 1.0), ("rs1", "A", "G", 2.0)])
    assert sorted(found.z.tolist()) == [-1, 2]
    assert found.counts["other_alleles"] == 0


def test_duplicates():
    m = model([("rs1", "A", "G"), ("rs2", "A", "G")])
    snps = unite_snps([m], [m.snps])
    rows = [("rs1", "A", "G", 3.0), ("rs1", "G", "A", 1.0), ("rs2", "A", "G", 1.0), ("rs2", "G", "A", -1.0)]
    strongest = align(snps, rows)
    assert strongest.z.tolist() == [3, 1]
    assert strongest.counts["duplicates"] == 1  # the rows of rs2 say the same
    assert align(snps, rows, AlignmentRules(duplicates="last")).z.tolist() == [-1, 1]


def test_no_rows_and_no_betas():
    m = model([("rs1", "A", "G")])
    snps = unite_snps([m], [m.snps])
    assert np.isnan(align(snps, []).z).all()
    assert align(snps, [("rs1", "A", "G", 1.0)], with_beta=False).beta is None
    missing = align(snps, [("rs1", "A", "G", np.nan)])
    assert np.isnan(missing.z).all()
    assert missing.counts["without_statistic"] == 1


def test_statistics_by_precedence():
    z, beta, error = np.array([1.0, 2.0]), np.array([0.5, -0.5]), np.array([0.25, 0.0])
    strength = np.asarray(neg_log10_p_from_z(np.array([3.0, 4.0])))
    columns = {"z": None, "beta": beta, "standard_error": error, "neg_log10_p": strength, "sign": None}
    by_beta = gwas_statistics(**columns)
    np.testing.assert_array_equal(by_beta.z, [2.0, np.nan])
    assert by_beta.counts == {"standard_error_not_positive": 1}
    by_p = gwas_statistics(**columns, precedence="p")
    np.testing.assert_allclose(by_p.z, [3.0, -4.0], rtol=1e-12)
    assert by_p.source == "p and sign"
    given = gwas_statistics(**{**columns, "z": z})
    assert given.z.tolist() == [1, 2]
    assert given.source == "z"
    no_error = gwas_statistics(**{**columns, "standard_error": None})
    assert no_error.source == "p and sign"
    with pytest.raises(ValueError, match="needs z"):
        gwas_statistics(**{**columns, "beta": None})


def test_p_of_zero():
    columns = {"z": None, "beta": None, "standard_error": None, "sign": np.array([1.0, -1.0, 1.0])}
    strength = np.array([np.inf, 60.0, np.nan])
    dropped = gwas_statistics(**columns, neg_log10_p=strength)
    assert np.isnan(dropped.z[[0, 2]]).all()
    assert dropped.counts == {"p_zero": 1, "statistic_missing": 1}
    replaced = gwas_statistics(**columns, neg_log10_p=strength, replace_zero_p=True)
    assert replaced.z[0] == -replaced.z[1] > 0
    small = gwas_statistics(**columns, neg_log10_p=np.array([np.inf, 3.0, 2.0]), replace_zero_p=True)
    assert neg_log10_p_from_z(small.z[0]) == pytest.approx(50, rel=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs", "advice"),
    [
        ("rs7412", "chr19_44908822_C_T_b38", "--snp-key varID"),
        ("chr19_44908822_C_T_b38", "rs7412", "--snp-key rsid"),
        ("chr19_44908822_C_T_b38", "19_44908822_C_T_b38", "Only one side writes chr"),
        ("chr19_44908822_C_T_b38", "chr19_45412079_C_T_b37", "The models are of GRCh38, the GWAS of GRCh37"),
        ("rs7412", "19:44908822", "--match position"),
        ("rs7412", "19:44908822:C:T", "--match position"),
        ("rs7412", "rs1", "cover the chromosomes"),
        ("rs7412", "SNP_A-1", "--columns snp=NAME"),
    ],
)
def test_why_nothing_matches(ours, theirs, advice):
    assert advice in explain_no_overlap([ours], [theirs])


def test_build_of_names():
    assert genome_build_of(["chr1_1_A_C_b38", "chr1_2_A_C_b38"]) == "GRCh38"
    assert genome_build_of(["1_1_A_C_b37"]) == "GRCh37"
    assert genome_build_of(["rs1"]) == genome_build_of(["1_1_A_C_b37", "1_1_A_C_b38"]) == ""
    assert "Is the column of ids" in explain_no_overlap(["rs1"], [])
