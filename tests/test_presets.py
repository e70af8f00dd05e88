"""Every preset builds, has the size written here, survives the command line and JSON."""

import dataclasses
import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch

import mimlib.presets
from mimlib import __main__, cli
from mimlib.presets import PRESETS, preset
from mimlib.presets.run import Preset, override, run_info, with_cards
from mimlib.presets.tasks import matching
from mimlib.runs import show

PACKAGE = Path(mimlib.presets.__file__).parent


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_with_the_parameters_written_beside_it(name):
    row, run = PRESETS[name], preset(name)
    with torch.device("meta"):
        method = run.method.build()
    assert sum(show.parameter_counts(method).values()) == row.parameters
    assert run.name == name and row.card and f"-m mimlib train {name}" in row.describe(name)
    assert json.loads(json.dumps(run_info(run))) == run_info(run)


def test_a_preset_without_its_parameters_is_refused():
    fields = {f.name: getattr(PRESETS["mae_tiny"], f.name) for f in dataclasses.fields(Preset)}
    del fields["parameters"]
    with pytest.raises(TypeError, match="parameters"):
        Preset(**fields)


def test_every_file_of_presets_is_found():
    files = [p for room in ("methods", "tasks") for p in (PACKAGE / room).glob("[a-z]*.py")]
    for path in files:
        rows = import_module(f"mimlib.presets.{path.parent.name}.{path.stem}")
        assert rows.PRESETS and rows.PRESETS.items() <= PRESETS.items(), path


def test_rows_and_cards_come_together():
    rows = {"a": PRESETS["mae_tiny"]}
    assert (
        with_cards(
            rows,
            {
                "a": """First.

        Second."""
            },
        )["a"].card
        == "First.\n\nSecond."
    )
    with pytest.raises(ValueError, match="differ in b"):
        with_cards(rows, {"a": "", "b": ""})


def test_parameters_are_those_of_the_official_networks():
    """As counted in the official code; position tables are buffers and not counted."""
    official = {
        "mae_vitb16_in1k": 111_655_680,
        # 1,536 more: the encoder's own norm, which is passed by
        "finetune_convvitb16_in1k": 85_374_824 + 1_536,
        # both networks, without the lengths of the prototypes, which are always 1
        "selfpatch_vits16_in1k": 2 * (54_128_384 - 65_536 - 4_096),
        "selfpatch_vitti16_coco": 2 * (34_541_696 - 65_536 - 4_096),
        # encoder and projector twice, one predictor; Swin-T without its classifier
        "moby_swint_in1k": 2 * (27_519_354 + 4_206_848) + 2_109_696,
        "selfpatch_moby_vits16_in1k": 2 * (25_214_208 + 2 * 2_633_984) + 2 * 2_109_696,
    }
    assert {name: PRESETS[name].parameters for name in official} == official


@pytest.mark.parametrize(
    "method",
    [
        *("mae", "convmae", "croco", "croco_homography", "depth", "depth_convmae", "classify"),
        *("flow", "stereo", "dino", "moby", "selfpatch", "selfpatch_moby"),
    ],
)
def test_sizes_share_the_method_and_differ_in_scale(method):
    tiny, lesson, gpu = (preset(f"{method}_{size}") for size in ("tiny", "lesson", "gpu"))
    assert type(tiny.method) is type(lesson.method) is type(gpu.method)
    assert tiny.train.steps < lesson.train.steps < gpu.train.steps


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ValueError, match="mae_lesson"):
        preset("mae_leson")


def test_override_checks_names_and_types():
    run = override(preset("mae_tiny"), {"train.steps": 4, "train.warmup_steps": 4})
    assert (run.train.steps, run.train.warmup_steps) == (4, 4), "checked together, not in turn"
    run = override(preset("mae_tiny"), {"train.steps": 7.0, "method.mask_ratio": 0.5})
    assert run.train.steps == 7 and isinstance(run.train.steps, int)
    assert run.method.mask_ratio == 0.5
    with pytest.raises(ValueError, match="no field 'stepz'.*steps"):
        override(run, {"train.stepz": 1})
    with pytest.raises(ValueError, match="train.steps is 7, a int; got 'many'"):
        override(run, {"train.steps": "many"})
    with pytest.raises(ValueError, match="mask_ratio"):
        override(run, {"method.mask_ratio": 1.5})
    with pytest.raises(ValueError, match="no fields of its own"):
        override(run, {"train.steps.more": 1})


