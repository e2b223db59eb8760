"""What a visitor may type into the search box, and what it means."""

import re
from dataclasses import dataclass
from typing import Any

from brainlocus.store import LocalStore

__all__ = ["GenomicRegion", "parse_region", "search"]

_REGION = re.compile(
    r"^(?:chr)?([0-9]{1,2}|X|Y|MT?|XY)\s*:\s*([0-9.,]+[kKmM]?)\s*(?:-|\.\.)\s*([0-9.,]+[kKmM]?)$", re.IGNORECASE
)
GENES = 6
"""Genes among the suggestions, so that phenotypes have room too."""
_UNIT = {"k": 1_000, "m": 1_000_000}


@dataclass(frozen=True, slots=True)
class GenomicRegion:
    """A stretch of a chromosome, both ends included."""

    chromosome: str
    start: int
    stop: int


def _base_pairs(text: str) -> int | None:
    factor = _UNIT.get(text[-1].lower(), 1)
    number = (text[:-1] if factor > 1 else text).replace(",", "")
    try:
        return int(float(number) * factor)
    except (ValueError, OverflowError):
        return None


def parse_region(text: str) -> GenomicRegion | None:
    """Return the region in text such as ``chr7:1-2M`` or ``7:1,000,000-2,000,000``; a bare start takes the end's unit.

    Examples
    --------
    >>> parse_region("chr7:1-2M")
    GenomicRegion(chromosome='7', start=1000000, stop=2000000)
    """
    match = _REGION.match(text.strip())
    if not match:
        return None
    chromosome, first, last = match.groups()
    if last[-1].lower() in _UNIT and first[-1].isdigit() and "," not in first and len(first) <= 6:
        first += last[-1]
    start, stop = _base_pairs(first), _base_pairs(last)
    if start is None or stop is None or start > stop or stop > 2**31 - 1:
        return None
    return GenomicRegion(chromosome.upper().lstrip("0"), start, stop)


def search(store: LocalStore, text: str, *, limit: int) -> list[dict[str, Any]]:
    """Return suggestions: exact variant or region of the genome first, then genes, phenotypes and brain regions."""
    found: list[dict[str, Any]] = []
    region = parse_region(text)
    if region is not None:
        name = f"{region.chromosome}:{region.start:,}-{region.stop:,}"
        path = f"/locus/{region.chromosome}-{region.start}-{region.stop}"
        found.append({"type": "locus", "id": name, "label": f"Region {name}", "path": path})
    variant = store.find_variant(text.strip())
    if variant is not None:
        label = f"{variant.variant_id} · {variant.chromosome}:{variant.position:,}"
        found.append({"type": "variant", "id": variant.key, "label": label, "path": f"/variant/{variant.key}"})
    if store.twas is not None:
        for row in store.twas.search_genes(text, limit=GENES):
            name = row["gene_name"] or row["gene"]
            label = f"{name} · {row['gene']}" if row["gene_name"] else name
            found.append({"type": "gene", "id": row["gene"], "label": label, "path": f"/gene/{row['gene']}"})
    words = text.lower().split()
    for row in store.phenotypes:
        blob = " ".join(
            str(row[k] or "") for k in ("phenotype_id", "label", "description", "category", "modality")
        ).lower()
        if all(word in blob for word in words):
            key = row["phenotype_id"]
            label = row["label"] if row["label"] == key else f"{row['label']} · {key}"
            found.append({"type": "phenotype", "id": key, "label": label, "path": f"/phenotype/{key}"})
        if len(found) >= limit:
            return found[:limit]
    for row in store.regions:
        blob = f"{row['region_id']} {row['name']} {row['hemisphere']}".lower()
        if all(word in blob for word in words):
            key = row["region_id"]
            found.append(
                {"type": "region", "id": key, "label": f"Brain region {row['name']}", "path": f"/region/{key}"}
            )
    return found[:limit]
