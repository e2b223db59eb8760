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
from brainlocus.images.idp.template import (
    TemplateDesign,
    TemplateMaps,
    TemplateSums,
    add_images,
    finish_template,
    prepare_template,
    start_template,
    template_bytes,
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
    "TemplateDesign",
    "TemplateMaps",
    "TemplateSums",
    "add_images",
    "add_regions",
    "assemble_idps",
    "canonical_name",
    "choroid_plexus",
    "erode_labels",
    "extract_idps",
    "extract_volume",
    "finish_template",
    "lateral_ventricles",
    "lesion_difference",
    "measure_regions",
    "prepare_extraction",
    "prepare_template",
    "region_labels",
    "residual_on",
    "start_template",
    "subject_idps",
    "template_bytes",
]
