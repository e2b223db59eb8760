"""Regions of dmrff (``make_golden.R``)."""

from pathlib import Path

import numpy as np
import pandas as pd

from brainlocus.cohort.associate.epigenome import (
    candidate_regions,
    n_region_tests,
    pairwise_correlation,
    shrink_region,
)
from brainlocus.numerics import neg_log10_p_from_z

HERE = Path(__file__).parent


def test_regions_are_those_of_dmrff():
    table = pd.read_csv(HERE / "features.tsv", sep="\t", dtype={"chromosome": str})
    theirs = pd.read_csv(HERE / "regions.tsv", sep="\t", dtype={"chr": str}).sort_values(["start.idx"])
    values = table.iloc[:, 5:].to_numpy(float)
    beta, se = table["estimate"].to_numpy(), table["se"].to_numpy()
    found = candidate_regions(
        -np.log10(table["p"].to_numpy()), beta, table["chromosome"].to_numpy(str), table["position"].to_numpy(),
        level=0.1,
    )  # fmt: skip
    rows = []
    for start, stop in zip(found.start, found.stop, strict=True):
        at = found.order[start:stop]
        parts = shrink_region(beta[at], se[at], pairwise_correlation(values[at]))
        rows += [
            (start + a + 1, start + b, e, s, z)
            for a, b, e, s, z in zip(parts.start, parts.stop, parts.beta, parts.standard_error, parts.z, strict=True)
        ]
    ours = np.array(sorted(rows))
    np.testing.assert_array_equal(ours[:, :2], theirs[["start.idx", "end.idx"]])
    np.testing.assert_allclose(ours[:, 2:], theirs[["B", "S", "z"]], rtol=1e-9)
    adjusted = np.minimum(10.0 ** -neg_log10_p_from_z(ours[:, 4]) * n_region_tests(found), 1.0)
    np.testing.assert_allclose(adjusted, theirs["p.adjust"], rtol=1e-8)
    assert (theirs["n"] > 3).any()
