"""Soft solvers of the atlas: iterations, peers, thickness tables, active sets, growth with the size of the data.

Then starts, exponents, nested scales, tables of few regions, and reproducibility on thickness tables.

BRAINLOCUS_OPNMF names a Python that has opnmf, sopnmf (with torch, tensorboardX) and scikit-learn: then one update of
each from the same W is compared with ours, in value and in time.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from threadpoolctl import threadpool_limits

from benchmarks.measure import Measurement, cpu_seconds
from benchmarks.planted_atlas import planted_atlas
from brainlocus.images.atlas import (
    NESTED_EXPONENT,
    AtlasFit,
    BatchOptions,
    FitAgreement,
    MuOptions,
    SoftFit,
    Weights,
    adjusted_rand,
    cell_images,
    checked_norms,
    coarse_start,
    compare_fits,
    fit_batches,
    fit_em,
    fit_mu,
    grid_cells,
    initial_weights,
    nndsvd_start,
    refine_soft,
    soften_inside,
    split_atlas,
    unit_components,
    unit_prototypes,
)
from brainlocus.images.atlas.active import active_iterations, choose_active, renew
from brainlocus.images.atlas.compress import gram_root
from brainlocus.images.atlas.iterations import iterate
from brainlocus.images.atlas.passes import Blocks, first_pass, update_pass
from brainlocus.images.atlas.refine import soften
from brainlocus.numerics.devices import HOST
from brainlocus.pipeline.cohort_halves import split_in_half


def run() -> list[Measurement]:
    with threadpool_limits(1):
        return [
            *_planted(), *_peers(), *_thickness(), *_active(), *_lag(), *_growth(), *_memory(), *_coarse(), *_nested(),
            *_planted_starts(), *_few_regions(), *_exponents(), *_reproducibility(),
        ]  # fmt: skip


def _planted() -> list[Measurement]:
    planted = planted_atlas()
    x = planted.images
    shape = f"{x.shape[0]:,} x {x.shape[1]}, r = 32"
    refine_soft(x[:9000], fit_em(x[:9000], 2, generator=np.random.default_rng(0)), refinement="mu", max_iterations=2)
    w, start_seconds = cpu_seconds(lambda: nndsvd_start(x, 32, generator=np.random.default_rng(0)))
    blocks = Blocks.of(x, HOST, signed=False, resident=False)
    sums = first_pass(blocks, w)
    times = []
    for _ in range(20):
        scale = 1.0 / float(np.sqrt(np.linalg.eigvalsh(sums.gram)[-1]))
        sums, seconds = cpu_seconds(lambda q=sums.q, s=scale: update_pass(blocks, w, s * q, scale=s))
        times.append(seconds)
    found, seconds = cpu_seconds(lambda: refine_soft(x, fit_em(x, 32, generator=np.random.default_rng(0))))
    rand = adjusted_rand(planted.labels, found.fit.labels)
    return [
        Measurement("mu, one iteration, CPU", float(np.median(times)), "s", 0.05, f"{shape}; least {min(times):.3f}"),
        Measurement("mu, NNDSVD start, CPU", start_seconds, "s", None, shape),
        Measurement(
            "em+mu, CPU", seconds, "s", 10.0, f"{shape}; {found.fit.changes.size} iterations, kept {found.kept}"
        ),
        Measurement("em+mu, relative loss", found.fit.relative_loss, "", 0.053, f"{found.fit.relative_loss:.5f}"),
        Measurement("em+mu, 1 - adjusted Rand index", 1 - rand, "", 0.09, f"index {rand:.3f}"),
    ]


_PEERS = """
import json, resource, sys, types
import numpy as np
given = np.load(sys.argv[1])
x, w = given["x"], given["w"]
def cpu():
    use = resource.getrusage(resource.RUSAGE_SELF)
    return use.ru_utime + use.ru_stime
from opnmf.opnmf import opnmf
start = cpu()
first, _, _ = opnmf(x, w.shape[1], max_iter=1, init="custom", init_W=w.copy())
one = cpu() - start
class Writer:
    def add_scalar(self, *a, **k): pass
