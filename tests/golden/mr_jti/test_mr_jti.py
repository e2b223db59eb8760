"""MR-JTI on the public example agrees with R's glmnet, given the same folds and draws; the script is beside this."""

import csv
from pathlib import Path

import numpy as np
import pytest
from tests.unit.twas.example import mr_example

from brainlocus.genetics.twas import MrJtiSettings, mr_jti

DRAWS = 40


class _ByRule(np.random.Generator):
    """Folds in turn, and draws by a formula: those of the R script."""

    def __init__(self):
        super().__init__(np.random.PCG64(0))

    def permutation(self, x):
        return x

    def integers(self, low, high, size):
        draw, row = np.arange(size[0])[:, None], np.arange(size[1])[None]
        return (13 * draw * draw + row * (2 * draw + 7)) % high


@pytest.mark.parametrize("case", ["plain", "weighted"])
def test_the_example_agrees_with_glmnet(case):
    instruments = mr_example()
    with (Path(__file__).parent / "golden.tsv").open() as lines:
        rows = [
            {k: v.strip() for k, v in r.items()}
            for r in csv.DictReader(lines, delimiter="\t")
            if r["case"].strip() == case
        ]
    settings = MrJtiSettings(bootstrap=DRAWS, repeats=1, alpha=0.1, weighted=case == "weighted")
    found = mr_jti(instruments, settings, rng=_ByRule())
    assert found.terms.tolist() == [row["term"] for row in rows]
    golden = {name: np.array([float(row[name]) for row in rows]) for name in list(rows[0])[2:]}
    assert found.penalty == pytest.approx(golden["lambda"][0], rel=1e-9)
    # glmnet at thresh = 1e-20 leaves about 1e-9 in coefficients.
    for name in ("estimate", "coefficient", "lower", "upper"):
        np.testing.assert_allclose(getattr(found, name), golden[name], atol=1e-7, err_msg=name)
    np.testing.assert_allclose(found.selection_frequency, golden["frequency"], atol=1e-12)
