"""``store export``: every link leads somewhere, and pages and JSON have what the store has."""

import json
from contextlib import closing
from html.parser import HTMLParser

import pytest

from brainlocus.store import GeneFilter, LocalStore
from tests.e2e.test_store_query import code_of, root, run, store  # noqa: F401 - fixtures


class Links(HTMLParser):
    """Links, cells and scripts of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.scripts, self.rows = [], 0, 0
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.links += [found["href"]] if tag == "a" else []
        self.scripts += tag == "script" or any(name.startswith("on") for name in found)
        self.rows += tag == "td"


@pytest.fixture(scope="module")
def exported(store, tmp_path_factory):  # noqa: F811
    out = tmp_path_factory.mktemp("export") / "pages"
    assert code_of("store", "export", store, "--scope", "nominal", "--quiet", "--out", out) == 0
    return out


def test_every_link_leads_to_a_file(exported):
    pages = sorted(exported.rglob("*.html"))
    assert len(pages) > 20
    for path in pages:
        found = Links(path)
        assert found.scripts == 0
        assert found.rows > 0
        for link in found.links:
            assert (path.parent / link).is_file(), (path, link)


def test_json_has_what_the_store_has(exported, store):  # noqa: F811
    index = json.loads((exported / "index.json").read_text())
    assert index["title"] == "Genes"
    assert index["genes"][0]["gene_name"] == "GENE7"
    with closing(LocalStore(store)) as opened:
        chosen = GeneFilter(scope="nominal")
        for row in index["genes"]:
            gene = opened.twas.find_gene(row["gene"])
            expected = opened.twas.columns(opened.twas.of_gene(gene["gid"], chosen), "nominal")
            found = json.loads((exported / row["file"].replace(".html", ".json")).read_text())["associations"]
            assert [r["zscore"] for r in found] == expected["zscore"]
            assert [r["phenotype_id"] for r in found] == expected["phenotype_id"]
        for row in index["phenotypes"]:
            pid = opened.phenotype(row["phenotype_id"])["pid"]
            found = json.loads((exported / row["file"].replace(".html", ".json")).read_text())["associations"]
            assert len(found) == len(opened.twas.of_phenotype(pid, chosen))
    counts = json.loads(exported.with_name("pages.json").read_text())["counts"]
    assert counts["associations"] == sum(row["n_associations"] for row in index["genes"])


def test_names_cannot_break_a_page(tmp_path, capsys):
    (tmp_path / "t.tsv").write_text(
        "gene\tgene_name\ttissue\tphenotype\tzscore\nENSG1\t<b>A</b>\tL&R\t<script>x</script>\t9\n"
    )
    built = ("store", "build", "--twas", tmp_path / "t.tsv", "--twas-complete", "--quiet", "--out", tmp_path / "s")
    assert run(capsys, *built)[0] == 0
    assert run(capsys, "store", "export", tmp_path / "s", "--quiet", "--out", tmp_path / "pages")[0] == 0
    for path in (tmp_path / "pages").rglob("*.html"):
        assert Links(path).scripts == 0
        assert "<b>" not in path.read_text()


def test_bad_exports_give_one_message(store, tmp_path, capsys):  # noqa: F811
    code, text = run(capsys, "store", "export", store, "--alpha", "0.5", "--quiet", "--out", tmp_path / "p")
    assert code == 2
    assert "alpha 0.5 is above 0.05" in text
    code, text = run(capsys, "store", "export", tmp_path, "--quiet", "--out", tmp_path / "p")
    assert code == 2
    assert "store.json" in text
    assert not (tmp_path / "p").exists()
