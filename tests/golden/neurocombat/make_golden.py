"""Golden numbers from the published parametric ComBat, on simulated input.

    python -m venv nc && nc/bin/pip install neuroCombat==0.2.12
    nc/bin/python tests/golden/neurocombat/make_golden.py

Writes `golden.npz`: the simulated table and what neuroCombat returns for it.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from neuroCombat import neuroCombat

int = int  # neuroCombat 0.2.12 still uses the name that NumPy 1.24 removed
generator = np.random.default_rng(20261120)
counts = {"a": 12, "b": 40, "c": 25, "d": 63, "e": 7}
site = np.repeat(list(counts), list(counts.values()))
n, p = site.size, 40
age = generator.uniform(18, 80, n).astype(np.float32).astype(float)  # neuroCombat rounds covariates to float32
sex = generator.integers(0, 2, n).astype(float)
level = generator.uniform(50, 500, p)
shift = {s: generator.normal(0, 8, p) for s in counts}
spread = {s: generator.uniform(0.6, 1.7, p) for s in counts}
y = level + np.outer(age - 50, generator.normal(0, 0.3, p)) + np.outer(sex, generator.normal(0, 3, p))
y += np.array([shift[s] for s in site]) + 10 * generator.standard_normal((n, p)) * np.array([spread[s] for s in site])
order = generator.permutation(n)
y, site, age, sex = y[order], site[order], age[order], sex[order]
covars = pd.DataFrame({"site": site, "age": age, "sex": sex})


def run(**options: object) -> np.ndarray:
    keep = {"continuous_cols": ["age"], "categorical_cols": ["sex"]} | options
    return np.asarray(neuroCombat(dat=y.T, covars=covars, batch_col="site", **keep)["data"]).T


np.savez_compressed(
    Path(__file__).with_name("golden.npz"),
    features=y,
    site=site.astype("U1"),
    covariates=np.column_stack([age, sex]),
    eb=run(),
    no_eb=run(eb=False),
    reference_b=run(ref_batch="b"),
    no_covariates=run(continuous_cols=None, categorical_cols=None),
    mean_only_no_eb=run(mean_only=True, eb=False),
)
