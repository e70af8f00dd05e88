"""On a CUDA device: presets train in bfloat16, and ConvMAE's cells are its maps there, too."""

import math

import convmae_dense
import pytest
import torch
from method_cases import CASES

from mimlib.layers.masking import as_bool, random_mask
from mimlib.layers.patches import patchify
from mimlib.presets import PRESETS, preset
from mimlib.presets.run import override
from mimlib.runs.launch import launch

NO_CUDA = not torch.cuda.is_available()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(NO_CUDA, reason="no CUDA device")]
CUDA = "cuda"
SMALL = [name for name in PRESETS if name.endswith("_tiny")]


@pytest.mark.parametrize("name", SMALL)
def test_every_tiny_preset_trains_and_is_measured(name, tmp_path):
    changes = {"steps": 2, "warmup_steps": 0, "device": CUDA, "precision": "bfloat16"}
    run = override(preset(name), {f"train.{field}": value for field, value in changes.items()})
    summary = launch(run, tmp_path, progress=False).summary
    assert summary.step == 2 and math.isfinite(summary.loss)
    measured = {k: v for line in summary.history for k, v in line.items() if "/" in k}
    assert all(map(math.isfinite, measured.values()))


def test_convmae_computes_for_visible_cells_what_is_computed_everywhere():
    model = CASES["convmae"].build().to(CUDA)
    encoder, grid = model.encoder, (4, 4)
    images = torch.randn(4, 3, 32, 32, device=CUDA)
    mask = random_mask(4, 16, 12, torch.Generator(CUDA).manual_seed(0))
    patches = patchify(images, encoder.stride)
    keep = (~as_bool(mask)).float().unflatten(1, grid)[:, None]
    found = encoder.stages(patches, grid, mask)
    dense = convmae_dense.stages(encoder, images, keep, mask)
    for ours, whole in zip(found, dense):
        torch.testing.assert_close(ours, whole, rtol=1e-4, atol=1e-5)
    trained = list(encoder.blocks1.parameters())
    slopes = [torch.autograd.grad(out[-1].square().sum(), trained) for out in (found, dense)]
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-4)
    torn = torch.where(keep.repeat_interleave(8, 2).repeat_interleave(8, 3) > 0, images, -images)
    with torch.autocast(CUDA, dtype=torch.bfloat16):
        before = encoder.stages(patches, grid, mask)[-1]
        after = encoder.stages(patchify(torn, encoder.stride), grid, mask)[-1]
    assert torch.equal(before, after), "hidden pixels change nothing, by exactly 0.0"
