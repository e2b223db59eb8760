"""Joint-tissue imputation: donors as rows against samples as rows, planted sharing, and every rule of status."""

import numpy as np
import pytest

from brainlocus.genetics.twas import JtiSettings, adjust_expression, check_similarity, tissue_weights, train_jti
from brainlocus.genetics.twas.folds import draw_folds, gene_rng
from brainlocus.genetics.twas.jti import _donor_folds, _start
from tests.reference.twas_training import naive_jti_grid


def _tissues(n=40, m=6, n_tissues=3, *, seed=0, shared=1.0, r2=0.4, share=0.7):
    """Return dosages and expression; tissue 0 is the target, `shared` of the effects of the others are its own."""
    rng = np.random.default_rng(seed)
    x = rng.binomial(2, rng.uniform(0.2, 0.5, m)[:, None], (m, n)).astype(float)
    own = rng.normal(size=m) * (np.arange(m) < 2)
    expression = np.full((n_tissues, n), np.nan)
    for t in range(n_tissues):
        effects = own if t == 0 else shared * own + (1 - shared) * rng.normal(size=m)
        g = effects @ x
        y = (g - g.mean()) / max(g.std(), 1e-9) * np.sqrt(r2) + rng.normal(size=n) * np.sqrt(1 - r2)
        have = rng.random(n) < share
        expression[t, have] = y[have]
    return x, adjust_expression(expression, None)


def test_donors_as_rows_give_what_samples_as_rows_give():
    x, expression = _tissues()
    similarity, dnase = np.array([1.0, 0.97, 0.8]), np.array([1.0, 0.9, 0.99])
    settings = JtiSettings(powers=(1.0, 16.0), folds=3, min_r=-1.0, max_p=1.0, decimals=None)
    found = train_jti(x, expression, 0, similarity, dnase, gene="g", seed=1, settings=settings)
    known = ~np.isnan(expression)
    rng = gene_rng(1, "g")
    folds = _donor_folds(known, 3, rng)
    single = draw_folds(int(known[0].sum()), 3, rng)
    _, lambdas = _start(x, expression[0], [np.ones(6, dtype=bool)], single, settings)
    grid = naive_jti_grid(x.T, expression, 0, similarity, dnase, folds, lambdas, 0.5, powers=(1, 16))
    best = max(grid, key=lambda pair: grid[pair][0])
    assert (found.similarity_power, found.dnase_power) == best
    assert found.r == pytest.approx(grid[best][0], abs=1e-8)
    assert found.penalty == pytest.approx(grid[best][1])
    np.testing.assert_array_equal(found.variants, np.flatnonzero(grid[best][2]))
    np.testing.assert_allclose(found.weights, grid[best][2][found.variants], atol=1e-8)


def test_weights_of_tissues():
    weights = tissue_weights(np.array([1.0, 0.9, 0.9]), np.array([1.0, 0.5, 0.05]), (1.0, 1.0))
    np.testing.assert_allclose(weights, [1.0, 0.45, 0.0])
    far = tissue_weights(np.array([1.0, 0.9, 0.99]), np.ones(3), (64.0, 1.0))
    assert far[0] == 1
    assert far[1] == 0  # 0.9^64 = 0.0012
    assert far[2] == pytest.approx(0.99**64)


def test_the_target_alone_is_the_single_tissue_model():
    x, expression = _tissues(80, 10)
    alone = np.array([1.0, 0.05, 0.05])
    found = train_jti(x, expression, 0, alone, np.ones(3), gene="g")
    assert found.n_tissues == 1
    assert found.r == found.single_tissue_r
    one = train_jti(x, expression[:1], 0, np.ones(1), np.ones(1), gene="g")
    assert one.n == found.n


def test_swapping_alleles_negates_and_order_of_tissues_is_nothing():
    x, expression = _tissues(80, 10)
    similarity, dnase = np.array([1.0, 0.9, 0.95]), np.array([1.0, 0.9, 0.8])
    found = train_jti(x, expression, 0, similarity, dnase, gene="g")
    assert found.status == "ok"
    flipped = train_jti(2 - x, expression, 0, similarity, dnase, gene="g")
    np.testing.assert_allclose(flipped.weights, -found.weights, atol=1e-9)
    turned = [0, 2, 1]
    same = train_jti(x, expression[turned], 0, similarity[turned], dnase[turned], gene="g")
    assert same.r == pytest.approx(found.r, abs=1e-10)
    np.testing.assert_allclose(same.weights, found.weights, atol=1e-9)


