"""The routes about genes over a small study, against the tests that were put into it."""

import json
import warnings
from urllib.parse import quote

import numpy as np
import pytest

from brainlocus.numerics.multiplicity import benjamini_hochberg_q, bonferroni_p
from brainlocus.portal.app import create_app
from tests.portal_study import MAX_P, N_GENES, N_REGIONS, TISSUES, write_study
from tests.unit.portal.test_api import HOSTILE, png_pixels

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the test client says that it would rather have another http package
    from fastapi.testclient import TestClient


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("store") / "study", genes=True)


@pytest.fixture(scope="module")
def client(study, tmp_path_factory):
    app = create_app(study.path, bundle=tmp_path_factory.mktemp("web"))
    return TestClient(app, raise_server_exceptions=False)


def get(client, path, **parameters):
    response = client.get(f"/api/v1{path}", params=parameters)
    assert response.status_code == 200, response.text
    return response.json()


def test_meta_says_what_there_is(client, study):
    meta = get(client, "/meta")
    assert meta["counts"]["genes"] == N_GENES
    assert meta["counts"]["gene_tests"] == len(study.genes.tests)
    twas = meta["twas"]
    assert twas["default_scope"] == "study"
    assert twas["filters"]["modality"] == ["dMRI", "structural MRI"]
    assert [t["tissue"] for t in twas["tissues"]] == list(TISSUES)
    groups = {(g["scope"], g["name"]): g["n_tests"] for g in twas["groups"]}
    assert groups["study", ""] == groups["modality", "dMRI"] + groups["modality", "structural MRI"]
    assert get(client, "/meta")["counts"]["phenotypes"] == N_REGIONS + 8


def test_genes_page_sort_and_search(client):
    page = get(client, "/genes", limit=5)
    assert page["total"] == N_GENES
    assert page["rows"][0]["gene_name"] == "LOCUS1"
    strengths = [row["max_neg_log10_p"] for row in page["rows"]]
    assert strengths == sorted(strengths, reverse=True)
    assert page["rows"][0]["top_phenotype_id"] in ("C12_3", "C12_4")
    rest = get(client, "/genes", limit=500, cursor=page["next_cursor"])
    assert len(rest["rows"]) == N_GENES - 5
    assert rest["next_cursor"] is None
    names = [row["gene_name"] for row in get(client, "/genes", sort="gene_name", limit=500)["rows"]]
    assert names == sorted(names, key=lambda n: (n == "", n))
    assert get(client, "/genes", q="locus1")["total"] == 10  # LOCUS1, LOCUS10 ... 19 without 13
    assert get(client, "/genes", q="zzz")["rows"] == []
    for bad in ({"sort": "gid"}, {"limit": 501}, {"q": "x" * 65}):
        assert client.get("/api/v1/genes", params=bad).status_code == 422


def test_one_gene_by_any_name(client):
    row = get(client, "/genes/locus1")
    assert row["gene_name"] == "LOCUS1"
    assert [m["tissue"] for m in row["models"]] == list(TISSUES)
    assert row["also"] == []
    assert "gid" not in row
    for key in (row["gene"], row["gene"].split(".")[0], row["gene"].lower()):
        assert get(client, f"/genes/{key}") == row
    answer = client.get("/api/v1/genes/LOCUS777")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["near"]


def test_associations_of_a_gene_are_those_of_the_tests(client, study):
    tests = study.genes.tests
    q = benjamini_hochberg_q(tests.neg_log10_p)
    p = bonferroni_p(tests.neg_log10_p)
    mine = np.flatnonzero((tests.gene == 2) & (q <= 0.05))
    page = get(client, "/genes/LOCUS2/associations", limit=1000)
    assert page["scope"] == "study"
    assert page["total"] == mine.size == len(page["rows"])
    expected = {(str(tests.phenotypes[tests.phenotype[k]]), TISSUES[tests.tissue[k]]): k for k in mine}
    strengths = [row["neg_log10_p"] for row in page["rows"]]
    assert strengths == sorted(strengths, reverse=True)
    for row in page["rows"]:
        k = expected[row["phenotype_id"], row["tissue"]]
        assert row["zscore"] == pytest.approx(tests.z[k], rel=1e-5)
        assert row["effect_size"] == pytest.approx(tests.effect[k], rel=1.3e-4)
        assert row["q_bh"] == pytest.approx(q[k], rel=1e-4)
        assert row["p_bonferroni"] == pytest.approx(p[k], rel=1e-3)
        assert row["modality"] == "dMRI"
        assert row["pred_perf_r2"] == pytest.approx(tests.pred_perf_r2[k], rel=1e-6)


