"""Score test and approximate Firth beside the example output of regenie 4.1 (``--bt --firth --approx --pThresh 0.01``).

The example has one chromosome, so its leave-one-chromosome-out predictions are 0, and six people were left out of it;
their ids follow from its frequencies (the only six whose counts explain the difference to all 500).
"""

import numpy as np
import pandas as pd
import pytest
from tests.real_data import real_data

from brainlocus.core import SampleIndex, quantitative_table, select_genotypes
from brainlocus.genetics.gwas import LogisticSettings, ScanSettings, scan
from brainlocus.io import open_bed

LEFT_OUT = ("35", "77", "100", "136", "204", "474")
PRINTED = 6e-6
"""Six significant digits."""


@pytest.fixture(scope="module")
def example():
    folder = real_data("genotypes/regenie_example/example.bed").parent
    source = open_bed(folder / "example.bed")
    expected = pd.read_csv(folder / "test_bin_out_firth_Y1.regenie", sep=" ")
    traits = pd.read_csv(folder / "phenotype_bin.txt", sep=" ", dtype={"IID": str})
    covariates = pd.read_csv(folder / "covariates.txt", sep=" ", dtype={"IID": str})
    kept = SampleIndex.of([i for i in source.samples.ids.tolist() if i not in LEFT_OUT])
    people = SampleIndex.of(traits["IID"])
    names = ["V1", "V2", "V3"]
    return (
        select_genotypes(source, samples=kept),
        quantitative_table(people, ["Y1"], traits[["Y1"]].to_numpy(dtype=float)),
        quantitative_table(people, names, covariates[names].to_numpy(dtype=float)),
        expected,
    )


def results(example, test):
    source, traits, covariates, expected = example
    hits = scan(
        source, traits, covariates=covariates, settings=ScanSettings(hits=1.0, min_mac=1.0), method="logistic",
        logistic=LogisticSettings(correction="firth-approx", test=test, screen=0.01),
    ).hits  # fmt: skip
    row = {v: k for k, v in enumerate(hits["variant_id"].tolist())}
    return hits.take(np.array([row[str(v)] for v in expected["ID"]])), expected


def test_frequencies_and_score_tests(example):
    ours, expected = results(example, "lrt")
    np.testing.assert_allclose(ours["effect_allele_frequency"], expected["A1FREQ"], rtol=PRINTED)
    score = np.array(ours["method"].tolist()) == "score"
    assert score.sum() == 980
    mine = {"BETA": ours["beta"], "SE": ours["standard_error"], "LOG10P": ours["neg_log10_p"], "CHISQ": ours["z"] ** 2}
    for column, values in mine.items():
        np.testing.assert_allclose(values[score], expected[column][score], rtol=PRINTED, err_msg=column)


def test_approximate_firth(example):
    """Its beta and p by ratio, its standard error by the information; its beta stops 1e-5 before the maximum."""
    by_ratio, expected = results(example, "lrt")
    by_wald, _ = results(example, "wald")
    firth = np.array(by_ratio["method"].tolist()) == "firth-approx"
    assert firth.sum() == 20
    np.testing.assert_allclose(by_ratio["beta"][firth], expected["BETA"][firth], rtol=1e-5)
    np.testing.assert_allclose(by_ratio["z"][firth] ** 2, expected["CHISQ"][firth], rtol=PRINTED)
    np.testing.assert_allclose(by_ratio["neg_log10_p"][firth], expected["LOG10P"][firth], rtol=PRINTED)
    np.testing.assert_allclose(by_wald["standard_error"][firth], expected["SE"][firth], rtol=PRINTED)
