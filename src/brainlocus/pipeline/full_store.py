"""Every test of a scan on disk: the folder ``full/`` of ``gwas run --full``.

One Parquet file per shard (``part-00000.parquet``) with a column of rows, one column per trait and stored number
(``t:TRAIT``), and one per group of traits with the same people (``n:0``); beside them ``variants.parquet`` and
``traits.json`` with what makes beta, standard error and p of them. A linear scan stores four bytes per test.
"""

import json
import os
import shutil
from collections.abc import Sequence
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

__all__ = ["add_full_part", "full_traits", "read_full", "write_full_index", "write_full_part"]


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
    place = {n: getattr(variants, n) for n in ("chromosome", "position", "variant_id", "effect_allele", "other_allele")}
    write_results(ResultTable(place), folder / "variants.parquet")
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
    index = _index(folder)
    if trait not in index["traits"]:
        raise SchemaError(f"{folder}: there is no trait {trait!r}.{nearest(trait, index['traits'])}")
    variants = _variants(folder, index["genome_build"])
    table: dict[str, Any] = {}
    for part in sorted(folder.glob("part-*.parquet")):
        schema = pq.read_schema(part)
        about = index["plans"][int(schema.metadata[b"plan"])].get(trait)
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
    place = {n: getattr(variants, n) for n in ("chromosome", "position", "variant_id", "effect_allele", "other_allele")}
    return ResultTable(place | table)


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