from sopnmf.utils import opnmf_solver_mini_batch
start = cpu()
found = opnmf_solver_mini_batch(x, w.copy(), sys.argv[3], w.shape[1], 1, Writer())
two = cpu() - start
second = found[0] if isinstance(found, tuple) else found
np.savez(sys.argv[2], first=first, second=second, one=one, two=two)
"""


def _peers() -> list[Measurement]:
    python = os.environ.get("BRAINLOCUS_OPNMF")
    if not python:
        return []
    rng = np.random.default_rng(0)
    x, w = rng.gamma(2.0, size=(6_000, 300)), rng.uniform(0.1, 1.0, size=(6_000, 32))
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "given.npz", Path(folder) / "found.npz"
        np.savez(given, x=x, w=w)
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
        subprocess.run(
            [python, "-c", _PEERS, str(given), str(found), folder],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        with np.load(found) as stored:
            peers = {
                "opnmf": (stored["first"], float(stored["one"])),
                "sopnmf": (stored["second"], float(stored["two"])),
            }
    options = MuOptions(max_iterations=1)
    blocks, ours = Blocks.of(x, HOST, signed=False, resident=False), w.copy()
    scale = 1.0 / float(np.linalg.norm(w, 2))
    q = scale * (x.T @ w)
    _, seconds = cpu_seconds(lambda: update_pass(blocks, ours, q, scale=scale))
    fit = fit_mu(x, 32, generator=np.random.default_rng(0), options=options, start=w)
    raw = fit.weights * fit.norms
    rows = []
    for name, (theirs, peer_seconds) in peers.items():
        # opnmf orders its columns by energy, as we do; sopnmf keeps them.
        same = theirs / np.linalg.norm(theirs, 2)
        order = np.argsort(-np.linalg.norm(x.T @ (same / np.linalg.norm(same, axis=0)), axis=0), kind="stable")
        difference = float(np.abs(same[:, order] / raw - 1).max())
        rows += [
            Measurement(f"mu, one update beside {name}, largest relative difference", difference, "", 1e-5,
                        f"6,000 x 300, r = 32; {difference:.1e}"),
            Measurement(f"mu, one update, {name}'s CPU / ours", peer_seconds / max(seconds, 1e-3), "x", None,
                        f"{peer_seconds:.2f} s beside {seconds:.3f} s; theirs with its loss"),
        ]  # fmt: skip
    return rows


def _thickness() -> list[Measurement]:
    root = Path(os.environ.get("BRAINLOCUS_DATA", "/nowhere")) / "structural/tabular"
    if not root.is_dir():
        return []
    from tests.unit.atlas.test_mu import thickness

    rows = []
    for name in ("abide_impac_freesurfer", "fcon1000_destrieux"):
        x = thickness(name)
        for r in (4, 8, 16):
            slow, mu_seconds = cpu_seconds(lambda x=x, r=r: fit_mu(x, r, generator=np.random.default_rng(0)))
            found, seconds = cpu_seconds(
                lambda x=x, r=r: refine_soft(x, fit_em(x.astype(np.float32), r, generator=np.random.default_rng(0)))
            )
            above = 100 * (found.fit.relative_loss / slow.relative_loss - 1)
            shape = f"{name.split('_')[0]} {x.shape[0]} x {x.shape[1]}, r = {r}"
            note = f"{shape}; {found.fit.relative_loss:.5f} beside {slow.relative_loss:.5f} ({slow.reason})"
            rows.append(Measurement("em+mu, loss above that of converged mu", above, "%", 0.02, note))
            rows.append(Measurement("em+mu, CPU / that of mu", seconds / mu_seconds, "", 0.1,
                                    f"{shape}; {seconds:.2f} s beside {mu_seconds:.1f} s"))  # fmt: skip
    return rows


THICKNESS = {"abide_impac_freesurfer": "ABIDE", "fcon1000_destrieux": "FCON1000"}


def _tables() -> dict[str, Float[np.ndarray, "regions people"]]:
    """Return the thickness tables by short name, none where the data are not set."""
    if not (Path(os.environ.get("BRAINLOCUS_DATA", "/nowhere")) / "structural/tabular").is_dir():
        return {}
    from tests.unit.atlas.test_mu import thickness

    return {short: thickness(name) for name, short in THICKNESS.items()}


def _coarse() -> list[Measurement]:
    """Compare `em` from half the resolution with its usual start, at parcels as planted, three seeds."""
    rows = []
    for r in (32, 128, 256):
        planted = planted_atlas(n_parcels=r)
        x, cells = planted.images, grid_cells(planted.mask)
        fit_em(x[:9000], 2, generator=np.random.default_rng(0))
        for seed in range(3):
            usual, slow = cpu_seconds(lambda x=x, r=r, seed=seed: fit_em(x, r, generator=np.random.default_rng(seed)))
            found, fast = cpu_seconds(lambda x=x, r=r, cells=cells, seed=seed: _em_from_cells(x, r, cells, seed))
            rands = [adjusted_rand(planted.labels, fit.labels) for fit in (found, usual)]
            note = (
                f"{x.shape[0]:,} x {x.shape[1]}, r = {r}, {cells.max() + 1:,} cells, seed {seed}; {fast:.2f} beside "
                f"{slow:.2f} s; relative loss {found.relative_loss:.5f}, {usual.relative_loss:.5f}; "
                f"adjusted Rand {rands[0]:.3f}, {rands[1]:.3f}; passes {found.losses.size}, {usual.losses.size}"
            )
            rows.append(Measurement("em, CPU from half the resolution / usual", fast / slow, "", None, note))
    return rows


def _em_from_cells(x: Float32[np.ndarray, "d n"], r: int, cells: Int[np.ndarray, " d"], seed: int) -> AtlasFit:
    coarse = fit_em(cell_images(x, cells), r, generator=np.random.default_rng(seed))
    return fit_em(x, r, generator=np.random.default_rng(seed), prototypes=unit_prototypes(coarse))


def _nested() -> list[Measurement]:
    """`mu` inside the components of a coarser scale, beside the split that it starts from."""
    planted = planted_atlas()
    x = planted.images
    coarse = fit_em(x, 16, generator=np.random.default_rng(0))
    split = split_atlas(x, coarse, 32, generator=np.random.default_rng(1))
    start = soften_inside(split, coarse.labels, np.float32)
    options = MuOptions(exponent=NESTED_EXPONENT, max_iterations=1_000)
    found, seconds = cpu_seconds(
        lambda: fit_mu(x, 32, generator=np.random.default_rng(0), start=start, options=options)
    )
    above = 100 * (found.relative_loss / split.fit.relative_loss - 1)
    note = (
        f"{x.shape[0]:,} x {x.shape[1]}, 16 in 32; {found.relative_loss:.5f} beside {split.fit.relative_loss:.5f}; "
        f"{found.changes.size} iterations, {seconds:.0f} CPU s, {found.reason}"
    )
    return [Measurement("mu, nested, loss above that of the split", above, "%", None, note)]


def _settled_at(fit: SoftFit) -> int:
    """Return the iterations after which the loss is within 0.1 % of its last value."""
    return int(fit.at[:-1][fit.losses[:-1] <= 1.001 * fit.losses[-1]].min(initial=int(fit.at[-1])))


def _planted_starts() -> list[Measurement]:
    """Compare starts and exponents of `mu` on the planted problem, 1,000 iterations at most."""
    planted = planted_atlas()
    x, cells = planted.images, grid_cells(planted.mask)
    hard = fit_em(x, 32, generator=np.random.default_rng(0))
    of_cells = fit_em(cell_images(x, cells), 32, generator=np.random.default_rng(0))
    nndsvd = nndsvd_start(x, 32, generator=np.random.default_rng(0))
    coarse, em = coarse_start(of_cells, cells), soften(hard, np.float32)
    rows = []
    for name, start, exponent in (
        ("NNDSVD", nndsvd, 1.0), ("NNDSVD", nndsvd, 0.75), ("NNDSVD", nndsvd, 0.5),
        ("half the resolution", coarse, 1.0), ("half the resolution", coarse, 0.5), ("em", em, 1.0), ("em", em, 0.5),
    ):  # fmt: skip
        options = MuOptions(exponent=exponent, max_iterations=1_000)
        fit, seconds = cpu_seconds(
            lambda start=start, options=options: fit_mu(
                x, 32, generator=np.random.default_rng(0), start=start, options=options
            )
        )
        near = fit.at[:-1][fit.losses[:-1] <= 1.001 * hard.losses[-1]]
        note = (
            f"{name}, exponent {exponent:g}: {fit.changes.size} iterations ({fit.reason}), {seconds:.0f} CPU s; within "
            f"0.1 % of the loss of em {f'after {near.min()}' if near.size else 'never'}; "
            f"adjusted Rand {adjusted_rand(planted.labels, fit.labels):.3f}"
        )
        rows.append(Measurement("mu on the planted problem, relative loss", fit.relative_loss, "", None, note))
    return rows


def _few_regions() -> list[Measurement]:
    """Compare an iteration on a table with one on the root of XX'."""
    rows = []
    for name, x in _tables().items():
        total, root = float((x**2).sum()), gram_root(x)
        for r in (4, 8, 16):
            w = np.random.default_rng(0).uniform(0.1, 1.0, (x.shape[0], r))
            plain, fast = _iteration_ms(x, False, w, total), _iteration_ms(root, True, w, total)
            note = f"{name} {x.shape[0]} x {x.shape[1]}, r = {r}; {plain:.2f} beside {fast:.2f} ms"
            rows.append(Measurement("mu, an iteration on a table / on its root", plain / fast, "x", None, note))
    return rows