def test_pages_of_associations_join_up(client):
    whole = get(client, "/genes/LOCUS2/associations", scope="nominal", limit=1000)["rows"]
    parts, cursor = [], 0
    while cursor is not None:
        page = get(client, "/genes/LOCUS2/associations", scope="nominal", limit=7, cursor=cursor)
        parts += page["rows"]
        cursor = page["next_cursor"]
    assert parts == whole
    assert get(client, "/genes/LOCUS2/associations", cursor=9_999_999)["rows"] == []


def test_filters_narrow_and_unknown_values_are_told(client):
    def rows(**chosen):
        return get(client, "/genes/LOCUS2/associations", scope="nominal", limit=1000, **chosen)["rows"]

    assert {r["side"] for r in rows(side="left")} == {"left"}
    assert {r["measurement"] for r in rows(measurement="fa")} == {"FA"}
    assert {r["tissue"] for r in rows(tissue="Liver")} == {"Liver"}
    assert {r["region"] for r in rows(region="tract 2")} == {"tract 2"}
    assert {r["modality"] for r in rows(modality="structural MRI")} == {"structural MRI"}
    for bad in ({"modality": "CT"}, {"tissue": "Lung"}, {"scope": "studies"}, {"alpha": 0.5}, {"alpha": -1}):
        answer = client.get("/api/v1/genes/LOCUS2/associations", params=bad)
        assert answer.status_code == 422, bad
        assert answer.json()["field"] == next(iter(bad))
    assert "dMRI" in client.get("/api/v1/genes/LOCUS2/associations?modality=CT").json()["allowed"]
    assert "0.05" in client.get("/api/v1/genes/LOCUS2/associations?alpha=0.5").json()["detail"]


def test_from_a_gene_to_the_brain(client):
    """The two-way link: the gene planted in regions 3 and 4 paints just those two."""
    painted = get(client, "/genes/LOCUS1/map")
    assert [v["parcel_index"] for v in painted["values"]] == [3, 4]
    assert all(v["value"] > 4 for v in painted["values"])
    every = get(client, "/genes/LOCUS1/map", scope="nominal", tissue="Liver")
    assert {v["tissue"] for v in every["values"]} == {"Liver"}
    effect = get(client, "/genes/LOCUS1/map", stat="effect")["values"]
    z = get(client, "/genes/LOCUS1/map", stat="z")["values"]
    np.testing.assert_allclose([v["value"] * 25 for v in effect], [v["value"] for v in z], rtol=1e-3)
    assert client.get("/api/v1/genes/LOCUS1/map?map_id=template").status_code == 404
    plain = png_pixels(client.get("/api/v1/maps/template/slice.png?axis=z&mm=-30").content)
    url = "/api/v1/maps/template/slice.png?axis=z&mm=-30&overlay=sc-12&paint=gene&gene=LOCUS1&stat=z"
    assert (png_pixels(client.get(url).content) != plain).any()
    assert client.get(url.replace("LOCUS1", "LOCUS999")).status_code == 404


def test_from_a_phenotype_to_genes(client):
    page = get(client, "/phenotypes/C12_3/genes")
    assert {row["gene_name"] for row in page["rows"]} == {"LOCUS1"}
    assert page["total"] == len(TISSUES)
    sums = get(client, "/phenotypes/C12_3/genes/summary", by="gene", scope="nominal")
    assert sums["rows"][0]["gene_name"] == "LOCUS1"
    assert sums["rows"][0]["n_tissues"] == len(TISSUES)
    key = quote("TBSS_FA_tract_0+crus_(left)", safe="")
    assert get(client, f"/phenotypes/{key}/genes")["rows"][0]["gene_name"] == "LOCUS2"
    row = get(client, f"/phenotypes/{key}")
    assert row["n_genes_significant"] == 1
    assert row["region_name"] == "tract 0"
    assert row["region"] is None
    assert client.get("/api/v1/phenotypes/C12_44/genes").json()["near"]