def test_an_encoder_of_another_kind_may_take_the_place():
    run, other = preset("depth_tiny"), preset("convmae_tiny").method.encoder
    changed = override(run, {"method.encoder": other, "train.seed": 3})
    assert changed.method.encoder == other and changed.train.seed == 3
    with pytest.raises(ValueError, match="method.encoder"):
        override(run, {"method.encoder": run.train})
    with pytest.raises(ValueError, match="method.encoder"):  # ViT's alone
        override(preset("mae_tiny"), {"method.encoder": other})


@pytest.mark.parametrize("name,changes", [
    ("mae_tiny", {"train.steps": 9, "train.compile": True, "train.betas": (0.8, 0.9),
                  "method.encoder.width": 64, "data.flip": False, "data.crop_scale": (0.5, 1.0)}),
    ("convmae_tiny", {"method.encoder.kernel": 7, "method.encoder.widths": (8, 16, 32)}),
    ("classify_tiny", {"method.encoder.depth": 3}),
    ("finetune_convvitb16_in1k", {"method.encoder.drop_path": 0.2}),
    ("selfpatch_moby_tiny", {"method.patches.negatives": False, "method.image.temperature": 0.1}),
    ("selfpatch_tiny", {"method.image.prototypes": 30, "method.crops.num_local": 1}),
    ("moby_tiny", {"method.encoder.depths": (2, 1), "method.image.negatives": False}),
    ("detection_convmae_tiny", {"method.proposals": 12, "data.scale": (0.5, 2.0)}),
    ("crocoflow_vitl_base", {"data.root": "/big", "train.steps": 4000, "data.parts.0.repeats": 7}),
])  # fmt: skip
def test_flags_reach_every_field_of_a_preset(name, changes):
    """Of the kind of encoder and objective that the preset has, and of the parts of a mixture."""
    flags = []
    for field, value in changes.items():
        flag = field.replace("_", "-")
        if isinstance(value, bool):
            head, _, last = flag.rpartition(".")
            flags.append(f"--{head}.{last if value else 'no-' + last}")
        else:
            values = value if isinstance(value, tuple) else (value,)
            flags += [f"--{flag}", *map(str, values)]
    expected = preset(name)
    if (repeats := changes.pop("data.parts.0.repeats", None)) is not None:
        parts = (replace(expected.data.parts[0], repeats=repeats), *expected.data.parts[1:])
        expected = replace(expected, data=replace(expected.data, parts=parts))
    assert cli.parse(["train", name, *flags]).run == override(expected, changes)


def test_an_objective_of_another_kind_may_take_the_place():
    run = preset("selfpatch_tiny")
    changed = override(run, {"method.patches": preset("moby_tiny").method.image})
    assert changed.method.patches.negatives and changed.method.image == run.method.image


@pytest.mark.parametrize("name,ranks,rate", [
    ("selfpatch_vits16_in1k", 8, 2e-3), ("dino_vits16_in1k", 8, 2e-3),
    ("selfpatch_vitti16_coco", 8, 5e-4),
])  # fmt: skip
def test_selfpatch_is_trained_as_published(name, ranks, rate):
    run = preset(name)
    train, method = run.train, run.method
    assert train.peak_rate(ranks) == pytest.approx(rate)
    assert train.rate(train.steps, ranks) == pytest.approx(1e-6)
    assert train.warmup_steps * 20 == train.steps
    assert (train.decay(0), train.decay(train.steps)) == pytest.approx((0.04, 0.4))
    assert train.clip_norm == 3.0 and train.clip_each
    crops = method.crops
    assert (crops.global_size, crops.local_size, crops.num_crops) == (224, 96, 10)
    assert (crops.global_scale, crops.local_scale) == ((0.25, 1.0), (0.05, 0.25))
    assert method.image.prototypes == 65_536 and method.freeze * train.steps == train.steps / 200
    assert method.encoder.drop_path == 0.1 and method.encoder.learned_positions
    assert (run.data.crop_scale, run.data.flip) == ((1.0, 1.0), False)


