"""Every test of a scan on disk: the folder ``full/`` of ``gwas run --full``.

One Parquet file per shard (``part-00000.parquet``) with a column of rows, one column per trait and stored number
(``t:TRAIT``), and one per group of traits with the same people (``n:0``); beside them ``variants.parquet`` and
``traits.json`` with what makes beta, standard error and p of them. A linear scan stores four bytes per test.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from brainlocus.core import ResultTable, SchemaError, VariantTable
from brainlocus.core.errors import FormatError, nearest
from brainlocus.core.text import text_array
from brainlocus.genetics.gwas import FullScan, ScanPlan, expand_full
from brainlocus.io import arrow_column, read_results, write_results
from brainlocus.numerics.tails import neg_log10_p_from_t

__all__ = [
    "FullIndex",
    "add_full_part",
    "full_traits",
    "iter_full",
    "open_full",
    "read_full",
    "smallest_full",
    "write_full_index",
    "write_full_part",
]


def write_full_part(full: FullScan, names: Sequence[str], rows: Any, plan: int, path: Path) -> None:
    """Write the tests of one shard; `names` are the method's traits, `rows` those of the shard's variants."""
    columns: dict[str, Any] = {"row": rows}
    for key, values in full.traits.items():
        columns |= {f"{key}:{name}": values[:, k] for k, name in enumerate(names)}
    for key, values in full.groups.items():
        columns |= {f"{key}:{g}": values[:, g] for g in range(values.shape[1])}
    table = pa.table({name: arrow_column(values) for name, values in columns.items()})
    table = table.replace_schema_metadata({"plan": str(plan)})
    # Random bits do not compress; a light code keeps the rest small without costing more than the scan.
    pq.write_table(table, path, compression="zstd", compression_level=1, use_dictionary=False, write_statistics=False)


def add_full_part(part: Path, folder: Path, number: int) -> None:
    """Put a finished part into the folder; a link where the file system can, so that a resumed run still has it."""
    place = folder / f"part-{number:05d}.parquet"
    try:
        os.link(part, place)
    except OSError:
        shutil.copyfile(part, place)


def write_full_index(plans: Sequence[ScanPlan], variants: VariantTable, folder: Path) -> None:
    """Start the folder: its variants, and by plan what the columns of each trait mean."""
    write_results(ResultTable(_place(variants)), folder / "variants.parquet")
    traits = dict.fromkeys(name for plan in plans for name in plan.method.names)
    content = {
        "genome_build": variants.genome_build,
        "traits": list(traits),
        "plans": [plan.method.full_index() for plan in plans],
    }
    (folder / "traits.json").write_text(json.dumps(content, indent=1) + "\n")


def full_traits(folder: Path) -> list[str]:
    """Return the traits that a ``full/`` folder of ``gwas run`` holds.

    Raises
    ------
    FormatError
        It is not such a folder.
    """
    return list(_index(folder)["traits"])


def _index(folder: Path) -> dict[str, Any]:
    index = folder / "traits.json"
    if not index.is_file():
        raise FormatError(f"{folder}: expected the folder full/ of gwas run --full (with traits.json), found none.")
    content: dict[str, Any] = json.loads(index.read_text())
    if "plans" not in content:
        raise FormatError(f"{folder}: written by an older version of gwas run --full; run it again.")
    return content


@dataclass(frozen=True, slots=True, eq=False)
class FullIndex:
    """What a ``full/`` folder holds, besides the tests."""

    folder: Path
    traits: tuple[str, ...]
    variants: VariantTable
    plans: list[dict[str, dict[str, Any]]]

    def most_people(self, trait: str) -> tuple[int, int]:
        """Return the most people that a trait had on any chromosome, and the cases among them (0: not binary)."""
        plans = [plan[trait] for plan in self.plans if trait in plan]
        return max(((int(p.get("n", 0)), int(p.get("n_cases", 0))) for p in plans), default=(0, 0))


def open_full(folder: Path) -> FullIndex:
    """Return what a ``full/`` folder of ``gwas run --full`` holds.

    Raises
    ------
    FormatError
        It is not such a folder.
    """
    index = _index(folder)
    variants = _variants(folder, index["genome_build"])
    return FullIndex(folder, tuple(index["traits"]), variants, list(index["plans"]))


def read_full(folder: Path, trait: str) -> ResultTable:
    """Return every test of one trait from the ``full/`` folder of ``gwas run --full``.

    Returns
    -------
    ResultTable
        chromosome, position, variant_id, effect_allele, other_allele, effect_allele_frequency, n, beta,
        standard_error, neg_log10_p, one row per variant in genotype order; NaN where there is no estimate.

    Raises
    ------
    FormatError
        Not such a folder.
    SchemaError
        The trait is not in it; the message has the nearest name.
    """
    return next(iter_full(open_full(folder), [trait]))


def iter_full(index: FullIndex, traits: Sequence[str]) -> Iterator[ResultTable]:
    """Yield `read_full` of one trait after another, with one of them in memory.

    Raises
    ------
    SchemaError
        A trait is not there, before any is read; the message has the nearest name.
    """
    for trait in traits:
        if trait not in index.traits:
            raise SchemaError(f"{index.folder}: there is no trait {trait!r}.{nearest(trait, index.traits)}")
    return (_read_trait(index, trait) for trait in traits)


def _read_trait(index: FullIndex, trait: str) -> ResultTable:
    variants = index.variants
    table: dict[str, Any] = {}
    for part in sorted(index.folder.glob("part-*.parquet")):
        schema = pq.read_schema(part)
        about = index.plans[int(schema.metadata[b"plan"])].get(trait)
        if about is None:  # skipped among these people, such as a trait that no man has on chromosome Y
            continue
        wanted = {f"{key}:{end}" for key in _keys(schema.names) for end in (trait, str(about["group"]))}
        chosen = [name for name in schema.names if name in wanted]
        values = pq.read_table(part, columns=["row", *chosen])
        rows = values.column("row").to_numpy()
        columns = {name.split(":", 1)[0]: values.column(name).to_numpy() for name in chosen}
        result = expand_full(variants.take(rows), columns, norm=float(about.get("norm", np.nan)))
        for name in ("effect_allele_frequency", "n", "beta", "standard_error", "neg_log10_p"):
            blank = 0 if name == "n" else np.nan
            table.setdefault(name, np.full(len(variants), blank, dtype=result[name].dtype))[rows] = result[name]
    if not table:
        empty = {"t": np.empty(0), "degrees_of_freedom": np.empty(0), "residual_variance": np.empty(0)}
        empty |= {"effect_allele_frequency": np.empty(0), "n": np.empty(0, dtype=np.int64)}
        return expand_full(variants.take(np.empty(0, dtype=np.int64)), empty, norm=1.0)
    return ResultTable(_place(variants) | table)


_TRAITS_AT_ONCE = 64
"""Traits of a part that are in memory at a time while the smallest p is sought."""


def smallest_full(index: FullIndex, traits: Sequence[str] | None = None) -> ResultTable:
    """Return the smallest p of every variant over traits, and whose it is.

    Returns
    -------
    ResultTable
        chromosome, position, variant_id, trait, neg_log10_p in genotype order; NaN and no trait without an estimate.
    """
    names = list(index.traits if traits is None else traits)
    best = np.full(len(index.variants), np.nan)
    whose = np.zeros(len(index.variants), dtype=np.int64)
    for part in sorted(index.folder.glob("part-*.parquet")):
        schema = pq.read_schema(part)
        plan = index.plans[int(schema.metadata[b"plan"])]
        present = [k for k, name in enumerate(names) if name in plan]
        for start in range(0, len(present), _TRAITS_AT_ONCE):
            _keep_smallest(part, schema.names, plan, names, present[start : start + _TRAITS_AT_ONCE], best, whose)
    label = text_array(np.where(np.isnan(best), "", np.asarray([*names, ""], dtype=np.str_)[whose]))
    place = _place(index.variants)
    shown = {name: place[name] for name in ("chromosome", "position", "variant_id")}
    return ResultTable(shown | {"trait": label, "neg_log10_p": best})


def _keep_smallest(
    part: Path,
    stored: Sequence[str],
    plan: dict[str, dict[str, Any]],
    names: Sequence[str],
    chosen: Sequence[int],
    best: Any,
    whose: Any,
) -> None:
    """Lower the smallest p of a part's variants to that of some traits."""
    direct = any(name.startswith("neg_log10_p:") for name in stored)
    key = "neg_log10_p" if direct else "t"
    groups = sorted({int(plan[names[k]]["group"]) for k in chosen})
    columns = [f"{key}:{names[k]}" for k in chosen]
    freedom = [] if direct else [f"degrees_of_freedom:{g}" for g in groups]
    table = pq.read_table(part, columns=["row", *columns, *freedom])
    rows = table.column("row").to_numpy()
    for g in groups:
        members = [k for k in chosen if int(plan[names[k]]["group"]) == g]
        values = np.column_stack([table.column(f"{key}:{names[k]}").to_numpy() for k in members])
        top = np.where(np.isnan(values), -1.0, np.abs(values))
        at = top.argmax(axis=1)
        strongest = top[np.arange(rows.size), at].astype(np.float64)
        strongest = np.where(strongest < 0, np.nan, strongest)
        if not direct:
            strongest = neg_log10_p_from_t(strongest, table.column(f"degrees_of_freedom:{g}").to_numpy())
        better = ~np.isnan(strongest) & ~(strongest <= best[rows])
        best[rows[better]] = strongest[better]
        whose[rows[better]] = np.asarray(members)[at[better]]


def _place(variants: VariantTable) -> dict[str, Any]:
    names = ("chromosome", "position", "variant_id", "effect_allele", "other_allele")
    return {name: getattr(variants, name) for name in names}


def _keys(names: Sequence[str]) -> list[str]:
    return sorted({name.split(":", 1)[0] for name in names if ":" in name})


def _variants(folder: Path, genome_build: str) -> VariantTable:
    place = read_results(folder / "variants.parquet")
    return VariantTable(
        place["chromosome"],
        place["position"].astype(np.int64),
        text_array(place["effect_allele"]),
        text_array(place["other_allele"]),
        text_array(place["variant_id"]),
        genome_build,
    )
