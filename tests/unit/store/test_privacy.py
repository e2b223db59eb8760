"""What a store refuses and hides."""

import numpy as np
import pytest

from brainlocus.core import SampleIndex, SchemaError
from brainlocus.store import PrivacyRules, check_summary_table
from brainlocus.store.privacy import floor_frequency, suppressed_cells


@pytest.mark.parametrize("name", ["eid", "participant_id", "IID", "FID", "sub-001", "participant_1", "Subject_ID"])
def test_participant_columns_are_refused(name):
    with pytest.raises(SchemaError, match="participant identifier"):
        check_summary_table({name: np.array([1])}, what="the table")


def test_participant_values_are_refused():
    with pytest.raises(SchemaError, match="3 participant identifiers"):
        check_summary_table({"trait": np.array(["sub-1", "sub-2", "sub-3"])}, what="the table")
    people = SampleIndex.of(["1001", "1002"])
    with pytest.raises(SchemaError, match="1 participant"):
        check_summary_table({"trait": np.array(["C12_1", "1002"])}, what="the table", participants=people)
    check_summary_table({"trait": np.array(["C12_1"])}, what="the table", participants=people)


def test_cells_are_hidden_with_their_complement():
    n = np.array([100, 100, 100, 100, 9])
    cases = np.array([9, 10, 91, 0, 0])
    assert suppressed_cells(n, cases, min_cell=10).tolist() == [True, False, True, False, False]


def test_frequencies_are_floored_on_both_sides():
    shown = floor_frequency(np.array([0.001, 0.5, 0.999, np.nan]), maf_floor=0.01)
    np.testing.assert_allclose(shown, [0.01, 0.5, 0.99, np.nan])


@pytest.mark.parametrize("rules", [{"min_cell": 4}, {"maf_floor": 0.5}, {"maf_floor": -0.1}])
def test_rules_have_floors(rules):
    with pytest.raises(ValueError, match="must be"):
        PrivacyRules(**rules)