def _iteration_ms(x: Float[np.ndarray, "d n"], signed: bool, w: Float[np.ndarray, "d r"], total: float) -> float:
    """Return the CPU milliseconds of an iteration, mean of 2,000."""
    blocks = Blocks.of(x, HOST, signed=signed, resident=False)
    options = MuOptions(max_iterations=2_000, tolerance=1e-12)
    (_, trace), seconds = cpu_seconds(lambda: iterate(blocks, w.copy(), total, options=options))
    return 1e3 * seconds / len(trace.changes)


def _exponents() -> list[Measurement]:
    """Compare exponents of `mu` on tables by iterations and CPU time until within 0.1 % of the last loss."""
    rows = []
    for name, x in _tables().items():
        for r in (8, 16):
            for exponent in (1.0, 0.75, 0.5):
                options = MuOptions(exponent=exponent)
                fit, seconds = cpu_seconds(
                    lambda x=x, r=r, options=options: fit_mu(x, r, generator=np.random.default_rng(0), options=options)
                )
                at = _settled_at(fit)
                note = (
                    f"{name}, r = {r}, exponent {exponent:g}: {at} iterations, relative loss {fit.relative_loss:.5f} "
                    f"after {fit.changes.size} ({fit.reason}) and {seconds:.2f} CPU s"
                )
                rows.append(Measurement("mu, CPU to 0.1 % above its last loss", seconds * at / fit.changes.size, "s",
                                        None, note))  # fmt: skip
    return rows


