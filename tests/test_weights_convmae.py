"""Published ConvMAE files: names, shapes, both directions, and what the released one lacks."""

import json
from pathlib import Path

import pytest
import torch
from method_cases import convmae
from safetensors.torch import save_file

from mimlib.encoders.convvit import convvit_config
from mimlib.methods.convmae import ConvMAEConfig
from mimlib.weights import load_encoder, load_official, to_official

GOLDEN = Path(__file__).parent / "golden"


def assert_same(state, other):
    assert set(state) == set(other)
    assert all(torch.equal(state[name], other[name]) for name in state)


def test_names_and_shapes_are_the_published_ones():
    published = json.loads((GOLDEN / "keys_convmae_base.json").read_text())
    with torch.device("meta"):
        model = ConvMAEConfig(encoder=convvit_config("B", 224)).build()
    assert {n: list(t.shape) for n, t in to_official(model).items()} == published
    assert len(published) == 313


def test_a_whole_model_goes_there_and_back():
    ours, other = convmae().build(), convmae().build()
    assert load_official(other, {"model": to_official(ours)}) == {}
    assert_same(ours.state_dict(), other.state_dict())


def test_a_model_of_one_scale_does_not_take_one_of_many():
    one, many = convmae(multi_scale=False).build(), convmae().build()
    with pytest.raises(ValueError, match="4 unexpected: stage1_output_decode.weight"):
        load_official(one, to_official(many))


def test_an_encoder_takes_its_part_of_every_kind_of_file():
    model, encoder = convmae().build(), convmae().encoder.build()
    whole = to_official(model)
    unused = load_official(encoder, whole)
    assert {n.partition(".")[0] for n in unused} == {
        "mask_token", "decoder_embed", "decoder_blocks", "decoder_norm", "decoder_pred",
        "decoder_pos_embed", "stage1_output_decode", "stage2_output_decode",
    }  # fmt: skip
    assert_same(encoder.state_dict(), model.encoder.state_dict())
    heads = {"fc_norm.weight": torch.ones(24), "head.weight": torch.ones(7, 24)}
    fine_tuned = {n: t for n, t in whole.items() if n not in unused and n != "norm.weight"}
    assert set(load_official(convmae().encoder.build(), fine_tuned | heads)) == set(heads)


def test_the_released_file_may_lack_its_final_norm(tmp_path):
    model, encoder = convmae().build(), convmae().encoder.build()
    torch.nn.init.constant_(model.encoder.norm.weight, 5)
    released = {n: t for n, t in to_official(model.encoder).items() if not n.startswith("norm.")}
    torch.save({"model": released}, tmp_path / "convmae_base.pth")
    load_encoder(encoder, tmp_path / "convmae_base.pth")
    own = {n: t for n, t in encoder.state_dict().items() if n.startswith("norm.")}
    assert_same(encoder.state_dict(), model.encoder.state_dict() | own)


@pytest.mark.parametrize("learned", [True, False])
def test_encoders_are_loaded_from_our_checkpoints(tmp_path, learned):
    model = convmae().build()
    torch.save({"step": 3, "model": model.state_dict(), "config": {}}, tmp_path / "a.pt")
    save_file(model.state_dict(), tmp_path / "b.safetensors")
    save_file(to_official(model.encoder), tmp_path / "c.safetensors")
    torch.save({"model": to_official(model)}, tmp_path / "d.pth")
    for name in ("a.pt", "b.safetensors", "c.safetensors", "d.pth"):
        encoder = convmae(encoder={"learned_positions": learned}).encoder.build()
        load_encoder(encoder, tmp_path / name)
        assert_same(encoder.state_dict(), model.encoder.state_dict())


def test_positions_are_resized_for_another_image_size(tmp_path):
    save_file(convmae().build().state_dict(), tmp_path / "a.safetensors")
    wide, same = (convmae(encoder={"image_size": side}).encoder.build() for side in (48, 32))
    for encoder in (wide, same):
        load_encoder(encoder, tmp_path / "a.safetensors")
    assert wide.pos_embed.shape == (1, 36, 24)
    images = torch.randn(1, 3, 48, 48)
    torch.testing.assert_close(wide(images).tokens, same(images).tokens)


def test_a_file_for_another_encoder_is_refused_by_name(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(convmae().build().state_dict(), path)
    for changes in ({"kernel": 7}, {"widths": (8, 20, 24)}, {"depths": (1, 2, 2)}):
        with pytest.raises(ValueError, match=r"a\.safetensors do not fit ConvViT"):
            load_encoder(convmae(encoder=changes).encoder.build(), path)
