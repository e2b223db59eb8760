"""BGEN and VCF beside PLINK 2 reading the same files, the text truth of the BGEN examples, and INFO beside PLINK 2."""

import numpy as np
import pandas as pd
import pytest
from tests.golden.plink.panels import DATA, needs_plink2, run
from tests.real_data import real_data
from tests.reference.genotypes import naive_info

from brainlocus.io import BgenWriter, open_bed, open_bgen, open_genotypes, open_pgen, open_vcf
from brainlocus.numerics.imputation import impute_info, mach_r2

EXAMPLES = DATA / "genotypes/bgen_examples"
WIDTHS = {"v11": 1 / 32768, "1bits": 1, "8bits": 1 / 255, "16bits": 1 / 65535, "16bits.zstd": 1 / 65535, "32bits": 0}


def truth():
    """Return variants and probabilities (variants, people, 3) of the text file; missing people are NaN."""
    rows = [line.split() for line in real_data("genotypes/bgen_examples/example.gen").read_text().splitlines()]
    p = np.array([[float(x) for x in row[6:]] for row in rows]).reshape(len(rows), -1, 3)
    p[p.sum(axis=2) == 0] = np.nan
    return rows, p


@pytest.mark.parametrize("name", WIDTHS)
def test_every_width_gives_the_text_truth(name):
    rows, p = truth()
    source = open_bgen(
        real_data(f"genotypes/bgen_examples/example.{name}.bgen"),
        sample=real_data("genotypes/bgen_examples/example.sample"),
    )
    assert len(source.variants) == len(rows) == 199
    assert source.variants.variant_id.tolist() == [r[2] for r in rows]
    assert source.variants.position.tolist() == [int(r[3]) for r in rows]
    assert source.variants.other_allele.tolist() == [r[4] for r in rows]
    assert source.variants.effect_allele.tolist() == [r[5] for r in rows]
    assert source.samples.ids[0] == "sample_001"
    known, dosage = source.read_probabilities(0, 199), source.read(0, 199).dosage
    scaled = p / p.sum(axis=2, keepdims=True)  # six printed digits do not sum to 1
    step = WIDTHS[name] + 2e-6
    np.testing.assert_allclose(known.one, scaled[..., 1], atol=step)
    np.testing.assert_allclose(known.two, scaled[..., 2], atol=step)
    np.testing.assert_allclose(dosage, scaled[..., 1] + 2 * scaled[..., 2], atol=2 * step)


def test_haplotypes_and_mixed_ploidy():
    source = open_bgen(real_data("genotypes/bgen_examples/haplotypes.bgen"))
    rows = [line.split() for line in real_data("genotypes/bgen_examples/haplotypes.haps").read_text().splitlines()]
    expected = np.array([[int(x) for x in row[6:]] for row in rows]).reshape(len(rows), -1, 2).sum(axis=2)
    np.testing.assert_array_equal(source.read(0, len(rows)).dosage, expected)
    complex_ = open_bgen(real_data("genotypes/bgen_examples/complex.bgen"))
    assert complex_.left_out["not_biallelic"] > 0
    assert len(complex_.variants) + complex_.left_out["not_biallelic"] == 10


@needs_plink2
@pytest.mark.parametrize("reference", ["first", "last"])
@pytest.mark.parametrize("name", ["example.8bits", "example.16bits", "example.v11"])
def test_dosages_are_those_of_plink(tmp_path, name, reference):
    path = real_data(f"genotypes/bgen_examples/{name}.bgen")
    sample = real_data("genotypes/bgen_examples/example.sample")
    run("plink2", tmp_path, "--bgen", path, f"ref-{reference}", "--sample", sample, "--make-pgen")
    theirs = open_pgen(tmp_path / "out.pgen")
    ours = open_bgen(path, reference=reference, sample=sample)
    assert theirs.variants.effect_allele.tolist() == ours.variants.effect_allele.tolist()
    assert theirs.variants.position.tolist() == ours.variants.position.tolist()
    a, b = theirs.read(0, 199).dosage, ours.read(0, 199).dosage
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    np.testing.assert_allclose(a, b, atol=1 / 16384)


def test_hard_calls_of_the_regenie_example():
    """The same people and variants as zlib BGEN, BED and PGEN."""
    sample = real_data("genotypes/regenie_example/example_3chr.sample")
    source = open_bgen(real_data("genotypes/regenie_example/example.bgen"), sample=sample)
    dosage = source.read(0, 1000).dosage
    for other in (
        open_bed(real_data("genotypes/regenie_example/example.bed")),
        open_pgen(real_data("genotypes/regenie_example/example.pgen")),
    ):
        assert source.samples == other.samples
        assert source.variants.variant_id.tolist() == other.variants.variant_id.tolist()
        calls = other.read(0, 1000).dosage
        same = np.array(other.variants.effect_allele.tolist()) == np.array(source.variants.effect_allele.tolist())
        np.testing.assert_array_equal(dosage, np.where(same[:, None], calls, 2 - calls))


