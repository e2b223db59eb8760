"""Harmonisation, phenome scan and signatures: time and memory on real and on biobank-sized input."""

import os
import subprocess
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Shaped
from scipy import stats
from threadpoolctl import threadpool_limits

from benchmarks.measure import Measurement, cpu_seconds
from brainlocus.cohort.associate import (
    effective_tests,
    prepare_effective,
    prepare_phenome,
    scan_phenome,
    scan_phenome_peak_bytes,
    simulate_smallest_p,
)
from brainlocus.cohort.harmonise import (
    CombatOptions,
    SmoothOptions,
    apply_combat,
    fit_combat,
    preserved_columns,
    site_effects,
)
from brainlocus.cohort.prepare import (
    build_confound_set,
    confound_role,
    deconfound,
    explained_by_group,
)
from brainlocus.cohort.signatures import SpareOptions, train_spare
from brainlocus.core import Column, PhenotypeTable, SampleIndex


def run() -> list[Measurement]:
    with threadpool_limits(1):
        rows = [*_combat(), *_spare(), *_confound_set(), *_effective()]
    return [*rows, *_phenome()]


def _combat() -> list[Measurement]:
    root = Path(os.environ.get("BRAINLOCUS_DATA", ""))
    if not (root / "structural/tabular/abide_impac_freesurfer.csv").is_file():
        return []
    from tests.real_data import abide, abide_nuisance

    table, names = abide()
    y, site = table[names].to_numpy(dtype=float), table["site"].astype(str).to_numpy(dtype=str)
    nuisance = abide_nuisance(table)
    preserved = nuisance[:, [0, 3, 4]]

    def harmonise() -> Float64[np.ndarray, "samples features"]:
        return apply_combat(fit_combat(y, site, covariates=preserved), y, site, covariates=preserved).values

    clean, seconds = cpu_seconds(harmonise)
    before, after = (site_effects(v, site, covariates=nuisance).mean_eta2 for v in (y, clean))
    shape = f"ABIDE {y.shape[0]:,} x {y.shape[1]}, {np.unique(site).size} sites"
    covariates = np.column_stack([table["age"], nuisance[:, 3:]])
    return [
        Measurement("combat fit and apply, CPU", seconds, "s", 0.2, shape),
        Measurement("combat, mean site eta^2 before", before, "", None, f"{before:.4f}; specification 0.208"),
        Measurement("combat, mean site eta^2 after", after, "", 0.0108, f"{after:.4f}; specification 0.0107"),
        *_combat_gam(y, site, covariates, nuisance, shape=shape),
    ]


def _combat_gam(
    y: Float64[np.ndarray, "samples features"],
    site: Shaped[np.ndarray, " samples"],
    covariates: Float64[np.ndarray, "samples covariates"],
    nuisance: Float64[np.ndarray, "samples columns"],
    *,
    shape: str,
) -> list[Measurement]:
    """ComBat-GAM, beside neuroHarmonize when BRAINLOCUS_NEUROHARMONIZE names a Python that has it (minutes)."""
    names = ("age", "sex", "asd")
    options = CombatOptions(smooth=(SmoothOptions("age"),))

    def harmonise() -> Float64[np.ndarray, "samples features"]:
        model = fit_combat(y, site, covariates=covariates, covariate_names=names, options=options)
        return apply_combat(model, y, site, covariates=covariates).values

    clean, seconds = cpu_seconds(harmonise)
    model = fit_combat(y, site, covariates=covariates, covariate_names=names, options=options)
    adjusted = {"age^1..3": nuisance, "splines of age": preserved_columns(model, covariates)}
    python = os.environ.get("BRAINLOCUS_NEUROHARMONIZE")
    peer, peer_seconds = _neuroharmonize(python, y, site, covariates, names) if python else (None, float("nan"))
    rows = [Measurement("combat-gam fit and apply, CPU", seconds, "s", 0.2, shape)]
    if peer is not None:
        note = f"{peer_seconds:.0f} CPU s, {peer_seconds / y.shape[1]:.2f} a feature"
        rows.append(Measurement("combat-gam, neuroHarmonize's CPU / ours", peer_seconds / seconds, "x", None, note))
    for name, columns in adjusted.items():
        eta2 = site_effects(clean, site, covariates=columns).mean_eta2
        limit = site_effects(peer, site, covariates=columns).mean_eta2 if peer is not None else None
        note = f"{eta2:.5f}; neuroHarmonize {'not run' if limit is None else f'{limit:.5f}'}"
        rows.append(Measurement(f"combat-gam, mean site eta^2 after, {name} taken out", eta2, "", limit, note))
    return rows


