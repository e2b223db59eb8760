"""Moderated t of limma (``make_golden.R``): features, traits and covariates missing; finite and infinite d0."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainlocus.cohort.associate import prepare_voxelwise
from brainlocus.cohort.associate.epigenome import fit_variance_prior, moderate, scan_features

HERE = Path(__file__).parent
TRAITS = ["trait_1", "trait_2"]


@pytest.fixture(scope="module")
def people():
    return pd.read_csv(HERE / "people.tsv", sep="\t")


@pytest.fixture(scope="module")
def theirs():
    return pd.read_csv(HERE / "moderated.tsv", sep="\t")


def design(people, min_share=0.1):
    covariates = np.column_stack([people["age"], people["sex"], people["site"] == "B", people["site"] == "C"]).astype(
        float
    )
    return prepare_voxelwise(people[TRAITS].to_numpy(float), covariates=covariates, min_share=min_share, min_people=3)


def values(people, names):
    table = pd.read_csv(HERE / "features.tsv", sep="\t", index_col="feature")
    return table.loc[names, people["participant_id"]].to_numpy(float)


@pytest.mark.parametrize("name", ["all", "whole", "equal"])
def test_moderated_t_is_that_of_limma(name, people, theirs):
    """1e-8 relative in every number, where the smallest t is 1e-4 of the largest: absolute for those."""
    prior = pd.read_csv(HERE / "prior.tsv", sep="\t").set_index(["set", "trait"])
    for k, trait in enumerate(TRAITS):
        r = theirs[(theirs["set"] == name) & (theirs["trait"] == trait)]
        scan = scan_features(design(people), values(people, r["feature"]))
        assert (scan.status[k] == 0).all()
        np.testing.assert_allclose(scan.beta[k], r["beta"], rtol=1e-8, atol=1e-11)
        np.testing.assert_allclose(scan.unscaled[k], r["unscaled"], rtol=1e-8)
        np.testing.assert_array_equal(scan.degrees_of_freedom[k], r["df"])
        np.testing.assert_allclose(scan.variance[k], r["variance"], rtol=1e-8)
        found = fit_variance_prior(scan.variance[k], scan.degrees_of_freedom[k])
        expected = prior.loc[(name, trait)]
        assert found.degrees_of_freedom == pytest.approx(expected["d0"], rel=1e-8)
        assert found.variance == pytest.approx(expected["s2_prior"], rel=1e-8)
        ours = moderate(scan.beta[k], scan.unscaled[k], scan.variance[k], scan.degrees_of_freedom[k], found)
        np.testing.assert_allclose((ours.standard_error / scan.unscaled[k]) ** 2, r["posterior"], rtol=1e-8)
        np.testing.assert_allclose(ours.t, r["t"], rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(ours.degrees_of_freedom, r["df_total"], rtol=1e-8)
        np.testing.assert_allclose(10.0**-ours.neg_log10_p, r["p"], rtol=1e-7)
    # The three kinds of prior are there, and degrees of freedom that differ.
    if name == "equal":
        assert np.isinf(found.degrees_of_freedom)
    elif name == "all":
        assert np.unique(scan.degrees_of_freedom[0]).size > 8


def test_prior_of_five_variances():
    r = pd.read_csv(HERE / "prior.tsv", sep="\t").set_index("set").loc["five"]
    found = fit_variance_prior(np.array([1.0, 2.0, 4.0, 8.0, 0.5]), np.full(5, 10.0))
    assert found.degrees_of_freedom == pytest.approx(r["d0"], rel=1e-10)
    assert found.variance == pytest.approx(r["s2_prior"], rel=1e-10)
