"""The parity suite itself: what it finds, accepts and refuses, and that it can fail."""

import json
from pathlib import Path

import pytest
import torch
from parity import check, method_of
from parity_files import Refused, find
from parity_tables import check_table
from safetensors.torch import load_file, save_file

from mimlib.layers.patches import unpatchify

FOLDER = Path(__file__).parent / "golden"
NAMES = sorted(find(FOLDER)[0])


def rewrite(folder, name, tensors=lambda tensors: None, facts=lambda facts: None, to="some_file"):
    """Write a changed copy of a golden file under another name; both functions change in place."""
    path = folder / f"{to}.safetensors"
    stored = load_file(FOLDER / f"{name}.safetensors")
    told = json.loads((FOLDER / f"{name}.json").read_text())
    tensors(stored), facts(told)
    told["outputs"] = {n.removeprefix("output."): {} for n in stored if n.startswith("output.")}
    save_file({n: t.contiguous() for n, t in stored.items()}, path)
    path.with_suffix(".json").write_text(json.dumps(told))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_no_output_may_be_wrong(tmp_path, name):
    """Every number of every file counts: each one, moved by two tolerances, is found."""

    def shift(tensors):
        for output in [n for n in tensors if n.startswith("output.")]:
            value = tensors[output]
            if value.is_floating_point():
                tensors[output] = value * (1 + 3e-5) + 3e-5 * (value.abs().max() == 0)
            else:
                tensors[output] = ~value if value.dtype == torch.bool else value + 1

    path = rewrite(tmp_path, name, shift)
    wrong, unknown = check(path)
    expected = set(json.loads(path.with_suffix(".json").read_text())["outputs"])
    assert not unknown and expected - wrong.keys() <= {"pred_row_index"}


def test_files_are_found_by_their_method_under_any_name(tmp_path):
    for to, name in (("a", "mae"), ("mae_odd", "croco_v2"), ("croco_b", "croco_v1")):
        path = rewrite(tmp_path, name, to=to)
        assert method_of(path) is method_of(FOLDER / f"{name}.safetensors") is not None
        assert check(path) == ({}, [])
    assert set(find(tmp_path)[0]) == {"a", "mae_odd", "croco_b"} and not find(tmp_path)[1]


def test_other_methods_are_left_to_others(tmp_path):
    path = rewrite(tmp_path, "mae", facts=lambda facts: facts.update(method="glid_decoder"))
    assert method_of(path) is None
    with pytest.raises(pytest.skip.Exception, match="keys_x: mimlib does not have this model"):
        check_table("keys_x", {"stem.conv.kernel": [5, 7, 7, 3, 64]})
    with pytest.raises(pytest.skip.Exception, match="lr_x: .* 'glid_lr_schedule' yet"):
        check_table("lr_x", {"method": "glid_lr_schedule"})


@pytest.mark.parametrize("name,part,argument,value,message", [
    ("mae", (), "layer_scale", 1e-4, r"mimlib has no counterpart for layer_scale = 0.0001"),
    ("mae", (), "in_chans", 1, r"in_chans = 1; mimlib knows 3 alone"),
    ("mae", (), "img_size", [48, 64], r"image_size = \[48, 64\]; mimlib knows squares"),
    ("convmae", (), "img_size", [224, 28, 14], r"img_size = \[224, 28, 14\] with entries"),
    ("convmae", ("layer_norm_eps",), "stage entries and conv blocks", 1e-6, r"1e-06; .* 1e-05"),
    ("croco_v2", (), "pos_embed", "learned", r"pos_embed='learned'"),
    ("croco_v2", (), "rope_base", 50.0, r"rope_base = 50.0 is not that of pos_embed"),
    ("selfpatch", ("backbone",), "drop_rate", 0.1, r"backbone: drop_rate = 0.1; mimlib knows 0.0"),
    ("selfpatch", ("aggregation_head",), "mlp_ratio", 2.0, r"aggregation_head: mlp_ratio = 2.0"),
    ("selfpatch", ("projection_heads",), "use_bn", True, r"projection_heads: use_bn = True"),
    ("downstream_mae", (), "representation_size", 8, r"representation_size = 8"),
    ("downstream_croco", ("dpt",), "use_bn", True, r"dpt: use_bn = True; mimlib knows False"),
    ("downstream_croco", ("tiling",), "conf_mode", "uniform", r"conf_mode = 'uniform'"),
    ("downstream_selfpatch", (), "stride", 2, r"stride = 2"),
])  # fmt: skip
def test_what_mimlib_cannot_build_is_refused_by_name(
    tmp_path, name, part, argument, value, message
):
    def ask(facts):
        given = facts["constructor"]
        for each in part:
            given = given[each]
        given[argument] = value

    with pytest.raises(Refused, match=r"some_file\.json.*" + message):
        check(rewrite(tmp_path, name, facts=ask))


