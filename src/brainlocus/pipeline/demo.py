"""The demonstration: simulate a cohort, run the whole study on it, compare what was planted with what was found."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from scipy.special import ndtr, ndtri

from brainlocus.cohort.harmonise import site_effects
from brainlocus.core import ResultTable
from brainlocus.images.atlas import adjusted_rand
from brainlocus.io import atomic_path, read_results, read_table
from brainlocus.io.nifti import read_parcellation
from brainlocus.numerics import design_from_formula
from brainlocus.pipeline.registry import load_step
from brainlocus.pipeline.run_study import run_study
from brainlocus.pipeline.runner import RunOptions, execute

__all__ = ["SIZES", "Finding", "compare_with_truth", "run_demo"]

SIZES: dict[str, dict[str, Any]] = {
    "small": {"participants": 1800, "regions": 12, "variants": 20_000, "chromosomes": 4, "sites": 4},
    "medium": {"participants": 3000, "regions": 24, "variants": 50_000, "chromosomes": 8, "sites": 6},
}
"""Settings of ``simulate cohort`` for each size of the demonstration."""

LOCUS_MARGIN_BP = 250_000
"""A causal variant within this distance of a locus is found by it: the distance within which loci are merged."""

STUDY = """\
# The demonstration study: everything that is not set here has its default.
name = "demo"
description = "A simulated cohort of {participants} people with planted truth: brain maps, genomes, phenotypes."

[inputs]
images = "cohort"
mask = "cohort/mask.nii.gz"
participants = "cohort/participants.tsv"
phenotypes = "cohort/phenotypes.tsv"
categories = "cohort/categories.tsv"
genotypes = "cohort/genotypes/cohort.pgen"
genome_build = "simulated"

[atlas]
scales = [{regions}]

[harmonise]
batch = "site"
preserve = "age + sex"

[prepare]
confounds = "age + I(age**2) + sex + C(site)"

[gwas]
hits = 0.05

[clump]
p1 = {p1:g}  # 5e-8 over {regions} traits

