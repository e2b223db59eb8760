"""EM atlas fit on planted parcels: about 65,000 voxels, 300 people, 32 components."""

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.measure import Measurement, cpu_seconds
from benchmarks.planted_atlas import planted_atlas, true_relative_loss
from brainlocus.images.atlas import adjusted_rand, fit_em


def run() -> list[Measurement]:
    planted = planted_atlas()
    shape = f"{planted.images.shape[0]:,} x {planted.images.shape[1]}, r = 32"
    fit_em(planted.images[:1000], 2, generator=np.random.default_rng(0))  # compiles
    rows: list[Measurement] = []
    with threadpool_limits(1):
        for seed in range(3):
            generator = np.random.default_rng(seed)
            fit, seconds = cpu_seconds(lambda g=generator: fit_em(planted.images, 32, generator=g))
            rand = adjusted_rand(planted.labels, fit.labels)
            note = f"{shape}; seed {seed}; ARI {rand:.3f} (asked >= 0.91); {fit.losses.size} full passes"
            rows.append(Measurement("em fit, CPU", seconds, "s", 10.0, note))
            rows.append(
                Measurement(
                    "em fit, relative loss", fit.relative_loss, "", 0.053, f"seed {seed}: {fit.relative_loss:.5f}"
                )
            )
    rows.append(Measurement("true parcels, relative loss", true_relative_loss(planted), "", None, shape))
    return rows