def test_the_window_with_the_smaller_error_is_chosen():
    x, expression = _tissues(120, 40, r2=0.5)
    near = np.arange(40) < 5
    far = np.arange(40) >= 5
    args = (x, expression, 0, np.array([1, 0.9, 0.9]), np.ones(3))
    found = train_jti(*args, gene="g", windows=[far, near])
    assert found.window == 1
    assert found.n_variants == 5
    assert set(found.variants.tolist()) <= set(range(5))
    assert train_jti(*args, gene="g", windows=[np.arange(40) < 1, near]).window == 1


def test_at_most_so_many_variants():
    x, expression = _tissues(120, 40, r2=0.6)
    settings = JtiSettings(max_variables=3, min_r=-1.0, max_p=1.0)
    found = train_jti(x, expression, 0, np.array([1, 0.9, 0.9]), np.ones(3), gene="g", settings=settings)
    assert found.weights.size <= 3


@pytest.mark.parametrize("values", [[1.0, -0.1, 0.5], [1.0, 1.2, 0.5], [1.0, np.nan, 0.5]])
def test_similarities_out_of_range_are_refused(values):
    x, expression = _tissues()
    with pytest.raises(ValueError, match="must lie in 0 to 1"):
        train_jti(x, expression, 0, np.array(values), np.ones(3), gene="g")


def test_a_matrix_of_similarities_is_checked_with_names():
    good = np.array([[1.0, 0.5], [0.5, 1.0]])
    check_similarity(good, ["Liver", "Lung"], "Similarity")
    for wrong, saying in ((-0.2, "is negative"), (1.5, "is above 1"), (np.nan, "is missing")):
        bad = good.copy()
        bad[0, 1] = wrong
        with pytest.raises(ValueError, match=f"Liver and Lung {saying}"):
            check_similarity(bad, ["Liver", "Lung"], "Similarity")
    with pytest.raises(ValueError, match="Liver and Liver is not 1"):
        check_similarity(good * 0.9, ["Liver", "Lung"], "Similarity")


@pytest.mark.parametrize(
    ("rows", "people", "status"), [(0, 40, "no_variants"), (1, 40, "one_variant"), (6, 3, "few_people")]
)
def test_genes_that_cannot_be_trained_have_a_status(rows, people, status):
    x, expression = _tissues()
    expression[0, np.flatnonzero(~np.isnan(expression[0]))[people:]] = np.nan
    found = train_jti(x[:rows], expression, 0, np.ones(3), np.ones(3), gene="g")
    assert found.status == status
    assert found.weights.size == 0


def test_constant_expression_of_the_target():
    x, expression = _tissues()
    expression[0] = np.nan
    assert train_jti(x, expression, 0, np.ones(3), np.ones(3), gene="g").status == "constant_expression"


@pytest.mark.slow
def test_a_related_tissue_raises_r_and_unrelated_ones_leave_it():
    """40 genes, small target and large relatives: the last paragraph of section 4.2 of the method."""
    joint, single, far, far_single = [], [], [], []
    for k in range(40):
        x, expression = _tissues(300, 60, 4, seed=k, shared=1.0, r2=0.15)
        expression[0, np.flatnonzero(~np.isnan(expression[0]))[90:]] = np.nan
        near = train_jti(x, expression, 0, np.array([1, 0.97, 0.97, 0.97]), np.ones(4), gene=f"g{k}")
        joint.append(near.r)
        single.append(near.single_tissue_r)
        x, expression = _tissues(300, 60, 4, seed=k, shared=0.0, r2=0.15)
        expression[0, np.flatnonzero(~np.isnan(expression[0]))[90:]] = np.nan
        apart = train_jti(x, expression, 0, np.array([1, 0.9, 0.9, 0.9]), np.ones(4), gene=f"g{k}")
        far.append(apart.r)
        far_single.append(apart.single_tissue_r)
    gain = np.array(joint) - np.array(single)
    assert gain.mean() > 4 * gain.std(ddof=1) / np.sqrt(40)
    assert gain.mean() > 0.05
    # Power 64 shuts tissues of similarity 0.9 off: the best pair is at least the single-tissue fit, and no more than
    # the choice among a few noisy correlations adds.
    difference = np.array(far) - np.array(far_single)
    assert (difference >= -1e-9).all()
    assert difference.mean() < 0.05
