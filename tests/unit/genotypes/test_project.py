"""Projection of people: what shrinks, and what the correction makes of it."""

import numpy as np
import pytest
from tests.unit.genotypes.panel import panel

from brainlocus.core import select_genotypes
from brainlocus.genetics.genotypes import LOCAL_SHARE, local_shares, principal_components, project_people
from brainlocus.genetics.genotypes.project import augmented_scores


@pytest.fixture(scope="module")
def populations():
    """Three populations, 1,500 variants, 250 people to fit on and 80 others."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0.1, 0.9, 1500)
    of = rng.integers(0, 3, 330)
    share = np.clip(base[:, None] + rng.normal(0, 0.06, (1500, 3)), 0.02, 0.98)
    dosage = rng.binomial(2, share[:, of]).astype(np.float32)
    dosage[rng.random(dosage.shape) < 0.02] = np.nan
    source = panel(dosage)
    fitted = np.arange(330) < 250
    reference = select_genotypes(source, samples=source.samples.take(fitted))
    others = select_genotypes(source, samples=source.samples.take(~fitted))
    return source, principal_components(reference, 4), others, of


def slopes(populations, *, correct):
    """Return the slope of projected scores on those of a joint analysis, turned onto the reference's axes."""
    source, found, others, _ = populations
    joint = principal_components(source, 4).scores[:, :2]
    turn = np.linalg.lstsq(joint[:250], found.scores[:, :2], rcond=None)[0]
    truth, scores = joint[250:] @ turn, project_people(found, others, correct=correct)[:, :2]
    return (truth * scores).sum(axis=0) / (truth**2).sum(axis=0)


def test_plain_projections_shrink_and_the_correction_undoes_it(populations):
    assert (slopes(populations, correct=False) < 0.85).all()
    np.testing.assert_allclose(slopes(populations, correct=True), 1.0, atol=0.05)


def test_projected_people_lie_among_their_population(populations):
    _, found, others, of = populations
    scores = project_people(found, others)
    centres = np.array([found.scores[of[:250] == k, :2].mean(axis=0) for k in range(3)])
    nearest = np.linalg.norm(scores[:, None, :2] - centres, axis=2).argmin(axis=1)
    assert (nearest == of[250:]).mean() > 0.97


def test_the_augmented_scores_are_those_of_the_decomposition_with_the_person():
    """With all components, augmenting is exact: the scores of the reference and the person decomposed together."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(12, 40)), rng.normal(size=40)
    u, d, vt = np.linalg.svd(x, full_matrices=False)
    ours = augmented_scores(d, (vt @ y)[None], np.array([y @ y]))[0]
    ju, jd, _ = np.linalg.svd(np.vstack([x, y]), full_matrices=False)
    joint = ju[:, :12] * jd[:12]
    left, strength, right = np.linalg.svd(joint[:12].T @ (u * d))
    scale = strength.sum() / (joint[:12] ** 2).sum()
    np.testing.assert_allclose(ours, scale * joint[12] @ left @ right, rtol=1e-10)


def test_fitted_people_project_onto_themselves():
    rng = np.random.default_rng(2)
    source = panel(rng.binomial(2, rng.uniform(0.2, 0.8, (300, 1)), (300, 40)))
    found = principal_components(source, 3)
    np.testing.assert_allclose(project_people(found, source, correct=False), found.scores, atol=1e-5)


def test_a_component_of_one_region_is_noticed():
    rng = np.random.default_rng(3)
    dosage = rng.binomial(2, 0.5, (400, 120)).astype(np.float32)
    inversion = rng.binomial(2, 0.4, 120)
    for j in range(100, 130):
        dosage[j] = np.where(rng.random(120) < 0.9, inversion, dosage[j])
    position = np.arange(400) * 200_000 + 1
    position[100:130] = 8_000_000 * 5 + np.arange(30) * 20_000
    source = panel(dosage, position=position)
    found = principal_components(source, 2)
    shares, regions = local_shares(source.variants, found.loadings)
    assert shares[0] > 0.8 > LOCAL_SHARE > shares[1]
    start, stop = (int(x) for x in regions[0].split(":")[1].split("-"))
    assert start <= position[115] <= stop
