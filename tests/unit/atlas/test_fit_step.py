"""What fits say of themselves: every step, counted over the whole fit, with losses that are those of the result."""

import math

import numpy as np
import pytest

from brainlocus.images.atlas import (
    BatchOptions,
    FitStep,
    MuOptions,
    checked_norms,
    fit_batches,
    fit_em,
    fit_mu,
    initial_weights,
    refine_soft,
    split_atlas,
)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    people = rng.uniform(1, 2, (4, 30))
    return (np.repeat(people, 40, axis=0) * rng.uniform(0.9, 1.1, (160, 30))).astype(np.float32)


def generator():
    return np.random.default_rng(1)


def numbers(steps, what):
    return [step.number for step in steps if step.what == what]


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (FitStep("iteration", 125, 50_000, 0.0025, 1.0), "iteration 125 of at most 50,000, relative loss 0.0500"),
        (FitStep("epoch", 4), "epoch 4"),
        (FitStep("measuring the fit", loss=-1e-20), "measuring the fit, relative loss 0.0000"),
        (FitStep("pass", 1, 200), "pass 1 of at most 200"),
        (FitStep("pass", 1, 200, 1.0, 0.0), "pass 1 of at most 200, relative loss nan"),
    ],
)
def test_text(step, text):
    assert str(step) == text


def test_em(images):
    steps = []
    fit = fit_em(images, 4, generator=generator(), restarts=2, progress=steps.append)
    passes = numbers(steps, "pass")
    assert passes == list(range(1, fit.losses.size))  # the last loss is that of the result
    told = [step.loss for step in steps if step.what == "pass"]
    assert math.isnan(told[0])
    assert told[1:] == fit.losses[: len(told) - 1].tolist()
    assert {step.most for step in steps if step.what == "pass"} == {200}
    for restart in (1, 2):
        assert numbers(steps, f"seeding restart {restart} of 2, seed") == [2, 3, 4]
        assert numbers(steps, f"seeding restart {restart} of 2, pass")[:2] == [1, 2]
    assert steps[-1].what == "measuring the fit"
    silent = fit_em(images, 4, generator=generator(), restarts=2)
    np.testing.assert_array_equal(silent.labels, fit.labels)


@pytest.mark.parametrize("active", [None, 2])
def test_multiplicative_updates_are_counted_over_the_whole_fit(images, active):
    steps = []
    options = MuOptions(start="seeds", max_iterations=175, tolerance=1e-30, active=active)
    fit = fit_mu(images, 4, generator=generator(), options=options, progress=steps.append)
    done = numbers(steps, "iteration")
    assert done == sorted(set(done))
    if active is None:
        assert done == list(range(1, 176))
    else:
        assert done[-4:] == [76, 101, 126, 151]
    assert {step.most for step in steps if step.what == "iteration"} == {175}
    losses = [step.loss for step in steps if step.what == "iteration"]
    assert set(losses) <= set(fit.losses.tolist())
    assert [step.what for step in steps if not step.number] == ["choosing where to start", "measuring the fit"]


def test_batches_go_on_counting_where_an_interrupted_fit_ended(images):
    norms, kept = checked_norms(images), []
    start = initial_weights(images, 4, norms, generator=generator(), options=MuOptions(start="seeds"))
    for state, expected in ((None, [1, 2, 3]), (1, [3])):
        steps = []
        fit_batches(
            np.ascontiguousarray(images.T), norms, start, options=BatchOptions(8, max_epochs=3), generator=generator(),
            state=None if state is None else kept[state], checkpoint=kept.append, progress=steps.append,
        )  # fmt: skip
        assert numbers(steps, "epoch") == expected
        assert steps[0].loss == kept[expected[0] - 1].losses[expected[0] - 1]


def test_refinement(images):
    hard = fit_em(images, 4, generator=generator())
    steps = []
    found = refine_soft(images, hard, refinement="quasi-newton", progress=steps.append)
    assert found.method == "quasi-newton"
    for name in ("the hard atlas", "singular vectors"):
        done = numbers(steps, f"quasi-Newton from {name}, step")
        assert done == list(range(1, len(done) + 1))
    steps.clear()
    refine_soft(images, hard, refinement="mu", progress=steps.append)
    assert numbers(steps, "iteration")[:2] == [1, 26]
    assert {step.most for step in steps} == {100}


def test_splits(images):
    steps = []
    coarse = fit_em(images, 2, generator=generator())
    split_atlas(images, coarse, 5, generator=generator(), progress=steps.append)
    said = [str(step) for step in steps]
    assert said[:2] == ["splitting component 1 of 2", "splitting component 2 of 2"]
    assert said[-1] == "splitting the largest gains, component 5 of at most 5"