@pytest.mark.parametrize("name", ["moby_swint_in1k", "selfpatch_moby_vits16_in1k"])
def test_moby_is_trained_as_published(name):
    run = preset(name)
    train, method = run.train, run.method
    assert (8 * train.batch_size, train.peak_rate(8)) == (512, pytest.approx(1e-3))
    assert train.rate(train.steps, 8) == pytest.approx(5e-6)
    assert train.steps // 300 == train.warmup_steps // 5 == 1_281_167 // 512
    assert train.decay(0) == train.decay(train.steps) == 0.05
    assert (train.clip_norm, train.clip_each) == (2.5, False)
    assert (method.crops.num_crops, method.crops.sizes) == (2, (224,))
    assert method.crops.global_scale == (0.08, 1.0)
    assert (method.encoder.drop_path, method.momentum) == (0.2, 0.99)
    objectives = [method.image, *([method.patches] if name.startswith("self") else [])]
    for objective in objectives:
        assert (objective.negatives, objective.temperature) == (True, 0.2)
        assert (objective.hidden, objective.outputs) == (4096, 256)
    with torch.device("meta"):
        names = [n.split(".")[-1] for n, _ in method.build().student.named_parameters()]
    assert set(train.no_decay) & set(names), "there is something that does not decay"


def test_show_counts_what_the_paper_counts(capsys):
    assert __main__.main(["show", "mae_vitb16_in1k"]) == 0
    text = capsys.readouterr().out
    assert "2,069 GPU hours" in text and "torchrun --nproc-per-node 8 -m mimlib train mae_v" in text
    assert "111,655,680  parameters in all" in text
    assert "57.14  GFLOP per image" in text
    assert "2.40e-03  peak learning rate" not in text, "one process of 512 images has less"
    assert "3.00e-04  peak learning rate" in text


def test_show_takes_pairs_and_a_schedule_that_is_not_run_to_its_end(capsys):
    assert __main__.main(["show", "croco_vitb16_habitat"]) == 0
    text = capsys.readouterr().out
    assert "120,076,288  parameters in all" in text
    assert "158." in text.split("GFLOP per image")[0].split()[-1]


@pytest.mark.parametrize("name", ["flow_tiny", "stereo_lesson", "segmentation_convmae_tiny"])
def test_show_takes_dense_tasks(name, capsys):
    assert __main__.main(["show", name]) == 0
    assert "head" in capsys.readouterr().out


def test_show_takes_crops_that_are_not_square_and_lists_the_parts_of_a_mixture(capsys):
    small = override(preset("crocoflow_vitl_base"), {"method.encoder.depth": 1,
                                                     "method.decoder.depth": 3})  # fmt: skip
    text = show.describe(small)
    assert "parts.5: Part" in text and "layout: 'tartanair_flow'" in text
    assert show.example_batch(small).images.shape == (2, 3, 320, 384)


@pytest.mark.parametrize("task", ["flow", "stereo"])
@pytest.mark.parametrize("size", ["tiny", "lesson", "gpu"])
def test_a_croco_fits_into_stereo_and_flow(task, size):
    with torch.device("meta"):
        croco, matching = (preset(f"{n}_{size}").method.build() for n in ("croco", task))
    for part in ("encoder", "decoder"):
        shapes = [
            {n: p.shape for n, p in getattr(model, part).state_dict().items()}
            for model in (croco, matching)
        ]
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name,ranks,share", [
    ("croco_vitb16_habitat", 4, 0.541), ("crocov2_vitl_base", 8, 0.540),
])  # fmt: skip
def test_croco_stops_in_the_middle_of_its_cosine(name, ranks, share):
    train = preset(name).train
    peak = train.peak_rate(ranks)
    assert peak == pytest.approx({4: 1.5e-4, 8: 3e-4}[ranks])
    assert train.rate(train.warmup_steps, ranks) == pytest.approx(peak)
    assert train.rate(train.steps, ranks) / peak == pytest.approx(share, abs=5e-4)


PAPER_PAIRS = {"crocoflow_vitl_base": 793_052, "crocostereo_vitl_base": 309_496}


