"""The one way to J and F on DAVIS: a command, on a folder that looks like DAVIS."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mimlib import cli
from mimlib.data.videos.davis import DavisConfig
from mimlib.evaluation.label_propagation import LabelPropagationConfig
from mimlib.evaluation.propagation import PropagationConfig
from mimlib.presets import preset
from mimlib.runs import evaluate

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")

CPU = torch.device("cpu")
SMALL = PropagationConfig(short_side=48, multiple=16, radius=3)


@pytest.fixture(autouse=True)
def small_frames(monkeypatch):
    assert PropagationConfig(short_side=480, multiple=64, context=7, radius=12) == evaluate.PROTOCOL
    monkeypatch.setattr(evaluate, "PROTOCOL", SMALL)


@pytest.fixture
def davis(tmp_path):
    """Two sequences of two objects that walk over noise; one is in the list."""
    root, draw = tmp_path / "davis", np.random.default_rng(0)
    for name in ("walk", "other"):
        frames, masks = (root / p / "480p" / name for p in ("JPEGImages", "Annotations"))
        frames.mkdir(parents=True)
        masks.mkdir(parents=True)
        for time in range(5):
            pixels = draw.integers(90, 160, (60, 100, 3), dtype=np.uint8)
            ids = np.zeros((60, 100), dtype=np.uint8)
            ids[10:30, 10 + 6 * time : 40 + 6 * time] = 1
            ids[35:55, 60 - 6 * time : 90 - 6 * time] = 2
            pixels[ids == 1], pixels[ids == 2] = (250, 40, 40), (40, 40, 250)
            Image.fromarray(pixels).save(frames / f"{time:05d}.jpg", quality=95)
            mask = Image.fromarray(ids, mode="P")
            mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [7] * 747)
            mask.save(masks / f"{time:05d}.png")
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("walk\n")
    return root


@pytest.fixture
def weights(tmp_path):
    """The weights of a method that is not the one a preset begins with."""
    torch.manual_seed(7)
    method = preset("selfpatch_tiny").method.build()
    save_file(
        {n: t.contiguous() for n, t in method.state_dict().items()}, tmp_path / "w.safetensors"
    )
    return method, tmp_path / "w.safetensors"


def test_the_command_measures_the_weights_it_is_given(davis, weights, capsys):
    method, path = weights
    given = ["follow", "selfpatch_tiny", str(path), "--root", str(davis), "--device", "cpu"]
    assert cli.main(given) == 0
    lines = (line.split() for line in capsys.readouterr().out.splitlines())
    printed = {name: float(value) for value, name in lines}
    videos = DavisConfig(root=str(davis))
    measure = LabelPropagationConfig(source=videos, propagation=SMALL).build()
    expected = measure.run(method, CPU)
    assert printed == {name: pytest.approx(100 * v, abs=0.01) for name, v in expected.items()}
    assert 10 < printed["j_and_f"] < 100 and "pixels_j_and_f" in printed
    found = evaluate.follow(preset("selfpatch_tiny"), str(path), videos, "cpu")
    assert found == expected
    every = evaluate.follow(
        preset("selfpatch_tiny"), str(path), DavisConfig(root=str(davis), split="")
    )
    assert every != expected, "both sequences"


def test_what_is_missing_or_does_not_fit_is_told(davis, weights, capsys):
    path, root = str(weights[1]), str(davis)
    for given, said in (
        (["selfpatch_tiny", path, "--root", str(davis / "no")], "there is no folder"),
        (["selfpatch_tiny", "runs/nowhere", "--root", root], "no file and no folder"),
        (["dino_tiny", path, "--root", root], "do not fit"),
        (["selfpatch_tiny", path, "--root", root, "--device", "cuda:77"], "cuda:77"),
    ):
        assert cli.main(["follow", *given]) == 1
        assert said in capsys.readouterr().err
