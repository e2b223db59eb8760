"""S-PrediXcan against pytwas, a port of MetaXcan: z to its float32, effects and variances to 1e-12."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.golden.spredixcan.rule import write_gwas
from tests.real_data import real_data

from brainlocus.cli.main import main


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    liver = real_data("twas/models/mashr_liver")
    folder = tmp_path_factory.mktemp("spredixcan")
    write_gwas(liver / "mashr_Liver.db", folder / "gwas.txt")
    arguments = [
        "twas", "associate", folder / "gwas.txt", "--models", liver / "mashr_Liver.db",
        "--covariances", liver / "mashr_Liver_cov_rsid.txt.gz", "--out", folder / "t.parquet", "--quiet",
    ]  # fmt: skip
    main_code = 0
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        main_code = int(stop.code or 0)
    assert main_code == 0
    golden = pd.read_csv(Path(__file__).with_name("golden.tsv"), sep="\t").set_index("gene")
    ours = pd.read_parquet(folder / "t.parquet").set_index("gene")
    return ours, golden


def test_the_same_genes(tables):
    ours, golden = tables
    assert len(golden) > 400
    assert set(golden.index) <= set(ours.index)
    for column in ("n_snps_used", "n_snps_in_cov", "n_snps_in_model"):
        assert (ours.loc[golden.index, column] == golden[column]).all(), column


def test_the_same_numbers(tables):
    ours, golden = tables
    mine = ours.loc[golden.index]
    # MetaXcan rounds every z of a GWAS to float32.
    np.testing.assert_allclose(mine["zscore"], golden["zscore"], atol=5e-7, rtol=0)
    np.testing.assert_allclose(mine["effect_size"], golden["effect_size"], rtol=1e-10)
    np.testing.assert_allclose(mine["var_g"], golden["var_g"], rtol=1e-12)
    np.testing.assert_allclose(mine["pvalue"], golden["pvalue"], rtol=2e-5)
