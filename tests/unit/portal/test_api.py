"""Every route over a small study; hostile keys never give a server error."""

import gzip
import json
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlocus.portal.app import create_app
from brainlocus.portal.security import CONTENT_SECURITY_POLICY
from brainlocus.store import unpack_manhattan
from tests.portal_study import N_REGIONS, write_study

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the test client says that it would rather have another http package
    from fastapi.testclient import TestClient


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("store") / "study")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    (folder / "assets").mkdir()
    (folder / "index.html").write_text("<!doctype html><title>pages</title>")
    (folder / "assets" / "index-abc.js").write_text("1")
    (folder.parent / "secret.txt").write_text("secret")
    return folder


@pytest.fixture(scope="module")
def client(study, bundle):
    return TestClient(create_app(study.path, bundle=bundle), raise_server_exceptions=False)


def get(client, path):
    response = client.get(f"/api/v1{path}")
    assert response.status_code == 200, response.text
    return response.json()


def png_pixels(data):
    """Return an RGB PNG written with filter 0 as an array."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, body, size = 8, b"", (0, 0)
    while at < len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        chunk = data[at + 8 : at + 8 + length]
        assert zlib.crc32(name + chunk) == struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0]
        if name == b"IHDR":
            size = struct.unpack(">II", chunk[:8])
        body += chunk if name == b"IDAT" else b""
        at += 12 + length
    rows = np.frombuffer(zlib.decompress(body), np.uint8).reshape(size[1], -1)
    return rows[:, 1:].reshape(size[1], size[0], 3).astype(int)


def test_meta_counts_and_features(client, study):
    meta = get(client, "/meta")
    assert meta["counts"]["phenotypes"] == N_REGIONS
    assert meta["counts"]["associations"] == N_REGIONS * len(study.variants)
    assert all(meta["features"].values())
    assert [c["chromosome"] for c in meta["chromosomes"]] == ["1", "2", "3"]
    assert meta["models"][0]["value"] == 0.71
    assert "files" not in meta
    assert get(client, "/health") == {"status": "ok"}
    assert get(client, "/ready")["status"] == "ready"


def test_phenotypes_page_sort_and_filter(client):
    page = get(client, "/phenotypes?sort=-h2&limit=5")
    assert page["total"] == N_REGIONS
    h2 = [row["h2"] for row in page["rows"]]
    assert h2 == sorted(h2, reverse=True)
    rest = get(client, f"/phenotypes?sort=-h2&limit=100&cursor={page['next_cursor']}")
    assert len(rest["rows"]) == N_REGIONS - 5
    assert rest["next_cursor"] is None
    assert get(client, "/phenotypes?q=C12_12")["total"] == 1
    assert get(client, "/phenotypes?q=nothing")["rows"] == []
    assert client.get("/api/v1/phenotypes?sort=drop").status_code == 422
    assert client.get("/api/v1/phenotypes?limit=501").status_code == 422


def test_phenotype_has_region_heritability_and_associations(client):
    row = get(client, "/phenotypes/C12_4")
    assert row["region"]["region_id"] == "C12_4"
    assert row["heritability"]["h2"] == row["h2"]
    associations = get(client, "/phenotypes/C12_4/associations")["rows"]
    strengths = [a["neg_log10_p"] for a in associations]
    assert strengths == sorted(strengths, reverse=True)
    assert {a["effect_type"] for a in associations} == {"r", "cohens_d"}


def test_unknown_keys_are_problems_with_near_matches(client):
    response = client.get("/api/v1/phenotypes/C12_44")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert {"type", "title", "status", "detail"} <= set(problem)
    assert "C12_4" in problem["near"]
    assert len(problem["near"]) <= 3
    assert client.get("/api/v1/regions/C12_44").json()["near"]
    assert client.get("/api/v1/variants/rs999999999").status_code == 404
    assert client.get("/api/v1/variants/%20%00").status_code == 400
    assert client.get("/api/v1/nothing").status_code == 404


def test_scan_plots(client, study):
    plot = unpack_manhattan(client.get("/api/v1/phenotypes/C12_3/manhattan").content)
    strength = study.scans[2]["neg_log10_p"]
    assert plot.vid.tolist() == np.flatnonzero(strength >= 4).tolist()
    qq = get(client, "/phenotypes/C12_3/qq")
    assert qq["observed"][0] == pytest.approx(strength.max(), abs=1e-4)
    assert qq["n_tests"] == strength.size


def test_region_columns_and_bounds(client, study):
    found = get(client, "/phenotypes/C12_1/region?chrom=chr3&start=1&end=5000000")
    inside = (study.variants.chromosome == "3") & (study.variants.position <= 5_000_000)
    assert found["n"] == inside.sum() == len(found["columns"]["beta"])
    np.testing.assert_allclose(found["columns"]["beta"], study.scans[0]["beta"][inside], rtol=1.3e-4)
    assert found["columns"]["variant_id"] == study.variants.variant_id[inside].tolist()
    wide = client.get("/api/v1/phenotypes/C12_1/region?chrom=1&start=1&end=6000000")
    assert wide.status_code == 413
    assert "narrow" in wide.json()["detail"]
    backwards = client.get("/api/v1/phenotypes/C12_1/region?chrom=1&start=10&end=5")
    assert backwards.status_code == 422
    assert backwards.json()["field"] == "end"
    assert client.get("/api/v1/phenotypes/C12_1/region?chrom=7&start=99999999999&end=1").status_code == 422
    empty = get(client, "/phenotypes/C12_1/region?chrom=22&start=1&end=10")
    assert empty["n"] == 0


def test_hits_page_and_loci(client, study):
    page = get(client, "/phenotypes/C12_1/hits?limit=3")
    assert page["total"] == (study.scans[0]["neg_log10_p"] >= 5).sum()
    assert page["next_cursor"] == 3
    assert get(client, "/phenotypes/C12_1/hits?min_nlog10p=1000")["rows"] == []
    loci = get(client, "/loci")["rows"]
    assert {row["phenotype_id"] for row in loci} == {f"C12_{k + 1}" for k in range(8)}
    row = loci[0]
    near = get(client, f"/loci?chrom={row['chromosome']}&start={row['start']}&end={row['stop']}")["rows"]
    assert row["key"] in {r["key"] for r in near}


def test_from_a_variant_to_the_brain(client, study):
    """The two-way link: the variant planted in regions 3 and 4 paints just those two."""
    row = study.planted[2]
    key = f"{study.variants.chromosome[row]}-{study.variants.position[row]}"
    key += f"-{study.variants.other_allele[row]}-{study.variants.effect_allele[row]}"
    painted = get(client, f"/variants/{key}/map?stat=z")
    z = {v["parcel_index"]: v["value"] for v in painted["values"]}
    assert set(z) == set(range(1, N_REGIONS + 1))
    assert sorted(z, key=lambda k: -abs(z[k]))[:2] in ([3, 4], [4, 3])
    expected = study.scans[2]["beta"][row] / study.scans[2]["standard_error"][row]
    assert z[3] == pytest.approx(expected, rel=3e-4)
    phewas = get(client, f"/variants/{key}/phewas")
    assert phewas["total"] == N_REGIONS
    assert get(client, f"/variants/{key}/phewas?min_nlog10p=8")["total"] == 2
    assert get(client, f"/variants/{key}")["key"] == key
    assert client.get(f"/api/v1/variants/{key}/map?atlas=template").status_code == 404
    assert client.get(f"/api/v1/variants/{key}/map?stat=p").status_code == 422


def test_search_understands_what_is_typed(client):
    def first(q):
        results = client.get("/api/v1/search", params={"q": q}).json()["results"]
        return results[0]["path"] if results else None

    assert first("rs1001").startswith("/variant/1-")
    assert first("chr2:1-2M") == "/locus/2-1000000-2000000"
    assert first("2:1,000,000-2,000,000") == "/locus/2-1000000-2000000"
    assert first("region 7 of") == "/phenotype/C12_7"
    assert first("no such thing") is None
    assert client.get("/api/v1/search?q=x").status_code == 422
    assert client.get("/api/v1/search", params={"q": "x" * 65}).status_code == 422


def test_regions_and_maps(client, study):
    assert get(client, "/regions?scale=12")["total"] == N_REGIONS
    region = get(client, "/regions/C12_5")
    assert [p["phenotype_id"] for p in region["phenotypes"]] == ["C12_5"]
    assert get(client, "/maps/sc-12")["kind"] == "atlas"
    whole = client.get("/api/v1/maps/sc-12/file")
    assert gzip.decompress(whole.content)[344:347] == b"n+1"
    part = client.get("/api/v1/maps/sc-12/file", headers={"Range": "bytes=0-9"})
    assert part.status_code == 206
    assert part.content == whole.content[:10]


@pytest.mark.parametrize(("axis", "mm", "number"), [("x", 20.0, 0), ("y", -30.0, 1), ("z", 10.0, 2)])
def test_slices_show_the_labels_at_their_place(client, study, axis, mm, number):
    plain = png_pixels(client.get(f"/api/v1/maps/template/slice.png?axis={axis}&mm={mm}").content)
    url = f"/api/v1/maps/template/slice.png?axis={axis}&mm={mm}&overlay=sc-12&paint=select&parcel=7"
    painted = png_pixels(client.get(url).content)
    assert plain.shape == painted.shape
    assert max(plain.shape) <= 512
    index = round((mm - study.affine[number, 3]) / 4.0)
    labels = np.take(study.labels, index, axis=number).T[::-1]
    factor = plain.shape[0] // labels.shape[0]
    changed = (plain != painted).any(-1)[::factor, ::factor]
    np.testing.assert_array_equal(changed, labels == 7)


def test_slices_of_values_and_bad_ones(client):
    base = "/api/v1/maps/template/slice.png?overlay=sc-12"
    plain = client.get("/api/v1/maps/template/slice.png").content
    for query in ("paint=h2", "paint=n_hits", "paint=variant&variant=rs1001", "paint=identity"):
        response = client.get(f"{base}&{query}")
        assert response.status_code == 200
        assert response.content != plain
    assert client.get(f"{base}&paint=variant&variant=rs1001&threshold=1000").content == plain
    assert client.get(f"{base}&paint=variant&variant=rs99999").status_code == 404
    assert client.get(f"{base}&axis=w").status_code == 422
    assert client.get(f"{base}&mm=nan").status_code == 422
    assert client.get(f"{base}&mm=900").status_code == 200


def test_headers_and_revalidation(client):
    response = client.get("/api/v1/meta")
    assert response.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cross-origin-resource-policy"] == "same-origin"
    tag = response.headers["etag"]
    again = client.get("/api/v1/meta", headers={"If-None-Match": tag})
    assert again.status_code == 304
    assert not again.content
    assert client.get("/api/v1/phenotypes", headers={"If-None-Match": tag}).status_code == 200
    assert "etag" not in client.get("/api/v1/phenotypes/zzz").headers
    assert client.get("/nowhere").headers["content-security-policy"] == CONTENT_SECURITY_POLICY


def test_pages_and_assets(client, study, tmp_path):
    for path in ("/", "/phenotype/C12_1", "/variant/rs1"):
        assert client.get(path).text.startswith("<!doctype html><title>pages")
    asset = client.get("/assets/index-abc.js")
    assert asset.headers["content-type"].startswith("text/javascript")
    assert "immutable" in asset.headers["cache-control"]
    for hostile in ("/assets/..%2f..%2fsecret.txt", "/assets/%2e%2e/secret.txt", "/assets/.hidden", "/assets/none.js"):
        response = client.get(hostile)
        assert response.status_code == 404, hostile
    bare = TestClient(create_app(study.path, bundle=tmp_path))
    assert "python hatch_build.py" in bare.get("/").text
    assert bare.get("/api/v1/health").status_code == 200


def test_only_reading(client):
    for method in ("post", "put", "delete", "patch"):
        assert getattr(client, method)("/api/v1/meta").status_code == 405


def test_long_addresses_are_refused(client):
    response = client.get("/api/v1/phenotypes?q=" + "a" * 5_000)
    assert response.status_code == 414
    assert response.json()["status"] == 414


HOSTILE = ["..", "../..", "%00", "a%00b", "' OR 1=1 --", "1-1-A-G'; DROP", "1-99999999999999-A-G", "--", "rs", "rs-1",
           "rs" + "9" * 30, "null", "%F0%9F%A7%A0", "<script>", "1:1:A", "1-²-A-G", "NaN",
           "C12_1%2f..%2f..", "{}"]  # fmt: skip
ROUTES = ["/phenotypes/{}", "/phenotypes/{}/hits", "/phenotypes/{}/manhattan", "/variants/{}", "/variants/{}/phewas",
          "/variants/{}/map", "/regions/{}", "/maps/{}", "/maps/{}/file", "/maps/{}/slice.png", "/search?q={}",
          "/phenotypes?q={}", "/phenotypes?sort={}", "/loci?chrom={}",
          "/phenotypes/C12_1/region?chrom={}&start=1&end=9",
          "/phenotypes/C12_1/region?chrom=1&start={}&end=9", "/phenotypes/C12_1/hits?min_nlog10p={}",
          "/maps/template/slice.png?mm={}", "/maps/template/slice.png?overlay={}",
          "/variants/rs1001/map?atlas={}"]  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
def test_hostile_keys_never_break_the_server(client, route):
    for key in HOSTILE:
        response = client.get("/api/v1" + route.format(key))
        assert response.status_code < 500, (route, key, response.text)
        if response.status_code >= 400:
            assert response.json()["status"] == response.status_code


@settings(max_examples=150, deadline=None)
@given(key=st.text(max_size=60), route=st.sampled_from(ROUTES))
def test_any_text_is_answered(client, key, route):
    from urllib.parse import quote

    response = client.get("/api/v1" + route.format(quote(key, safe="")))
    assert response.status_code < 500, (route, key, response.text)


def test_every_route_is_described(client):
    document = client.get("/openapi.json").json()
    assert len(document["paths"]) >= 20
    for path, methods in document["paths"].items():
        assert list(methods) == ["get"], path
        assert methods["get"]["description"], path


def test_numbers_are_valid_json_everywhere(client):
    """NaN is no JSON: every answer parses strictly."""

    def refuse(name):
        raise AssertionError(name)

    for path in ("/meta", "/phenotypes", "/regions", "/loci", "/phenotypes/C12_1/associations", "/phenotypes/C12_1/qq"):
        json.loads(client.get(f"/api/v1{path}").text, parse_constant=refuse)