_PEER = """
import resource, sys, warnings
import numpy as np, pandas as pd
warnings.filterwarnings("ignore")
from neuroHarmonize import harmonizationLearn
given = np.load(sys.argv[1])
people = pd.DataFrame(given["covariates"], columns=given["names"]).assign(SITE=given["site"])
def cpu():
    use = resource.getrusage(resource.RUSAGE_SELF)
    return use.ru_utime + use.ru_stime
start = cpu()
_, clean = harmonizationLearn(given["y"], people, smooth_terms=["age"], seed=0)
np.savez(sys.argv[2], clean=np.asarray(clean), seconds=cpu() - start)
"""


def _neuroharmonize(
    python: str,
    y: Float64[np.ndarray, "samples features"],
    site: Shaped[np.ndarray, " samples"],
    covariates: Float64[np.ndarray, "samples covariates"],
    names: tuple[str, ...],
) -> tuple[Float64[np.ndarray, "samples features"], float]:
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "given.npz", Path(folder) / "found.npz"
        np.savez(given, y=y, site=site, covariates=covariates, names=np.array(names))
        one_thread = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
        subprocess.run(
            [python, "-c", _PEER, str(given), str(found)], env=one_thread, check=True, stdout=subprocess.DEVNULL
        )
        with np.load(found) as result:
            return result["clean"], float(result["seconds"])


def _spare() -> list[Measurement]:
    rng = np.random.default_rng(0)
    diagnosis = rng.integers(0, 2, 1_000)
    features = rng.standard_normal((1_000, 200)) + 0.15 * diagnosis[:, None]
    options = SpareOptions(repeats=3)
    result, seconds = cpu_seconds(
        lambda: train_spare(features, diagnosis, generator=np.random.default_rng(0), options=options)
    )
    note = f"1,000 x 200, 10 inner folds, 17 C; balanced accuracy {result.performance.balanced_accuracy.mean():.3f}"
    return [Measurement("spare, CPU per outer repeat (final model shared)", seconds / 3, "s", None, note)]


_EXTRA = ("head_motion", "table_position", "qc", "extra")


def _confound_set() -> list[Measurement]:
    """Measure the set at UK Biobank's size on two slices of its traits: their difference is what a trait adds."""
    n, few, many, extra = 40_000, 50, 100, 20
    rng = np.random.default_rng(0)
    columns = {
        "age": rng.uniform(45, 80, n),
        "sex": rng.integers(0, 2, n).astype(float),
        "scan_date": 2014 + rng.uniform(0, 6, n),
        "time_of_day": rng.uniform(8, 18, n),
    }
    roles = [confound_role(name, name) for name in columns]
    for k in range(extra):
        columns[f"v{k}"] = np.exp(rng.normal(0, 0.5, n))
        roles.append(confound_role(f"v{k}", _EXTRA[k % len(_EXTRA)]))
    site = np.array(["a", "b", "c"])[rng.choice(3, n, p=[0.6, 0.25, 0.15])]
    people = PhenotypeTable(
        SampleIndex.of(range(n)),
        (*(Column(name, values) for name, values in columns.items()), Column("site", site, "categorical")),
    )
    roles.append(confound_role("site", "site"))
    given = np.column_stack(list(columns.values()))
    effects = 0.1 * rng.standard_normal((given.shape[1], many))
    traits = rng.standard_normal((n, many)) + (given - given.mean(axis=0)) / given.std(axis=0) @ effects
    traits[rng.uniform(size=traits.shape) < 0.01] = np.nan

    def whole(count: int) -> int:
        chosen = traits[:, :count]
        built = build_confound_set(people, roles, chosen)
        deconfound(chosen, built.matrix, basis=built.basis)
        explained_by_group(built.basis.q, built.matrix, built.groups, chosen)
        shapes.append((built.matrix.shape[1], built.screening.keep.size))
        return built.basis.rank

    shapes: list[tuple[int, int]] = []
    _, small = cpu_seconds(lambda: whole(few))
    _, large = cpu_seconds(lambda: whole(many))
    each = (large - small) / (many - few)
    full = large + each * (2_000 - many)
    note = f"{n:,} people, {shapes[1][0]} columns kept, {shapes[1][1]:,} candidates; 1 % missing, a pattern each"
    return [
        Measurement(f"confound set, CPU for {many} traits", large, "s", None, note),
        Measurement("confound set, CPU for 2,000 traits (from two slices)", full / 60, "min", None,
                    f"{each:.2f} s a trait"),
    ]  # fmt: skip


def _effective() -> list[Measurement]:
    rng = np.random.default_rng(0)
    n, q, predictors = 40_000, 2_000, 1_000
    shared = rng.standard_normal((n, 40)) @ rng.standard_normal((40, q)) / np.sqrt(40)
    traits = shared + rng.standard_normal((n, q))
    covariates = rng.standard_normal((n, 10))
    design, once = cpu_seconds(lambda: prepare_effective(traits, covariates=covariates))
    drawn, seconds = cpu_seconds(lambda: simulate_smallest_p(design, predictors, rng))
    found = effective_tests(design, drawn)
    note = f"{n:,} x {q:,}, complete, 10 covariates; {found.simulated:.0f} effective tests"
    return [
        Measurement("effective tests, CPU for 20,000 predictors (from 1,000)", once + 20 * seconds, "s", None, note)
    ]


