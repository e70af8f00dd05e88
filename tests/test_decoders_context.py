"""The context decoder: what its queries see, and what they do not."""

import pytest
import torch

from mimlib.decoders.context import ContextDecoderConfig, Layer, Unit, context_frames

WIDTH = 12
SMALL = {"frames": 3, "width": 8, "depth": 2, "units": 2}


def build(**changes):
    torch.manual_seed(0)
    decoder = ContextDecoderConfig(**SMALL | changes).build(WIDTH)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return decoder


@pytest.fixture
def decoder():
    return build()


def draw(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_parameters_of_the_published_decoder():
    with torch.device("meta"):
        decoder = ContextDecoderConfig().build(2048)

    def count(part):
        return sum(p.numel() for p in part.parameters())

    assert [count(layer) for layer in decoder.layers] == [2_472_576, 1_833_600, 1_833_600]
    codes = count(decoder.temporal_code) + count(decoder.spatial_code)
    assert (count(decoder.projection), codes) == (788_480, 100)
    assert count(decoder) == 6_928_356


@pytest.mark.parametrize("length,expected", [
    (1, [4]), (3, [2, 4, 6]), (5, [2, 3, 4, 5, 6]), (7, [1, 2, 3, 4, 5, 6, 7]), (9, [4] * 9),
])  # fmt: skip
def test_frames_of_the_context(length, expected):
    assert context_frames(8, length) == expected


def test_a_unit_by_its_formula():
    torch.manual_seed(0)
    unit = Unit(5, 7, 4)
    queries, memory = draw(2, 3, 5), draw(2, 6, 7)
    q, k, v = unit.q(queries), unit.k(memory), unit.v(memory)
    weights = (q @ k.mT / 4**0.5).softmax(dim=-1)
    expected = unit.fc2(torch.nn.functional.gelu(unit.fc1(unit.norm(q + weights @ v))))
    torch.testing.assert_close(unit(queries, memory), expected)
    torch.testing.assert_close(unit.weigh(queries, memory), weights)
    layer = Layer(5, 7, 4, 2)
    both = torch.cat([each(queries, memory) for each in layer.units], dim=-1)
    assert torch.equal(layer(queries, memory), both)


def test_the_memory_is_the_context_with_its_positions(decoder):
    maps = draw(2, WIDTH, 8, 4, 5)
    memory = decoder.remember(maps)
    assert memory.shape == (2, 3 * 20, WIDTH + 16)
    tokens = memory.unflatten(1, (3, 4, 5))
    for place, frame in enumerate((2, 4, 6)):
        assert torch.equal(tokens[:, place, ..., :WIDTH].movedim(-1, 1), maps[:, :, frame])
    code = tokens[0, ..., WIDTH:]
    assert torch.equal(code, tokens[1, ..., WIDTH:])
    assert torch.equal(code[0, 0, 0, :8], code[0, 3, 4, :8])  # of the frame alone
    assert torch.equal(code[0, 1, 2, 8:], code[2, 1, 2, 8:])  # of row and column alone
    assert not torch.equal(code[0, 1, 2, 8:], code[0, 2, 1, 8:])
    parts = ((decoder.temporal_code, 1), (decoder.spatial_code, 2))
    # As many rows as there are positions: of one row alone a product may round otherwise.
    zeros = (torch.zeros(1, 3, 5, coordinates) for _, coordinates in parts)
    middle = [mlp[1](mlp[0](zero).relu())[0, 1, 2] for (mlp, _), zero in zip(parts, zeros)]
    assert torch.equal(decoder.encode_positions(torch.empty(1, 3, 5))[0, 1, 2], torch.cat(middle))


def test_regions_do_not_know_of_each_other(decoder):
    regions, memory = draw(2, 5, WIDTH), decoder.remember(draw(2, WIDTH, 6, 3, 3))
    found = decoder(regions, memory)
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(decoder(regions[:, order], memory), found[:, order])
    changed = regions.clone()
    changed[:, 0] += 1
    assert torch.equal(decoder(changed, memory)[:, 1:], found[:, 1:])


def test_the_order_of_the_memory_is_in_its_positions(decoder):
    regions, memory = draw(2, 5, WIDTH), decoder.remember(draw(2, WIDTH, 6, 3, 3))
    found = decoder(regions, memory)
    torch.testing.assert_close(decoder(regions, memory.flip(1)), found)
    mixed = torch.cat([memory[..., :WIDTH].flip(1), memory[..., WIDTH:]], dim=-1)
    assert (decoder(regions, mixed) - found).abs().max() > 1e-3


def test_attention_maps_are_of_the_layer_that_is_asked(decoder):
    regions, memory = draw(2, 5, WIDTH), decoder.remember(draw(2, WIDTH, 6, 3, 3))
    last = decoder.attention_maps(regions, memory)
    assert last.shape == (2, 2, 5, 27)
    torch.testing.assert_close(last.sum(dim=-1), torch.ones(2, 2, 5))
    hidden = decoder.layers[0](regions, memory)
    assert torch.equal(last[:, 1], decoder.layers[1].units[1].weigh(hidden, memory))
    first = decoder.attention_maps(regions, memory, 0)
    assert torch.equal(first[:, 0], decoder.layers[0].units[0].weigh(regions, memory))


def test_without_context_a_region_is_mapped_by_itself():
    decoder = build(frames=0)
    assert decoder.remember(draw(2, WIDTH, 6, 3, 3)) is None
    assert not [n for n, _ in decoder.named_parameters() if ".k." in n or "code" in n]
    regions = draw(2, 5, WIDTH)
    decoder(regions, None).sum().backward()
    assert all(p.grad is not None for p in decoder.parameters())
    unit = decoder.layers[0].units[0]
    expected = unit.fc2(torch.nn.functional.gelu(unit.fc1(unit.norm(unit.q(regions)))))
    torch.testing.assert_close(unit(regions, None), expected)


@pytest.mark.parametrize("changes,message", [
    ({"frames": 4}, "frames is 4, which has no middle; choose an odd number, or 0"),
    ({"frames": -1}, "frames is -1; expected 0 <= frames"),
    ({"units": 0}, "units is 0; expected 0 < units"),
])  # fmt: skip
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ContextDecoderConfig(**SMALL | changes)
