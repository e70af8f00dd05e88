"""A GPU renders what the CPU does, up to rounding; results stay on the device."""

import pytest
import torch

from mimlib import world

TRUTH = ("image", "depth", "normals", "instances", "boxes", "keypoints", "camera")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def agree(here, there):
    """Rays that graze an edge may go either way; everything else is rounding."""
    assert here.keys() == there.keys()
    for name, expected in here.items():
        found = there[name].cpu()
        assert found.shape == expected.shape and found.dtype == expected.dtype, name
        difference = (found.double() - expected.double()).abs()
        limit = 2.5 if expected.dtype == torch.uint8 else 5e-3
        assert (difference > limit).double().mean() < 5e-3, name


def make_all(device):
    return {
        "views": world.views(64, 32, truth=TRUTH, cache=False, device=device),
        "pairs": world.pairs(
            32, 32, truth=("image", "flow", "covisible"), cache=False, device=device
        ),
        "clips": world.clips(
            4, 3, 32, truth=("image", "tracks", "flow"), cache=False, device=device
        ),
    }


@gpu
@pytest.mark.gpu
def test_cpu_and_gpu_agree():
    device = torch.device("cuda")
    here, there = make_all(None), make_all(device)
    for name in here:
        assert all(tensor.device.type == "cuda" for tensor in there[name].values())
        agree(here[name], there[name])


def test_a_device_that_is_named_gets_large_chunks_of_the_same():
    """The CPU in the part of a device: other chunks, the same pictures, and no cache."""
    here, there = make_all(None), make_all(torch.device("cpu"))
    for name in here:
        agree(here[name], there[name])


def test_a_device_leaves_the_cache_alone(monkeypatch, tmp_path):
    world.default_atlas()
    monkeypatch.setenv("MIMLIB_CACHE", str(tmp_path / "cache"))
    world.views(1, 8, device=torch.device("cpu"))
    assert not (tmp_path / "cache").exists()
