"""Case-control association beside PLINK 2's `--glm`, run in the same test.

PLINK 2.00a3.5 fits in float32 and ends Firth's iterations early, so its digits set the bounds here: where the two are
farthest apart, scipy's maximum of the likelihood decides. Its standard errors of variants with missing calls are up to
1.4 % off those of statsmodels for the same people (its beta is not), so these are compared by beta alone. Ours are
checked to 1e-6 against statsmodels and scipy in tests/unit/gwas, with missing calls too.
"""

import numpy as np
import pandas as pd
import pytest
from tests.golden.plink.panels import EUR, needs_eur, needs_plink2, run
from tests.reference.logistic import naive_test

from brainlocus.core import Column, PhenotypeTable, quantitative_table, select_genotypes
from brainlocus.genetics.gwas import LogisticSettings, ScanSettings, scan
from brainlocus.io import BedWriter, open_bed

MODES = (("no-firth", "none"), ("firth-fallback", "firth-fallback"), ("firth", "firth"))
PRINTED = 6e-6
"""Six significant digits: half a unit of the last is 5e-6 of the value at most."""
IN_FLOAT32 = 2e-4
"""Largest departure of its logistic beta (in standard errors), z, and standard error (relative)."""
STOPPED_EARLY = 2e-2
"""The same of its Firth regression."""


def study(panel, *, missing_traits):
    """Return a common and a rarer disease (61 and 27 cases of 379), and covariates."""
    rng = np.random.default_rng(1)
    n = len(panel.samples)
    g, age = panel.read(100, 101).dosage[0], rng.uniform(40, 80, n).round(2)
    common = (rng.random(n) < 1 / (1 + np.exp(1.5 - 0.5 * g - 0.02 * (age - 60)))).astype(float)
    rarer = (rng.random(n) < 0.08).astype(float)
    cases = np.column_stack([common, rarer]) + 1.0
    covariates = {"age": age, "sex": panel.pedigree.sex.astype(float), "x": rng.normal(size=n).round(5)}
    if missing_traits:
        cases[rng.random(n) < 0.23, 0] = np.nan
        cases[rng.random(n) < 0.05, 1] = np.nan
    return cases, covariates


def with_holes(panel, variants, folder):
    chosen = select_genotypes(panel, variants=variants)
    rng = np.random.default_rng(2)
    dosage = chosen.read(0, len(chosen.variants)).dosage.copy()
    dosage[rng.random(dosage.shape) < rng.choice([0, 0.01, 0.05], (dosage.shape[0], 1))] = np.nan
    with BedWriter(folder / "holes", panel.samples, chosen.variants, panel.pedigree.sex) as out:
        out.append(dosage)
    return folder / "holes"


def write_plink_tables(folder, prefix, panel, cases, covariates):
    families = dict(line.split()[1::-1] for line in prefix.with_suffix(".fam").read_text().splitlines())
    for name, frame in (
        ("pheno", pd.DataFrame(cases, columns=["common", "rarer"])), ("covar", pd.DataFrame(covariates)),
    ):  # fmt: skip
        frame.insert(0, "IID", panel.samples.ids)
        frame.insert(0, "#FID", [families[i] for i in panel.samples.ids])
        frame.to_csv(folder / f"{name}.txt", sep="\t", index=False, na_rep="NA")


