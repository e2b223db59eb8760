"""The public example of MR-JTI: 145 variants of one gene, from BRAINLOCUS_DATA."""

import csv

import numpy as np

from brainlocus.core import Instruments
from tests.real_data import real_data


def mr_example():
    with real_data("twas/mr/mrjti_example.txt").open() as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    names = ("eqtl_beta", "gwas_beta", "eqtl_se", "gwas_se", "gwas_p", "ldscore")
    columns = [np.array([float(row[name]) for row in rows]) for name in names]
    return Instruments(np.array([row["rsid"] for row in rows]), *columns)