@needs_plink2
def test_zstd_is_read_as_plink_does(tmp_path):
    path = real_data("genotypes/regenie_example/example_3chr_zstd.bgen")
    sample = real_data("genotypes/regenie_example/example_3chr.sample")
    run("plink2", tmp_path, "--bgen", path, "ref-first", "--sample", sample, "--make-pgen")
    ours, theirs = open_bgen(path, sample=sample), open_pgen(tmp_path / "out.pgen")
    assert ours.samples == theirs.samples
    assert ours.variants.effect_allele.tolist() == theirs.variants.effect_allele.tolist()
    np.testing.assert_allclose(ours.read(0, 500).dosage, theirs.read(0, 500).dosage, atol=1 / 16384)


@needs_plink2
@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_bgen_that_we_write_is_read_by_plink(tmp_path, compression):
    source = open_bgen(real_data("genotypes/bgen_examples/example.16bits.bgen"))
    known, dosage = source.read_probabilities(0, 199), source.read(0, 199).dosage
    sex = (np.arange(500) % 3).astype(np.int8)
    for name in ("probabilities", "dosages"):
        with BgenWriter(tmp_path / name, source.samples, source.variants, sex, compression=compression) as out:
            if name == "dosages":
                out.append(dosage)
            else:
                out.append_probabilities(known.one, known.two)
        folder = tmp_path / f"{name}-out"
        folder.mkdir()
        files = ("--bgen", tmp_path / f"{name}.bgen", "ref-first", "--sample", tmp_path / f"{name}.sample")
        run("plink2", folder, *files, "--make-pgen")
        back = open_pgen(folder / "out.pgen")
        assert back.samples == source.samples
        assert back.pedigree.sex.tolist() == sex.tolist()
        ours = open_bgen(tmp_path / f"{name}.bgen")
        assert back.variants.variant_id.tolist() == ours.variants.variant_id.tolist()
        np.testing.assert_allclose(back.read(0, 199).dosage, ours.read(0, 199).dosage, atol=1 / 16384)


@needs_plink2
def test_info_is_that_of_plink(tmp_path):
    """PLINK 2 prints MaCH's r2; IMPUTE's INFO is compared with its formula, read literally."""
    path = real_data("genotypes/bgen_examples/example.16bits.bgen")
    source = open_bgen(path)
    run("plink2", tmp_path, "--bgen", path, "ref-first", "--make-pgen", "--freq", "cols=+machr2")
    theirs = pd.read_csv(tmp_path / "out.afreq", sep="\t")["MACH_R2"]
    # PLINK rounds dosages to 1/32768 when it reads: the same numbers give the same r2 to the six digits it prints.
    np.testing.assert_allclose(mach_r2(open_pgen(tmp_path / "out.pgen").read(0, 199).dosage), theirs, rtol=6e-6)
    np.testing.assert_allclose(mach_r2(source.read(0, 199).dosage), theirs, rtol=1e-3)
    people = np.arange(0, 500, 3)
    known = source.read_probabilities(0, 199)
    info = impute_info(known.one[:, people], known.two[:, people])
    for k in range(0, 199, 10):
        assert info[k] == pytest.approx(
            naive_info(known.one[k, people].tolist(), known.two[k, people].tolist()), abs=1e-6
        )


@needs_plink2
@pytest.mark.parametrize("name", ["reference", "unphased"])
def test_vcf_is_read_as_plink_does(tmp_path, name):
    pytest.importorskip("cyvcf2", reason="needs the extra genotypes (cyvcf2)")
    path = real_data(f"genotypes/chr20_vcf/{name}.vcf.gz")
    run("plink2", tmp_path, "--vcf", path, "--make-pgen")
    ours, theirs = open_vcf(path), open_pgen(tmp_path / "out.pgen")
    assert ours.samples == theirs.samples
    for column in ("chromosome", "position", "effect_allele", "other_allele"):
        assert getattr(ours.variants, column).tolist() == getattr(theirs.variants, column).tolist()
    for start in (0, 10_000, 24_000):
        np.testing.assert_array_equal(ours.read(start, start + 990).dosage, theirs.read(start, start + 990).dosage)


@needs_plink2
@pytest.mark.parametrize("kind", ["vcf", "vcf bgz", "bcf"])
def test_dosages_that_plink_exports(tmp_path, kind):
    """Haploids, sexes, DS: BGEN to VCF and BCF by PLINK, read back by us."""
    pytest.importorskip("cyvcf2", reason="needs the extra genotypes (cyvcf2)")
    path = real_data("genotypes/bgen_examples/example.8bits.bgen")
    run("plink2", tmp_path, "--bgen", path, "ref-first", "--export", *kind.split(), "vcf-dosage=DS-force")
    suffix = {"vcf": ".vcf", "vcf bgz": ".vcf.gz", "bcf": ".bcf"}[kind]
    source, expected = open_genotypes(tmp_path / f"out{suffix}"), open_bgen(path)
    assert source.variants.effect_allele.tolist() == expected.variants.effect_allele.tolist()
    # PLINK writes six digits of dosages that it keeps to 1/16384.
    np.testing.assert_allclose(source.read(0, 199).dosage, expected.read(0, 199).dosage, atol=1 / 16384)
