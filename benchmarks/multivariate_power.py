"""Power of the permutation test of the first mode, and variants recovered.

    python -m benchmarks.multivariate_power PNG

500 people, 200 variants of which 10 move 10 of 20 phenotypes through one factor, 20 studies a point, 19 permutations
(p of 0.05 or below when none reaches the data), penalties chosen anew in each.
"""

import sys
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.bench_multivariate import simulated
from brainlocus.cohort.multivariate import (
    PLS,
    Method,
    PairedTables,
    RidgeCca,
    SparseCca,
    cross_validate_modes,
    fit_everyone,
    permute_modes,
    plan_folds,
)
from brainlocus.pipeline.figures.canvas import BLUE, GREY, ORANGE, new_figure, save_figure

SHARES = (0.0, 0.02, 0.05, 0.12)
STUDIES = 20
METHODS: dict[str, Method] = {
    "PLS": PLS,
    "ridge CCA": RidgeCca(((0.3, 0.3), (0.9, 0.9))),
    "sparse CCA": SparseCca(((0.5, 0.7), (0.25, 0.4))),
}


def _study(method: Method, share: float, seed: int) -> tuple[bool, float, float]:
    """Return whether the mode is found, its held-out r, and the share of planted variants among the ten heaviest."""
    drawn = simulated(500, 200, 20, seed=seed, share=share)
    tables = PairedTables(drawn.x, drawn.y, drawn.covariates)
    rng = np.random.default_rng(seed)
    plan = plan_folds(500, None, folds=3, inner_folds=3, rng=rng)
    held = cross_validate_modes(method, tables, [tables.y], plan, 1)
    final = fit_everyone(method, tables, method.penalties[int(np.median(held.penalty[0]))], 1)
    test = permute_modes(method, tables, plan, held.mean[0], final, rng=rng, permutations=19)
    top = np.argsort(-np.abs(final.modes.weights_of_x[:, 0]))[:10]
    return bool(test.p[0] <= 0.05 + 1e-9), float(held.mean[0, 0]), float((top < 10).mean())


def main(path: Path) -> None:
    """Simulate, print and draw."""
    figure, axes = new_figure(2, width=4.2, height=3.4)
    for (name, method), colour in zip(METHODS.items(), (GREY, BLUE, ORANGE), strict=True):
        found = np.array([[_study(method, s, 1000 * k + j) for j in range(STUDIES)] for k, s in enumerate(SHARES)])
        power, r, support = found.mean(axis=1).T
        for share, *values in zip(SHARES, power, r, support, strict=True):
            print(f"{name:12} variance {share:.2f}: power {values[0]:.2f}, held-out r {values[1]:.3f}, "
                  f"planted among top 10 {values[2]:.2f}")  # fmt: skip
        axes[0, 0].plot(SHARES, power, "o-", color=colour, label=name)
        axes[0, 1].plot(SHARES, support, "o-", color=colour, label=name)
    axes[0, 0].axhline(0.05, color=GREY, lw=0.8, ls="--")
    axes[0, 0].set_ylabel("power at p of 0.05")
    axes[0, 1].set_ylabel("planted among the 10 heaviest variants")
    for axis in axes[0]:
        axis.set_ylim(-0.03, 1.03)
        axis.set_xlabel("variance of 10 phenotypes due to the factor")
    axes[0, 0].legend(frameon=False, loc="center right")
    save_figure(figure, path)


if __name__ == "__main__":
    with threadpool_limits(1):
        main(Path(sys.argv[1]))
