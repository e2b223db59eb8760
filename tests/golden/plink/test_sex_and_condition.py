"""Sex chromosomes and conditioned variants of ``gwas run`` beside PLINK 2, run in the same test on simulated people."""

import json

import numpy as np
import pandas as pd
import pytest
from tests.golden.plink.panels import needs_plink2, run
from tests.golden.plink.test_plink import agree

from brainlocus.cli.main import main
from brainlocus.core import Column, PhenotypeTable, SampleIndex, VariantTable, quantitative_table
from brainlocus.core.text import text_array
from brainlocus.io import BedWriter, open_bed, read_results, read_table, write_table
from brainlocus.pipeline.full_store import read_full

N, PER = 400, 40
PLACES = {"1": 1_000_000, "PAR1": 100_000, "X": 5_000_000, "Y": 5_000_000, "MT": 100, "0": 0}
WRITTEN = {"PAR1": "X"}
CONDITIONED = [3, 17, 2 * PER + 5]


def command(*arguments):
    try:
        main([str(a) for a in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Variants of every kind of chromosome; sex of ten people unknown; the trait differs between the sexes."""
    folder = tmp_path_factory.mktemp("sexes")
    rng = np.random.default_rng(0)
    people = SampleIndex.of([f"p{k}" for k in range(N)])
    male = rng.random(N) < 0.45
    sex = np.where(male, 1, 2).astype(np.int8)
    sex[:10] = 0
    calls, chromosome, position = [], [], []
    for name, start in PLACES.items():
        p = rng.uniform(0.15, 0.85, (PER, 1))
        block = rng.binomial(2, p, (PER, N)).astype(np.float32)
        haploid = 2.0 * rng.binomial(1, p, (PER, N)).astype(np.float32)
        if name in ("X", "Y"):
            block[:, male] = haploid[:, male]
        if name == "MT":
            block = haploid
        if name == "Y":
            block[:, ~male] = np.nan
        calls.append(block)
        chromosome += [WRITTEN.get(name, name)] * PER
        position += [start + k for k in range(PER)]
    g = np.concatenate(calls)
    full = g[CONDITIONED].copy()
    g[rng.random(g.shape) < 0.01] = np.nan
    g[CONDITIONED] = full  # PLINK leaves people out who miss such a call, we take the mean
    alleles = text_array(["A"] * len(g)), text_array(["C"] * len(g))
    variants = VariantTable(
        np.array(chromosome), np.array(position), *alleles, text_array([f"v{k}" for k in range(len(g))]), "GRCh37"
    )
    with BedWriter(folder / "g", people, variants, sex) as out:
        out.append(g)
    age = rng.uniform(40, 80, N).round(3)
    y = 0.8 * male + 0.02 * age + 0.3 * np.nan_to_num(g[3]) + 0.2 * np.nan_to_num(g[2 * PER + 5]) + rng.normal(size=N)
    write_table(quantitative_table(people, ["y"], y.round(6)[:, None]), folder / "y.tsv")
    write_table(PhenotypeTable(people, (Column("age", age),)), folder / "age.tsv")
    for name in ("y", "age"):
        header, *lines = (folder / f"{name}.tsv").read_text().replace('"', "").splitlines()
        rows = ["#FID\tIID\t" + header.split("\t", 1)[1], *(f"{line.split()[0]}\t{line}" for line in lines)]
        (folder / f"{name}.plink").write_text("\n".join(rows) + "\n")
    return folder


def both(cohort, tmp_path, plink=(), ours=()):
    """Return the tables of PLINK and ours by variant."""
    run(
        "plink2", tmp_path, "--bfile", cohort / "g", "--split-par", "b37", "--no-psam-pheno",
        "--pheno", cohort / "y.plink", "--covar", cohort / "age.plink", "--covar-variance-standardize",
        "--glm", "hide-covar", "omit-ref", "cols=+a1freq,+nobs,+beta,+se,+tz", *plink,
    )  # fmt: skip
    theirs = pd.read_csv(tmp_path / "out.y.glm.linear", sep="\t", dtype={"#CHROM": str}).set_index("ID")
    out = tmp_path / "ours"
    code = command(
        "gwas", "run", cohort / "g.bed", cohort / "y.tsv", "--covariates", cohort / "age.tsv", "--missing", "exact",
        "--hits", "1", "--min-mac", "0", "--genome-build", "GRCh37", "--out", out, *ours,
    )  # fmt: skip
    assert code == 0
    hits = read_results(out / "hits.parquet")
    frame = pd.DataFrame({name: hits[name].tolist() for name in hits.columns}).set_index("variant_id")
    return theirs, frame, out


def compare(theirs, ours, *, scale=1.0, frequencies=True):
    assert len(theirs) > 0
    mine = ours.loc[theirs.index]
    sign = np.where(theirs["A1"] == mine["effect_allele"], 1, -1)
    agree(theirs["BETA"], sign * scale * mine["beta"].to_numpy(), "beta")
    agree(theirs["SE"], scale * mine["standard_error"].to_numpy(), "standard error")
    frequency = mine["effect_allele_frequency"].to_numpy()
    if frequencies:
        agree(theirs["A1_FREQ"], np.where(sign > 0, frequency, 1 - frequency), "frequency")
    agree(theirs["P"], 10 ** -mine["neg_log10_p"].to_numpy(), "p", digits=2e-5)
    assert theirs["OBS_CT"].tolist() == mine["n"].tolist()


@needs_plink2
@pytest.mark.parametrize("male_x", ["0/2", "0/1"])
def test_sex_chromosomes(cohort, tmp_path, male_x):
    model = {"0/2": "2", "0/1": "1"}[male_x]
    theirs, ours, out = both(cohort, tmp_path, ("--xchr-model", model), ("--male-x", male_x))
    assert set(theirs["#CHROM"]) == {"1", "PAR1", "X", "Y", "MT", "0"}
    compare(theirs[theirs["#CHROM"].isin(["1", "PAR1", "X"])], ours)
    # PLINK 2 counts haploid calls of Y and MT as 0 and 1, we as the file has them, 0 and 2. With --xchr-model 1,
    # version 2.00a3.5 prints the frequency of v126 for v127, which differ.
    compare(theirs[theirs["#CHROM"].isin(["Y", "MT"])], ours, scale=2.0, frequencies=male_x == "0/2")
    unplaced = theirs.index[theirs["#CHROM"] == "0"]
    assert not set(unplaced) & set(ours.index)
    counts = json.loads(out.with_name("ours.json").read_text())["counts"]
    assert counts["variants_unplaced"] == PER
    x = ours[(ours["chromosome"] == "X") & (ours["position"] > 2_699_520)]
    assert (x["n"] <= N - 10).all()  # the ten of unknown sex are left out
    assert x["n"].max() > 380


@needs_plink2
def test_conditioned_variants(cohort, tmp_path):
    """Two of chromosome 1 and one of X, for all chromosomes; PLINK takes the same list."""
    listed = [f"v{k}" for k in CONDITIONED]
    (tmp_path / "list.txt").write_text("\n".join(listed))
    condition = ("--condition-list", tmp_path / "list.txt"), ("--condition", tmp_path / "list.txt")
    theirs, ours, out = both(cohort, tmp_path, *condition)
    assert set(theirs.loc[listed, "ERRCODE"]) == {"CORR_TOO_HIGH"}
    theirs = theirs[~theirs.index.isin(listed)]
    compare(theirs[theirs["#CHROM"].isin(["1", "PAR1", "X"])], ours)
    compare(theirs[theirs["#CHROM"].isin(["Y", "MT"])], ours, scale=2.0)
    assert not set(listed) & set(ours.index)
    variants = read_results(out / "variants.parquet")
    reasons = dict(zip(variants["variant_id"].tolist(), variants["reason"].tolist(), strict=True))
    assert {name for name, reason in reasons.items() if reason == "collinear"} == set(listed)


def test_missing_calls_of_a_conditioned_variant_take_the_mean(cohort, tmp_path):
    """The same as its dosages, filled, among the covariates; a second copy is dropped by its name."""
    source = open_bed(cohort / "g.bed")
    dosage = source.read(20, 21).dosage[0].astype(float)
    assert np.isnan(dosage).any()
    dosage[np.isnan(dosage)] = np.nanmean(dosage)
    age = read_table(cohort / "age.tsv").column("age").values
    columns = (Column("age", age), Column("v20", dosage))
    write_table(PhenotypeTable(source.samples, columns), tmp_path / "with.tsv")
    (tmp_path / "list.txt").write_text("v20\n")
    common = ("gwas", "run", cohort / "g.bed", cohort / "y.tsv", "--hits", "1", "--formula")
    by_hand = (*common, "age + v20", "--covariates", tmp_path / "with.tsv", "--out")
    assert command(*by_hand, tmp_path / "by_hand") == 0
    listed = (*common, "age", "--covariates", cohort / "age.tsv", "--condition", tmp_path / "list.txt", "--out")
    assert command(*listed, tmp_path / "listed") == 0
    both_ways = (*by_hand[:-1], "--condition", tmp_path / "list.txt", "--out", tmp_path / "both")
    assert command(*both_ways) == 0
    assert json.loads((tmp_path / "both.json").read_text())["counts"]["covariates_dropped"] == ["v20 (dosage)"]
    expected, *found = [read_results(tmp_path / name / "hits.parquet") for name in ("by_hand", "listed", "both")]
    expected = expected.take(expected["variant_id"] != "v20")
    for hits in found:
        assert hits["variant_id"].tolist() == expected["variant_id"].tolist()
        np.testing.assert_allclose(hits["beta"], expected["beta"], rtol=1e-9)
        np.testing.assert_allclose(hits["neg_log10_p"], expected["neg_log10_p"], rtol=1e-9)


def test_unknown_conditioned_variants_are_named(cohort, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("v3\nrs999\n")
    given = ("gwas", "run", cohort / "g.bed", cohort / "y.tsv", "--condition", tmp_path / "list.txt")
    assert command(*given, "--out", tmp_path / "out") == 2
    assert "1 of 2 variants are not among the 240 of the genotypes: rs999" in capsys.readouterr().err


def test_without_known_sex(cohort, tmp_path):
    """X is tested without it, Y is not, and both are said."""
    for end in (".bed", ".bim"):
        (tmp_path / f"g{end}").write_bytes((cohort / f"g{end}").read_bytes())
    lines = [line.split("\t") for line in (cohort / "g.fam").read_text().splitlines()]
    (tmp_path / "g.fam").write_text("".join("\t".join([*f[:4], "0", f[5]]) + "\n" for f in lines))
    assert command("gwas", "run", tmp_path / "g.bed", cohort / "y.tsv", "--out", tmp_path / "out", "--full") == 0
    manifest = json.loads((tmp_path / "out.json").read_text())
    assert manifest["counts"]["variants_without_result"] == {"sex_unknown": PER}
    full = read_full(tmp_path / "out/full", "y")
    tested = np.isfinite(full["beta"])
    assert tested.sum() == 4 * PER
    assert not tested[full["chromosome"] == "Y"].any()
