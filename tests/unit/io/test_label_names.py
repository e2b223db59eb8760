"""Names of labels in the forms that atlases come with, and colour tables."""

import json

import numpy as np
import pytest

from brainlocus.core import FormatError, Parcellation
from brainlocus.core.label_colours import label_colours
from brainlocus.io import read_label_table, write_colour_table

FORMS = {
    "dseg.tsv": "index\tname\tabbreviation\n10\tLeft-Thalamus\tLT\n49\tArea 4\tA\n",
    "names.csv": "index,name\n10,Left-Thalamus\n49,Area 4\n",
    "names.json": json.dumps({"labels": {"10": "Left-Thalamus", "49": "Area 4"}}),
    "plain.json": json.dumps({"10": "Left-Thalamus", "49": "Area 4"}),
    "FreeSurferColorLUT.txt": "#No. Label Name:  R G B A\n\n10  Left-Thalamus  0 118 14 0\n49  Area 4  0 118 14 0\n",
    "fsleyes.lut": "10 0.1 0.5 0.06 Left-Thalamus\n49 1 0 0.25 Area 4\n",
    "itksnap.txt": '# ITK-SNAP\n   10   0 118 14   1  1  1    "Left-Thalamus"\n 49  0 0 9 1 1 0 "Area 4"\n',
    "list.txt": "10 Left-Thalamus\n49 Area 4\n",
    "aal.txt": "10 Left-Thalamus 7101\n49 Area 4 9170\n",
    "probabilistic.xml": "<atlas><header><type>Probabalistic</type></header><data>"
    '<label index="9" x="1">Left-Thalamus</label><label index="48">Area 4</label></data></atlas>',
    "labels.xml": "<atlas><header><type>Label</type></header><data>"
    '<label index="10">Left-Thalamus</label><label index="49">Area 4</label></data></atlas>',
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form(tmp_path, name):
    (tmp_path / name).write_text(FORMS[name])
    assert read_label_table(tmp_path / name) == {10: "Left-Thalamus", 49: "Area 4"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "label\tname\n1\tx\n", "expected the columns index and name"),
        ("a.tsv", "index\tname\nx\ty\n", "label number in line 2, found 'x'"),
        ("a.json", "{", "expected {\"labels\""),
        ("a.json", "[1]", "expected {\"labels\""),
        ("a.json", '{"labels": {"one": "x"}}', "expected a label number in its keys, found 'one'"),
        ("a.txt", "one two\n", "label number in line 1, found 'one'"),
        ("a.txt", "1\n", "expected a label, its name and perhaps colours in line 1"),
        ("a.txt", "1 2 3 4\n", "expected a label, its name and perhaps colours in line 1"),
        ("a.txt", "# nothing\n", "expected names of labels, found none"),
        ("a.txt", "1 a\n1 b\n", "label 1 has two names, 'a' and 'b'"),
        ("a.xml", "<atlas>", "expected an atlas of FSL"),
    ],
)  # fmt: skip
def test_bad_files(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(FormatError, match=message) as error:
        read_label_table(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


def test_absent_file(tmp_path):
    with pytest.raises(FormatError, match="found nothing"):
        read_label_table(tmp_path / "a.txt")


def test_colour_table_is_read_back(tmp_path):
    names = {1: "C3_1", 2: "C3_2", 12: "superior frontal"}
    write_colour_table(Parcellation(np.ones((1, 1, 1), dtype=np.int8), np.eye(4), names), tmp_path / "lut.txt")
    assert read_label_table(tmp_path / "lut.txt") == {0: "Unknown", 1: "C3_1", 2: "C3_2", 12: "superior-frontal"}
    fields = (tmp_path / "lut.txt").read_text().splitlines()[2].split()
    assert [int(x) for x in fields[2:]] == [*label_colours(np.array([2]))[0].tolist(), 0]


def test_colours_of_a_thousand_labels_differ():
    colours = label_colours(np.arange(1025))
    assert colours[0].tolist() == [0, 0, 0]
    assert len({tuple(c) for c in colours.tolist()}) == 1025
    neighbours = np.abs(np.diff(colours[1:].astype(int), axis=0)).sum(axis=1)
    assert neighbours.min() > 60
