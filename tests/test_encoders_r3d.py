"""The residual network on clips: its sizes, its paddings, its levels."""

import pytest
import torch
from torch.nn import functional

from mimlib.encoders.r3d import R3DConfig
from mimlib.layers.convolution3d import ClipNorm, Conv3d, MaxPool3d, paddings
from mimlib.layers.masking import random_mask
from mimlib.weights import load_official, to_official

SMALL = {"widths": (4, 6), "depths": (2, 1), "kernels": (1, 3), "strides": (1, 2), "stem_width": 8}


def build(**changes):
    torch.manual_seed(0)
    return R3DConfig(**SMALL | changes).build()


def test_the_sizes_of_the_paper():
    with torch.device("meta"):
        encoder = R3DConfig().build().eval()
        features = encoder(torch.empty(1, 3, 16, 224, 224), levels=(0, 1, 2, 3))
    assert sum(p.numel() for p in encoder.parameters()) == 31_672_128
    assert sum(p.numel() for p in encoder.stages[-1].parameters()) == 20_207_616
    assert (encoder.stride, encoder.width, encoder.num_layers) == (32, 2048, 16)
    assert features.tokens.shape == (1, 8 * 49, 2048) and features.grid == (7, 7)
    assert [tuple(m.shape[1:]) for m in features.levels] == [
        (256, 8, 56, 56), (512, 8, 28, 28), (1024, 8, 14, 14), (2048, 8, 7, 7),
    ]  # fmt: skip


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("size", [(8, 32, 32), (7, 21, 33), (1, 5, 8)])
def test_features_at_every_size(size, padding):
    encoder = build(padding=padding).eval()
    features = encoder(torch.randn(2, 3, *size), levels=(0, 1, -1))
    frames, h, w = -(-size[0] // 2), -(-size[1] // 8), -(-size[2] // 8)
    assert features.grid == (h, w) and features.class_token is None
    assert features.tokens.shape == (2, frames * h * w, 24)
    one, two, last = features.levels
    assert one.shape == (2, 16, frames, -(-size[1] // 4), -(-size[2] // 4))
    assert torch.equal(two, last)
    assert torch.equal(last.flatten(2).transpose(1, 2), features.tokens)


@pytest.mark.parametrize("n,kernel,stride,expected", [
    (224, 7, 2, (2, 3)), (16, 5, 2, (1, 2)), (56, 3, 2, (0, 1)), (45, 7, 2, (3, 3)),
    (7, 5, 2, (2, 2)), (9, 3, 1, (1, 1)), (8, 1, 2, (0, 0)), (2, 5, 4, (1, 2)),
])  # fmt: skip
def test_paddings_of_tensorflow(n, kernel, stride, expected):
    assert paddings(n, kernel, stride, "same") == expected
    assert paddings(n, kernel, stride, "symmetric") == (kernel // 2, kernel // 2)


def test_a_padded_convolution_is_a_sum_over_what_is_there():
    """The first output of an even row at stride 2 looks at positions 0 to k - p, no further."""
    kernel, stride = (1, 1, 5), (1, 1, 2)
    conv = Conv3d(1, 1, kernel, stride)
    row = torch.randn(8)
    padded = torch.cat([torch.zeros(1), row, torch.zeros(2)])
    expected = torch.stack(
        [(padded[i : i + 5] * conv.weight.flatten()).sum() for i in (0, 2, 4, 6)]
    )
    torch.testing.assert_close(conv(row[None, None, None, None]).flatten(), expected)
    pooled = MaxPool3d(kernel, stride)(-1 - row.abs()[None, None, None, None]).flatten()
    filled = functional.pad(-1 - row.abs(), (1, 2), value=-torch.inf)
    assert torch.equal(pooled, torch.stack([filled[i : i + 5].max() for i in (0, 2, 4, 6)]))


def test_paddings_differ_only_where_strides_are():
    clips = torch.randn(1, 3, 5, 9, 13)  # odd sides, and odd ones after every halving but the last
    same, symmetric = build().eval(), build(padding="symmetric").eval()
    for ours, theirs, equal in zip(
        same(clips, levels=(0, 1)).levels, symmetric(clips, levels=(0, 1)).levels, (True, False)
    ):
        assert torch.allclose(ours, theirs, atol=1e-6) is equal


def test_convolutions_begin_as_official():
    weight = Conv3d(64, 512, (3, 1, 1)).weight
    assert weight.std().item() == pytest.approx((3 * 64) ** -0.5, rel=0.02)
    assert weight.abs().max() <= 2 * (3 * 64) ** -0.5 / 0.8796
    norm = ClipNorm(3)
    assert (norm.eps, norm.momentum) == (1e-5, 0.1)


def test_every_parameter_has_a_depth_and_learns():
    encoder = build()
    found = {encoder.layer_of(name) for name, _ in encoder.named_parameters()}
    assert found == set(range(encoder.num_layers + 1))
    assert encoder.layer_of("stages.1.0.norm1.weight") == 3
    encoder(torch.randn(2, 3, 4, 16, 16)).tokens.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_without_pool_the_grid_is_twice_as_fine():
    encoder = build(pool=False, stem_stride=(1, 1), stem_kernel=(3, 3))
    features = encoder(torch.randn(1, 3, 3, 12, 16))
    assert encoder.stride == 2 and features.grid == (6, 8)
    assert features.tokens.shape[1] == 3 * 48


def test_weights_go_there_and_back():
    encoder, other = build(), build()
    with torch.no_grad():
        for tensor in encoder.state_dict().values():
            tensor.copy_(torch.rand_like(tensor.float()))
    published = to_official(encoder)
    assert published["backbone/_stem_conv/kernel"].shape == (5, 7, 7, 3, 8)
    assert published["backbone/_blocks/res_3/cell_0/_norm0/moving_variance"].shape == (24,)
    beside = {"backbone/_res_5_1_layers/cell_0/_norm1/gamma": torch.ones(6)}
    assert list(load_official(other, published | beside)) == ["local_stage.0.norm1.weight"]
    for name, tensor in other.state_dict().items():
        assert name.endswith("num_batches_tracked") or torch.equal(
            tensor, encoder.state_dict()[name]
        )
    del published["backbone/_stem_bn/gamma"]
    with pytest.raises(ValueError, match="1 missing: stem_norm.weight"):
        load_official(other, published)


def test_masks_and_unknown_stages_are_refused():
    encoder, clips = build(), torch.randn(1, 3, 4, 16, 16)
    with pytest.raises(ValueError, match="R3D convolves whole clips; encode without a mask"):
        encoder(clips, random_mask(1, 4, 2, torch.Generator()))
    with pytest.raises(ValueError, match="expected 0 to 1, or -1 for the last"):
        encoder(clips, levels=(2,))


@pytest.mark.parametrize("changes,message", [
    ({"depths": (1,)}, r"widths \(4, 6\), depths \(1,\), .* must name each stage once"),
    ({"kernels": (1, 2)}, r"kernels \(1, 2\) .* hold 2, which has no middle; choose odd numbers"),
    ({"stem_kernel": (5, 4)}, "hold 4, which has no middle"),
    ({"strides": (0, 2)}, r"strides is \(0, 2\); expected 0 < strides"),
])  # fmt: skip
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)
