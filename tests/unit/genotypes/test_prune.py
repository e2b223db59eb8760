"""Pruning against every pair read in turn, and its invariants."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reference.relatives import naive_prune
from tests.unit.genotypes.panel import calls, panel

from brainlocus.core import ResourceError, SchemaError
from brainlocus.genetics.genotypes import PruneSettings, prune_variants

THRESHOLD = 0.30001
"""Among 25 people r2 is often 0.3 exactly, where rounding decides."""


def linked(rng, m, n, missing):
    """Return calls in which neighbours are alike."""
    dosage = calls(rng, m, n)
    for j in range(1, m):
        copy = rng.random(n) < rng.uniform(0.2, 1.0)
        dosage[j, copy] = dosage[j - 1, copy]
    dosage[rng.random(dosage.shape) < missing] = np.nan
    return dosage


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.1, 0.4]), st.sampled_from([(5, 1), (8, 3), (40, 10)]))
def test_the_list_is_that_of_the_literal_reading(seed, missing, window):
    rng = np.random.default_rng(seed)
    dosage = linked(rng, 40, 25, missing)
    dosage[3], dosage[11] = 1, np.nan
    chromosome = ["1"] * 25 + ["2"] * 15
    size, step = window
    ours = prune_variants(panel(dosage, chromosome), PruneSettings(size, step, THRESHOLD))
    np.testing.assert_array_equal(ours, naive_prune(dosage, chromosome, window=size, step=step, r2=THRESHOLD))


def test_memory_does_not_change_the_list():
    dosage = linked(np.random.default_rng(1), 9000, 70, 0.02)
    source = panel(dosage)
    whole = prune_variants(source)
    assert 0.1 < whole.mean() < 0.9
    least = 1024 * (70 // 2 + 64) + 200 * (3 * 8 * 2 + 32)
    np.testing.assert_array_equal(prune_variants(source, memory_bytes=least), whole)
    with pytest.raises(ResourceError, match="A window of 200 variants x 70 people needs"):
        prune_variants(source, memory_bytes=least - 1000)


def test_kilobase_windows_follow_positions():
    dosage = np.repeat(calls(np.random.default_rng(2), 1, 50), 4, axis=0)
    settings = PruneSettings(10, 1, 0.5, kb=True)
    near = prune_variants(panel(dosage, position=[1, 10_001, 20_001, 30_001]), settings)
    assert near.tolist() == [True, False, True, False]  # each reaches the next
    far = prune_variants(panel(dosage, position=[1, 10_002, 20_003, 30_004]), settings)
    assert far.tolist() == [True, True, True, True]


def test_variants_must_be_in_order():
    dosage = calls(np.random.default_rng(3), 4, 20)
    with pytest.raises(SchemaError, match="variants of a chromosome together"):
        prune_variants(panel(dosage, ["1", "2", "1", "2"]))
    with pytest.raises(SchemaError, match="positions in order; those of chromosome 1 are not"):
        prune_variants(panel(dosage, position=[4, 3, 2, 1]), PruneSettings(10, 1, kb=True))


@pytest.mark.parametrize("bad", [{"window": 1}, {"step": 0}, {"r2": 1.0}, {"r2": -0.1}])
def test_settings_out_of_range(bad):
    with pytest.raises(ValueError, match=r"compares nothing|r2 lies in"):
        PruneSettings(**bad)
