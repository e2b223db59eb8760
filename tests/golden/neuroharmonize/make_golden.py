"""Golden numbers of ComBat-GAM from neuroHarmonize 2.5.2 (statsmodels 0.15.0), on simulated input.

    python -m venv nh && nh/bin/pip install neuroHarmonize==2.5.2 statsmodels==0.15.0
    nh/bin/python tests/golden/neuroharmonize/make_golden.py

neuroHarmonize draws folds at random to choose each feature's penalty. Where the whole result is compared, the choice is
replaced by one fixed weight; `chosen` keeps the weights of its own search, with their result without shrinkage
(features are independent then). Writes `golden.npz`.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from neuroHarmonize import harmonizationApply, harmonizationLearn
from statsmodels.gam.api import GLMGam

ALPHA = 25.0
generator = np.random.default_rng(20261121)
counts = {"a": 25, "b": 40, "c": 31, "d": 54}
site = np.repeat(list(counts), list(counts.values()))
n, p = site.size, 12
age = np.clip(np.array([{"a": 25, "b": 45, "c": 60, "d": 40}[s] for s in site]) + generator.normal(0, 12, n), 6, 90)
sex = generator.integers(0, 2, n).astype(float)
shift = {s: generator.normal(0, 1.5, p) for s in counts}
spread = {s: generator.uniform(0.6, 1.7, p) for s in counts}
curve = np.outer(((age - 45) / 20) ** 2, generator.normal(0, 1, p)) + np.outer(
    np.sin(age / 9), generator.normal(0, 1, p)
)
y = generator.uniform(50, 100, p) + curve + np.outer(sex, generator.normal(0, 1, p))
y += np.array([shift[s] for s in site]) + generator.standard_normal((n, p)) * np.array([spread[s] for s in site])
order = generator.permutation(n)
y, site, age, sex = y[order], site[order], age[order], sex[order]
covars = pd.DataFrame({"SITE": site, "age": age, "sex": sex})
search = GLMGam.select_penweight_kfold
weights: list[float] = []


def fixed(self: GLMGam, **options: object) -> tuple[list[float], None]:
    return [ALPHA], None


def recorded(self: GLMGam, **options: object) -> tuple[list[float], object]:
    found = search(self, **options)
    weights.append(float(found[0][0]))
    return found


def run(select: object, **options: object) -> tuple[dict[str, object], np.ndarray]:
    GLMGam.select_penweight_kfold = select
    model, clean = harmonizationLearn(y, covars, smooth_terms=["age"], seed=1, **options)
    return model, np.asarray(clean)


model, eb = run(fixed)
kept = (age > 20) & (age < 70)
np.savez_compressed(
    Path(__file__).with_name("golden.npz"),
    features=y,
    site=site.astype("U1"),
    covariates=np.column_stack([age, sex]),
    alpha=ALPHA,
    eb=eb,
    no_eb=run(fixed, eb=False)[1],
    reference_b=run(fixed, ref_batch="b")[1],
    bounds_5_97=run(fixed, smooth_term_bounds=(5, 97))[1],
    applied=np.asarray(harmonizationApply(y[kept] + 1.0, covars[kept].reset_index(drop=True), model)),
    kept=kept,
    own_choice=run(recorded, eb=False)[1],
    chosen=np.array(weights),
)
