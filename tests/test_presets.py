"""Every preset builds, has the size written here, survives the command line and JSON."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mimlib import __main__, cli, launch, show
from mimlib.presets import PRESETS, matching, preset
from mimlib.run import override

PARAMETERS = {  # position tables are buffers and not counted
    "mae_vitb16_in1k": 111_655_680,  # as official, trainable
    "mae_vitl16_in1k": 329_239_296,
    "mae_vith14_in1k": 656_613_964,
    "croco_vitb16_habitat": 120_076_288,
    "crocov2_vitl_base": 417_918_720,
    # as official 437.4 M, without 1,180,160 of a residual unit that is never used
    "crocoflow_vitl_base": 436_237_763,
    "crocostereo_vitl_base": 436_237_730,
    "depth_vitb16_nyu": 104_532_353,
}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_and_counts(name):
    run = preset(name)
    assert run.name == name and PRESETS[name].__doc__
    with torch.device("meta"):
        method = run.method.build()
    total = sum(show.parameter_counts(method).values())
    assert total == PARAMETERS.get(name, total)
    assert json.loads(json.dumps(launch.run_info(run))) == launch.run_info(run)


@pytest.mark.parametrize(
    "method", ["mae", "croco", "croco_homography", "depth", "classify", "flow", "stereo"]
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


def test_flags_rebuild_the_run():
    changes = {
        "train.steps": 9,
        "train.compile": True,
        "train.betas": (0.8, 0.9),
        "method.encoder.width": 64,
        "data.flip": False,
        "data.crop_scale": (0.5, 1.0),
    }
    run = override(preset("mae_tiny"), changes)
    assert cli._command("mae_tiny", launch.flags(run)).run == run
    assert launch.flags(preset("mae_tiny")) == []


def test_show_counts_what_the_paper_counts(capsys):
    assert __main__.main(["show", "mae_vitb16_in1k"]) == 0
    text = capsys.readouterr().out
    assert "111,655,680  parameters in all" in text
    assert "57.14  GFLOP per image" in text
    assert "2.40e-03  peak learning rate" not in text, "one process of 512 images has less"
    assert "3.00e-04  peak learning rate" in text


def test_show_takes_pairs_and_a_schedule_that_is_not_run_to_its_end(capsys):
    assert __main__.main(["show", "croco_vitb16_habitat"]) == 0
    text = capsys.readouterr().out
    assert "120,076,288  parameters in all" in text
    assert "158." in text.split("GFLOP per image")[0].split()[-1]


@pytest.mark.parametrize("name", ["flow_tiny", "stereo_lesson"])
def test_show_takes_stereo_and_flow(name, capsys):
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


def test_croco_v2_trains_on_rendered_and_real_pairs():
    data = preset("crocov2_vitl_base").data
    kinds = [type(part.pairs).__name__ for part in data.parts]
    assert kinds == ["PairFolderConfig"] + 4 * ["CropListConfig"] and data.size == 224
    assert all(not Path(part.pairs.root).is_absolute() for part in data.parts)


def test_parts_of_a_mixture_survive_the_command_line():
    run = override(preset("crocoflow_vitl_base"), {"data.root": "/big", "train.steps": 4000})
    parts = (replace(run.data.parts[0], repeats=7), *run.data.parts[1:])
    run = replace(run, data=replace(run.data, parts=parts))
    flags = launch.flags(run)
    assert flags == ["--data.parts.0.repeats", "7", "--data.root", "/big", "--train.steps", "4000"]
    assert cli._command("crocoflow_vitl_base", flags).run == run


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
