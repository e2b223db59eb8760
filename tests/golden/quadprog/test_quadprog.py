"""Cell proportions of R's quadprog (``make_golden.R``)."""

from pathlib import Path

import numpy as np
import pandas as pd

from brainlocus.cohort.associate.epigenome import estimate_cells

HERE = Path(__file__).parent


def test_constrained_projection_is_that_of_quadprog():
    reference, samples = (pd.read_csv(HERE / f"{n}.tsv", sep="\t", index_col=0) for n in ("reference", "samples"))
    theirs = pd.read_csv(HERE / "proportions.tsv", sep="\t", index_col=0)
    ours = estimate_cells(samples.to_numpy(), reference.to_numpy())
    np.testing.assert_allclose(ours.proportions, theirs.to_numpy(), atol=1e-8)
    # Both constraints bind in some samples and not in others.
    total = ours.proportions.sum(axis=1)
    assert (np.abs(total - 1) < 1e-12).any()
    assert (total < 0.95).any()
    assert (ours.proportions == 0).any()