@needs_eur
@needs_plink2
@pytest.mark.parametrize(("theirs", "correction"), MODES)
@pytest.mark.parametrize("missing_traits", [False, True])
def test_the_same_method_and_numbers_for_every_variant(tmp_path, theirs, correction, missing_traits):
    panel = open_bed(EUR.with_suffix(".bed"))
    cases, covariates = study(panel, missing_traits=missing_traits)
    prefix = with_holes(panel, np.arange(0, 54_051, 9), tmp_path)
    write_plink_tables(tmp_path, prefix, panel, cases, covariates)
    run(
        "plink2", tmp_path, "--bfile", prefix, "--no-psam-pheno", "--pheno", tmp_path / "pheno.txt",
        "--covar", tmp_path / "covar.txt", "--mac", "5", "--covar-variance-standardize", "--max-corr", "1", "--vif",
        "1000", "--glm", theirs, "hide-covar", "omit-ref", "cols=+a1freq,+a1freqcc,+nobs,+beta,+se,+tz,+firth",
    )  # fmt: skip
    people = panel.samples
    table = PhenotypeTable(people, tuple(Column(name, values) for name, values in covariates.items()))
    result = scan(
        open_bed(prefix.with_suffix(".bed")), quantitative_table(people, ["common", "rarer"], cases), covariates=table,
        settings=ScanSettings(hits=1.0, min_mac=1.0, missing="exact"), method="logistic",
        logistic=LogisticSettings(correction=correction, test="wald", screen=1.0),
    )  # fmt: skip
    for name in ("common", "rarer"):
        (path,) = (p for p in tmp_path.glob(f"out.{name}.glm.*"))
        printed = pd.read_csv(path, sep="\t").set_index("ID")
        farthest = compare(printed, result.hits.take(result.hits["trait"] == name))
        decide(open_bed(prefix.with_suffix(".bed")), farthest, cases[:, ["common", "rarer"].index(name)], covariates)


def decide(source, ours, cases, covariates):
    """The test that PLINK has farthest from ours, maximised by scipy."""
    j = source.variants.variant_id.tolist().index(ours["variant_id"].tolist()[0])
    dosage = source.read(j, j + 1).dosage[0].astype(float)
    used = ~np.isnan(dosage) & ~np.isnan(cases)
    x = np.column_stack([(v[used] - v[used].mean()) / v[used].std() for v in covariates.values()])
    penalised = ours["method"].tolist() == ["firth"]
    beta, error, _ = naive_test(dosage[used], cases[used] - 1.0, x, penalised=penalised)
    np.testing.assert_allclose(ours["beta"][0], beta, rtol=2e-5, atol=2e-5 * error)
    np.testing.assert_allclose(ours["standard_error"][0], error, rtol=2e-5)


def compare(printed, hits):
    """Check everything PLINK prints; return our test that is farthest from it."""
    row = {v: k for k, v in enumerate(hits["variant_id"].tolist())}
    printed = printed[[v in row for v in printed.index]]
    assert len(printed) > 5000
    ours = hits.take(np.array([row[v] for v in printed.index]))
    estimated = printed["ERRCODE"].to_numpy() == "."
    assert (estimated == (np.array(ours["status"].tolist()) == "ok")).all()
    assert printed["OBS_CT"].tolist() == ours["n"].tolist()
    printed, ours = printed[estimated], ours.take(estimated)
    method = np.array(ours["method"].tolist())
    if "FIRTH?" in printed:
        assert ((printed["FIRTH?"].to_numpy() == "Y") == (method == "firth")).all()
        assert (method == "firth").sum() > 50
    same = printed["A1"].to_numpy() == np.array(ours["effect_allele"].tolist())
    sign = np.where(same, 1, -1)
    for column, mine in (("CASE", "cases"), ("CTRL", "controls")):
        frequency = ours[f"effect_allele_frequency_{mine}"]
        np.testing.assert_allclose(
            printed[f"A1_{column}_FREQ"], np.where(same, frequency, 1 - frequency), rtol=PRINTED, atol=1e-12
        )
    complete = printed["OBS_CT"].to_numpy() == printed["OBS_CT"].max()
    error = np.abs(ours["standard_error"] / printed["SE"].to_numpy() - 1)
    z = np.abs(sign * ours["z"] - printed["Z_STAT"].to_numpy())
    beta = np.abs(sign * ours["beta"] - printed["BETA"].to_numpy()) / ours["standard_error"]
    plain = method == "logistic"
    for fitted, bound in ((plain, IN_FLOAT32), (~plain, STOPPED_EARLY)):
        if fitted.any():
            assert beta[fitted].max() < bound
            assert np.median(beta[fitted]) < 5e-5
        if (fitted & complete).any():
            assert max(z[fitted & complete].max(), error[fitted & complete].max()) < bound
    return ours.take(np.array([np.argmax(beta)]))