def _reproducibility() -> list[Measurement]:
    """`em+mu` of thickness in halves alike in site, sex and decade of age, and in men and women."""
    rows = []
    for name, x in _tables().items():
        people = _people(name)
        age = people["age"].to_numpy() // 10
        keys = [np.unique(people[c], return_inverse=True)[1] for c in ("site", "sex")]
        keys.append(np.unique(age, return_inverse=True)[1])
        halves = [split_in_half(keys, x.shape[1], np.random.default_rng(k)).first for k in range(5)]
        levels = np.unique(people["sex"])
        by_sex = people["sex"].to_numpy() == levels[0]
        for r in (4, 8, 16):
            for how, splits in (("halves", halves), ("by sex", [by_sex])):
                found = [_agreement(x, r, first, k) for k, first in enumerate(splits)]
                index, rand, null = (
                    float(np.mean([value(f) for f in found]))
                    for value in (lambda f: f.index, lambda f: f.adjusted_rand, lambda f: f.null.mean())
                )
                over = float(np.mean([f.product.std(ddof=1) for f in found]))
                sizes = f"{splits[0].sum()} and {(~splits[0]).sum()} people, {len(splits)} splits"
                note = (
                    f"{name}, r = {r}, {how} ({sizes}): "
                    f"sd over components {over:.3f}, permuted {null:.3f}, adjusted Rand {rand:.3f}"
                )
                rows.append(Measurement("em+mu on thickness, reproducibility", index, "", None, note))
    return rows


def _people(short: str) -> Any:
    """Return the rows of a thickness table, those that `thickness` keeps."""
    import pandas as pd
    from tests.real_data import real_data

    name = next(long for long, one in THICKNESS.items() if one == short)
    table = pd.read_csv(real_data(f"structural/tabular/{name}.csv"))
    return table[table["anatomy_qc"].isin([1, 2])] if "anatomy_qc" in table else table


