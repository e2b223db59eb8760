"""Maps and a parcellation to image-derived phenotypes."""

from brainlocus.images.idp.extract import (
    ParcelIndex,
    ParcelValues,
    extract_idps,
    extract_volume,
    prepare_extraction,
)

__all__ = ["ParcelIndex", "ParcelValues", "extract_idps", "extract_volume", "prepare_extraction"]
