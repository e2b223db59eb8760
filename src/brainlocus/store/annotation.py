"""The catalogue of phenotypes: public ids, and what an annotation says of them."""

import re
from collections.abc import Mapping
from typing import Any

from brainlocus.store.layout import PHENOTYPE_ID

__all__ = ["annotate", "public_id"]

_OTHER = re.compile(r"[^A-Za-z0-9_.~+():,=@-]")
_LONGEST = 128
_COLUMNS = ("modality", "atlas", "side", "region", "measurement", "units", "description", "category", "label")
"""Columns of an annotation that the catalogue has; all others are kept beside it."""
_GROUPS = ("category", "secondary", "lobe", "primary")
"""Where the group of a phenotype on figures comes from: the first of these that is filled in."""


def public_id(name: str) -> str:
    """Return the id of a phenotype: its name, with ``_`` for characters that have no place in an address.

    Examples
    --------
    >>> public_id("aparc-a2009s_lh_area_G+S-paracentral"), public_id("left putamen/volume")
    ('aparc-a2009s_lh_area_G+S-paracentral', 'left_putamen_volume')
    """
    if PHENOTYPE_ID.match(name):
        return name
    text = _OTHER.sub("_", name)[:_LONGEST].lstrip("_.~+():,=@-")
    return text or "phenotype"


def annotate(row: dict[str, Any], name: str, found: Mapping[str, str]) -> dict[str, str]:
    """Fill empty cells of the catalogue row of a phenotype; return what the catalogue has no column for.

    A region that repeats the measurement (``volume_bankssts``) is given without it. The label, where it is only the
    name of the phenotype, becomes measurement, region, side and atlas.
    """
    values = {key: text for key, text in found.items() if text}
    region, measurement = values.get("region", ""), values.get("measurement", "")
    if measurement and region.lower().startswith(f"{measurement.lower()}_"):
        values["region"] = region[len(measurement) + 1 :]
    group = next((values[key] for key in _GROUPS if key in values), "")
    if not row.get("category"):
        row["category"] = group
    if row.get("label") == name:
        place = ", ".join(values[key] for key in ("region", "side") if key in values)
        text = f"{measurement} of {place}" if measurement and "region" in values else name
        atlas = f" ({values['atlas']})" if "atlas" in values and text != name else ""
        row["label"] = values.get("label", text + atlas)
    for key in _COLUMNS:
        if key in values and not row.get(key):
            row[key] = values[key]
    return {key: text for key, text in values.items() if key not in _COLUMNS}
