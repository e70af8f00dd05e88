"""Widgets: their reactions as functions, their static strips, and one click on the live ones."""

import pytest
import torch

from mimlib.course.lesson import widgets
from mimlib.encoders.vit import ViTConfig
from mimlib.figures import Picture
from mimlib.layers.patches import patchify
from mimlib.methods.mae import MAEConfig

H = W = 4  # the patch grid


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    encoder = ViTConfig(width=32, depth=2, heads=2, patch_size=8, image_size=32)
    config = MAEConfig(encoder=encoder, decoder_width=32, decoder_depth=1, decoder_heads=2)
    return config.build().eval()


@pytest.fixture(scope="module")
def images():
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=draw)


def test_painting_keeps_what_is_visible(model, images):
    hidden = torch.zeros(H * W, dtype=torch.bool)
    hidden[[3, 7, 8]] = True
    masked, made = widgets.paint(images[0], hidden, model)
    true = patchify(images[:1].float() / 255, 8)[0]
    torch.testing.assert_close(patchify(masked[None], 8)[0][~hidden], true[~hidden])
    torch.testing.assert_close(patchify(made[None], 8)[0][~hidden], true[~hidden])
    assert patchify(masked[None], 8)[0][hidden].std() < 1e-6
    assert not torch.equal(patchify(made[None], 8)[0][hidden], true[hidden])


@pytest.mark.parametrize("everything", [True, False])
def test_painting_all_or_nothing_is_refused(model, images, everything):
    with pytest.raises(ValueError, match="at least one"):
        widgets.paint(images[0], torch.full((H * W,), everything), model)


def test_patterns_hide_something_and_show_something():
    for grid in ((4, 4), (8, 8), (14, 14), (4, 8)):
        for name, mask in widgets.patterns(grid).items():
            assert mask.shape == (grid[0] * grid[1],), name
            assert mask.any() and not mask.all(), name
    assert int(widgets.patterns((8, 8))["random 75 %"].sum()) == 48


def test_attention_from_a_patch(model, images):
    weights = widgets.all_attention(images, model.encoder)
    assert weights.shape == (H * W, H * W)
    assert (weights >= 0).all() and (weights.sum(dim=1) < 1).all()  # the class token has the rest
    looked = widgets.look_from(weights, 6, (H, W))
    assert looked.shape == (H, W) and looked[1, 2] == weights[6, 6]
    with pytest.raises(ValueError, match="patches 0 to 15"):
        widgets.look_from(weights, 16, (H, W))


@pytest.mark.parametrize(
    ("environment", "live"),
    [
        ({}, False),
        ({"JPY_SESSION_NAME": "x.ipynb"}, True),
        ({"VSCODE_PID": "1"}, True),
        ({"JPY_SESSION_NAME": "x.ipynb", "MIMLIB_STATIC": "1"}, False),
        ({"MIMLIB_STATIC": "0"}, True),
    ],
)
def test_static_unless_a_front_end_listens(monkeypatch, environment, live):
    for name in ("MIMLIB_STATIC", "JPY_SESSION_NAME", "VSCODE_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert widgets.is_live() is live


def test_headless_is_a_picture(model, images):
    assert isinstance(widgets.paint_mask(images, model), Picture)
    assert isinstance(widgets.attention_explorer(images, model.encoder), Picture)


def test_a_click_hides_a_patch_and_redraws(model, images, monkeypatch):
    monkeypatch.setenv("MIMLIB_STATIC", "0")
    box = widgets.paint_mask(images, model)
    left, picture = box.children
    buttons = left.children[0].children
    assert len(buttons) == H * W
    before, color = picture.value, buttons[0].style.button_color
    buttons[0].click()
    assert picture.value[:4] == b"\x89PNG" and picture.value != before
    assert buttons[0].style.button_color != color


def test_hiding_everything_by_hand_says_so(model, images, monkeypatch):
    monkeypatch.setenv("MIMLIB_STATIC", "0")
    almost = torch.ones(H * W, dtype=torch.bool)
    almost[0] = False
    box = widgets.paint_mask(images, model, {"almost": almost})
    board, notice = box.children[0].children
    board.children[0].click()
    assert "at least one" in notice.value


def test_a_click_moves_the_question(model, images, monkeypatch):
    monkeypatch.setenv("MIMLIB_STATIC", "0")
    box = widgets.attention_explorer(images, model.encoder)
    board = box.children[0].children[0]
    board.children[5].click()
    first = box.children[1].value
    board.children[9].click()
    assert first != box.children[1].value
    chosen = [b.style.button_color for b in board.children]
    assert len([c for c in chosen if c == chosen[9]]) == 1


def test_before_and_after_answer_the_same_click(model, images, monkeypatch):
    encoders = {"before": model.config.encoder.build(), "after": model.encoder}
    assert len(widgets.attention_explorer(images, encoders, [3]).axes) == 4
    monkeypatch.setenv("MIMLIB_STATIC", "0")
    box = widgets.attention_explorer(images, encoders)
    box.children[0].children[0].children[5].click()
    assert box.children[1].value[:4] == b"\x89PNG"
