"""The folder of every test: several plans, methods that store p itself, and the smallest p over traits."""

import json

import numpy as np
import pytest

from brainlocus.core import ResultTable, SchemaError
from brainlocus.core.errors import FormatError
from brainlocus.core.text import text_array
from brainlocus.genetics.gwas import FullScan
from brainlocus.io import write_results
from brainlocus.pipeline.full_store import (
    iter_full,
    open_full,
    read_full,
    smallest_full,
    write_full_part,
)

M = 7
FIRST, SECOND = np.arange(5), np.array([5, 6])


def about(names, n):
    return {name: {"group": 0, "n": n, "n_cases": 3} for name in names}


@pytest.fixture
def folder(tmp_path):
    """Traits a and b on five variants; b alone, of fewer people, on two more."""
    variants = {
        "chromosome": np.array(["1"] * 5 + ["X"] * 2), "position": np.arange(1, M + 1),
        "variant_id": text_array([f"rs{k}" for k in range(M)]),
        "effect_allele": text_array(["A"] * M), "other_allele": text_array(["C"] * M),
    }  # fmt: skip
    write_results(ResultTable(variants), tmp_path / "variants.parquet")
    index = {"genome_build": "GRCh38", "traits": ["a", "b"], "plans": [about(("a", "b"), 50), about(("b",), 20)]}
    (tmp_path / "traits.json").write_text(json.dumps(index))
    p = np.array([[1, 2], [5, 4], [np.nan, 3], [6, np.nan], [np.nan, np.nan]], dtype=np.float32)
    for number, (rows, values, names) in enumerate(((FIRST, p, ("a", "b")), (SECOND, p[:2, 1:], ("b",)))):
        stored = {"beta": values, "standard_error": values, "neg_log10_p": values}
        group = np.full((rows.size, 1), 0.5), np.full((rows.size, 1), 40 - number)
        full = FullScan(stored, {"effect_allele_frequency": group[0], "n": group[1]})
        write_full_part(full, names, rows, number, tmp_path / f"part-{number:05d}.parquet")
    return tmp_path


def test_a_trait_is_put_together_from_its_plans(folder):
    a, b = iter_full(open_full(folder), ["a", "b"])
    np.testing.assert_array_equal(a["neg_log10_p"], [1, 5, np.nan, 6, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(b["neg_log10_p"], [2, 4, 3, np.nan, np.nan, 2, 4])
    assert a["n"].tolist() == [40] * 5 + [0] * 2
    assert b["n"].tolist() == [40] * 5 + [39] * 2
    np.testing.assert_array_equal(read_full(folder, "b")["beta"], b["beta"])


def test_the_smallest_p_and_whose_it_is(folder):
    index = open_full(folder)
    found = smallest_full(index)
    np.testing.assert_array_equal(found["neg_log10_p"], [2, 5, 3, 6, np.nan, 2, 4])
    assert found["trait"].tolist() == ["b", "a", "b", "a", "", "b", "b"]
    assert smallest_full(index, ["a"])["trait"].tolist() == ["a", "a", "", "a", "", "", ""]


def test_people_are_the_most_of_any_plan(folder):
    assert open_full(folder).most_people("b") == (50, 3)
    assert open_full(folder).most_people("c") == (0, 0)


def test_another_trait_and_another_folder(folder, tmp_path):
    with pytest.raises(SchemaError, match="no trait 'c'"):
        iter_full(open_full(folder), ["a", "c"])
    with pytest.raises(FormatError, match="of gwas run --full"):
        open_full(tmp_path / "elsewhere")