def test_sums_and_matrix(client, study):
    by_tissue = get(client, "/genes/LOCUS2/summary", by="tissue", scope="nominal")
    assert by_tissue["n_associations"] == sum(r["n_associations"] for r in by_tissue["rows"])
    by_modality = {r["modality"]: r for r in get(client, "/genes/LOCUS2/summary", by="modality")["rows"]}
    assert by_modality["dMRI"]["n_negative"] == by_modality["dMRI"]["n_associations"]
    assert client.get("/api/v1/genes/LOCUS2/summary?by=colour").status_code == 422
    found = get(client, "/genes/LOCUS2/matrix", limit=5)
    assert len(found["rows"]) == 5
    assert found["tissues"] == sorted(TISSUES)
    tests = study.genes.tests
    for i, phenotype in enumerate(found["rows"]):
        for j, tissue in enumerate(found["tissues"]):
            at = (tests.gene == 2) & (tests.tissue == TISSUES.index(tissue))
            at &= tests.phenotypes[tests.phenotype] == phenotype["phenotype_id"]
            z, p = tests.z[at][0], 10.0 ** -tests.neg_log10_p[at][0]
            assert found["z"][i][j] == (pytest.approx(z, rel=1e-5) if p <= MAX_P else None)
            assert found["modelled"][i][j]
    turned = get(client, "/phenotypes/C12_3/genes/matrix", scope="nominal")
    assert turned["rows"][0]["gene_name"] == "LOCUS1"
    for i, gene in enumerate(turned["rows"]):
        number = study.genes.tests.genes.tolist().index(gene["gene"])
        tissues = {TISSUES[t] for t in study.genes.model_tissue[study.genes.model_gene == number].tolist()}
        assert {t for t, known in zip(turned["tissues"], turned["modelled"][i], strict=True) if known} == tissues


def test_search_finds_genes(client):
    results = get(client, "/search", q="locus2")["results"]
    assert results[0]["type"] == "gene"
    assert results[0]["path"].startswith("/gene/ENSG")
    assert get(client, "/search", q="ENSG000000010")["results"][0]["type"] == "gene"


ROUTES = ["/genes/{}", "/genes/{}/associations", "/genes/{}/summary", "/genes/{}/map", "/genes/{}/matrix",
          "/phenotypes/{}/genes", "/phenotypes/{}/genes/matrix",
          "/genes?q={}", "/genes?sort={}", "/genes/LOCUS1/associations?modality={}",
          "/genes/LOCUS1/associations?tissue={}", "/genes/LOCUS1/associations?scope={}",
          "/genes/LOCUS1/associations?alpha={}", "/genes/LOCUS1/associations?cursor={}",
          "/genes/LOCUS1/map?map_id={}", "/genes/LOCUS1/summary?by={}", "/genes/LOCUS1/matrix?limit={}",
          "/maps/template/slice.png?overlay=sc-12&paint=gene&gene={}"]  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
def test_hostile_keys_never_break_the_server(client, route):
    for key in HOSTILE:
        response = client.get("/api/v1" + route.format(key))
        assert response.status_code < 500, (route, key, response.text)
        if response.status_code >= 400:
            assert response.json()["status"] == response.status_code


def test_numbers_are_valid_json(client):
    def refuse(name):
        raise AssertionError(name)

    for path in ("/meta", "/genes", "/genes/LOCUS1", "/genes/LOCUS1/associations?scope=nominal", "/genes/LOCUS1/matrix",
                 "/genes/LOCUS1/summary", "/phenotypes/C12_3/genes?scope=phenotype-tissue"):  # fmt: skip
        json.loads(client.get(f"/api/v1{path}").text, parse_constant=refuse)


def test_every_route_is_described(client):
    paths = client.get("/openapi.json").json()["paths"]
    mine = {path: methods for path, methods in paths.items() if "/genes" in path}
    assert len(mine) >= 8
    for path, methods in mine.items():
        assert list(methods) == ["get"], path
        assert methods["get"]["description"], path


def test_a_store_without_genes_says_so(tmp_path):
    write_study(tmp_path / "s", brain=False)
    with TestClient(create_app(tmp_path / "s", bundle=tmp_path), raise_server_exceptions=False) as client:
        assert client.get("/api/v1/meta").json()["twas"] is None
        for path in ("/genes", "/genes/A", "/genes/A/map", "/phenotypes/C12_1/genes"):
            answer = client.get(f"/api/v1{path}")
            assert answer.status_code == 404
            assert answer.json()["type"] == "/problems/no-genes"
