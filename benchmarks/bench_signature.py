"""SPARE on ABIDE and FCON1000: held-out figures of structural.md 7, ten hold-outs each (about three CPU minutes)."""

import os
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.measure import Measurement, cpu_seconds
from brainlocus.cohort.harmonise import CombatOptions
from brainlocus.cohort.signatures import Harmoniser, SpareOptions, train_spare
from brainlocus.pipeline.models import ComBatHarmoniser


def run() -> list[Measurement]:
    root = Path(os.environ.get("BRAINLOCUS_DATA", ""))
    if not (root / "structural/tabular/abide_impac_freesurfer.csv").is_file():
        return []
    import pandas as pd
    from tests.real_data import abide

    table, _ = abide()
    names = [c for c in table.columns[6:] if table[c].nunique() > 1]
    features, site = table[names].to_numpy(dtype=float), table["site"].astype(str).to_numpy(dtype=str)
    sex, asd = (table["sex"] == "M").to_numpy().astype(np.int64), table["asd"].to_numpy().astype(np.int64)
    preserved = np.column_stack([table["age"], sex]).astype(float)
    fcon = pd.read_csv(root / "structural/tabular/fcon1000_destrieux.csv")
    thickness = fcon.drop(columns=["sub_id", "age", "sex", "site", "avg_en"])
    thickness = thickness.loc[:, thickness.std() > 0]
    centred = (thickness - thickness.groupby(fcon["site"]).transform("mean")).to_numpy(dtype=float)
    without_means = features - np.stack([features[site == s].mean(axis=0) for s in site])
    fcon_sex = fcon["sex"].to_numpy().astype(np.int64)
    combat = ComBatHarmoniser(CombatOptions())
    with threadpool_limits(1):
        return [
            *_judge("ABIDE autism, raw", features, asd, "specification 0.62 +- 0.03"),
            *_judge(
                "ABIDE autism, ComBat inside", features, asd, "",
                batch=site, harmoniser=combat, preserved=preserved,
            ),
            *_judge("ABIDE autism, site means removed", without_means, asd, "specification 0.57 +- 0.03"),
            *_judge("ABIDE sex", features, sex, "specification 0.76 +- 0.04, d 1.35"),
            *_judge("FCON1000 sex, raw", thickness.to_numpy(dtype=float), fcon_sex, ""),
            *_judge("FCON1000 sex, site means removed", centred, fcon_sex, "specification 0.79 +- 0.03, d 1.6"),
        ]  # fmt: skip


def _judge(
    name: str,
    features: np.ndarray,
    diagnosis: np.ndarray,
    note: str,
    *,
    batch: np.ndarray | None = None,
    harmoniser: Harmoniser | None = None,
    preserved: np.ndarray | None = None,
) -> list[Measurement]:
    result, seconds = cpu_seconds(
        lambda: train_spare(
            features,
            diagnosis,
            generator=np.random.default_rng(0),
            batch=batch,
            harmoniser=harmoniser,
            preserved=preserved,
            options=SpareOptions(repeats=10),
        )
    )
    summary = result.performance.summary()
    accuracy = summary["balanced_accuracy"]
    text = f"sd {accuracy['sd']:.3f}, d {summary['cohens_d']['mean']:.2f}, {seconds:.0f} CPU s; {note}"
    return [Measurement(f"{name}, balanced accuracy", accuracy["mean"], "", None, text)]
