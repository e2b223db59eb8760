"""INFO and r2 against their formulas, on selected people, and at the ends."""

import numpy as np
import pytest
from tests.reference.genotypes import naive_info, naive_mach_r2

from brainlocus.core import ArrayGenotypes, SampleIndex, VariantTable, select_genotypes
from brainlocus.core.text import text_array
from brainlocus.numerics.imputation import impute_info, mach_r2, read_probabilities


def test_against_the_formulas():
    rng = np.random.default_rng(0)
    p = rng.dirichlet((0.5, 0.3, 0.2), (9, 40)).astype(np.float32)
    p[rng.random((9, 40)) < 0.1] = np.nan
    p[0, :, 0], p[0, :, 1], p[0, :, 2] = 1, 0, 0
    p[1, :, 0], p[1, :, 1], p[1, :, 2] = 0, 0, 1
    one, two = p[..., 1], p[..., 2]
    for k, value in enumerate(impute_info(one, two)):
        assert value == pytest.approx(naive_info(one[k].tolist(), two[k].tolist()), abs=1e-6)
    for k, value in enumerate(mach_r2(one + 2 * two)):
        assert value == pytest.approx(naive_mach_r2((one + 2 * two)[k].tolist()), abs=1e-6, nan_ok=True)


def test_known_genotypes_have_info_one():
    calls = np.random.default_rng(0).integers(0, 3, (5, 30))
    info = impute_info((calls == 1).astype(np.float32), (calls == 2).astype(np.float32))
    np.testing.assert_allclose(info, 1)
    nobody = np.full((1, 4), np.nan, dtype=np.float32)
    assert np.isnan(impute_info(nobody, nobody)).all()
    assert np.isnan(mach_r2(nobody)).all()


def test_sources_without_probabilities_have_none():
    variants = VariantTable(
        np.array(["1"]), np.array([1]), text_array(["A"]), text_array(["C"]), text_array(["rs"]), "GRCh37"
    )
    source = ArrayGenotypes(SampleIndex.of("ab"), variants, np.zeros((1, 2), dtype=np.float32))
    assert read_probabilities(source, 0, 1) is None
    assert read_probabilities(select_genotypes(source, variants=np.array([0])), 0, 1) is None
