"""Published names and shapes, both directions, and loading encoders from files."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mimlib import weights
from mimlib.encoders.vit import ViTConfig, vit_config
from mimlib.methods.mae import MAEConfig
from mimlib.weights import load_encoder, load_official, to_official

GOLDEN = Path(__file__).parent / "golden"
ENCODER = {"width": 24, "depth": 2, "heads": 3, "patch_size": 8}
DECODER = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}


def build_encoder(image_size=32, **changes):
    return ViTConfig(**{**ENCODER, "image_size": image_size, **changes}).build()


def build_method(image_size=32):
    return MAEConfig(encoder=ViTConfig(**ENCODER, image_size=image_size), **DECODER).build()


def assert_same(state, other):
    assert set(state) == set(other)
    assert all(torch.equal(state[name], other[name]) for name in state)


@pytest.mark.parametrize("size,patch", [("base", 16), ("large", 16), ("huge", 14)])
def test_names_and_shapes_are_the_published_ones(size, patch):
    published = json.loads((GOLDEN / f"keys_mae_vit_{size}_patch{patch}.json").read_text())
    with torch.device("meta"):
        model = MAEConfig(encoder=vit_config(size[0].upper(), patch, 224)).build()
    assert {name: list(t.shape) for name, t in to_official(model).items()} == published
    inside = {
        n: s for n, s in published.items() if not n.startswith("decoder") and n != "mask_token"
    }
    assert {n: list(t.shape) for n, t in to_official(model.encoder).items()} == inside
    if size == "base":
        assert (len(published), len(inside)) == (254, 150)


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_whole_model_goes_there_and_back(wrapped):
    ours, other = build_method(), build_method()
    official = to_official(ours)
    assert load_official(other, {"model": official, "epoch": 3} if wrapped else official) == {}
    assert_same(ours.state_dict(), other.state_dict())


def test_an_encoder_takes_its_part_of_every_kind_of_file():
    whole = to_official(build_method())
    encoder = build_encoder()
    unused = load_official(encoder, whole)
    assert set(unused) == {n for n in whole if n.startswith("decoder") or n == "mask_token"}
    assert_same(to_official(encoder), {n: t for n, t in whole.items() if n not in unused})
    alone = to_official(encoder)
    assert load_official(build_encoder(), {"model": alone}) == {}
    heads = {"fc_norm.weight": torch.ones(24), "fc_norm.bias": torch.ones(24),
             "head.weight": torch.ones(7, 24), "head.bias": torch.ones(7)}  # fmt: skip
    fine_tuned = {n: t for n, t in alone.items() if not n.startswith("norm.")} | heads
    assert set(load_official(build_encoder(), fine_tuned)) == set(heads)
    with pytest.raises(ValueError, match="2 missing: norm.weight, norm.bias"):
        load_official(build_encoder(), {n: t for n, t in fine_tuned.items() if n not in heads})


def test_everything_that_does_not_fit_is_named():
    model = build_method()
    state = to_official(model)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    state["decoder_pred.bias"] = torch.ones(5)
    state["blocks.0.norm1.weight"] = torch.full((24,), 9.0)
    del state["norm.bias"]
    state["extra"] = torch.ones(1)
    with pytest.raises(ValueError) as caught:
        load_official(model, state)
    message = str(caught.value)
    assert "1 missing: encoder.norm.bias" in message
    assert "1 unexpected: extra" in message
    assert r"decoder_pred.bias (5,), expected (192,)" in message
    assert_same(before, model.state_dict())


def test_an_encoder_file_does_not_make_a_whole_model():
    with pytest.raises(
        ValueError, match=r"do not fit MAE:\n  20 missing: mask_token.*12 more\ncheck"
    ):
        load_official(build_method(), to_official(build_encoder()))


@pytest.mark.parametrize("learned", [True, False])
def test_encoders_are_loaded_from_our_checkpoints(tmp_path, learned):
    method = build_method()
    torch.save({"step": 3, "model": method.state_dict(), "config": {}}, tmp_path / "a.pt")
    save_file(method.state_dict(), tmp_path / "b.safetensors")
    save_file(to_official(method.encoder), tmp_path / "c.safetensors")
    torch.save({"model": to_official(method)}, tmp_path / "d.pth")
    for name in ("a.pt", "b.safetensors", "c.safetensors", "d.pth"):
        encoder = build_encoder(learned_positions=learned)
        load_encoder(encoder, tmp_path / name)
        assert_same(encoder.state_dict(), method.encoder.state_dict())


def test_positions_are_resized_for_another_image_size(tmp_path):
    save_file(build_method().state_dict(), tmp_path / "a.safetensors")
    encoder = build_encoder(image_size=48)
    load_encoder(encoder, tmp_path / "a.safetensors")
    assert encoder.pos_embed.shape == (1, 37, 24)
    assert encoder(torch.randn(1, 3, 48, 48)).tokens.isfinite().all()
    same_size = build_encoder()
    load_encoder(same_size, tmp_path / "a.safetensors")
    images = torch.randn(1, 3, 48, 48)
    torch.testing.assert_close(encoder(images).tokens, same_size(images).tokens)


def test_a_file_for_another_encoder_is_refused_by_name(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(build_method().state_dict(), path)
    for changes in ({"width": 48}, {"depth": 3}, {"patch_size": 16}, {"class_token": False}):
        with pytest.raises(ValueError, match=r"a\.safetensors do not fit ViT"):
            load_encoder(build_encoder(**changes), path)


def test_a_file_with_foreign_objects_is_refused_with_advice(tmp_path):
    path = tmp_path / "official.pth"
    content = {"model": to_official(build_method()), "args": argparse.Namespace(lr=1.0)}
    torch.save(content, path)
    with pytest.raises(ValueError, match="holds more than tensors .* weights_only=False"):
        load_encoder(build_encoder(), path)


@pytest.mark.parametrize("name", ["cut.pt", "text.pt", "list.pt", "bad.safetensors"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path, name):
    path = tmp_path / name
    torch.save([1, 2], path)
    if name != "list.pt":
        path.write_bytes(path.read_bytes()[:200] if name == "cut.pt" else b"hello, no weights")
    with pytest.raises(ValueError, match="is not readable as weights"):
        load_encoder(build_encoder(), path)


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path):
    state = dict(build_encoder().state_dict())
    state["norm.bias"] = torch.full_like(state["norm.bias"], torch.nan)
    save_file(state, tmp_path / "broken.safetensors")
    encoder = build_encoder()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with pytest.raises(ValueError, match="1 with values that are not finite: norm.bias"):
        load_encoder(encoder, tmp_path / "broken.safetensors")
    assert_same(encoder.state_dict(), before)


def test_what_lies_beside_weights_of_another_form_is_refused_by_name(tmp_path):
    torch.save({"state_dict": build_encoder().state_dict(), "epoch": 3}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="2 unexpected: state_dict, epoch"):
        load_encoder(build_encoder(), tmp_path / "other.pth")


def test_a_file_is_read_once_for_all_its_parts(tmp_path, monkeypatch):
    method = build_method()
    save_file(method.state_dict(), tmp_path / "whole.safetensors")
    read = []
    monkeypatch.setattr(weights, "read_weights", lambda path: read.append(path) or load_file(path))
    weights.load_pretrained(build_method(), tmp_path / "whole.safetensors")
    assert read == [tmp_path / "whole.safetensors"]
