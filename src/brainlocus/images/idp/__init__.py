"""Maps and a parcellation to image-derived phenotypes."""

from brainlocus.images.idp.cohort import CohortIdps, assemble_idps, residual_on
from brainlocus.images.idp.extract import (
    ParcelIndex,
    ParcelValues,
    extract_idps,
    extract_volume,
    prepare_extraction,
)
from brainlocus.images.idp.regions import (
    LESIONS,
    NORMAL_APPEARING,
    RegionMeasures,
    RegionSettings,
    erode_labels,
    lesion_difference,
    measure_regions,
    subject_idps,
)
from brainlocus.images.idp.structures import (
    REGIONS,
    STRUCTURES,
    add_regions,
    canonical_name,
    choroid_plexus,
    lateral_ventricles,
    region_labels,
)

__all__ = [
    "LESIONS",
    "NORMAL_APPEARING",
    "REGIONS",
    "STRUCTURES",
    "CohortIdps",
    "ParcelIndex",
    "ParcelValues",
    "RegionMeasures",
    "RegionSettings",
    "add_regions",
    "assemble_idps",
    "canonical_name",
    "choroid_plexus",
    "erode_labels",
    "extract_idps",
    "extract_volume",
    "lateral_ventricles",
    "lesion_difference",
    "measure_regions",
    "prepare_extraction",
    "region_labels",
    "residual_on",
    "subject_idps",
]