@pytest.mark.parametrize("name,rate,crop,steps", [
    ("crocoflow_vitl_base", 2e-5, (320, 384), 240 * 30_000 // 8),
    ("crocostereo_vitl_base", 3e-5, (352, 704), 32 * (309_496 // 6)),
])  # fmt: skip
def test_stereo_and_flow_are_trained_as_published(name, rate, crop, steps):
    run = preset(name)
    assert run.train.peak_rate(1) == pytest.approx(rate) and run.train.steps == steps
    assert (run.train.precision, run.train.layer_decay, run.train.min_rate) == ("float32", 1, 0)
    assert run.method.window == run.data.size == crop
    sets = {"crocoflow_vitl_base": matching.FLOW_SETS}.get(name, matching.STEREO_SETS)
    assert sum(times * count for times, count, *_ in sets) == PAPER_PAIRS[name]
    assert [part.repeats for part in run.data.parts] == [times for times, *_ in sets]
    with torch.device("meta"):
        croco, task = (preset(n).method.build() for n in ("crocov2_vitl_base", name))
    for part in ("encoder", "decoder"):
        ours, theirs = (getattr(model, part).state_dict() for model in (task, croco))
        assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in theirs.items()}


def test_nyuv2_is_trained_as_multimae_does():
    run = preset("depth_vitb16_nyu")
    assert run.train.peak_rate(2) == pytest.approx(1e-4)
    assert run.train.steps * 128 / 795 == pytest.approx(2000, abs=0.2)
    assert run.train.warmup_steps / run.train.steps == pytest.approx(0.05, abs=1e-3)


@pytest.mark.parametrize("name,pretrained", [
    ("segmentation_{}", "mae_{}"), ("segmentation_convmae_{}", "convmae_{}"),
])  # fmt: skip
@pytest.mark.parametrize("size", ["tiny", "lesson", "gpu"])
def test_pretrained_encoders_fit_into_segmentation(name, pretrained, size):
    with torch.device("meta"):
        before, after = (preset(n.format(size)).method.build() for n in (pretrained, name))
    shapes = [{n: p.shape for n, p in m.encoder.state_dict().items()} for m in (before, after)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name,rate,layer_decay,drop_path", [
    ("segmentation_vitb16_ade20k", 8e-5, 0.8, 0.1),
    ("segmentation_convmaeb_ade20k", 1e-4, 0.75, 0.2),
])  # fmt: skip
def test_ade20k_is_trained_as_published(name, rate, layer_decay, drop_path):
    run = preset(name)
    assert run.train.peak_rate(8) == pytest.approx(rate)
    assert 8 * run.train.batch_size == 16 and run.train.steps == 160_000
    assert run.train.rate(80_750, 8) == pytest.approx(rate / 2) and run.train.rate(160_000, 8) == 0
    assert (run.train.layer_decay, run.method.encoder.drop_path) == (layer_decay, drop_path)
    assert (run.method.head, run.method.channels, run.method.auxiliary_weight) == (
        "upernet", 768, 0.4,
    )  # fmt: skip
    assert round((1 - run.method.overlap) * run.method.window) == 341
    assert run.data.size == run.method.window == run.method.short_side == 512
    assert (run.data.scale, run.data.largest_share, run.data.distort) == ((0.5, 2.0), 0.75, True)
    (validation,) = run.evaluations
    assert validation.source.split == "validation" and validation.num_images == 0
    encoder = run.method.encoder
    assert encoder.learned_positions and encoder.image_size == 512


def test_croco_v2_trains_on_rendered_and_real_pairs():
    data = preset("crocov2_vitl_base").data
    kinds = [type(part.pairs).__name__ for part in data.parts]
    assert kinds == ["PairFolderConfig"] + 4 * ["CropListConfig"] and data.size == 224
    assert all(not Path(part.pairs.root).is_absolute() for part in data.parts)


def test_list_names_every_preset(capsys):
    assert __main__.main(["list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in PRESETS)


def test_mistakes_on_the_command_line_are_refused_with_words(capsys):
    assert __main__.main(["show", "mae_tinny"]) == 1
    assert "did you mean mae_tiny" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        __main__.main(["show", "mae_tiny", "--train.stps", "3"])
    assert "train.steps" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        __main__.main(["show", "mae_tiny", "--method.mask-ratio", "1.2"])
    assert "mask_ratio 1.2" in capsys.readouterr().err
    assert __main__.main(["train", "mae_tiny", "--train.device", "cuda:77"]) == 1
    assert "cuda:77" in capsys.readouterr().err


def test_configs_are_frozen():
    run = preset("mae_tiny")
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.train.steps = 3
