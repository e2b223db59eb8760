"""Whole-genome ridge regression beside its literal reading."""

import numpy as np
import pytest
from tests.reference import ridge as naive

from brainlocus.core import AlignmentError, ArrayGenotypes, SampleIndex, VariantTable
from brainlocus.core.text import text_array
from brainlocus.genetics.gwas.loco import predict_genome, stack_peak_bytes, stack_predictions
from brainlocus.genetics.gwas.loco_cases import calibration_slope
from brainlocus.genetics.gwas.ridge import (
    RidgeSettings,
    assign_folds,
    block_peak_bytes,
    fit_block,
    prepare_ridge,
    ridge_blocks,
)

N, M, FOLDS = 240, 90, 4
H = (0.05, 0.5, 0.9)
TOLERANCE = 2e-5
"""float32 products of a few hundred terms, penalties well above their rounding."""


def study(seed=0, missing=True):
    rng = np.random.default_rng(seed)
    g = rng.binomial(2, rng.uniform(0.1, 0.9, M)[:, None], (M, N)).astype(np.float32)
    c = rng.normal(size=(N, 2))
    y = (0.3 * g[::7]).sum(axis=0)[:, None] + c @ [[1.0], [0.5]] + rng.normal(size=(N, 3))
    if missing:
        g[rng.random(g.shape) < 0.03] = np.nan
        y[rng.random(N) < 0.1, 1] = np.nan
    chromosome = np.array(["2"] * 40 + ["1"] * 30 + ["10"] * 20)
    people = SampleIndex.of([f"p{k}" for k in range(N)])
    return g, y, c, chromosome, assign_folds(people, FOLDS)


def predictions(design, dosage, n_variants, settings=None):
    return fit_block(design, dosage, n_variants, settings).predict(slice(None))


def fit(g, y, c, chromosome, folds, settings):
    """Return one RidgeFit per trait, whole files in memory."""
    blocks = ridge_blocks(chromosome, np.arange(chromosome.size), settings.block_size)
    designs, skipped = prepare_ridge(y, c, folds, settings=settings)
    fits = {}
    for design in designs:
        parts = [predictions(design, g[b.rows][:, design.people], chromosome.size, settings) for b in blocks]
        where = np.repeat([b.chromosome for b in blocks], len(settings.heritabilities))
        for k, name in enumerate(design.names):
            columns = np.concatenate([p[k] for p in parts])
            fits[name] = stack_predictions(design, k, columns, where, y.shape[0], settings)
    return fits, skipped


@pytest.mark.parametrize("cross_validation", ["folds", "loo"])
def test_both_levels_are_the_literal_reading(cross_validation):
    g, y, c, chromosome, folds = study()
    loo = cross_validation == "loo"
    settings = RidgeSettings(16, H, FOLDS, cross_validation)
    fits, _ = fit(g, y, c, chromosome, folds, settings)
    x = naive.standardise(g, c)
    blocks = ridge_blocks(chromosome, np.arange(M), 16)
    assert [b.chromosome for b in blocks] == ["1"] * 2 + ["2"] * 3 + ["10"] * 2
    for k in range(3):
        unit, scale = naive.standardise_trait(y[:, k], c)
        penalties = [M * (1 - h) / h for h in H]
        level0 = np.concatenate([naive.naive_level0(x[b.rows], unit, folds, penalties, loo=loo) for b in blocks])
        where = np.repeat([b.chromosome for b in blocks], len(H))
        has = ~np.isnan(y[:, k])
        loco, whole, errors = naive.naive_level1(level0, unit, has, where, folds, H, loo=loo)
        found = fits[f"trait_{k + 1}"]
        assert found.chromosomes == ("1", "2", "10")
        assert found.heritability == H[int(np.argmin(errors))]
        assert found.r2 == pytest.approx(1 - errors.min() / (unit @ unit), abs=1e-5)
        np.testing.assert_allclose(found.whole[has], scale * whole, atol=TOLERANCE * scale)
        for name, row in zip(found.chromosomes, found.loco, strict=True):
            np.testing.assert_allclose(row[has], scale * loco[name], atol=TOLERANCE * scale)
        assert np.isnan(found.whole[~has]).all()