def _agreement(x: Float[np.ndarray, "d n"], r: int, first: Bool[np.ndarray, " n"], seed: int) -> FitAgreement:
    fits = []
    for half, chosen in enumerate((first, ~first)):
        part = np.ascontiguousarray(x[:, chosen])
        rng = np.random.default_rng((seed, half))
        fits.append(refine_soft(part, fit_em(part.astype(np.float32), r, generator=rng)).fit)
    one, two = fits
    return compare_fits(
        unit_components(one.weights), unit_components(two.weights), (one.labels, two.labels),
        generator=np.random.default_rng(seed), permutations=100,
    )  # fmt: skip


def _blobs(d: int, n: int, r: int, seed: int = 0) -> tuple[Float[np.ndarray, "d n"], Float[np.ndarray, "d r"]]:
    """Return images of r parts, and weights that are large in the own part."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, r, d)
    people = (1 + 0.2 * rng.standard_normal((r, n))).astype(np.float32)
    x = np.maximum(people[labels] * (1 + 0.05 * rng.standard_normal((d, n), dtype=np.float32)), 0)
    w = np.full((d, r), 1e-4, dtype=np.float32)
    w[np.arange(d), labels] = 1.0
    return x, w


def _active() -> list[Measurement]:
    d, n, r = 65_536, 300, 1_024
    x, w = _blobs(d, n, r)
    blocks = Blocks.of(x, HOST, signed=False, resident=False)
    q = first_pass(blocks, w).q
    active = choose_active(w, 8)
    few = Blocks.of(x[:500], HOST, signed=False, resident=False)
    active_iterations(few, choose_active(w[:500], 8), 1)
    renew(few, choose_active(w[:500], 8))
    _, some = cpu_seconds(lambda: active_iterations(blocks, active, 1))
    _, more = cpu_seconds(lambda: active_iterations(blocks, active, 11))
    one = (more - some) / 10
    _, renewal = cpu_seconds(lambda: renew(blocks, active))
    _, whole = cpu_seconds(lambda: update_pass(blocks, w, q, scale=1.0))
    shape = f"{d:,} x {n}, r = {r:,}, 8 a voxel"
    round_of_25 = 24 * one + renewal
    return [
        Measurement("mu, whole iteration / active one", whole / one, "x", None,
                    f"{shape}; {whole:.2f} s beside {one:.3f} s; asked >= 20"),
        Measurement("mu, 25 whole iterations / 24 active ones and a renewal", 25 * whole / round_of_25, "x", None,
                    f"{shape}; the renewal {renewal:.2f} s; asked >= 20"),
    ]  # fmt: skip


def _lag() -> list[Measurement]:
    """Largest loss of active sets above that of whole iterations with the same exponent, at the same iterations."""
    planted = planted_atlas(n_samples=100, n_parcels=64, resolution=6)
    x, r = planted.images, 64
    hard = fit_em(x, r, generator=np.random.default_rng(0))
    rows = []
    for name, start in (
        ("seeds", initial_weights(x, r, checked_norms(x), generator=np.random.default_rng(0),
                                  options=MuOptions(start="seeds"))),
        ("em", soften(hard, np.float32)),
    ):  # fmt: skip
        options = MuOptions(exponent=0.5, max_iterations=400)
        whole = fit_mu(x, r, generator=np.random.default_rng(0), start=start, options=options)
        for kept in (4, 8):
            found = fit_mu(x, r, generator=np.random.default_rng(0), start=start, options=replace(options, active=kept))
            count = min(found.losses.size, whole.losses.size) - 1
            above = np.sqrt(found.losses[1:count] / whole.losses[1:count]) - 1
            note = (
                f"{x.shape[0]:,} x {x.shape[1]}, r = {r}, from {name}, {kept} a voxel; at the end "
                f"{found.relative_loss:.5f} beside {whole.relative_loss:.5f}, {found.changes.size} and "
                f"{whole.changes.size} iterations; em {hard.relative_loss:.5f}"
            )
            rows.append(
                Measurement("mu, loss of active sets above whole iterations, most", above.max(), "", 1e-4, note)
            )
    return rows


def _epoch_seconds(d: int, n: int, r: int, batch: int, kept: int | None) -> float:
    """Return the CPU seconds of an epoch with its exact loss, the least of three."""
    x, w = _blobs(d, n, r)
    start: Weights = w
    if kept is not None:
        start = choose_active(np.where(w == 1.0, w, 0.0), kept)
    rows, norms = np.ascontiguousarray(x.T), checked_norms(x)
    del x, w
    stamps: list[float] = []
    fit_batches(
        rows,
        norms,
        start,
        options=BatchOptions(batch, max_epochs=4, active=kept),
        generator=np.random.default_rng(0),
        checkpoint=lambda _: stamps.append(time.process_time()),
    )
    return float(np.diff(stamps).min())


def _growth() -> list[Measurement]:
    """Exponents of the CPU time of an epoch in n, d and r about a middle point, and what they say of a large one."""
    middle = {"d": 25_000, "n": 4_000, "r": 64}
    batch = 500
    rows = []
    for kept in (None, 8):
        what = "mu by batches" if kept is None else f"mu by batches, {kept} a voxel"
        exponents = {}
        base = _epoch_seconds(**middle, batch=batch, kept=kept)
        for name in middle:
            times = {1: base}
            for factor in (2, 4):
                times[factor] = _epoch_seconds(**{**middle, name: factor * middle[name]}, batch=batch, kept=kept)
            slope = float(np.polyfit(np.log(list(times)), np.log(list(times.values())), 1)[0])
            exponents[name] = slope
            note = ", ".join(f"{f * middle[name]:,}: {s:.2f} s" for f, s in times.items())
            rows.append(
                Measurement(f"{what}, growth of an epoch with {name}", slope, "", 1.05, f"{note}; batches of {batch}")
            )
        large = {"d": 300_000, "n": 4_000, "r": 512}
        seconds = base * float(np.prod([(large[k] / middle[k]) ** exponents[k] for k in large]))
        note = f"projected from the exponents: 300,000 x 4,000, r = 512, batches of {batch}, with its exact loss"
        rows.append(Measurement(f"{what}, an epoch of the large fit, CPU", seconds, "s", None, note))
    return rows


_LARGE = """
import sys
import numpy as np
from brainlocus.images.atlas import BatchOptions, fit_batches
from pathlib import Path
rows = np.load(sys.argv[1], mmap_mode="r")
r = int(sys.argv[2])
w = np.random.default_rng(0).random((rows.shape[1], r), dtype=np.float32)
norms = np.ones(rows.shape[1])
fit_batches(rows, norms, w, options=BatchOptions(int(sys.argv[3]), max_epochs=1), generator=np.random.default_rng(0))
peak = [l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(("VmHWM", "RssFile"))]
print(*(int(l.split()[1]) * 1024 for l in peak))
"""


def _memory() -> list[Measurement]:
    """Peak memory of one large fit: W of 100 MB, images of 400 MB that are mapped."""
    from brainlocus.images.atlas import fit_batches_peak_bytes

    d, n, r, batch = 100_000, 1_000, 256, 200
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npy"
        out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, d))
        rng = np.random.default_rng(0)
        for start in range(0, n, 100):
            out[start : start + 100] = rng.random((100, d), dtype=np.float32)
        out.flush()
        del out
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", _LARGE, str(path), str(r), str(batch)], env=environment, check=True,
            capture_output=True, text=True,
        )  # fmt: skip
    peak, mapped = map(int, done.stdout.split())
    declared = fit_batches_peak_bytes(d, n, r, batch)
    projected = fit_batches_peak_bytes(300_000, 4_000, 512, 500)
    note = f"{d:,} x {n:,}, r = {r}, batches of {batch}; of it {mapped / 2**30:.2f} GiB pages of the mapped images"
    return [
        Measurement("mu by batches, peak memory", peak / 2**30, "GiB", None, note),
        Measurement("mu by batches, declared besides the images", declared / 2**30, "GiB", None, "the same fit"),
        Measurement("mu by batches, declared for the large fit with all of W", projected / 2**30, "GiB", 6.0,
                    "300,000 x 4,000, r = 512, batches of 500; run with a sparse W only (large_atlas)"),
    ]  # fmt: skip