[signature]
repeats = {repeats}
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table *planted vs found*."""

    figure: str
    planted: str
    found: str
    band: str
    """What counts as right, and why."""
    ok: bool


@dataclass(frozen=True, slots=True)
class _Matched:
    """Fitted patterns and the planted regions they stand for."""

    trait_of_region: dict[str, str]
    adjusted_rand: float


def _match(cohort: Path, results: Path, n_regions: int) -> _Matched:
    from scipy.optimize import linear_sum_assignment

    planted = read_parcellation(cohort / "truth" / "regions.nii.gz")
    fitted = read_parcellation(results / "atlas" / f"C{n_regions}" / "labels.nii.gz")
    inside = planted.labels > 0
    a: Int[np.ndarray, " voxels"] = planted.labels[inside].astype(np.int64)
    b: Int[np.ndarray, " voxels"] = fitted.labels[inside].astype(np.int64)
    overlap = np.zeros((int(a.max()) + 1, int(b.max()) + 1))
    np.add.at(overlap, (a, b), 1)
    rows, columns = linear_sum_assignment(-overlap[1:, 1:])
    pairs = {planted.names[int(r) + 1]: f"C{n_regions}_{int(c) + 1}" for r, c in zip(rows, columns, strict=True)}
    return _Matched(pairs, adjusted_rand(a, b))


def _atlas(matched: _Matched, n_regions: int) -> Finding:
    band = ">= 0.9: what is asked of the solver on planted parcels"
    value = matched.adjusted_rand
    return Finding("Atlas, adjusted Rand index", f"{n_regions} regions", f"{value:.3f}", band, value >= 0.9)


def _site_variance(cohort: Path, results: Path) -> Finding:
    before, after = (read_table(results / name) for name in ("idps.parquet", "harmonised.parquet"))
    people = read_table(cohort / "participants.tsv").take(before.samples)
    traits = list(before.names)
    design = design_from_formula("age + sex", people).matrix
    batch = people.column("site").values
    eta = [float(site_effects(t.matrix(traits), batch, covariates=design).mean_eta2) for t in (before, after)]
    expected = (np.unique(batch).size - 1) / len(before.samples)
    band = f"<= 0.01 (without any site effect {expected:.4f} is expected)"
    return Finding("Site variance (mean eta^2)", f"{eta[0]:.3f} before", f"{eta[1]:.4f} after", band, eta[1] <= 0.01)


def _near(row: dict[str, Any], loci: ResultTable) -> Any:
    """Return which loci of a table hold a causal variant."""
    position = row["position"]
    return (
        (loci["chromosome"] == row["chromosome"])
        & (loci["start"] - LOCUS_MARGIN_BP <= position)
        & (loci["stop"] + LOCUS_MARGIN_BP >= position)
    )


def _power(truth: dict[str, Any], scan: Path, alpha: float) -> float:
    """Return the power to find one strong causal variant in the people of a scan.

    ``Phi(sqrt(n q / (1 - q)) - z)``, q the planted share of variance, z the two-sided normal threshold of `alpha`; the
    other tail is negligible.
    """
    n = float(np.median(read_results(scan / "traits.parquet")["n"]))
    share = float(truth["settings"]["causal_variance"])
    return float(ndtr(np.sqrt(n * share / (1 - share)) + ndtri(alpha / 2)))


def _loci(truth: dict[str, Any], matched: _Matched, results: Path) -> Iterator[Finding]:
    loci = read_results(results / "loci" / "loci.parquet")
    planted = found = 0
    explained = np.zeros(len(loci), dtype=bool)
    for region in truth["regions"]:
        own = loci["trait"] == matched.trait_of_region[region["region"]]
        for row in region["causal_variants"]:
            hit = own & _near(row, loci)
            planted += 1
            found += bool(hit.any())
            explained |= hit
    false = int((~explained).sum())
    power = _power(truth, results / "gwas", 5e-8 / len(truth["regions"]))
    band = f">= 85 % (power at 5e-8 / traits, without noise of the maps: {power:.3f})"
    yield Finding(
        "Loci found", f"{planted} strong", f"{found}, {planted - found} missed", band, found >= 0.85 * planted
    )
    limit = max(1, round(0.1 * planted))
    yield Finding(
        "Loci without a strong causal variant", "0", str(false), f"<= {limit}: background effects", false <= limit
    )


def _heritability(truth: dict[str, Any], matched: _Matched, results: Path) -> Iterator[Finding]:
    table = read_results(results / "heritability.parquet")
    estimates = {str(t): k for k, t in enumerate(table["trait"])}
    z = []
    for region in truth["regions"]:
        k = estimates[matched.trait_of_region[region["region"]]]
        value, error = float(table["h2"][k]), float(table["h2_standard_error"][k])
        z.append((value - region["h2"]) / error)
        yield Finding(
            f"h2 of {region['region']}", f"{region['h2']:.3f}", f"{value:.3f} ± {error:.3f}", "within 3.5 errors",
            abs(z[-1]) <= 3.5,
        )  # fmt: skip
    rms = float(np.sqrt(np.mean(np.square(z))))
    yield Finding("h2, root mean square of error / SE", "1", f"{rms:.2f}", "<= 1.7 over all regions", rms <= 1.7)


def _signature(truth: dict[str, Any], results: Path) -> Finding:
    performance = json.loads((results / "signature" / "performance.json").read_text())
    found = float(performance["balanced_accuracy"]["mean"])
    best = float(truth["achievable_balanced_accuracy"])
    ok = best - 0.08 <= found <= best + 0.03
    return Finding("Signature, balanced accuracy", f"{best:.3f} achievable", f"{found:.3f}", "-0.08 to +0.03", ok)


def _replication(truth: dict[str, Any], results: Path) -> Finding:
    table = read_results(results / "replicated.parquet")
    n_leads = len(table)
    n_replicated = int(table["replicated"].sum())
    rate = n_replicated / max(n_leads, 1)
    power = _power(truth, results / "replication", 0.05 / max(n_leads, 1))
    band = f">= 85 % (same sign, p < 0.05 / leads; power for strong variants: {power:.3f})"
    return Finding(
        "Replication of lead variants", f"{n_leads} leads", f"{n_replicated} ({rate:.0%})", band, rate >= 0.85
    )


def _phenome(truth: dict[str, Any], matched: _Matched, results: Path) -> Iterator[Finding]:
    table = read_results(results / "phenome.parquet")
    weights = np.asarray(truth["cognition_weights"])
    names = [region["region"] for region in truth["regions"]]
    true_pairs = {
        (matched.trait_of_region[names[r]], f"cognition_{s + 1}") for s, r in zip(*np.nonzero(weights), strict=True)
    }
    passed = table["p_bonferroni"] < 0.05
    pairs = list(zip(table["trait"].tolist(), table["phenotype"].tolist(), strict=True))
    found = sum(pair in true_pairs for pair, ok in zip(pairs, passed, strict=True) if ok)
    null = [ok for pair, ok in zip(pairs, passed, strict=True) if not pair[1].startswith("cognition")]
    yield Finding(
        "Cognition associations (Bonferroni)",
        str(len(true_pairs)),
        str(found),
        ">= 90 %",
        found >= 0.9 * len(true_pairs),
    )
    yield Finding("Associations of unrelated phenotypes", "0", str(int(sum(null))), "<= 1", bool(sum(null) <= 1))


def compare_with_truth(cohort: Path, results: Path) -> list[Finding]:
    """Return the table *planted vs found* of a finished study of a simulated cohort.

    Parameters
    ----------
    cohort
        What ``simulate cohort`` wrote.
    results
        What ``run`` wrote.
    """
    truth = json.loads((cohort / "truth.json").read_text())
    n_regions = int(truth["settings"]["regions"])
    matched = _match(cohort, results, n_regions)
    return [
        _atlas(matched, n_regions),
        _site_variance(cohort, results),
        *_phenome(truth, matched, results),
        *_loci(truth, matched, results),
        _replication(truth, results),
        *_heritability(truth, matched, results),
        _signature(truth, results),
    ]


def _write_findings(findings: list[Finding], path: Path) -> None:
    lines = ["figure\tplanted\tfound\tband\tok"]
    lines += [f"{f.figure}\t{f.planted}\t{f.found}\t{f.band}\t{'yes' if f.ok else 'NO'}" for f in findings]
    with atomic_path(path) as partial:
        partial.write_text("\n".join(lines) + "\n")


def run_demo(out: Path, size: str, options: RunOptions) -> list[Finding]:
    """Simulate into ``out/cohort``, run ``out/study.toml`` into ``out/results``, and compare.

    Parameters
    ----------
    size
        A key of `SIZES`.

    Returns
    -------
    list
        One finding per figure; also written to ``out/planted_vs_found.tsv``.
    """
    settings = SIZES[size]
    simulate = load_step("simulate cohort")
    out.mkdir(parents=True, exist_ok=True)
    execute(simulate, simulate.config(**settings), out / "cohort", options)
    study = out / "study.toml"
    n_regions = settings["regions"]
    study.write_text(
        STUDY.format(participants=settings["participants"], regions=n_regions, p1=5e-8 / n_regions, repeats=8)
    )
    for _ in run_study(study, out / "results", options):
        pass
    findings = compare_with_truth(out / "cohort", out / "results")
    _write_findings(findings, out / "planted_vs_found.tsv")
    return findings
