"""Attention among patches of every encoder, and the number that says how much it differs."""

import pytest
import torch

from mimlib.data.images.configs import WorldImagesConfig
from mimlib.encoders.convvit import ConvViTConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.evaluation.attention import (
    AttentionDiversityConfig,
    attention_diversity,
    patch_attention,
)
from mimlib.tasks.depth import DepthTaskConfig

SHAPE = {"width": 32, "depth": 2, "heads": 2, "patch_size": 8, "image_size": 32}
ENCODERS = {
    "class token": ViTConfig(**SHAPE),
    "no class token": ViTConfig(**SHAPE, class_token=False),
    "rotary": ViTConfig(**SHAPE, class_token=False, rotary=True),
    "rotary, class token": ViTConfig(**SHAPE, rotary=True),
    "convvit": ConvViTConfig(
        widths=(8, 16, 32), depths=(1, 1, 2), heads=2, entries=(2, 2, 2), image_size=32
    ),
}


def draw_images(height=32, width=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("kind", ENCODERS)
def test_patches_of_every_encoder(kind):
    encoder = ENCODERS[kind].build().train()
    for sides in ((32, 32), (32, 48)):
        images = draw_images(*sides)
        attention = patch_attention(encoder, images)
        count = sides[0] * sides[1] // 64
        assert attention.shape == (3, count, count) and encoder.training
        sums = attention.sum(dim=2)
        if ENCODERS[kind].class_token:
            assert (sums < 1).all()
        else:
            torch.testing.assert_close(sums, torch.ones_like(sums))
        earlier = patch_attention(encoder, images, block=0)
        assert not torch.allclose(earlier, attention)
        torch.testing.assert_close(patch_attention(encoder, images[1:2]), attention[1:2])
        diversity = attention_diversity(attention)
        assert diversity.shape == (3,) and ((diversity > 0) & (diversity < 1)).all()


def test_diversity_of_extremes():
    alike = torch.rand(1, 1, 6).expand(2, 6, 6)
    torch.testing.assert_close(attention_diversity(alike), torch.zeros(2))
    itself = 0.3 * torch.eye(5)[None]  # what is left went to the class token
    torch.testing.assert_close(attention_diversity(itself), torch.ones(1))
    halves = torch.tensor([[[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5]]])
    torch.testing.assert_close(attention_diversity(halves), torch.tensor([0.5]))


def test_diversity_is_the_mean_over_pairs():
    generator = torch.Generator().manual_seed(1)
    attention = torch.rand(2, 7, 7, generator=generator, dtype=torch.float64)
    shares = attention / attention.sum(2, keepdim=True)
    for image, found in zip(shares, attention_diversity(attention)):
        overlaps = [
            float(torch.minimum(image[i], image[k]).sum()) for i in range(7) for k in range(i)
        ]
        assert float(found) == pytest.approx(1 - sum(overlaps) / len(overlaps), abs=1e-12)


def test_the_measurement():
    source = WorldImagesConfig(count=4, size=32)
    task = DepthTaskConfig(encoder=ENCODERS["class token"]).build()
    found = AttentionDiversityConfig(source=source, num_images=4).build().run(task, None)
    images = source.build().first(4).images
    expected = attention_diversity(patch_attention(task.encoder, images)).mean()
    assert found == {"diversity": pytest.approx(float(expected))}
    with pytest.raises(ValueError, match="num_images is 0"):
        AttentionDiversityConfig(source=source, num_images=0)


def test_an_encoder_without_attention_maps_says_so():
    with pytest.raises(ValueError, match="Linear has no `attention_maps`"):
        patch_attention(torch.nn.Linear(1, 1), draw_images())