@pytest.mark.parametrize("coding", [0, 1])
def test_cases_and_controls_by_logistic_ridge(coding):
    g, y, c, chromosome, folds = study()
    settings = RidgeSettings(16, H, FOLDS, binary=True)
    cases = np.where(np.isnan(y), np.nan, y > np.nanquantile(y, 0.6, axis=0)) + coding
    fits, _ = fit(g, cases, c, chromosome, folds, settings)
    x = naive.standardise(g, c)
    blocks = ridge_blocks(chromosome, np.arange(M), 16)
    where = np.repeat([b.chromosome for b in blocks], len(H))
    for k in range(2):
        has = ~np.isnan(y[:, k])
        unit, _ = naive.standardise_trait(cases[:, k], c)
        penalties = [M * (1 - h) / h for h in H]
        w = np.concatenate([naive.naive_level0(x[b.rows], unit, folds, penalties) for b in blocks])[:, has]
        w = (w - w.mean(axis=1, keepdims=True)) / w.std(axis=1, keepdims=True)
        status, model = cases[has, k] - coding, np.column_stack([np.ones(has.sum()), c[has]])
        offset = model @ naive.naive_logistic_ridge(model, status, np.zeros(has.sum()), 0.0)
        results = []
        for h in H:
            whole, without = np.zeros(has.sum()), np.zeros(has.sum())
            for test, train in naive.splits(folds[has], loo=False):
                penalty = w.shape[0] * (1 - h) / h * 3 / np.pi**2
                b = naive.naive_logistic_ridge(w[:, train].T, status[train], offset[train], penalty)
                whole[test], without[test] = w[:, test].T @ b, w[where != "1"][:, test].T @ b[where != "1"]
            p = 1 / (1 + np.exp(-(offset + whole)))
            results.append((-np.log(np.where(status == 1, p, 1 - p)).sum(), h, whole, without))
        loss, h, whole, without = min(results, key=lambda r: r[0])
        for predicted in (whole, without):  # calibrated: a + t offset + s predicted
            columns = np.column_stack([np.ones(has.sum()), offset, predicted])
            predicted *= max(naive.naive_logistic_ridge(columns, status, np.zeros(has.sum()), 0.0)[2], 0.0)
        found = fits[f"trait_{k + 1}"]
        assert found.heritability == h
        np.testing.assert_allclose(found.whole[has], whole, atol=2e-4)
        np.testing.assert_allclose(found.loco[found.chromosomes.index("1")][has], without, atol=2e-4)
        alone = -np.log(np.where(status == 1, 1 / (1 + np.exp(-offset)), 1 / (1 + np.exp(offset)))).sum()
        assert found.r2 == pytest.approx(1 - loss / alone, abs=1e-4)
        assert np.corrcoef(found.whole[has], status)[0, 1] > 0.1


def test_calibration_slope_undoes_shrinkage():
    rng = np.random.default_rng(8)
    covariates, genome = rng.normal(size=(2, 40_000))
    status = (rng.random(40_000) < 1 / (1 + np.exp(1 - covariates - genome))).astype(float)
    assert calibration_slope(status, covariates - 1, genome / 2) == pytest.approx(2.0, abs=0.06)
    half = calibration_slope(status, covariates - 1, genome)
    assert calibration_slope(status, covariates - 1, 1e-6 * genome) == pytest.approx(1e6 * half, rel=1e-6)
    assert calibration_slope(status, np.zeros(40_000), -genome) == 0.0
    assert calibration_slope(status, covariates, np.zeros(40_000)) == 1.0
    assert calibration_slope(status, covariates, status) == 1.0  # without end: not known


def test_traits_that_are_not_cases_and_controls():
    _, y, c, _, folds = study(missing=False)
    settings = RidgeSettings(folds=FOLDS, binary=True)
    with pytest.raises(ValueError, match="'trait_1' is not binary: expected 0/1 or 1/2"):
        prepare_ridge(y, c, folds, settings=settings)
    apart = (c[:, :1] > 0).astype(float)
    assert prepare_ridge(apart, 50 * c, folds, settings=settings) == ((), (("trait_1", "separated"),))


def test_prediction_without_a_chromosome_does_not_know_it():
    """What a chromosome holds reaches its own prediction only through the weights of the others."""
    g, y, c, chromosome, folds = study(missing=False)
    settings = RidgeSettings(16, H, FOLDS)
    signal = np.nan_to_num(g[chromosome == "2"][:5]).sum(axis=0)
    y = 2 * signal[:, None] + 0.1 * np.random.default_rng(3).normal(size=y.shape)
    fits, _ = fit(g, y, c, chromosome, folds, settings)
    found = fits["trait_1"]
    r = [np.corrcoef(row, signal)[0, 1] for row in (found.whole, *found.loco)]
    assert r[0] > 0.9
    assert abs(r[found.chromosomes.index("2") + 1]) < 0.3
    assert found.r2 > 0.8


def test_order_of_people_and_of_other_traits_changes_nothing():
    g, y, c, chromosome, _ = study()
    people = SampleIndex.of([f"p{k}" for k in range(N)])
    settings = RidgeSettings(16, H, FOLDS, max_missing=0.0)
    order = np.random.default_rng(1).permutation(N)
    folds = assign_folds(people, FOLDS)
    assert (assign_folds(people.take(order), FOLDS) == folds[order]).all()
    assert (assign_folds(people.take(np.arange(50)), FOLDS) == folds[:50]).all()
    assert (np.abs(np.bincount(folds) - 60) < 20).all()
    straight, _ = fit(g, y, c, chromosome, folds, settings)
    shuffled, _ = fit(g[:, order], y[order], c[order], chromosome, folds[order], settings)
    alone, _ = fit(g, y[:, 1:2], c, chromosome, folds, settings)
    np.testing.assert_allclose(shuffled["trait_2"].loco, straight["trait_2"].loco[:, order], atol=1e-4)
    np.testing.assert_allclose(alone["trait_1"].loco, straight["trait_2"].loco, atol=1e-4)


