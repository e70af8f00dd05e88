"""The DPT head: which blocks it reads, sizes, counts of the released models, what moves what."""

import pytest
import torch

from mimlib.tasks.heads.dpt import DPTHead, default_hooks
from mimlib.weights.dpt import load_official_head, official_name

UNUSED_UNIT = 2 * (256 * 256 * 9 + 256)  # parameters of the unit that only the official code makes


@pytest.mark.parametrize(
    ("depths", "hooks"),
    [
        ((12, 8), (10, 13, 16, 19)),
        ((12, 12), (11, 15, 19, 23)),
        ((24, 12), (23, 27, 31, 35)),
        ((12, 0), (2, 5, 8, 11)),
        ((4, 2), (2, 3, 4, 5)),
    ],
)
def test_hooks_are_those_of_the_released_models(depths, hooks):
    assert default_hooks(*depths) == hooks


@pytest.mark.parametrize("depths", [(1, 2), (3, 0), (1, 12)])
def test_networks_too_shallow_are_refused(depths):
    if depths == (1, 12):
        assert default_hooks(*depths) == (0, 4, 8, 12)
        return
    with pytest.raises(ValueError, match="too few for a DPT head"):
        default_hooks(*depths)


@pytest.mark.parametrize(
    ("widths", "millions"), [((768, 512, 512, 512), 19.7), ((1024, 768, 768, 768), 20.1)]
)
def test_the_head_is_as_large_as_the_official_one(widths, millions):
    with torch.device("meta"):
        head = DPTHead(widths, num_outputs=3)
    count = sum(parameter.numel() for parameter in head.parameters()) + UNUSED_UNIT
    assert count / 1e6 == pytest.approx(millions, abs=0.06)


def small(patch_grid=(3, 5), seed=0, **changes):
    torch.manual_seed(seed)
    head = DPTHead((6, 6, 4, 4), 3, **{"scale_widths": (4, 6, 8, 10), "width": 8, **changes})
    return head, [torch.randn(2, d, *patch_grid) for d in (6, 6, 4, 4)]


@pytest.mark.parametrize("patch", [4, 8, 16])
@pytest.mark.parametrize("grid", [(2, 4), (3, 5), (1, 1)])
def test_every_pixel_gets_its_numbers_at_any_patch_and_grid(patch, grid):
    head, maps = small(grid)
    size = (patch * grid[0], patch * grid[1])
    assert head(maps, size).shape == (2, 3, *size)


def test_every_parameter_is_used():
    head, maps = small()
    head(maps, (48, 80)).square().sum().backward()
    silent = [n for n, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not silent


def test_every_map_matters_and_stays_in_its_place():
    head, maps = small((24, 24))
    before = head(maps, (384, 384))
    for scale in range(4):
        changed = [m.clone() for m in maps]
        changed[scale][:, :, 0, 0] += 5
        change = (head(changed, (384, 384)) - before).abs().amax((0, 1))
        assert change[:16, :16].max() > 0
        assert change[320:, 320:].max() < 1e-6 < change.max()


def test_official_names_lead_there_and_back():
    head, maps = small()
    other, _ = small(seed=1)
    state = {official_name(name): tensor for name, tensor in head.state_dict().items()}
    assert "scratch.refinenet4.resConfUnit2.conv1.weight" in state
    assert {"act_postprocess.0.1.bias", "head.4.bias", "scratch.layer_rn.3.weight"} <= set(state)
    assert "scratch.refinenet4.resConfUnit1.conv1.weight" not in state
    load_official_head(other, {**state, "act_1_postprocess.0.bias": torch.zeros(4)})
    assert torch.equal(other(maps, (48, 80)), head(maps, (48, 80)))
    with pytest.raises(ValueError, match="no parameter of a DPT head"):
        official_name("blocks.0.norm1.weight")
    del state["head.4.bias"]
    with pytest.raises(ValueError, match="lacks head.4.bias"):
        load_official_head(other, state)


def test_other_numbers_of_maps_are_refused():
    with pytest.raises(ValueError, match="fuses 4 maps; got 3 token widths"):
        DPTHead((6, 6, 4), 1)
