"""Names of published SelfPatch files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from siamese_cases import PLAIN, build

from mimlib.encoders.vit import vit_config
from mimlib.methods.selfpatch import SelfPatchConfig
from mimlib.weights import load_encoder, load_official, load_pretrained, to_official

GOLDEN = Path(__file__).parent / "golden"


def equal(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def test_names_and_shapes_are_those_of_the_published_small_model():
    stored = json.loads((GOLDEN / "keys_selfpatch_vit_small_student.json").read_text())
    encoder = vit_config("S", 16, 224, class_token=False, learned_positions=True)
    with torch.device("meta"):
        method = SelfPatchConfig(encoder=encoder).build()
    content = to_official(method)
    assert {name: list(t.shape) for name, t in content["teacher"].items()} == stored
    assert {n.removeprefix("module.") for n in content["student"]} == set(stored)
    assert all(name.startswith("module.") for name in content["student"]) and len(stored) == 198
    shapes = {name: tuple(t.shape) for name, t in content["dino_loss"].items()}
    assert shapes == {"center": (1, 1, 65_536), "patch_center": (1, 4096)}


def test_there_and_back():
    method, other = build("selfpatch"), build("selfpatch")
    with torch.no_grad():
        for tensor in method.state_dict().values():
            tensor.add_(torch.rand_like(tensor))
    content = to_official(method)
    assert load_official(other, content) == {} and equal(method.state_dict(), other.state_dict())
    renamed = {
        name.replace("weight_v", "parametrizations.weight.original1").replace(
            "weight_g", "parametrizations.weight.original0"
        ): tensor
        for name, tensor in content["teacher"].items()
    }
    load_official(other, renamed)  # one network stands for both, centres stay
    for network in (other.student, other.teacher):
        assert equal(network.state_dict(), method.teacher.state_dict())


@pytest.mark.parametrize("kind", ["file", "network", "backbone with prefix", "backbone"])
def test_an_encoder_takes_its_part_of_any_file(kind, tmp_path):
    method = build("selfpatch")
    content = to_official(method)
    network = content["teacher"]
    part = {n: t for n, t in network.items() if n.startswith("backbone.")}
    given = {
        "file": content, "network": network, "backbone with prefix": part,
        "backbone": {n.removeprefix("backbone."): t for n, t in part.items()},
    }[kind]  # fmt: skip
    encoders = [PLAIN.build(), PLAIN.build()]
    load_official(encoders[0], given)
    torch.save(given, tmp_path / "weights.pth")
    load_encoder(encoders[1], tmp_path / "weights.pth")
    expected = method.teacher.encoder.state_dict()
    for encoder in encoders:
        found = encoder.state_dict()
        same = [n for n in expected if torch.equal(found[n], expected[n])]
        blocks = 12 * PLAIN.depth + 3
        assert len(same) == len(expected) if "backbone" not in kind else len(same) >= blocks


def test_our_checkpoints_start_encoders_and_both_networks(tmp_path):
    method = build("selfpatch")
    torch.save({"model": method.state_dict()}, tmp_path / "ours.pt")
    encoder = replace(PLAIN, drop_path=0.1).build()
    load_encoder(encoder, tmp_path / "ours.pt")
    assert equal(encoder.state_dict(), method.teacher.encoder.state_dict())
    other = build("selfpatch")
    with torch.no_grad():
        other.teacher.encoder.pos_embed.zero_()
    load_pretrained(other, tmp_path / "ours.pt")
    for network in (other.student, other.teacher):
        assert equal(network.encoder.state_dict(), method.teacher.encoder.state_dict())


def test_what_does_not_fit_is_named():
    method = build("selfpatch")
    content = to_official(method)
    content["teacher"] = dict(content["teacher"])
    del content["teacher"]["ca_head.cls_token"]
    with pytest.raises(ValueError, match="1 missing: teacher.aggregator.cls_token"):
        load_official(method, content)
    content = to_official(method)
    content["student"]["module.c_head.last_layer.weight_g"].mul_(2)
    with pytest.raises(ValueError, match="c_head.last_layer.weight_g has rows of other lengths"):
        load_official(method, content)
