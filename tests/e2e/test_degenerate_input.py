"""One person, one column, nothing at all, and every kind of wrong file: a result, a status or one message."""

import gzip
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brainlocus.cli.main import main
from brainlocus.core import Column, Mask, Parcellation, PhenotypeTable, SampleIndex, VariantTable, Volume
from brainlocus.core.text import text_array
from brainlocus.io import (
    BedWriter,
    PgenWriter,
    read_results,
    read_table,
    write_mask,
    write_parcellation,
    write_table,
    write_volume,
)
from brainlocus.pipeline.full_store import read_full
from brainlocus.store import LocalStore, verify

N, M = 60, 80
IDS = [f"{k:04d}" for k in range(N)]
AFFINE = np.diag([4.0, 4, 4, 1])


def code_of(*arguments):
    """Run the command line and return its exit code; a traceback fails the test."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def refused(capsys, folder, *arguments):
    """Check exit code 2, one message, nothing left in `folder`; return the message."""
    before = {p: p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}
    assert code_of(*arguments, "--quiet") == 2, arguments
    message = capsys.readouterr().err
    assert message.startswith("Error: "), message
    assert "Traceback" not in message
    assert {p: p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")} == before
    return message


def genotypes(prefix, n, m, *, calls=None, ids=None):
    rng = np.random.default_rng(0)
    people = SampleIndex.of(IDS[:n] if ids is None else ids)
    if calls is None:
        calls = rng.binomial(2, rng.uniform(0.3, 0.7, m)[:, None], (m, n)).astype(np.float32)
    variants = VariantTable(
        np.array(["1"] * m), np.arange(m) * 10_000 + 1, text_array(["A"] * m), text_array(["C"] * m),
        text_array([f"rs{k}" for k in range(m)]), "GRCh37",
    )  # fmt: skip
    for writer in (PgenWriter, BedWriter):
        with writer(prefix, people, variants, np.ones(n, dtype=np.int8)) as out:
            out.append(calls)


def table(path, n, *columns):
    write_table(PhenotypeTable(SampleIndex.of(IDS[:n]), columns), path)


def grey(seed):
    data = np.zeros((6, 7, 5), dtype=np.float32)
    data[1:5, 1:6, 1:4] = 0.5 + 0.2 * np.random.default_rng(seed).random((4, 5, 3))
    return data


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("degenerate")
    rng = np.random.default_rng(1)
    genotypes(root / "g", N, M)
    genotypes(root / "one_variant", N, 1)
    genotypes(root / "one_person", 1, M)
    genotypes(root / "constant", N, 5, calls=np.ones((5, N), dtype=np.float32))
    genotypes(root / "missing", N, 5, calls=np.full((5, N), np.nan, dtype=np.float32))
    a, b = Column("a", rng.normal(size=N)), Column("b", rng.normal(size=N))
    table(root / "t.tsv", N, a, b)
    table(root / "one_column.tsv", N, a)
    table(root / "nan.tsv", N, a, Column("nothing", np.full(N, np.nan)))
    table(root / "flat.tsv", N, a, Column("flat", np.full(N, 3.0)))
    table(root / "only_nan.tsv", N, Column("nothing", np.full(N, np.nan)))
    table(root / "only_flat.tsv", N, Column("flat", np.full(N, 3.0)))
    table(root / "one_row.tsv", 1, Column("a", np.ones(1)), Column("b", np.zeros(1)))
    (root / "no_row.tsv").write_text("participant_id\ta\tb\n")
    (root / "no_column.tsv").write_text("participant_id\n" + "\n".join(IDS) + "\n")
    table(
        root / "people.tsv", N, Column("age", rng.uniform(20, 80, N)), Column("dx", np.arange(N) % 3 // 2 * 1.0),
        Column("site", np.array(["s", "t"] * (N // 2)), "categorical"),
    )  # fmt: skip
    for k in range(8):
        write_volume(
            Volume(grey(k), AFFINE, "grey_matter"), root / f"bids/sub-{k}/anat/sub-{k}_label-GM_probseg.nii.gz"
        )
    for k in range(3):
        same = root / f"same/sub-{k}/anat/sub-{k}_label-GM_probseg.nii.gz"
        write_volume(Volume(grey(0), AFFINE, "grey_matter"), same)
    shutil.copytree(root / "bids/sub-0", root / "one_image/sub-0")
    voxel = np.zeros((6, 7, 5), dtype=bool)
    voxel[2, 2, 2] = True
    write_mask(Mask(voxel, AFFINE), root / "voxel.nii.gz")
    write_parcellation(Parcellation(voxel.astype(np.int32), AFFINE, {1: "C1_1"}), root / "labels.nii.gz")
    assert code_of("genotypes", "grm", root / "g.pgen", "--out", root / "k", "--quiet") == 0
    return root


TABLES = ("t", "one_column", "nan", "flat", "only_nan", "only_flat", "one_row", "no_row", "no_column")
COMMANDS = {
    "join": ("cohort", "join", "{t}", "{people}"),
    "prepare": ("cohort", "prepare", "{t}"),
    "prepare confounds": ("cohort", "prepare", "{t}", "--participants", "{people}", "--confounds", "age + site"),
    "harmonise": ("cohort", "harmonise", "{t}", "--participants", "{people}", "--preserve", "age"),
    "phenome": ("associate", "phenome", "{t}", "{people}"),
    "phenome exact": ("associate", "phenome", "{people}", "{t}", "--mode", "exact"),
    "greml": ("heritability", "greml", "{grm}", "{t}"),
    "greml per trait": ("heritability", "greml", "{grm}", "{t}", "--per-trait-variants", "--genotypes", "{g}"),
}
EXPECTED = {  # by command: exit codes for TABLES
    "join": "0 0 0 0 0 0 0 2 0",
    "prepare": "0 0 3 3 3 3 3 3 2",
    "prepare confounds": "0 0 3 3 3 3 3 2 2",
    "harmonise": "0 0 3 0 3 0 2 2 2",
    "phenome": "0 0 3 3 3 3 3 2 2",
    "phenome exact": "0 0 3 3 3 3 3 2 2",
    "greml": "0 0 3 3 3 3 3 2 2",
    "greml per trait": "0 0 3 3 3 3 3 2 2",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_tables_of_one_row_one_column_or_nothing(root, tmp_path, capsys, name):
    places = {"people": root / "people.tsv", "grm": root / "k.grm.bin", "g": root / "g.pgen"}
    found = []
    for which in TABLES:
        filled = [a.format(t=root / f"{which}.tsv", **places) for a in COMMANDS[name]]
        out = tmp_path / f"{which}.tsv"
        found.append(code_of(*filled, "--out", out, "--quiet"))
        assert out.exists() == (found[-1] != 2)
        assert (tmp_path / f".{which}.tsv.work").exists() is False
        assert "Traceback" not in capsys.readouterr().err
    assert " ".join(map(str, found)) == EXPECTED[name]


def test_reports_of_traits_that_do_not_vary(root, tmp_path):
    for which in ("only_nan", "only_flat", "one_column"):
        report = tmp_path / which
        arguments = ("cohort", "harmonise", root / f"{which}.tsv", "--participants", root / "people.tsv")
        expected = 3 if which == "only_nan" else 0
        assert code_of(*arguments, "--report", report, "--out", tmp_path / f"{which}.tsv", "--quiet") == expected
        assert (report / "sites.png").exists()
        report = tmp_path / f"{which}-prepared"
        arguments = ("cohort", "prepare", root / f"{which}.tsv", "--report", report)
        assert code_of(*arguments, "--out", tmp_path / f"{which}-prepared.tsv", "--quiet") in (0, 3)
        assert (report / "traits.tsv").exists()


@pytest.mark.parametrize(("which", "code"), [("t", 0), ("one_column", 0), ("flat", 0), ("only_flat", 0), ("nan", 2)])
def test_signatures_of_one_feature_or_none_that_varies(root, tmp_path, which, code):
    arguments = ("signature", "train", root / f"{which}.tsv", "--participants", root / "people.tsv")
    more = ("--diagnosis", "dx", "--repeats", 2, "--inner-folds", 2, "--out", tmp_path / "s", "--quiet")
    assert code_of(*arguments, *more) == code
    assert (tmp_path / "s").exists() == (code == 0)
    if which == "one_column":
        (tmp_path / "new.tsv").write_text("participant_id\ta\n007\t0.5\n")
        assert code_of("signature", "apply", tmp_path / "s", tmp_path / "new.tsv", "--out", tmp_path / "n.tsv") == 0
        assert read_results(tmp_path / "n.tsv")["participant_id"].tolist() == ["007"]


GENOMES = {  # exit codes of qc, pca, grm, gwas
    "g": "0 0 0 0",
    "one_variant": "0 0 0 0",
    "one_person": "0 2 0 2",
    "constant": "2 2 0 0",
    "missing": "2 2 2 0",
}


@pytest.mark.parametrize("end", ["pgen", "bed"])
@pytest.mark.parametrize("which", GENOMES)
def test_genotypes_of_one_person_one_variant_or_no_variation(root, tmp_path, capsys, which, end):
    source = root / f"{which}.{end}"
    commands = (
        ("genotypes", "qc", source),
        ("genotypes", "pca", source, "--components", 1),
        ("genotypes", "grm", source),
        ("gwas", "run", source, root / "t.tsv", "--full", "--min-mac", 0),
    )
    found = [code_of(*c, "--out", tmp_path / f"o{k}", "--quiet") for k, c in enumerate(commands)]
    assert " ".join(map(str, found)) == GENOMES[which]
    assert not list(tmp_path.glob(".*"))
    assert "FlowRow" not in capsys.readouterr().err


def test_no_more_components_than_the_variants_span(root, tmp_path, capsys):
    message = refused(
        capsys, tmp_path, "genotypes", "pca", root / "one_variant.bed", "--components", 2, "--out", tmp_path / "p"
    )
    assert "span only 1" in message


def test_atlas_of_one_voxel_one_image_or_identical_images(root, tmp_path):
    fit = ("atlas", "fit", "--quiet", "--out")
    assert code_of(*fit, tmp_path / "v", root / "bids", "--scales", 1, "--mask", root / "voxel.nii.gz") == 0
    assert json.loads((tmp_path / "v/C1/fit.json").read_text())["hoyer_sparsity"] == 1
    assert code_of(*fit, tmp_path / "i", root / "one_image", "--scales", 2) == 0
    assert code_of(*fit, tmp_path / "s", root / "same", "--scales", "1,2") == 0
    report = json.loads((tmp_path / "s/C1/fit.json").read_text())
    assert report["converged"]
    assert report["relative_loss"] < 1e-6
    out = tmp_path / "idp.tsv"
    assert code_of("idp", "extract", root / "one_image", "--atlas", tmp_path / "i", "--out", out, "--quiet") == 0
    assert len(read_table(out).samples) == 1
    image = root / "bids/sub-3/anat/sub-3_label-GM_probseg.nii.gz"
    assert code_of("idp", "extract", image, "--atlas", root / "labels.nii.gz", "--out", out, "--quiet") == 0
    assert read_table(out).samples.ids.tolist() == ["sub-3"]


def test_a_study_without_any_association_runs_to_its_end(root, tmp_path):
    """No hit, no lead, nothing to replicate: every step gives an empty result, and the store is valid."""
    g, t = root / "g.pgen", root / "t.tsv"
    (tmp_path / "first.txt").write_text("\n".join(IDS[:40]))
    (tmp_path / "second.txt").write_text("\n".join(IDS[40:]))
    scan = ("gwas", "run", g, t, "--quiet", "--out")
    assert code_of(*scan, tmp_path / "gwas", "--keep", tmp_path / "first.txt", "--hits", 1e-30, "--full") == 0
    hits = tmp_path / "gwas/hits.parquet"
    assert code_of("loci", "clump", hits, "--genotypes", g, "--out", tmp_path / "loci", "--quiet") == 0
    leads = tmp_path / "loci/leads.parquet"
    assert len(read_results(leads)) == len(read_results(tmp_path / "loci/loci.parquet")) == 0
    again = ("--keep", tmp_path / "second.txt", "--variants", leads, "--hits", 1, "--full")
    assert code_of(*scan, tmp_path / "again", *again) == 0
    assert len(read_results(tmp_path / "again/variants.parquet")) == 0
    assert len(read_full(tmp_path / "again/full", "a")) == 0
    replicated = tmp_path / "replicated.parquet"
    tests = tmp_path / "again/hits.parquet"
    assert code_of("gwas", "replicate", leads, tests, "--out", replicated, "--quiet") == 0
    assert len(read_results(replicated)) == 0
    more = ("--loci", tmp_path / "loci", "--replication", replicated, "--genome-build", "GRCh37", "--quiet")
    assert code_of("store", "build", "--gwas", tmp_path / "gwas", *more, "--out", tmp_path / "store") == 0
    assert verify(tmp_path / "store").ok
    assert not LocalStore(tmp_path / "store").loci().rows


def test_a_null_study_of_a_toml_file(root, tmp_path):
    parts = np.array(["discovery"] * 40 + ["replication"] * 20)
    table(tmp_path / "people.tsv", N, Column("age", np.arange(N) % 17 + 20.0), Column("split", parts, "categorical"))
    (tmp_path / "study.toml").write_text(
        f'[inputs]\ntraits = "{root}/t.tsv"\nparticipants = "people.tsv"\ngenotypes = "{root}/g.pgen"\n'
        "[pca]\ncomponents = 2\n[clump]\np1 = 1e-30\n"
    )
    assert code_of("run", tmp_path / "study.toml", "--out", tmp_path / "out", "--quiet") == 0
    assert len(read_results(tmp_path / "out/replicated.parquet")) == 0
    assert verify(tmp_path / "out/store").ok


BODY = "participant_id\ta\tb\n" + "".join(f"{i}\t{k * 37 % 100 / 100}\t{k % 7}\n" for k, i in enumerate(IDS))
SEMICOLONS = BODY.replace("\t", ";")
BAD_TABLES = {
    "semicolons.csv": (SEMICOLONS, "separated by commas in a .csv file, found a header with semicolons"),
    "german.csv": (SEMICOLONS.replace(".", ","), "found a header with semicolons"),
    "commas.tsv": (BODY.replace("\t", ","), "found a header with commas"),
    "tabs.csv": (BODY, "found a header with tabs"),
    "decimals.tsv": (BODY.replace(".", ","), "column 'a' holds numbers with commas such as '0,0'"),
    "utf16.tsv": (BODY.encode("utf-16"), "found UTF-16"),
    "latin.tsv": (BODY.replace("0001", "\xe9").encode("latin-1"), "expected text in UTF-8"),
    "infinite.tsv": (BODY.replace("0.37", "-inf"), "infinite value in line 3"),
    "typo.tsv": (BODY.replace("0.37", "0.37x"), "line 3 has '0.37x'"),
    "twice.tsv": (BODY + "0001\t1\t1\n", "occur more than once: '0001'"),
    "ragged.tsv": (BODY + "x\t1\n", "expected 3 columns in every row"),
    "empty.tsv": ("", "found an empty file"),
    "cut.tsv.gz": (gzip.compress(BODY.encode())[:-60], "cannot be read"),
    "text.parquet": (BODY, "cannot be read"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_tables_that_cannot_be_read_say_why(tmp_path, capsys, name):
    content, expected = BAD_TABLES[name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for command in (("cohort", "prepare"), ("cohort", "join")):
        message = refused(capsys, tmp_path, *command, tmp_path / name, "--out", tmp_path / "o.tsv")
        assert expected in message
        assert name in message


@pytest.mark.parametrize(
    "content",
    [BODY.replace("\n", "\r\n"), "\ufeff" + BODY, BODY.replace("participant_id\ta\tb", '"participant_id"\t"a"\t"b"')],
    ids=["windows", "bom", "quoted"],
)
def test_tables_of_spreadsheets_are_read(tmp_path, content):
    (tmp_path / "t.tsv").write_bytes(content.encode())
    assert code_of("cohort", "join", tmp_path / "t.tsv", "--out", tmp_path / "o.parquet", "--quiet") == 0
    read = read_table(tmp_path / "o.parquet")
    assert read.samples.ids.tolist() == IDS
    assert read.names == ("a", "b")
    assert read.column("b").values.tolist() == [k % 7 for k in range(N)]


def test_columns_that_are_no_numbers_or_ids(tmp_path, capsys):
    pq.write_table(pa.table({"participant_id": [1.0, 2.0]}), tmp_path / "float.parquet")
    pq.write_table(pa.table({"participant_id": ["a", "b"], "x": [[1], [2]]}), tmp_path / "list.parquet")
    for name, expected in (("float", "ids are text"), ("list", "holds list")):
        path = tmp_path / f"{name}.parquet"
        assert expected in refused(capsys, tmp_path, "cohort", "join", path, "--out", tmp_path / "o.tsv")


def test_ids_with_leading_zeros_or_accents_survive_everywhere(tmp_path):
    ids = [f"00{k}\u00e9" for k in range(N)]
    genotypes(tmp_path / "g", N, M, ids=ids)
    columns = (Column("a", np.arange(N) % 13 * 1.0), Column("part", np.array(["x", "y"] * (N // 2)), "categorical"))
    write_table(PhenotypeTable(SampleIndex.of(ids), columns), tmp_path / "t.tsv")
    for end in ("bed", "pgen"):
        out, g = tmp_path / end, tmp_path / f"g.{end}"
        assert code_of("genotypes", "qc", g, "--out", out / "qc", "--quiet") == 0
        assert (out / "qc/keep.samples").read_text(encoding="utf-8").split() == ids
        assert code_of("genotypes", "pca", g, "--components", 2, "--out", out / "pca", "--quiet") == 0
        assert read_table(out / "pca/scores.parquet").samples.ids.tolist() == ids
        assert code_of("genotypes", "grm", g, "--out", out / "k", "--quiet") == 0
        assert code_of("heritability", "greml", out / "k.grm.bin", tmp_path / "t.tsv", "--out", out / "h.tsv") == 0
        assert read_results(out / "h.tsv")["n"].tolist() == [N]
        assert code_of("cohort", "split", tmp_path / "t.tsv", "--by", "part", "--out", out / "s", "--quiet") == 0
        keep = ("--keep", out / "s/x.txt")
        assert code_of("gwas", "run", g, tmp_path / "t.tsv", *keep, "--out", out / "w", "--quiet") == 0
        assert read_results(out / "w/traits.parquet")["n"].tolist() == [N // 2]


def test_ids_with_blanks_are_not_written_to_plink_files(tmp_path):
    from brainlocus.core import FormatError

    with pytest.raises(FormatError, match="have blanks"):
        genotypes(tmp_path / "g", 2, 3, ids=["a b", "c d"])
    assert not list(tmp_path.iterdir())


WRONG = ("g.pgen", "t.tsv", "t.parquet", "noise.bin", "cut.nii", "cut.pgen", "cut.bed", "lone.pgen", "lone.grm.bin",
         "folder", "absent")  # fmt: skip
TAKES = (
    ("cohort", "join", "{x}"),
    ("associate", "phenome", "{t}", "{x}"),
    ("atlas", "fit", "{x}", "--scales", "1"),
    ("atlas", "fit", "{image}", "--scales", "1", "--mask", "{x}"),
    ("atlas", "hierarchy", "{labels}", "{x}"),
    ("atlas", "annotate", "{x}", "--by", "{labels}"),
    ("atlas", "annotate", "{labels}", "--by", "{x}"),
    ("atlas", "annotate", "{labels}", "--by", "{labels}", "--names", "{x}"),
    ("atlas", "reproducibility", "{x}", "--scales", "1"),
    ("atlas", "reproducibility", "{image}", "--scales", "1", "--stratify", "age", "--participants", "{x}"),
    ("atlas", "reproducibility", "{x}", "--against", "{x}"),
    ("idp", "extract", "{x}", "--atlas", "{labels}"),
    ("idp", "extract", "{image}", "--atlas", "{x}"),
    ("signature", "apply", "{x}", "{t}"),
    ("cohort", "harmonise", "{t}", "--apply", "{x}"),
    ("genotypes", "qc", "{x}"),
    ("genotypes", "grm", "{x}"),
    ("gwas", "run", "{x}", "{t}"),
    ("gwas", "run", "{g}", "{x}"),
    ("gwas", "run", "{g}", "{t}", "--keep", "{x}"),
    ("gwas", "run", "{g}", "{t}", "--variants", "{x}"),
    ("gwas", "replicate", "{x}", "{x}"),
    ("heritability", "greml", "{x}", "{t}"),
    ("loci", "clump", "{x}", "--genotypes", "{g}"),
    ("store", "build", "--gwas", "{x}"),
    ("store", "build", "--atlas", "{x}"),
    ("store", "build", "--heritability", "{x}"),
    ("run", "{x}"),
)
RIGHT = {  # what is no mistake: the file is of the kind, or a list of ids that meet
    ("cohort join", "t.tsv"), ("cohort join", "t.parquet"), ("associate phenome", "t.tsv"),
    ("associate phenome", "t.parquet"), ("genotypes qc", "g.pgen"), ("genotypes grm", "g.pgen"),
    ("gwas run", "g.pgen"), ("gwas run", "t.tsv"), ("gwas run", "t.parquet"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_files_in_every_place_give_one_message(root, tmp_path, capsys, wrong):
    for name in ("t.tsv", "g.pgen", "g.pvar", "g.psam"):
        shutil.copy(root / name, tmp_path / name)
    write_table(read_table(root / "t.tsv"), tmp_path / "t.parquet")
    (tmp_path / "noise.bin").write_bytes(np.random.default_rng(0).bytes(3000))
    image = gzip.decompress((root / "labels.nii.gz").read_bytes())
    (tmp_path / "cut.nii").write_bytes(image[:400])
    for end, others in (("pgen", ("pvar", "psam")), ("bed", ("bim", "fam"))):
        content = (root / f"g.{end}").read_bytes()
        (tmp_path / f"cut.{end}").write_bytes(content[: len(content) // 2])
        for other in others:
            shutil.copy(root / f"g.{other}", tmp_path / f"cut.{other}")
    for lone in ("lone.pgen", "lone.grm.bin"):
        (tmp_path / lone).write_bytes(b"l\x1b\x10")
    (tmp_path / "folder").mkdir()
    places = {"x": tmp_path / wrong, "t": root / "t.tsv", "g": root / "g.pgen", "labels": root / "labels.nii.gz",
              "image": root / "bids/sub-0/anat/sub-0_label-GM_probseg.nii.gz"}  # fmt: skip
    for arguments in TAKES:
        if (" ".join(arguments[:2]), wrong) in RIGHT:
            continue
        out = "o.tsv" if arguments[0] in ("cohort", "associate", "idp", "heritability") else "o"
        out = "o.tsv" if arguments[1] in ("apply", "replicate", "annotate") else out
        message = refused(capsys, tmp_path, *(a.format(**places) for a in arguments), "--out", tmp_path / out)
        assert wrong.split(".")[0] in message, arguments


def test_outputs_never_replace_inputs_or_what_is_not_ours(root, tmp_path, capsys):
    shutil.copy(root / "t.tsv", tmp_path / "t.tsv")
    (tmp_path / "link.tsv").symlink_to(tmp_path / "t.tsv")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    t, o, mine = tmp_path / "t.tsv", tmp_path / "o.tsv", tmp_path / "mine"
    people = ("--participants", root / "people.tsv")
    for arguments, expected in (
        (("cohort", "join", t, "--out", t), "would replace the input"),
        (("cohort", "join", tmp_path / "link.tsv", "--out", t), "would replace the input"),
        (("cohort", "harmonise", t, *people, "--model", t, "--out", o), "--model .* would replace the input"),
        (("cohort", "prepare", t, "--report", mine, "--out", o), "--report .*expected a new or empty folder"),
        (("cohort", "prepare", t, "--report", o, "--out", o), "name the same place"),
        (("genotypes", "qc", root / "g.bed", "--out", mine), "expected a new or empty folder"),
        (("genotypes", "qc", root / "g.bed", "--out", t / "qc"), "cannot be made"),
        (("cohort", "join", t, "--out", mine), "found ''|found a folder"),
        (("cohort", "join", t, "--out", tmp_path / "o.xlsx"), "found '.xlsx'"),
        (("cohort", "prepare", t, "--traits", "z", "--out", tmp_path / "new/deep/o.tsv"), "no column matches 'z'"),
        (("cohort", "split", root / "people.tsv", "--by", "age", "--out", tmp_path / "new/s"), "holds numbers"),
    ):
        assert re.search(expected, refused(capsys, tmp_path, *arguments)), arguments
    # A second run of the same command does replace its own report.
    for _ in range(2):
        assert code_of("cohort", "prepare", t, "--report", tmp_path / "report", "--out", o, "--quiet") == 0


def test_a_level_is_not_taken_for_a_path(tmp_path, capsys):
    (tmp_path / "t.tsv").write_text("participant_id\tpart\n1\t../../x\n2\ty\n")
    message = refused(capsys, tmp_path, "cohort", "split", tmp_path / "t.tsv", "--by", "part", "--out", tmp_path / "s")
    assert "cannot be the name of a file" in message


def test_hits_with_text_for_numbers(root, tmp_path, capsys):
    (tmp_path / "h.tsv").write_text("trait\tvariant_id\tneg_log10_p\na\trs5\tx\n")
    clump = ("loci", "clump", tmp_path / "h.tsv", "--genotypes", root / "g.pgen", "--out", tmp_path / "o")
    assert "line 2 has 'x'" in refused(capsys, tmp_path, *clump)
