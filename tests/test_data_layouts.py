"""Every layout of flow and stereo data sets: which images are paired, with which truth."""

import sys

import numpy as np
import pytest
import torch
from matching_files import SHAPE, WRITERS, truth, write_chairs, write_eth3d, write_sceneflow

from mimlib.data.matching.layouts import FLOW_LAYOUTS, LAYOUTS
from mimlib.data.matching.source import MatchingFilesConfig

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")


def config_of(root, layout, **changes):
    return MatchingFilesConfig(root=str(root), layout=layout, size=(12, 16), jitter=0.0, **changes)


def blues(batch):
    return list(zip(*(image[:, 2, 0, 0].tolist() for image in batch[:2])))


def test_the_table_is_complete():
    assert set(LAYOUTS) == set(WRITERS)


@pytest.mark.parametrize("layout", WRITERS)
def test_pairs_come_with_their_truth(layout, tmp_path):
    write, pairs = WRITERS[layout]
    write(tmp_path)
    source = config_of(tmp_path, layout).build()
    batch = source.first(len(source))
    assert batch.image_1.shape[1:] == (3, *SHAPE)
    assert blues(batch) == pairs
    expected = truth(2 if layout in FLOW_LAYOUTS else 1)
    valid = expected.valid.clone()
    if layout == "eth3d_visible":
        valid[1:3] = False
    assert torch.equal(batch.valid, valid.expand(len(pairs), -1, -1))
    known = (expected.values * valid[..., None]).expand(len(pairs), -1, -1, -1)
    assert torch.equal(batch.target, known) or (
        layout == "tartanair_stereo" and torch.allclose(batch.target, known, rtol=1e-6)
    )


def test_ground_truth_of_eth3d_may_lie_beside_the_images(tmp_path):
    write_eth3d(tmp_path, ground_truth="training")
    assert blues(config_of(tmp_path, "eth3d").build().first(2)) == [(10, 11), (20, 21)]


def test_folders_are_chosen_and_left_out(tmp_path):
    write_sceneflow(tmp_path)
    test = config_of(tmp_path, "sceneflow_clean", only=("TEST",)).build()
    rest = config_of(tmp_path, "sceneflow_clean", without=("TEST",)).build()
    assert blues(test.first(1)) == [(50, 52)] and blues(rest.first(2)) == [(10, 12), (20, 22)]
    assert len(test) == 1 and len(rest) == 2
    both = config_of(tmp_path, "sceneflow_clean", only=("TEST", "a_rain"), without=("A",)).build()
    assert len(both) == 2
    with pytest.raises(ValueError, match=r"nothing in .*'sceneflow_clean', only \('TRAIN',\)"):
        config_of(tmp_path, "sceneflow_clean", only=("TRAIN",)).build()


def test_one_of_sceneflows_sets_can_be_the_root(tmp_path):
    write_sceneflow(tmp_path)
    assert len(config_of(tmp_path / "Monkaa", "sceneflow_flow_final").build()) == 2


def test_roots_may_be_relative(tmp_path, monkeypatch):
    write_chairs(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert len(config_of(".", "flying_chairs").build().first(3).valid) == 3


def test_the_split_of_the_chairs_must_be_there(tmp_path):
    write_chairs(tmp_path)
    (tmp_path / "chairs_split.txt").unlink()
    assert len(config_of(tmp_path, "flying_chairs").build()) == 3
    with pytest.raises(ValueError, match="cannot read .*chairs_split.txt"):
        config_of(tmp_path, "flying_chairs_train").build()


@pytest.mark.parametrize("layout", ["spring_flow", "spring_stereo"])
def test_spring_says_that_it_needs_h5py(layout, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(RuntimeError, match="pip install h5py"):
        config_of(tmp_path, layout).build()


def test_first_shows_the_whole_set(tmp_path):
    write_chairs(tmp_path, "1 1 1 1 1 1 1 1")
    source = config_of(tmp_path, "flying_chairs").build()
    assert blues(source.first(2)) == [(10, 11), (50, 51)]
    assert np.array_equal(source.preview(8), np.arange(8))