def test_alleles_and_units_change_what_they_should():
    g, y, c, chromosome, folds = study()
    settings = RidgeSettings(16, H, FOLDS)
    plain, _ = fit(g, y, c, chromosome, folds, settings)
    swapped, _ = fit(np.where(np.arange(M)[:, None] % 2, 2 - g, g), y, c, chromosome, folds, settings)
    scaled, _ = fit(g, -1000 * y + c[:, :1], c, chromosome, folds, settings)
    np.testing.assert_allclose(swapped["trait_1"].loco, plain["trait_1"].loco, atol=1e-4)
    np.testing.assert_allclose(scaled["trait_1"].loco, -1000 * plain["trait_1"].loco, atol=0.1)
    assert scaled["trait_1"].heritability == plain["trait_1"].heritability


def test_a_trait_with_many_missing_is_regressed_among_its_own_people():
    _, y, c, _, folds = study()
    y[: N // 2, 2] = np.nan
    designs, _ = prepare_ridge(y, c, folds, settings=RidgeSettings(folds=FOLDS))
    assert [d.names for d in designs] == [("trait_1", "trait_2"), ("trait_3",)]
    assert [d.people.size for d in designs] == [N, N // 2]
    assert designs[0].observed.all(axis=0).tolist() == [True, False]
    assert (designs[0].traits[~designs[0].observed[:, 1], 1] == 0).all()
    assert (folds[designs[1].people] == np.repeat(np.arange(FOLDS), np.diff(designs[1].fold_bounds))).all()


def test_traits_that_cannot_be_predicted_are_named():
    _, y, c, _, folds = study()
    y = np.column_stack([y, np.ones(N), c[:, 0], np.where(np.arange(N) < 5, 1.0 * np.arange(N), np.nan)])
    designs, skipped = prepare_ridge(y, c, folds, settings=RidgeSettings(folds=FOLDS))
    assert skipped == (("trait_4", "constant"), ("trait_5", "collinear"), ("trait_6", "too_few_people"))
    assert designs[0].names == ("trait_1", "trait_2", "trait_3")


def test_constant_and_uncalled_variants_predict_nothing():
    g, y, c, _, folds = study()
    settings = RidgeSettings(16, H, FOLDS)
    (design, *_), _ = prepare_ridge(y, c, folds, settings=settings)
    g = g[:, design.people]
    blank = np.vstack([g[:10], np.full((1, N), np.nan), np.full((1, N), 2.0)]).astype(np.float32)
    np.testing.assert_allclose(
        predictions(design, blank, M, settings), predictions(design, g[:10], M, settings), atol=1e-6
    )
    nothing = predictions(design, blank[10:], M, settings)
    assert (nothing == 0).all()
    where = np.array(["1"] * len(H))
    assert (stack_predictions(design, 0, nothing[0], where, N, settings).whole == 0).all()


def test_bad_input():
    g, y, c, _, folds = study()
    (design, *_), _ = prepare_ridge(y, c, folds, settings=RidgeSettings(folds=FOLDS))
    with pytest.raises(AlignmentError, match="has 239 people, the design 240"):
        predictions(design, g[:, :-1], M)
    for wrong in ({"block_size": 0}, {"heritabilities": (1.0,)}, {"folds": 1}, {"max_missing": 1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            RidgeSettings(**wrong)
    y[0, 0] = np.inf
    with pytest.raises(ValueError, match="trait_1"):
        prepare_ridge(y, c, folds)


def test_all_in_one_process_is_the_same():
    g, y, c, chromosome, _ = study()
    names, alleles = text_array([f"v{k}" for k in range(M)]), text_array(["A"] * M)
    people = SampleIndex.of([f"p{k}" for k in range(N)])
    table = VariantTable(chromosome, np.arange(1, M + 1), alleles, alleles, names, "GRCh38")
    settings = RidgeSettings(16, H, FOLDS)
    expected, _ = fit(g, y, c, chromosome, assign_folds(people, FOLDS), settings)
    found = predict_genome(ArrayGenotypes(people, table, g), y, c, settings=settings)
    assert list(found) == list(expected)
    for name, one in expected.items():
        np.testing.assert_array_equal(found[name].loco, one.loco)


@pytest.mark.parametrize("cross_validation", ["folds", "loo"])
def test_memory_is_what_is_declared(cross_validation):
    import tracemalloc

    rng = np.random.default_rng(0)
    n, b, q = 1500, 300, 4
    settings = RidgeSettings(b, cross_validation=cross_validation)
    folds = np.arange(n) % 5
    (design,), _ = prepare_ridge(rng.normal(size=(n, q)), rng.normal(size=(n, 2)), folds, settings=settings)
    g = rng.binomial(2, 0.4, (b, n)).astype(np.float32)
    where = np.array(["1"] * 150 + ["2"] * 150)
    predictions(design, g[:5], b, settings)
    for run, declared in (
        (lambda: predictions(design, g, b, settings), block_peak_bytes(n, b, q, settings)),
        (lambda: stack_predictions(design, 0, g, where, n, settings), stack_peak_bytes(n, b, settings)),
    ):
        tracemalloc.start()
        run()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert 0.4 * declared < peak <= declared
