"""Windows: tokens see those of their window alone, with a bias for where they are."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mimlib import weights
from mimlib.encoders.convvit import ConvViTConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.layers import attention as attention_file
from mimlib.layers import windows
from mimlib.layers.attention import Attention, Sight
from mimlib.layers.masking import random_mask
from mimlib.layers.windows import RelativeBias, Window, Windows

VIT = ViTConfig(width=16, depth=3, heads=2, patch_size=4, image_size=32, class_token=False)
CONV = ConvViTConfig(
    widths=(8, 8, 16), depths=(1, 1, 3), heads=2, entries=(2, 2, 1), image_size=32, kernel=3
)  # fmt: skip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def filled(bias):
    torch.nn.init.normal_(bias.table, generator=generator())
    return bias


@pytest.mark.parametrize("grid", [(4, 4), (3, 4), (2, 1)])
def test_the_bias_depends_on_the_displacement_alone(grid):
    bias = filled(RelativeBias(2, 4))
    laid_out = bias(grid)
    places = [(r, c) for r in range(grid[0]) for c in range(grid[1])]
    for q, (r, c) in enumerate(places):
        for k, (i, j) in enumerate(places):
            assert torch.equal(laid_out[:, q, k], bias.table[:, r - i + 3, c - j + 3])
    laid_out.sum().backward()
    counts = torch.zeros(7, 7)
    for r, c in places:
        for i, j in places:
            counts[r - i + 3, c - j + 3] += 1
    assert torch.equal(bias.table.grad, counts.expand(2, -1, -1))


def test_a_larger_grid_than_the_table_is_refused():
    with pytest.raises(ValueError, match="4 x 5 cells is larger than the 4 x 4"):
        RelativeBias(2, 4)((4, 5))


def test_windowed_attention_is_attention_in_each_window():
    attention, bias = Attention(16, 2), filled(RelativeBias(2, 2))
    tokens = torch.randn(3, 4 * 6, 16, generator=generator())
    window = Window(2, (4, 6), bias((2, 2)))
    result = attention.attend(attention.project(tokens), Sight(window=window))
    maps, expected = tokens.view(3, 4, 6, 16), torch.empty(3, 4, 6, 16)
    for row in (0, 2):
        for column in (0, 2, 4):
            part = maps[:, row : row + 2, column : column + 2].reshape(3, 4, 16)
            heads = attention.project(part)[0].unflatten(-1, (2, 8))  # [3, 4, 3, A, d]
            queries, keys, values = heads.permute(2, 0, 3, 1, 4)
            likeness = queries @ keys.transpose(2, 3) * 8**-0.5 + bias((2, 2))
            gathered = (likeness.softmax(-1) @ values).transpose(1, 2).reshape(3, 4, 16)
            expected[:, row : row + 2, column : column + 2] = attention.proj(gathered).view(
                3, 2, 2, 16
            )
    torch.testing.assert_close(result, expected.view(3, 24, 16))


def test_fused_attention_takes_the_bias_too(monkeypatch):
    """As on a GPU; a CPU, where a bias has no kernel, gathers step by step."""
    attention, bias = Attention(16, 2), filled(RelativeBias(2, 14))
    tokens = torch.randn(1, 14 * 14, 16, generator=generator())
    window = Window(0, (14, 14), bias((14, 14)))
    eager = attention.attend(attention.project(tokens), Sight(window=window))
    monkeypatch.setattr("mimlib.layers.attention._prefer_eager", lambda *heads: False)
    fused = attention.attend(attention.project(tokens), Sight(window=window))
    torch.testing.assert_close(fused, eager, rtol=1e-4, atol=1e-5)


def test_large_grids_are_gathered_in_strips(monkeypatch):
    """The same numbers and gradients, and never a tensor of all pairs of cells."""
    grid, heads = (5, 3), 2
    attention, bias = Attention(8, heads).double(), RelativeBias(heads, 6).double()
    torch.nn.init.normal_(bias.table, generator=generator())
    tokens = torch.randn(2, 15, 8, dtype=torch.float64, generator=generator()).requires_grad_()
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            pairs = isinstance(out, torch.Tensor) and out.ndim > 2 and out.shape[-1] == 15
            largest = max(largest, out.shape[-2] if pairs else 0)
            return out

    def run(bias):
        attention.zero_grad()
        inputs = [tokens, table, *attention.parameters()]
        out = attention(tokens, sight=Sight(window=Window(0, grid, bias)))
        return out, *torch.autograd.grad(out.sin().sum(), inputs)

    table = bias.table
    whole = run(bias(grid))
    monkeypatch.setattr(windows, "STRIP_TOKENS", 6)
    monkeypatch.setattr(attention_file, "STRIP_TOKENS", 6)  # two rows of the grid
    with Watch():
        strips = run(bias)
    for found, expected in zip(strips, whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert largest == 6
    made = Windows(grid, heads, 2, 1, (1,))(grid)[1]
    assert isinstance(made.bias, RelativeBias), "15 cells are more than a strip"


@pytest.mark.parametrize("config", [VIT, CONV], ids=["ViT", "ConvViT"])
def test_one_window_over_the_whole_grid_changes_nothing(config):
    encoder = config.build().eval()
    images = torch.randn(2, 3, 32, 32, generator=generator())
    before = encoder(images, levels=(2,)).levels[0]
    encoder.attend_in_windows(8, (1,))
    torch.testing.assert_close(encoder(images, levels=(2,)).levels[0], before)


@pytest.mark.parametrize("config", [VIT, CONV], ids=["ViT", "ConvViT"])
@pytest.mark.parametrize("global_blocks", [(), (1,)])
def test_only_global_blocks_see_other_windows(config, global_blocks):
    """A change in one corner reaches the other through a block that attends everywhere."""
    encoder = config.build().eval()
    encoder.attend_in_windows(4, global_blocks)
    images = torch.randn(1, 3, 32, 32, generator=generator())
    changed = images.clone()
    changed[..., :8, :8] += 5
    one, other = (encoder(each, levels=(2,)).levels[0] for each in (images, changed))
    assert not torch.equal(one[..., :4, :4], other[..., :4, :4])
    assert torch.equal(one[..., 4:, 4:], other[..., 4:, 4:]) == (not global_blocks)


def test_every_table_learns_and_has_the_full_rate():
    for config in (VIT, CONV):
        encoder = config.build()
        encoder.attend_in_windows(4, (0, 2))
        encoder(torch.randn(2, 3, 32, 32, generator=generator())).tokens.square().sum().backward()
        tables = {n: p for n, p in encoder.named_parameters() if n.startswith("windows.")}
        assert set(tables) == {"windows.window_bias.table", "windows.global_bias.table"}
        assert all(table.grad.abs().sum() > 0 for table in tables.values())
        assert all(encoder.layer_of(name) == encoder.num_layers + 1 for name in tables)
        assert tables["windows.window_bias.table"].shape == (2, 7, 7)
        assert tables["windows.global_bias.table"].shape == (2, 15, 15)


@pytest.mark.parametrize("side,blocks,message", [
    (3, (), "windows of 3 cells do not fill a grid of 8 x 8"),
    (4, (3,), "must be some of the blocks 0 ... 2"),
    (4, (0, 1, 2), "but not all"),
])  # fmt: skip
def test_windows_that_do_not_fit_are_refused(side, blocks, message):
    with pytest.raises(ValueError, match=message):
        Windows((8, 8), 2, 3, side, blocks)


def test_windows_need_whole_images_and_no_class_token():
    encoder = ViTConfig(width=16, depth=1, heads=2, patch_size=4, image_size=32).build()
    with pytest.raises(ValueError, match="without a class token"):
        encoder.attend_in_windows(4, ())
    for config in (VIT, CONV):
        encoder = config.build()
        encoder.attend_in_windows(4, ())
        with pytest.raises(ValueError, match="windows of 4 cells do not fill a grid of 8 x 6"):
            encoder(torch.zeros(1, 3, 32, 24))
        with pytest.raises(ValueError, match="attend in windows"):
            encoder.attention_maps(torch.zeros(1, 3, 32, 32))
        mask = random_mask(1, 64, 48, generator())
        with pytest.raises(ValueError, match="encode without a mask"):
            encoder(torch.zeros(1, 3, 32, 32), mask)


@pytest.mark.parametrize("class_token", [False, True])
def test_pretrained_weights_fit_and_a_class_token_is_left_out(tmp_path, class_token):
    config = ViTConfig(
        width=16, depth=3, heads=2, patch_size=4, image_size=16, class_token=class_token
    )  # fmt: skip
    stored = config.build()
    torch.save({f"encoder.{n}": t for n, t in stored.state_dict().items()}, tmp_path / "mae.pt")
    encoder = VIT.build()
    encoder.attend_in_windows(4, (1,))
    weights.load_encoder(encoder, tmp_path / "mae.pt")
    assert torch.equal(encoder.blocks[1].attn.qkv.weight, stored.blocks[1].attn.qkv.weight)
    patches = stored.pos_embed[:, int(class_token) :]
    assert torch.equal(encoder.pos_embed, encoder.fit_positions(patches))
