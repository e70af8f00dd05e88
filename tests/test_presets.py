"""Every preset builds, has the size written here, survives the command line and JSON."""

import dataclasses
import json

import pytest
import torch

from mimlib import __main__, cli, launch, show
from mimlib.presets import PRESETS, preset
from mimlib.run import override

PARAMETERS = {  # position tables are buffers and not counted
    "mae_vitb16_in1k": 111_655_680,  # as official, trainable
    "mae_vitl16_in1k": 329_239_296,
    "mae_vith14_in1k": 656_613_964,
    "croco_vitb16_habitat": 120_076_288,
    "crocov2_vitl_base": 417_918_720,
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
