"""Checking a sealed store: sums, counts, order, values, agreement of both orders, privacy."""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from brainlocus.core import FormatError, SchemaError
from brainlocus.store import layout
from brainlocus.store.privacy import check_summary_table

__all__ = ["VerifyReport", "verify"]

SAMPLED = 20
"""Associations of each phenotype compared between both orders."""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked and what is wrong."""

    n_files: int
    n_phenotypes: int
    n_associations: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.problems


def verify(root: Path, *, rng: np.random.Generator | None = None) -> VerifyReport:
    """Check a store against its description and its own rules.

    Parameters
    ----------
    rng
        Draws the associations compared between both orders; a fixed seed when absent.

    Raises
    ------
    FormatError
        The folder is no store.
    """
    root = Path(root)
    path = root / "store.json"
    if not path.is_file():
        raise FormatError(f"Expected a store, a folder with store.json, found none in {root}.")
    meta = json.loads(path.read_text())
    problems = _check_files(root, meta)
    if problems:
        return VerifyReport(len(meta["files"]), 0, 0, tuple(problems))
    problems += _check_tables(root)
    phenotypes = pq.read_table(root / "phenotypes.parquet").to_pylist()
    variants_path = root / "variants.parquet"
    n_variants = 0
    if variants_path.is_file():
        n_variants = pq.read_metadata(variants_path).num_rows
        problems += _check_variants(root)
        if n_variants != meta["counts"]["variants"]:
            problems.append(f"variants.parquet has {n_variants} rows, store.json says {meta['counts']['variants']}.")
    rng = np.random.default_rng(0) if rng is None else rng
    n_rows = 0
    for row in phenotypes:
        if row["has_gwas"]:
            n_rows += _check_phenotype(root, row, n_variants, rng, problems)
    if n_rows != meta["counts"].get("associations", 0):
        problems.append(f"The phenotypes have {n_rows} associations, store.json says {meta['counts']['associations']}.")
    if (root / "genes.parquet").is_file():
        problems += _check_genes(root, meta, rng)
    return VerifyReport(len(meta["files"]), len(phenotypes), n_rows, tuple(problems))


def _check_files(root: Path, meta: dict[str, Any]) -> list[str]:
    problems = []
    for name, recorded in meta["files"].items():
        file = (root / name).resolve()
        if not file.is_relative_to(root.resolve()) or not file.is_file():
            problems.append(f"{name} is recorded but missing.")
            continue
        digest = sha256()
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        if digest.hexdigest() != recorded["sha256"]:
            problems.append(f"{name} differs from its recorded SHA-256.")
    present = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()} - {"store.json"}
    problems += [f"{name} is in the folder but not recorded." for name in sorted(present - set(meta["files"]))]
    return problems


def _check_tables(root: Path) -> list[str]:
    problems = []
    for file in sorted(root.rglob("*.parquet")):
        name = file.relative_to(root).as_posix()
        metadata = pq.read_metadata(file)
        if metadata.num_row_groups >= 250:
            problems.append(f"{name} has {metadata.num_row_groups} row groups, expected fewer than 250.")
        try:
            check_summary_table({c: np.zeros(0) for c in pq.read_schema(file).names}, what=name)
        except SchemaError as error:
            problems.append(str(error))
    return problems


def _check_variants(root: Path) -> list[str]:
    table = pq.read_table(root / "variants.parquet", columns=["vid", "chrom", "pos"])
    place = (table["chrom"].to_numpy().astype(np.int64) << 32) | table["pos"].to_numpy()
    problems = []
    if not np.array_equal(table["vid"].to_numpy(), np.arange(table.num_rows)):
        problems.append("variants.parquet: vid is not 0, 1, 2, ...")
    if (np.diff(place) < 0).any():
        problems.append("variants.parquet is not ordered by chromosome and position.")
    return problems


def _check_phenotype(
    root: Path, row: dict[str, Any], n_variants: int, rng: np.random.Generator, problems: list[str]
) -> int:
    pid, name = row["pid"], layout.by_phenotype(row["pid"])
    table = pq.read_table(root / name)
    vid = table["vid"].to_numpy()
    if vid.size and ((np.diff(vid) <= 0).any() or vid[0] < 0 or vid[-1] >= n_variants):
        problems.append(f"{name}: vid must rise strictly within 0..{n_variants - 1}.")
        return int(vid.size)
    values = {c: table[c].to_numpy() for c in ("beta", "se", "nlog10p")}
    if not all(np.isfinite(v).all() for v in values.values()):
        problems.append(f"{name} has values that are not finite.")
    if (values["se"] <= 0).any() or (values["nlog10p"] < 0).any():
        problems.append(f"{name} has a standard error <= 0 or -log10 p below 0.")
    for k in rng.choice(vid.size, size=min(SAMPLED, vid.size), replace=False).tolist():
        block = layout.by_variant(int(vid[k]) // layout.VARIANTS_PER_FILE)
        other = pq.read_table(root / block, filters=[("vid", "=", int(vid[k])), ("pid", "=", pid)]).to_pylist()
        if len(other) != 1 or any(other[0][c] != values[c][k] for c in values):
            problems.append(f"{name} and {block} disagree on variant {int(vid[k])}.")
            break
    return int(vid.size)


def _check_genes(root: Path, meta: dict[str, Any], rng: np.random.Generator) -> list[str]:
    """Check the associations of genes: order, values, counts, and that both orders have the same rows."""
    problems: list[str] = []
    n = {"gid": 0, "pid": 0}
    orders = {"gid": ("twas/by_gene", ("gid", "pid", "tid")), "pid": ("twas/by_phenotype", ("pid", "gid", "tid"))}
    for key, (folder, order) in orders.items():
        for path in sorted((root / folder).glob("*.parquet")):
            table = pq.read_table(path)
            name = path.relative_to(root).as_posix()
            n[key] += table.num_rows
            keys = [table[column].to_numpy() for column in order]
            if not np.array_equal(np.lexsort(keys[::-1]), np.arange(table.num_rows)):
                problems.append(f"{name} is not ordered by {', '.join(order)}.")
            if not (np.isfinite(table["z"].to_numpy()).all() and np.isfinite(table["nlog10p"].to_numpy()).all()):
                problems.append(f"{name} has values that are not finite.")
            if key == "gid":
                problems += _check_other_order(root, table, name, rng)
    kept = meta["counts"].get("gene_associations", 0)
    if set(n.values()) != {kept}:
        problems.append(
            f"The genes have {n['gid']} and the phenotypes {n['pid']} associations, store.json says {kept}."
        )
    return problems


def _check_other_order(root: Path, table: Any, name: str, rng: np.random.Generator) -> list[str]:
    for k in rng.choice(table.num_rows, size=min(SAMPLED, table.num_rows), replace=False).tolist():
        row = table.slice(k, 1).to_pylist()[0]
        other = layout.tests_of_phenotypes(row["pid"] // layout.PHENOTYPES_PER_FILE)
        key = [(column, "=", row[column]) for column in ("pid", "gid", "tid")]
        if not (root / other).is_file() or pq.read_table(root / other, filters=key).to_pylist() != [row]:
            return [f"{name} and {other} disagree on gene {row['gid']} and phenotype {row['pid']}."]
    return []
