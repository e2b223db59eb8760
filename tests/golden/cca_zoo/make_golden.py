"""Golden numbers from cca-zoo, on simulated input.

    python -m venv cz && cz/bin/pip install cca-zoo==4.0.1
    cz/bin/python tests/golden/cca_zoo/make_golden.py

Writes `golden.npz`: two tables, standardised (mean square 1), and the weights of ridge CCA and of sparse CCA. cca-zoo
divides products by n - 1, so it is given columns whose sum of squares is n - 1.
"""

from pathlib import Path

import numpy as np
from cca_zoo.linear import RidgeCCA
from cca_zoo.sparse import PMDCCA

generator = np.random.default_rng(20261129)
n, m, q = 120, 200, 15
shared = generator.standard_normal((n, 2))
x, y = generator.standard_normal((n, m)), generator.standard_normal((n, q))
x[:, :8] += shared[:, :1]
x[:, 20:24] -= shared[:, 1:]
y[:, :3] += shared[:, :1]
y[:, 8:10] += shared[:, 1:]
x, y = ((t - t.mean(axis=0)) / t.std(axis=0) for t in (x, y))
scale = np.sqrt((n - 1) / n)
found = {"x": x, "y": y}
for name, shrinkage in (("mild", [0.3, 0.1]), ("strong", [0.9, 0.6]), ("pls", [1.0, 1.0])):
    model = RidgeCCA(n_components=3, shrinkage=shrinkage).fit([x * scale, y * scale])
    found[f"ridge_{name}_x"], found[f"ridge_{name}_y"] = model.weights_
for name, bound in (("mild", [0.6, 0.7]), ("strong", [0.2, 0.4])):
    model = PMDCCA(l1_bound=bound, tol=1e-13, max_iter=5000, random_state=0).fit([x, y])
    found[f"sparse_{name}_x"], found[f"sparse_{name}_y"] = model.weights_
np.savez_compressed(Path(__file__).with_name("golden.npz"), **found)
