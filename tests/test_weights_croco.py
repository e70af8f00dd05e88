"""Published CroCo files: names, shapes, both directions, and the parts that tasks keep."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mimlib.decoders.pair import PairDecoderConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.methods.croco import CroCoConfig
from mimlib.weights import load_decoder, load_encoder, load_official, load_pretrained, to_official
from mimlib.weights.croco import official_croco_config

GOLDEN = Path(__file__).parent / "golden"
DECODER = PairDecoderConfig(width=16, depth=2, heads=2)
BASE_DECODER = {"dec_embed_dim": 768, "dec_depth": 12, "dec_num_heads": 12}
LARGE = {"enc_embed_dim": 1024, "enc_depth": 24, "enc_num_heads": 16}
ROTARY = {"pos_embed": "RoPE100"}
PUBLISHED = {
    "v1": None,
    "v2_base_small": ROTARY,
    "v2_base_base": ROTARY | BASE_DECODER,
    "v2_large_base": ROTARY | BASE_DECODER | LARGE,
}


def configure(rotary=False, image_size=32):
    encoder = ViTConfig(
        width=24, depth=2, heads=3, patch_size=8, image_size=image_size,
        class_token=False, rotary=rotary,
    )  # fmt: skip
    return CroCoConfig(encoder=encoder, decoder=DECODER)


def assert_same(state, other):
    assert set(state) == set(other)
    assert all(torch.equal(state[name], other[name]) for name in state)


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_are_the_published_ones(name):
    published = json.loads((GOLDEN / f"keys_croco_{name}.json").read_text())
    with torch.device("meta"):
        model = official_croco_config(PUBLISHED[name]).build()
    assert {n: list(t.shape) for n, t in to_official(model).items()} == published


def test_a_file_without_a_description_is_the_first_version():
    config = official_croco_config()
    assert not config.encoder.rotary and config.num_masked == 176
    assert (config.encoder.width, config.decoder.width, config.decoder.depth) == (768, 512, 8)


@pytest.mark.parametrize("kwargs,message", [
    ({"pos_embed": "RoPEx"}, "pos_embed='RoPEx'; .* 'cosine', or 'RoPE100' with any"),
    ({"depth": 3}, "depth=3; this CroCo has img_size"),
])  # fmt: skip
def test_what_this_croco_does_not_have_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        official_croco_config(kwargs)


@pytest.mark.parametrize("rotary", [False, True])
def test_a_whole_model_goes_there_and_back(rotary):
    ours, other = configure(rotary).build(), configure(rotary).build()
    official = to_official(ours)
    assert load_official(other, {"model": official, "croco_kwargs": {}}) == {}
    assert_same(ours.state_dict(), other.state_dict())
    assert ("enc_pos_embed" in official) != rotary


def test_a_wrong_version_is_refused():
    sincos, rotary = configure().build(), configure(rotary=True).build()
    with pytest.raises(ValueError, match="2 missing: encoder.pos_embed, decoder.pos_embed"):
        load_official(sincos, to_official(rotary))
    with pytest.raises(ValueError, match="2 unexpected: encoder.pos_embed, decoder.pos_embed"):
        load_official(rotary, to_official(sincos))


def files(model, folder):
    """The kinds of file that hold a CroCo."""
    torch.save({"step": 3, "model": model.state_dict(), "config": {}}, folder / "a.pt")
    save_file(model.state_dict(), folder / "b.safetensors")
    torch.save({"model": to_official(model), "croco_kwargs": {}}, folder / "c.pth")
    return [folder / name for name in ("a.pt", "b.safetensors", "c.pth")]


@pytest.mark.parametrize("rotary", [False, True])
def test_encoder_and_decoder_are_loaded_apart(tmp_path, rotary):
    model, config = configure(rotary).build(), configure(rotary)
    for path in files(model, tmp_path):
        encoder, decoder = config.encoder.build(), config.decoder.build(config.encoder)
        load_encoder(encoder, path)
        load_decoder(decoder, path)
        assert_same(encoder.state_dict(), model.encoder.state_dict())
        assert_same(decoder.state_dict(), model.decoder.state_dict())
    encoder = config.encoder.build()
    unused = load_official(encoder, to_official(model))
    assert_same(encoder.state_dict(), model.encoder.state_dict())
    assert {n.partition(".")[0] for n in unused} == {"mask_token", "decoder", "decoder_pred"}


def test_a_method_takes_the_decoder_where_there_is_one(tmp_path):
    model, other = configure().build(), configure().build()
    save_file(model.encoder.state_dict(), tmp_path / "e.safetensors")
    before = {n: t.clone() for n, t in other.decoder.state_dict().items()}
    load_pretrained(other, tmp_path / "e.safetensors")
    assert_same(other.encoder.state_dict(), model.encoder.state_dict())
    assert_same(other.decoder.state_dict(), before)
    load_pretrained(other, files(model, tmp_path)[0])
    assert_same(other.decoder.state_dict(), model.decoder.state_dict())


def test_tables_are_resized_for_another_image_size(tmp_path):
    path = files(configure().build(), tmp_path)[2]
    config = configure(image_size=48)
    encoder, decoder = config.encoder.build(), config.decoder.build(config.encoder)
    load_encoder(encoder, path)
    load_decoder(decoder, path)
    assert encoder.pos_embed.shape == (1, 36, 24) and decoder.pos_embed.shape == (1, 36, 16)
    small = configure().decoder.build(configure().encoder)
    load_decoder(small, path)
    tokens = torch.randn(2, 1, 36, 16)
    here, there = decoder(*tokens, (6, 6)).tokens, small(*tokens, (6, 6)).tokens
    torch.testing.assert_close(here, there)


def test_a_file_without_a_decoder_is_refused_by_name(tmp_path):
    model = configure().build()
    save_file(model.encoder.state_dict(), tmp_path / "e.safetensors")
    with pytest.raises(ValueError, match=r"e\.safetensors do not fit PairDecoder:\n  .* missing"):
        load_decoder(model.decoder, tmp_path / "e.safetensors")