@pytest.mark.parametrize("name", ["mae", "croco_v1"])
def test_predictions_come_in_any_form(tmp_path, name):
    """Un-patchified, of the masked patches alone, some rows: told apart by shape, and compared."""
    side = json.loads((FOLDER / f"{name}.json").read_text())["constructor"]["patch_size"]

    def reshape(tensors, factor=1.0):
        whole = tensors.pop("output.pred") * factor
        grid = (48 // side,) * 2
        mask = tensors.get("output.mask", tensors.get("input.mask")).bool()
        tensors["output.pred_image"] = unpatchify(whole, side, grid)
        tensors["output.pred"] = whole[mask].unflatten(0, (len(whole), -1))
        tensors["output.prediction_of_masked"] = whole[mask]
        tensors["output.pred_row_index"] = rows = torch.tensor([3, 1, 30])
        tensors["output.pred_rows"] = whole[:, rows]
        tensors["output.reconstruction"] = unpatchify(whole, side, grid)

    assert check(rewrite(tmp_path, name, reshape)) == ({}, [])
    wrong, unknown = check(rewrite(tmp_path, name, lambda t: reshape(t, 1 + 3e-5)))
    assert set(wrong) == {"pred", "pred_image", "prediction_of_masked", "pred_rows"}
    assert unknown == ["reconstruction [2, 3, 48, 48]"]


def test_outputs_that_nobody_computes_are_named_and_the_others_count(tmp_path):
    def add(tensors):
        tensors["output.attention"] = torch.rand(2, 3)
        tensors["output.memory"] = tensors["output.latent"].clone()  # ours under another name
        tensors["output.loss_norm_pix"] = tensors["output.loss_norm_pix"] + 1

    wrong, unknown = check(rewrite(tmp_path, "mae", add))
    assert set(wrong) == {"loss_norm_pix"} and unknown == ["attention [2, 3]"]


@pytest.mark.parametrize("name,path,value", [
    ("mae_lr_schedule", ("cases", 1, "values", 2, "lr"), 1e-3),
    ("mae_lr_schedule", ("cases", 1, "group_lr_scales", 1), 0.66),
    ("mae_lr_decay_vit_base_patch16_0.65", ("table", "blocks.3.norm1.bias", "lr_scale"), 0.02),
    ("mae_lr_decay_vit_base_patch16_0.65", ("table", "blocks.3.norm1.bias", "weight_decay"), 0.05),
    ("selfpatch_schedules", ("cases", 1, "final"), 0.5),
    ("constcl_lr_schedule", ("schedules", "200k", "learning_rate", 8), 40.96),
    ("keys_constcl_r3d50", ("checkpoint", "backbone/_stem_bn/beta"), [65]),
    ("keys_croco_v1", ("enc_blocks.3.norm1.bias",), [769]),
    ("keys_convmae_base", ("blocks1.0.attn.weight",), [256, 1, 3, 3]),
])  # fmt: skip
def test_no_table_may_be_wrong(name, path, value):
    facts = json.loads((FOLDER / f"{name}.json").read_text())
    check_table(name, facts)
    *way, last = path
    place = facts
    for step in way:
        place = place[step]
    place[last] = value
    with pytest.raises(AssertionError):
        check_table(name, facts)


@pytest.mark.parametrize("kind", ["norm_pix", "raw_pix"])
def test_a_file_of_one_target_names_its_loss_without_it(tmp_path, kind):
    def rename(tensors):
        for name in [n for n in tensors if "_pix" in n]:
            value = tensors.pop(name)
            if f"_{kind}" in name:
                tensors[name.replace(f"_{kind}", "")] = value

    def tell(facts):
        facts["constructor"]["norm_pix_loss"] = kind == "norm_pix"

    path = rewrite(tmp_path, "mae", rename, tell)
    assert check(path) == ({}, [])
    other = rewrite(
        tmp_path, "mae", rename, lambda f: f["constructor"].update(norm_pix_loss=kind == "raw_pix")
    )
    assert "loss" in check(other)[0]


def test_selfpatch_takes_any_batch(tmp_path):
    """Every crop twice, crop by crop: what is said of each is twice there, means stay."""
    each = ("tokens", "cls", "patch", "selected")

    def double(tensors):
        for name, value in list(tensors.items()):
            kind, _, rest = name.partition(".")
            of_crops = rest in ("global_crops", "local_crops") or (
                rest.endswith(("_global", "_local")) and any(f"{e}_" in rest for e in each)
            )
            if kind != "state" and of_crops and not rest.startswith("loss_only"):
                tensors[name] = value.repeat_interleave(2, dim=0)

    path = rewrite(tmp_path, "selfpatch", double, lambda facts: facts.update(batch=2))
    assert check(path) == ({}, [])


@pytest.mark.parametrize("warmup,epoch,rate", [(0, 0, 0.07), (5, 0, 0.04), (5, 2, 0.055)])
def test_the_temperature_of_the_teacher_is_that_of_the_epoch(tmp_path, warmup, epoch, rate):
    """Given by its schedule alone, or in a number; the losses of given logits have it, too."""

    def warm(facts):
        del facts["loss"]["teacher_temp_at_that_epoch"]
        facts["loss"] |= {"teacher_temp": 0.07, "warmup_teacher_temp": 0.04}
        facts["loss"] |= {"warmup_teacher_temp_epochs": warmup, "epoch_used": epoch}

    def tell(facts):
        facts["loss"] |= {"teacher_temp": rate, "warmup_teacher_temp_epochs": 0}
        facts["loss"]["teacher_temp_at_that_epoch"] = rate

    first = check(rewrite(tmp_path, "selfpatch", facts=warm))
    assert first == check(rewrite(tmp_path, "selfpatch", facts=tell))
    losses = {"loss", "loss_only.loss"}
    assert losses <= first[0].keys() if rate != 0.04 else first == ({}, [])


def test_a_radius_of_zero_restricts_nothing(tmp_path):
    def open_up(facts):
        facts["constructor"]["neighbourhood_radius"] = 0

    def widen(facts):
        facts["constructor"]["neighbourhood_radius"] = 8  # as wide as the grid of 6 x 8

    found = [
        check(rewrite(tmp_path, "downstream_selfpatch", facts=each)) for each in (open_up, widen)
    ]
    assert found[0] == found[1] and {"neighbourhood_mask", "soft_maps"} <= found[0][0].keys()
