"""Executors, threads and repeats change no byte; ``--resume`` refuses what was made from other inputs."""

import shutil

import pytest

from tests.e2e.test_degenerate_input import code_of, root  # noqa: F401 - a fixture

COMMANDS = {
    "atlas": ("atlas", "fit", "{r}/bids", "--scales", "1,2,3"),
    "idp": ("idp", "extract", "{r}/bids", "--atlas", "{r}/labels.nii.gz"),
    "phenome": ("associate", "phenome", "{r}/t.tsv", "{r}/people.tsv"),
    "gwas": ("gwas", "run", "{r}/g.pgen", "{r}/t.tsv", "--full", "--hits", "0.2", "--shard-size", "64"),
    "gxe": ("gwas", "gxe", "{r}/g.pgen", "{r}/t.tsv", "--columns", "a", "--exposure", "b", "--hits", "0.2",
            "--min-carriers", "5", "--shard-size", "64"),
    "epistasis": ("gwas", "epistasis", "{r}/g.pgen", "{r}/t.tsv", "--min-distance", "0", "--report-p", "0.2"),
    "kinship": ("genotypes", "kinship", "{r}/g.pgen", "--all-pairs"),
    "qc": ("genotypes", "qc", "{r}/g.pgen"),
    "pca": ("genotypes", "pca", "{r}/g.pgen", "--method", "krylov", "--components", "2"),
    "signature": (
        "signature", "train", "{r}/t.tsv", "--participants", "{r}/people.tsv", "--diagnosis", "dx", "--repeats", "2",
        "--inner-folds", "2",
    ),
    "clump": ("loci", "clump", "{r}/hits.tsv", "--genotypes", "{r}/g.pgen", "--p1", "0.5", "--p2", "0.5"),
}  # fmt: skip
WAYS = (
    ("--executor", "serial"),
    ("--executor", "threads", "--threads", "1"),
    ("--executor", "threads", "--threads", "3"),
)
TABLES = ("idp", "phenome")


def contents(path):
    """Every byte of an output, but not the times in the JSON files of a fit."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {p.name if p == path else str(p.relative_to(path)): p.read_bytes() for p in files if p.name != "fit.json"}


def filled(name, root):  # noqa: F811
    hits = root / "hits.tsv"
    if not hits.exists():
        rows = "".join(f"a\trs{k}\t{1 + k % 5}\n" for k in range(40))
        hits.write_text(f"trait\tvariant_id\tneg_log10_p\n{rows}")
    return [a.format(r=root) for a in COMMANDS[name]]


def out_of(name, folder, label):
    return folder / label / (f"{name}.parquet" if name in TABLES else name)


@pytest.mark.parametrize("name", COMMANDS)
def test_executors_threads_and_repeats_give_the_same_bytes(root, tmp_path, name):  # noqa: F811
    found = []
    for k, way in enumerate((*WAYS, WAYS[-1])):
        out = out_of(name, tmp_path, str(k))
        assert code_of(*filled(name, root), *way, "--seed", 7, "--out", out, "--quiet") in (0, 3)
        found.append(contents(out))
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        assert [n for n, content in other.items() if content != found[0][n]] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["atlas", "idp", "gwas", "gxe", "epistasis"])
def test_processes_give_the_same_bytes(root, tmp_path, name):  # noqa: F811
    for way in ("serial", "processes"):
        arguments = (*filled(name, root), "--executor", way, "--threads", 2, "--quiet")
        assert code_of(*arguments, "--out", out_of(name, tmp_path, way)) in (0, 3)
    first, second = (contents(out_of(name, tmp_path, way)) for way in ("serial", "processes"))
    assert first == second


@pytest.mark.parametrize("name", [n for n in COMMANDS if n != "clump"])
def test_resume_refuses_other_inputs_and_other_seeds(root, tmp_path, capsys, name):  # noqa: F811
    copied = tmp_path / "inputs"
    shutil.copytree(root, copied)
    out = out_of(name, tmp_path, "out")
    arguments = (*filled(name, copied), "--out", out, "--quiet", "--resume")
    assert code_of(*arguments) in (0, 3)
    before = contents(out)
    assert code_of(*arguments) in (0, 3)
    assert "already there" in capsys.readouterr().err
    assert code_of(*arguments, "--seed", 3) == 2
    assert "--seed: was 0, now 3" in capsys.readouterr().err
    changed = copied / {"atlas": "bids/sub-1/anat/sub-1_label-GM_probseg.nii.gz", "idp": "labels.nii.gz"}.get(
        name, "people.tsv" if name in ("phenome", "signature") else "g.psam"
    )
    changed.write_bytes(changed.read_bytes() + b"\n")
    assert code_of(*arguments) == 2
    assert "the contents of the inputs" in capsys.readouterr().err
    assert contents(out) == before
    assert not list(out.parent.glob(".*"))
