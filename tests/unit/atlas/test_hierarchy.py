"""Scales of an atlas linked to each other: against loops, planted nesting, and the published atlas."""

import json
import re
import time

import numpy as np
import pytest

from brainlocus.images.atlas import ScaleParcels, grow_tree, link_scales
from brainlocus.io import read_parcellation
from tests.real_data import real_data
from tests.reference.naive_atlas import naive_adjusted_rand


def scales(seed=0, n=120, coarse=4, fine=9):
    """Two scales with voxels of one of them only, and a vanished parcel each."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, coarse + 1, n), rng.integers(0, fine + 1, n)
    a[a == 2], b[b == 5] = 0, 0
    return ScaleParcels(coarse, a), ScaleParcels(fine, b)


def naive_link(coarse, fine):
    """Overlap, parent and containment, voxel by voxel."""
    rows = {}
    for f in range(1, fine.scale + 1):
        overlap = [sum(x == c and y == f for x, y in zip(coarse.labels, fine.labels, strict=True))
                   for c in range(1, coarse.scale + 1)]  # fmt: skip
        size = sum(y == f for y in fine.labels)
        rows[f] = (size, overlap.index(max(overlap)) + 1 if max(overlap) else 0, max(overlap) / size if size else None)
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_against_loops(seed):
    coarse, fine = scales(seed)
    link = link_scales(coarse, fine)
    weighted = 0.0
    for f, (size, parent, containment) in naive_link(coarse, fine).items():
        assert (link.sizes[f - 1], link.parents[f - 1]) == (size, parent)
        if containment is None:
            assert np.isnan(link.containment[f - 1])
            assert not link.loose[f - 1]
        else:
            assert link.containment[f - 1] == pytest.approx(containment)
            assert link.loose[f - 1] == (containment < 0.5)
            weighted += size * containment
    assert link.mean_containment == pytest.approx(weighted / (fine.labels > 0).sum())
    assert link.n_coarse_only == ((coarse.labels > 0) & (fine.labels == 0)).sum()
    both = (coarse.labels > 0) & (fine.labels > 0)
    assert link.adjusted_rand == pytest.approx(naive_adjusted_rand(coarse.labels[both], fine.labels[both]))


def nested_tree():
    fine = np.repeat(np.arange(1, 9), [1, 2, 3, 4, 5, 6, 7, 8])
    return grow_tree([ScaleParcels(8, fine), ScaleParcels(2, (fine + 3) // 4), ScaleParcels(4, (fine + 1) // 2)])


def test_nested_scales_are_contained():
    tree = nested_tree()
    assert [s.scale for s in tree.scales] == [2, 4, 8]
    for link in tree.links:
        assert link.mean_containment == 1.0
        assert not link.loose.any()
    assert tree.links[1].parents.tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    # Larger parcels stand first, each below its parent.
    assert tree.order(0).tolist() == [2, 1]
    assert tree.order(2).tolist() == [8, 7, 6, 5, 4, 3, 2, 1]


def test_newick_has_every_parcel_below_its_parent():
    tree = nested_tree()
    text = tree.newick()
    names = re.findall(r"'(C\d+_\d+)'", text)
    assert sorted(names) == sorted(f"C{s}_{k}" for s in (2, 4, 8) for k in range(1, s + 1))
    assert text.count("(") == text.count(")") == 1 + 2 + 4
    assert text.startswith("((('C8_8':1,'C8_7':1)'C4_4':1,('C8_6':1,'C8_5':1)'C4_3':1)'C2_2':1,")


def test_tree_as_json():
    tree = nested_tree()
    top = json.loads(json.dumps(tree.nested(8.0)))
    assert [n["name"] for n in top] == ["C2_2", "C2_1"]
    assert top[0]["volume_mm3"] == 26 * 8.0
    assert [c["name"] for c in top[0]["children"]] == ["C4_4", "C4_3"]
    assert top[0]["children"][0]["children"][0] == {
        "name": "C8_8", "scale": 8, "label": 8, "volume_mm3": 64.0, "containment": 1.0,
    }  # fmt: skip


def test_parcel_outside_every_coarse_one_hangs_from_the_root():
    coarse, fine = ScaleParcels(1, np.array([1, 1, 0])), ScaleParcels(2, np.array([1, 1, 2]))
    tree = grow_tree([coarse, fine])
    assert tree.links[0].parents.tolist() == [1, 0]
    assert tree.links[0].containment.tolist() == [1.0, 0.0]
    assert tree.newick() == "(('C2_1':1)'C1_1':1,'C2_2':1);"
    assert [n["name"] for n in tree.nested(1.0)] == ["C1_1", "C2_2"]


def test_wrong_scales():
    one = ScaleParcels(2, np.array([1, 2]))
    with pytest.raises(ValueError, match=r"two or more different scales, found \[2, 2\]"):
        grow_tree([one, one])
    with pytest.raises(ValueError, match="same voxels; found 2 and 3"):
        link_scales(one, ScaleParcels(3, np.array([1, 2, 3])))
    with pytest.raises(ValueError, match="No voxel has a parcel in both"):
        link_scales(ScaleParcels(1, np.array([1, 0])), ScaleParcels(2, np.array([0, 2])))


def test_published_atlas():
    """The figures of structural.md section 2 for the six published scales."""
    numbers = (32, 64, 128, 256, 512, 1024)
    files = [real_data(f"structural/music_atlas/MuSIC_C{s}.nii.gz") for s in numbers]
    labels = [read_parcellation(f).labels for f in files]
    inside = labels[0] > 0
    tree = grow_tree([ScaleParcels(s, m[inside]) for s, m in zip(numbers, labels, strict=True)])
    found = [link.mean_containment for link in tree.links]
    np.testing.assert_allclose(found, [0.738, 0.765, 0.773, 0.764, 0.761], atol=5e-4)
    found = [link.adjusted_rand for link in tree.links]
    np.testing.assert_allclose(found, [0.402, 0.481, 0.441, 0.430, 0.554], atol=5e-4)
    medians = [float(np.median(tree.sizes(k)[tree.sizes(k) > 0])) for k in range(1, 6)]
    assert medians == [1255.5, 504, 286, 157, 72]
    assert int((tree.sizes(5) == 0).sum()) == 13
    assert int(tree.sizes(5)[tree.sizes(5) > 0].min()) == 1


def test_large_scales_take_no_second():
    rng = np.random.default_rng(0)
    coarse, fine = (ScaleParcels(s, rng.integers(1, s + 1, 300_000)) for s in (512, 1024))
    start = time.process_time()
    link_scales(coarse, fine)
    assert time.process_time() - start < 1.0
