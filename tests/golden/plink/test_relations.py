"""Pruning, kinship, unrelated sets, heterozygosity, sex, missingness and components beside PLINK, in the same test."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from tests.golden.plink.panels import DATA, EUR, needs_eur, needs_plink1, needs_plink2, run

from brainlocus.cli.main import main
from brainlocus.core import SampleIndex, VariantTable, select_genotypes
from brainlocus.core.text import text_array
from brainlocus.genetics.genotypes import (
    PruneSettings,
    QcSettings,
    count_genotypes,
    kinship_pairs,
    principal_components,
    prune_variants,
    quality_control,
    unrelated_people,
)
from brainlocus.io import BedWriter, open_bed

HM3 = DATA / "genotypes/hapmap3_14k/hm3"
needs_hm3 = pytest.mark.skipif(not HM3.with_suffix(".bed").exists(), reason="needs BRAINLOCUS_DATA: hapmap3_14k")


@pytest.fixture(scope="module")
def holes(tmp_path_factory):
    """Every second variant of the European panel with 0 to 20 % of the calls missing, and variants without variance."""
    if not EUR.with_suffix(".bed").exists():
        pytest.skip("needs BRAINLOCUS_DATA: 1kg_eur_chr17_22")
    panel = open_bed(EUR.with_suffix(".bed"))
    rng = np.random.default_rng(0)
    chosen = select_genotypes(panel, variants=np.arange(0, 54_051, 2))
    dosage = chosen.read(0, len(chosen.variants)).dosage.copy()
    dosage[rng.random(dosage.shape) < rng.choice([0, 0.01, 0.05, 0.2], (dosage.shape[0], 1))] = np.nan
    dosage[5], dosage[6], dosage[7] = 1, 2, np.nan
    prefix = tmp_path_factory.mktemp("holes") / "holes"
    with BedWriter(prefix, panel.samples, chosen.variants, panel.pedigree.sex) as out:
        out.append(dosage)
    return prefix


WINDOWS = [
    (PruneSettings(), ("200", "50", "0.2")),
    (PruneSettings(250, 1, 0.1, kb=True), ("250kb", "1", "0.1")),
    (PruneSettings(50, 5, 0.5), ("50", "5", "0.5")),
]


@needs_eur
@needs_plink2
@needs_plink1
@pytest.mark.parametrize(("settings", "arguments"), WINDOWS, ids=["default", "kilobases", "small"])
@pytest.mark.parametrize("missing", [False, True])
def test_pruning_keeps_the_variants_plink_keeps(tmp_path, holes, settings, arguments, missing):
    prefix = holes if missing else EUR
    source = open_bed(prefix.with_suffix(".bed"))
    stays = prune_variants(source, settings)
    ours = source.variants.variant_id[stays].tolist()
    for program in ("plink2", "plink1.9"):
        run(program, tmp_path, "--bfile", prefix, "--indep-pairwise", *arguments)
        assert ours == (tmp_path / "out.prune.in").read_text().split()
    if not missing and settings == PruneSettings():
        assert (len(ours), stays.size) == (20_545, 54_051)


@needs_plink2
@pytest.mark.parametrize("which", ["european", "european with missing calls", "hapmap3"])
def test_kinship_is_that_of_plink(tmp_path, request, which):
    prefix = {"european": EUR, "hapmap3": HM3}.get(which) or request.getfixturevalue("holes")
    if not prefix.with_suffix(".bed").exists():
        pytest.skip(f"needs BRAINLOCUS_DATA: {prefix.name}")
    run("plink2", tmp_path, "--bfile", prefix, "--make-king-table")
    run("plink2", tmp_path, "--bfile", prefix, "--king-cutoff", "0.0884")
    source = open_bed(prefix.with_suffix(".bed"))
    parts = list(kinship_pairs(source, threshold=None))
    first, second, kinship = (np.concatenate([getattr(p, k) for p in parts]) for k in ("first", "second", "kinship"))
    table = pd.read_csv(tmp_path / "out.kin0", sep="\t", dtype={"IID1": str, "IID2": str})
    assert len(table) == first.size
    row = {name: k for k, name in enumerate(source.samples.ids.tolist())}
    a, b = (np.array([row[name] for name in table[column]]) for column in ("IID1", "IID2"))
    order = np.lexsort((np.maximum(a, b), np.minimum(a, b)))  # ours: first, then second
    assert np.abs(kinship - table["KINSHIP"].to_numpy()[order]).max() < 5.001e-7  # half of the last digit printed
    related = kinship > 0.0884
    stays = unrelated_people(len(source.samples), first[related], second[related])
    theirs = (tmp_path / "out.king.cutoff.in.id").read_text().splitlines()[1:]
    assert stays.sum() >= len(theirs)
    if which == "hapmap3":
        assert (~stays).sum() <= 70


@needs_eur
@needs_plink2
@needs_plink1
def test_missingness_and_heterozygosity(tmp_path, holes):
    run("plink2", tmp_path, "--bfile", holes, "--missing")
    run("plink1.9", tmp_path, "--bfile", holes, "--het", "small-sample")
    counts = count_genotypes(open_bed(holes.with_suffix(".bed")))
    variants = pd.read_csv(tmp_path / "out.vmiss", sep="\t")
    people = pd.read_csv(tmp_path / "out.smiss", sep="\t")
    assert variants["MISSING_CT"].tolist() == counts.variant[:, 3].tolist()
    assert people["MISSING_CT"].tolist() == counts.sample_missing[:, 0].tolist()
    het = pd.read_csv(tmp_path / "out.het", sep=r"\s+")
    ours = 1 - counts.sample_het[:, 0] / counts.sample_expected_het[:, 0]
    np.testing.assert_allclose(ours, het["F"], rtol=6e-4, atol=6e-5)  # four digits are printed


@pytest.fixture(scope="module")
def sexes(tmp_path_factory):
    """300 people, 400 autosomal and 600 X variants; three reports of sex are wrong; cases miss calls of 5 variants."""
    rng = np.random.default_rng(1)
    n, m = 300, 1000
    dosage = rng.binomial(2, rng.uniform(0.15, 0.85, (m, 1)), (m, n)).astype(np.float32)
    male = np.arange(n) < 140
    share = rng.uniform(0.15, 0.85, (600, 1))
    dosage[400:, male] = 2 * rng.binomial(1, share, (600, 140))
    dosage[400:, ~male] = rng.binomial(2, share, (600, 160))
    status = rng.integers(0, 2, n)
    dosage[rng.random(dosage.shape) < 0.01] = np.nan
    dosage[:5, status == 1] = np.where(rng.random((5, (status == 1).sum())) < 0.2, np.nan, dosage[:5, status == 1])
    table = VariantTable(
        np.array(["1"] * 400 + ["X"] * 600), np.r_[1:401, 3_000_000:3_000_600] * 1000 // 1000,
        text_array(["A"] * m), text_array(["G"] * m), text_array([f"v{k}" for k in range(m)]), "GRCh37",
    )  # fmt: skip
    sex = np.where(male, 1, 2).astype(np.int8)
    sex[[3, 200, 201]] = 3 - sex[[3, 200, 201]]
    prefix = tmp_path_factory.mktemp("sexes") / "sexes"
    with BedWriter(prefix, SampleIndex.of([f"p{k}" for k in range(n)]), table, sex) as out:
        out.append(dosage)
    return prefix, status


@needs_plink1
@needs_plink2
def test_sex_females_and_missingness_by_status(tmp_path, sexes):
    prefix, status = sexes
    pheno = tmp_path / "status.txt"
    pheno.write_text("".join(f"p{k} p{k} {s + 1}\n" for k, s in enumerate(status.tolist())))
    source = open_bed(prefix.with_suffix(".bed"))
    loose = QcSettings(
        None, None, max_variant_missing=None, max_heterozygosity_sd=None, check_sex=False, min_hwe_p=None
    )
    result = quality_control(source, loose, sex=source.pedigree.sex, status=status.astype(float))
    run("plink1.9", tmp_path, "--bfile", prefix, "--check-sex", "0.2", "0.8")
    theirs = pd.read_csv(tmp_path / "out.sexcheck", sep=r"\s+")
    f = result.samples["sex_f"]
    assert np.where(f > 0.8, 1, np.where(f < 0.2, 2, 0)).tolist() == theirs["SNPSEX"].tolist()
    # PLINK counts a male's X once in the frequencies, and takes no variant out that is linked to others.
    np.testing.assert_allclose(f, theirs["F"], atol=0.03)
    strict = quality_control(source, QcSettings(max_heterozygosity_sd=None), sex=source.pedigree.sex)
    wrong = theirs["IID"][(theirs["STATUS"] == "PROBLEM") & (theirs["SNPSEX"] != 0)]
    left = strict.samples["participant_id"][strict.samples["reason"] == "sex_mismatch"]
    assert left.tolist() == wrong.tolist() == ["p3", "p200", "p201"]
    run("plink1.9", tmp_path, "--bfile", prefix, "--pheno", pheno, "--test-missing")
    missing = pd.read_csv(tmp_path / "out.missing", sep=r"\s+").set_index("SNP")
    ids = result.variants["variant_id"].tolist()
    ours = dict(zip(ids, result.variants["status_missing_neg_log10_p"].tolist(), strict=True))
    p = np.array([10 ** -ours[name] for name in missing.index])
    autosomal = missing["CHR"] == 1
    np.testing.assert_allclose(p[autosomal], missing["P"][autosomal], rtol=6e-4)  # four digits are printed


@needs_plink2
def test_hardy_weinberg_on_x_among_females(tmp_path, sexes):
    prefix, _ = sexes
    run("plink2", tmp_path, "--bfile", prefix, "--hardy", "--keep-females", "--chr", "1,X")
    hardy = pd.read_csv(tmp_path / "out.hardy.x", sep="\t")
    source = open_bed(prefix.with_suffix(".bed"))
    loose = QcSettings(
        None,
        None,
        max_variant_missing=None,
        max_heterozygosity_sd=None,
        check_sex=False,
        min_hwe_p=None,
        x_hwe="females",
    )
    result = quality_control(source, loose, sex=source.pedigree.sex)
    ours = dict(zip(result.variants["variant_id"].tolist(), result.variants["hwe_neg_log10_p"].tolist(), strict=True))
    p = np.array([10 ** -ours[name] for name in hardy["ID"]])
    np.testing.assert_allclose(p, hardy["P"], rtol=6e-6)


@needs_hm3
@needs_plink2
def test_leading_components_of_hapmap3(tmp_path):
    run("plink2", tmp_path, "--bfile", HM3, "--maf", "0.01", "--pca", "10")
    source = open_bed(HM3.with_suffix(".bed"))
    frequency = count_genotypes(source).effect_allele_frequency
    common = np.minimum(frequency, 1 - frequency) >= 0.01
    ours = principal_components(select_genotypes(source, variants=common), 10)
    theirs = pd.read_csv(tmp_path / "out.eigenvec", sep="\t", dtype={"IID": str}).set_index("IID")
    vectors = theirs.loc[source.samples.ids.tolist()].filter(like="PC").to_numpy()
    values = np.loadtxt(tmp_path / "out.eigenval")
    # PLINK leaves missing calls out pair by pair, we put them at the mean.
    np.testing.assert_allclose(ours.eigenvalues[:5], values[:5], rtol=1e-2)
    overlap = np.linalg.svd(ours.scores[:, :5].T @ vectors[:, :5])[1]
    assert np.sqrt(1 - min(overlap.min(), 1.0) ** 2) < 1e-2


@needs_hm3
def test_the_commands_from_kinship_to_components(tmp_path):
    def command(*arguments):
        main([*map(str, arguments), "--quiet"])

    bed = HM3.with_suffix(".bed")
    for arguments in (
        ("genotypes", "kinship", bed, "--figures", "--out", tmp_path / "kinship"),
        ("genotypes", "prune", bed, "--out", tmp_path / "prune.txt"),
        ("genotypes", "pca", bed, "--fit", tmp_path / "kinship/unrelated.txt", "--variants", tmp_path / "prune.txt",
         "--figures", "--out", tmp_path / "pca"),
    ):  # fmt: skip
        command(*arguments)
    pairs = pq.read_table(tmp_path / "kinship/pairs.parquet").to_pandas()
    assert list(pairs.columns) == ["participant_1", "participant_2", "kinship", "n_variants", "ibs0", "degree"]
    assert (pairs["kinship"] >= 0.0221).all()
    assert (pairs["degree"] == 1).sum() == 47
    unrelated = (tmp_path / "kinship/unrelated.txt").read_text().split()
    assert len(unrelated) >= 887
    assert not (
        pairs["participant_1"].isin(unrelated) & pairs["participant_2"].isin(unrelated) & (pairs["kinship"] > 0.0884)
    ).any()
    scores = pq.read_table(tmp_path / "pca/scores.parquet").to_pandas()
    assert len(scores) == 957
    assert scores.columns.tolist() == ["participant_id", *(f"PC{k}" for k in range(1, 11))]
    # A projected relative lies close to the person it is related to: near in PC1 and PC2 compared with their spread.
    place = scores.set_index("participant_id")[["PC1", "PC2"]]
    gone = pairs[
        (pairs["degree"] == 1) & (pairs["participant_1"].isin(unrelated) ^ pairs["participant_2"].isin(unrelated))
    ]
    apart = np.linalg.norm(
        place.loc[gone["participant_1"]].to_numpy() - place.loc[gone["participant_2"]].to_numpy(), axis=1
    )
    assert np.median(apart) < 0.15 * np.linalg.norm(place.std())
    for name in ("kinship/kinship.png", "pca/components.png"):
        assert (tmp_path / name).stat().st_size > 10_000