_WAYS = (({}, ""), ({"mode": "exact"}, ", exact"), ({"mode": "exact", "robust": True}, ", exact, HC3"))


def _phenome() -> list[Measurement]:
    """Blocks of issue 6's problem; time is linear in the phenotypes. One thread, as a worker has."""
    n, q, block, every = 35_273, 36, 256, 17_485
    rng = np.random.default_rng(0)
    covariates = rng.standard_normal((n, 10))
    traits = rng.standard_normal((n, q))
    phenotypes = np.asfortranarray(rng.standard_normal((n, block)))
    phenotypes[rng.uniform(size=phenotypes.shape) < 0.4] = np.nan
    note = f"{n:,} people, 10 covariates, 40 % missing, each phenotype with its own pattern"
    rows, seconds = [], 1.0
    with threadpool_limits(1):
        for mode, robust, name in (
            ("per_variable", False, ""),
            ("exact", False, ", exact"),
            ("exact", True, ", exact, HC3"),
        ):
            design, once = cpu_seconds(
                lambda mode=mode, robust=robust: prepare_phenome(
                    traits, covariates=covariates, mode=mode, robust=robust
                )
            )
            scan_phenome(design, phenotypes[:, :2])
            _, part = cpu_seconds(lambda design=design: scan_phenome(design, phenotypes))
            seconds = part if not name else seconds
            whole = once + part * every / block
            rows.append(
                Measurement(f"phenome{name}, CPU for {every:,} phenotypes x {q} traits", whole, "s", 90.0, note)
            )
        tracemalloc.start()
        design = prepare_phenome(traits, covariates=covariates)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        scan_phenome(design, phenotypes)
        peak = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
        rate = _gemm_rate()
        # Q'MQ of 66 columns, Q'x, x - MQa, and six products with the traits.
        operations = 2.0 * n * block * (66 + 11 + 11 + 6 * q)
        floor = operations / rate
        loops = _pair_loops(traits, phenotypes[:, 0], covariates)
    pairs = block * q
    declared = scan_phenome_peak_bytes(n, q, block)
    return [
        *rows,
        Measurement("phenome, share of the matrix products' rate", 100 * floor / seconds, "%", None,
                    f"{operations / 1e9:.1f} GFLOP a block at {rate / 1e9:.0f} GFLOP/s, double precision"),
        Measurement("phenome, peak memory of a block", peak / 2**20, "MiB", declared / 2**20, "as declared"),
        Measurement("phenome, pandas loop with covariates / ours", loops["pandas"] * pairs / seconds, "x", 100.0,
                    "dropna, least squares of both on the covariates, pearsonr; per pair"),
        Measurement("phenome, NumPy loop without covariates / ours", loops["pearsonr"] * pairs / seconds, "x", None,
                    "scipy.stats.pearsonr on arrays: no covariates, complete traits"),
    ]  # fmt: skip


def _gemm_rate() -> float:
    """Return operations a second of this machine's double-precision matrix products, one thread."""
    a = np.random.default_rng(0).standard_normal((1_500, 1_500))
    a @ a
    _, seconds = cpu_seconds(lambda: [a @ a for _ in range(5)])
    return 5 * 2 * 1_500**3 / seconds


def _pair_loops(
    traits: Float64[np.ndarray, "samples traits"],
    phenotype: Float64[np.ndarray, " samples"],
    covariates: Float64[np.ndarray, "samples covariates"],
) -> dict[str, float]:
    """Return CPU seconds a pair of the loops that people write."""
    import pandas as pd

    names = [f"c{k}" for k in range(covariates.shape[1])]
    frame = pd.DataFrame(covariates, columns=names).assign(x=phenotype, **{f"y{k}": traits[:, k] for k in range(6)})

    def one(trait: str) -> float:
        part = frame[["x", trait, *names]].dropna()
        design = np.column_stack([np.ones(len(part)), part[names].to_numpy()])
        both = part[["x", trait]].to_numpy()
        residuals = both - design @ np.linalg.lstsq(design, both, rcond=None)[0]
        return float(stats.pearsonr(residuals[:, 0], residuals[:, 1])[0])

    one("y0")
    _, with_pandas = cpu_seconds(lambda: [one(f"y{k}") for k in range(6)])
    rows = ~np.isnan(phenotype)
    _, plain = cpu_seconds(lambda: [stats.pearsonr(phenotype[rows], traits[rows, j]) for j in range(6)])
    return {"pandas": with_pandas / 6, "pearsonr": plain / 6}
