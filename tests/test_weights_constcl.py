"""Names of published ConST-CL checkpoints; those of the whole model are in golden/."""

import pytest
import torch
from test_methods_constcl import TINY, build

from mimlib.weights import load_encoder, load_official, load_pretrained, to_official
from mimlib.weights.constcl import SUFFIX, counters, our_names


def drawn(method):
    """The method with other weights and statistics."""
    with torch.no_grad():
        for tensor in method.state_dict().values():
            tensor.copy_(torch.rand_like(tensor.float()))
    return method


def equal(first, second):
    skipped = set(counters(first))
    first, second = first.state_dict(), second.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first.keys() - skipped)


@pytest.mark.parametrize("name", ["constcl", "shared", "cvrl", "no context"])
def test_there_and_back(name):
    method, other = drawn(build(name)), build(name)
    published = to_official(method)
    assert not equal(method, other)
    assert load_official(other, {f"{n}{SUFFIX}": t for n, t in published.items()}) == {}
    assert equal(method, other)
    assert our_names(published).keys() == set(method.state_dict()) - set(counters(method))


def test_kernels_are_turned():
    method = build()
    published = to_official(method)
    name = "model/layer_with_weights-2/_attention_decoder/_layers/0/_mha_units/1/layer_k/kernel"
    assert torch.equal(published[name], method.decoder.layers[0].units[1].k.weight.T)
    kernel = published["backbone/_blocks/res_3/cell_0/_temporal_conv/kernel"]
    assert kernel.shape == (3, 1, 1, 16, 6)
    assert torch.equal(
        kernel[2, 0, 0, 5, 4], method.encoder.stages[1][0].temporal_conv.weight[4, 5, 2, 0, 0]
    )


def test_an_encoder_takes_the_global_branch(tmp_path):
    method, encoder = drawn(build()), TINY["encoder"].build()
    unused = load_official(encoder, to_official(method))
    assert {n.partition(".")[0] for n in unused} == {"local_stage", "global_head", "decoder"}
    assert equal(method.encoder, encoder)
    torch.save({"model": method.state_dict()}, tmp_path / "ours.pt")
    torch.save(to_official(method), tmp_path / "published.pt")
    for path in ("ours.pt", "published.pt"):
        encoder, other = TINY["encoder"].build(), build()
        load_encoder(encoder, tmp_path / path)
        load_pretrained(other, tmp_path / path)
        assert equal(method.encoder, encoder) and equal(method.encoder, other.encoder)
        assert not equal(method, other)


def test_what_does_not_fit_is_named():
    published = to_official(build())
    del published["model/layer_with_weights-2/_projection_layer/bias"]
    with pytest.raises(ValueError, match="1 missing: decoder.projection.bias"):
        load_official(build(), published)
    with pytest.raises(ValueError, match="unexpected: local_stage"):
        load_official(build("shared"), to_official(build()))
