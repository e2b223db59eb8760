"""Ward trees against R's ``hclust`` (version.txt; made by make.py and hclust.R)."""

from pathlib import Path

import numpy as np
import pytest
from tests.reference.twas_cluster import naive_ward

from brainlocus.genetics.twas import cut_tree, ward_tree

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def distance():
    return np.loadtxt(HERE / "matrix.csv", delimiter=",")


@pytest.mark.parametrize("method", ["ward.D2", "ward.D"])
def test_merges_heights_order_and_cuts_are_those_of_r(distance, method):
    golden = np.loadtxt(HERE / f"{method}.csv", delimiter=",", skiprows=1)
    tree = ward_tree(distance, method=method)
    assert np.array_equal(tree.merge, golden[:, :2])
    assert np.abs(tree.height / golden[:, 2] - 1).max() < 1e-12
    assert (tree.order + 1).tolist() == [int(golden[0, 4]), *golden[:, 3].astype(int)]
    cuts = np.loadtxt(HERE / f"{method}.cut.csv", delimiter=",", skiprows=1)
    for column, k in enumerate((2, 5, 17)):
        assert np.array_equal(cut_tree(tree, k), cuts[:, column])


@pytest.mark.parametrize("method", ["ward.D2", "ward.D"])
def test_the_naive_oracle_is_right_too(distance, method):
    golden = np.loadtxt(HERE / f"{method}.csv", delimiter=",", skiprows=1)
    merges, heights, order = naive_ward(distance[:20, :20].tolist(), method)
    tree = ward_tree(distance[:20, :20], method=method)
    assert tree.merge.tolist() == [list(pair) for pair in merges]
    assert np.abs(tree.height / heights - 1).max() < 1e-12
    assert tree.order.tolist() == order
    assert golden.shape[0] == 59


def test_the_two_methods_differ(distance):
    first, second = ward_tree(distance), ward_tree(distance, method="ward.D")
    assert first.height[-1] < 0.8 * second.height[-1]
