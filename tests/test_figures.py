"""Figures: every function draws, with names on its axes, and leaves matplotlib as it was."""

import matplotlib
import numpy as np
import pytest
import torch

from mimlib import figures
from mimlib.evidence.claims import STUDIES
from mimlib.figures import charts, style, truth
from mimlib.layers.positions import sincos_table

IMAGES = torch.randint(
    0, 256, (3, 3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def pixels_of(picture) -> np.ndarray:
    import io

    return matplotlib.image.imread(io.BytesIO(picture._repr_png_()))


def drawn(picture) -> bool:
    """Whether what was drawn shows: take it away, keep frames and words, and pixels change."""
    whole, artists = pixels_of(picture), []
    for axes in picture.axes:
        artists += [*axes.images, *axes.lines, *axes.patches, *axes.collections]
    if not artists or not any(artist.get_visible() for artist in artists):
        return False
    for artist in artists:
        artist.set_visible(False)
    empty = pixels_of(picture)
    for artist in artists:
        artist.set_visible(True)
    return whole.shape != empty.shape or bool((whole != empty).mean() > 0.001)


def test_empty_axes_are_not_drawn():
    picture, axes = style.canvas(1, 2, 2.0, 2.0)
    assert not drawn(picture)
    axes[0, 0].set_title("a title"), axes[0, 1].imshow(np.zeros((4, 4)))
    assert drawn(picture)
    axes[0, 1].images[0].remove()
    assert not drawn(picture)


@pytest.fixture(autouse=True)
def rules_stay():
    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before


def test_picture_shows_itself_as_png_and_gives_the_same_bytes():
    picture = figures.images(IMAGES, ["a", "b", "c"])
    png = picture._repr_png_()
    assert png[:4] == b"\x89PNG" and png == figures.images(IMAGES, ["a", "b", "c"])._repr_png_()
    assert "Picture size" in repr(picture)
    assert b"matplotlib" not in png


def test_images_wrap_and_take_floats_and_any_size():
    assert drawn(figures.images(IMAGES / 255, columns=2))
    assert len(figures.images(IMAGES, columns=2).axes) == 4
    assert drawn(figures.images([IMAGES[0], IMAGES[1, :, :8, :8]]))


def test_rows_name_each_row():
    picture = figures.rows({"input": IMAGES, "masked": IMAGES})
    assert drawn(picture) and len(picture.axes) == 6
    words = {text.get_text() for axis in picture.axes for text in axis.texts}
    assert words == {"input", "masked"}
    with pytest.raises(ValueError):
        figures.rows({"input": IMAGES, "masked": IMAGES[:2]})


def test_hide_covers_hidden_patches_only():
    hidden = torch.zeros(3, 6, dtype=torch.bool)
    hidden[:, 1] = True
    for images in (IMAGES, IMAGES / 255):
        covered = figures.hide(images, hidden, 8)
        assert covered.dtype == images.dtype
        grey = covered[:, :, :8, 8:16]
        assert (grey == grey[0, 0, 0, 0]).all()
        assert torch.equal(covered[:, :, 8:], images[:, :, 8:])
        assert torch.equal(covered[:, :, :, :8], images[:, :, :, :8])


def test_patch_grid_numbers_every_patch():
    picture = figures.patch_grid(IMAGES[0], 8)
    assert drawn(picture)
    assert [axis.texts[0].get_text() for axis in picture.axes] == [str(i) for i in range(6)]


def test_class_maps_share_their_colours_and_say_which_is_which():
    truth_map = torch.tensor([0, 1, 1, -1]).repeat(3, 16, 6)
    prediction = torch.where(truth_map == 1, 2, truth_map)
    names = ["wall", "floor", "lamp", "unseen"]
    picture = figures.class_maps(IMAGES, {"truth": truth_map, "prediction": prediction}, names)
    assert drawn(picture) and len(picture.axes) == 9
    (legend,) = picture.legends
    assert [text.get_text() for text in legend.get_texts()] == names[:3]
    shown = [np.asarray(axis.images[0].get_array()) for axis in picture.axes]
    true, found = shown[3], shown[6]
    assert (true == found).all(-1).mean() == 0.5, "walls and what has no class"
    grey = tuple(round(value * 255) for value in true[0, 3])
    assert grey == (140, 140, 140)
    for patch, column in zip(legend.get_patches(), (true[0, 0], true[0, 1], found[0, 1])):
        assert np.allclose(patch.get_facecolor()[:3], column)


def test_the_most_frequent_of_many_classes_have_colours_of_their_own():
    names = [f"class {i}" for i in range(150)]
    ids = torch.zeros(1, 16, 24, dtype=torch.int64)
    for column in range(20):
        ids[:, : 16 - column // 2, column] = 7 * column + 9
    picture = figures.class_maps(IMAGES[:1], {"truth": ids}, names)
    (legend,) = picture.legends
    colors = [patch.get_facecolor() for patch in legend.get_patches()]
    assert len(colors) == len(set(colors)) == 16
    assert legend.get_texts()[0].get_text() == "class 0"


def test_positions_and_attention():
    table = sincos_table((4, 6), 16)
    picture = figures.positions(table, (4, 6), [0, 9])
    assert drawn(picture)
    assert picture.axes[0].get_xlabel() == "channel"
    maps = {0: torch.rand(2, 3), 5: torch.rand(2, 3)}
    both = figures.attention_rows(IMAGES[0], {"before": maps, "after": maps}, 8)
    assert drawn(both) and len(both.axes) == 6
    assert [axis.get_title() for axis in both.axes[::3]] == ["before", "after"]


def test_followed_objects_keep_their_colours_and_the_rest_its_pixels():
    truth_ids = torch.zeros(3, 16, 24, dtype=torch.uint8)
    truth_ids[:, :4, :4], truth_ids[1, 8:, 8:] = 1, 2
    picture = figures.followed(IMAGES, {"truth": truth_ids, "found": truth_ids * 0})
    assert drawn(picture) and len(picture.axes) == 6
    shown = [np.asarray(axis.images[0].get_array()) for axis in picture.axes]
    for index, (true, found) in enumerate(zip(shown[:3], shown[3:])):
        tinted = truth_ids[index].numpy() > 0
        assert (true != found).any(-1)[tinted].all() and (true == found)[~tinted].all()
    assert not np.array_equal(shown[1][0, 0], shown[1][15, 23]), "two objects, two colours"


def test_charts_name_their_axes():
    runs = ([1, 2, 3], [[1.0, 0.5, 0.2], [1.1, 0.4, 0.3]])
    lines = figures.curves({"a": runs, "b": ([1, 3], [1, 0])}, "step", "loss", {"mean": 0.7})
    axis = lines.axes[0]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("step", "loss")
    words = {text.get_text() for text in axis.get_legend().get_texts()}
    assert words == {"a, 95 % interval", "b", "mean"}


def test_few_places_of_a_logarithmic_axis_have_their_numbers():
    lines = {"a": ((16, 64, 256), (1, 2, 3)), "b": ((512,), (1,))}
    (axes,) = figures.curves(lines, "labels", "error", log_x=True).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["16", "64", "256", "512"]
    assert not axes.get_xticks(minor=True).size


def test_a_band_is_the_interval_of_the_runs():
    runs = [[1.0, 0.5], [2.0, 0.5], [3.0, 0.5]]
    axis = figures.curves({"a": ([0, 1], runs)}, "step", "loss", {"mean": 1.0}).axes[0]
    (band,) = axis.collections
    low, high = band.get_paths()[0].get_extents().get_points()[:, 1]
    assert (2 - low, high - 2) == pytest.approx((2.484, 2.484), abs=1e-3), "4.303 * 1 / sqrt(3)"
    assert "95 % interval" in axis.get_legend().get_texts()[0].get_text()


def test_bars_start_from_zero_and_carry_their_values():
    picture = figures.bars({"x": 0.71, "y": 0.72, "z": -0.01}, "accuracy")
    (axis,) = picture.axes
    assert drawn(picture) and axis.get_ylim()[0] < -0.01 and axis.get_ylim()[1] > 0.72
    assert {"0.710", "0.720", "-0.0100"} <= {text.get_text() for text in axis.texts}
    assert figures.bars({"x": 0.71, "y": 0.72}, "accuracy").axes[0].get_ylim()[0] == 0


def test_points_beside_the_line_of_equals():
    picture = figures.scatter({"a": ([0.1, 0.9], [0.2, 0.8]), "b": ([0.5], [0.5])}, "x", "y")
    axis = picture.axes[0]
    assert drawn(picture) and len(axis.collections) == 2
    (line,) = axis.lines
    assert list(line.get_xdata()) == list(line.get_ydata()) == list(axis.get_xlim())
    assert axis.get_xlim() == axis.get_ylim() and axis.get_xlim()[0] < 0.1
    words = {text.get_text() for text in axis.get_legend().get_texts()}
    assert words == {"a", "b", "equal"}


def test_a_study_is_drawn_seed_by_seed():
    metrics = {
        "on": {
            "metrics": {"accuracy": {"values": [0.69, 0.71], "mean": 0.7, "interval": [0.6, 0.8]}}
        },
        "off": {
            "metrics": {"accuracy": {"values": [0.5, 0.7], "mean": 0.6, "interval": [0.5, 0.7]}}
        },
    }
    picture = figures.study({"settings": metrics}, "accuracy", {"on": 84.9}, "paper: top-1 in %")
    axis = picture.axes[0]
    assert drawn(picture)
    assert [t.get_text() for t in axis.get_xticklabels()] == ["on\n(84.9)", "off"]
    assert "more is better" in axis.get_ylabel() and "paper: top-1" in axis.get_xlabel()
    dots = [tuple(line.get_ydata()) for line in axis.lines if line.get_marker() == "o"]
    assert dots == [(0.69, 0.5), (0.71, 0.7)], "one for each seed"
    ends = [tuple(path.vertices[:, 1]) for path in axis.collections[0].get_paths()]
    assert np.allclose(ends, [(0.6, 0.8), (0.5, 0.7)])
    assert {"0.700", "0.600"} <= {text.get_text() for text in axis.texts}
    words = {text.get_text() for text in axis.get_legend().get_texts()}
    assert words == {"a seed, of 2", "mean, 95 % interval"}
    metrics["blind"] = metrics["off"]
    axis = figures.study({"settings": metrics}, "accuracy").axes[0]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["on", "off", "blind"]
    metrics["on"]["metrics"]["step [ms]"] = metrics["off"]["metrics"]["accuracy"]
    axis = figures.study({"settings": metrics}, "step [ms]").axes[0]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["on"], "the others do not have it"
    with pytest.raises(KeyError, match="no setting has 'steps'.*accuracy"):
        figures.study({"settings": metrics}, "steps")


@pytest.mark.parametrize(
    ("means", "half", "words"),
    [
        ((1.0712, 1.0736), 0.0083, {"1.071", "1.074"}),  # stereo, px: the intervals are narrow
        ((0.0076, 0.0391), 0.034, {"0.0076", "0.0391"}),
        ((-0.00007, 4.5197), 0.2, {"0.00", "4.52"}),
        ((14.41, 22.25), 0.0, {"14.4", "22.2"}),
        ((98.4, 143.2), 0.0, {"98", "143"}),
        ((0.0, 0.0), 0.0, {"0"}),
    ],
)
def test_the_means_of_a_study_have_equally_many_decimals(means, half, words):
    settings = {
        str(i): {"metrics": {"x": {"values": [m], "mean": m, "interval": [m - half, m + half]}}}
        for i, m in enumerate(means)
    }
    axis = figures.study({"settings": settings}, "x").axes[0]
    assert {text.get_text() for text in axis.texts} == words


NEITHER = {"reliance on the second view", "attention diversity"}  # more is not better by itself


@pytest.mark.parametrize("name", sorted(STUDIES))
def test_an_axis_says_what_the_rules_of_a_study_take_for_better(name):
    for rule in STUDIES[name].rules:
        better = "more" if rule.higher_is_better else "less"
        direction = "" if rule.metric in NEITHER else f"\n({better} is better)"
        assert charts.directed(rule.metric) == f"{rule.metric}{direction}"


def test_some_metrics_have_no_better_end():
    for metric in NEITHER:
        assert charts.directed(metric) == metric


@pytest.mark.parametrize(
    ("metric", "better"),
    [
        ("depth REL, fine-tuned", "less"),
        ("flow off by more than 1 px", "less"),
        ("pre-training loss", "less"),
        ("semantic probe mIoU, frozen", "more"),
        ("label propagation J&F", "more"),
    ],
)
def test_metrics_without_a_rule_have_a_direction_too(metric, better):
    assert f"({better} is better)" in charts.directed(metric)


def test_a_stored_picture_keeps_its_colors():
    ramp = torch.arange(256, dtype=torch.uint8).repeat(3, 16, 1)  # 256 colors at least
    shown = pixels_of(figures.images([ramp], size=3.2))
    assert len(np.unique(shown[shown.shape[0] // 2], axis=0)) > 30
    names = torch.tensor([0, 1, 2]).repeat(3, 16, 8)
    picture = figures.class_maps(IMAGES, {"truth": names}, ["wall", "floor", "lamp"])
    stored = (pixels_of(picture)[..., :3] * 255).round().reshape(-1, 3)
    for patch in picture.legends[0].get_patches():
        wanted = np.array(patch.get_facecolor()[:3]) * 255
        assert (abs(stored - wanted).max(axis=1) <= 6).sum() > 50, "as in its legend"
    noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert len(figures.images([noise])._repr_png_()) < 45_000, "a palette, not true colors"


def test_ground_truth_panels():
    image = IMAGES[0]
    ids = torch.arange(24).expand(16, 24) // 4
    motion = torch.ones(16, 24, 2)
    seen = torch.ones(16, 24, dtype=torch.bool)
    picture, axes = truth.panels(10)
    truth.depth(axes[0], torch.rand(16, 24))
    truth.normals(axes[1], torch.nn.functional.normalize(torch.randn(3, 16, 24), dim=0))
    truth.instances(axes[2], ids * 100)
    truth.classes(axes[3], ids, ["wall", "floor", "box", "ball", "person", "plant"])
    truth.boxes(axes[4], image, torch.tensor([[2.0, 3, 9, 12]]), ["ball"])
    joints = torch.rand(1, 3, 2) * 16
    truth.keypoints(axes[5], image, joints, torch.tensor([[True, False, True]]), [(0, 1)])
    truth.flow(axes[6], image, motion, seen)
    truth.seen_in_both(axes[7], image, ~seen)
    lens = torch.tensor([[20.0, 0, 12], [0, 20, 8], [0, 0, 1]])
    truth.from_above(axes[8], image, torch.rand(16, 24), lens)
    paths = torch.rand(5, 3, 2) * 16
    truth.tracks(axes[9], image, paths, torch.tensor([True, False, True]), torch.tensor([4, 9, 4]))
    first, second, third = (line.get_color() for line in axes[9].lines)
    assert (first == third).all() and (first != second).any(), "a colour for each instance"
    assert [len(dots.get_offsets()) for dots in axes[9].collections] == [2, 1]  # in sight, hidden
    assert drawn(picture)
    assert [axis.get_title() for axis in axes][0] == "depth"
    assert "metres" in {axis.get_ylabel() for axis in picture.axes}


def test_instances_differ_in_colour():
    ids = torch.tensor([[0, 7], [9, 500]])
    picture, axes = truth.panels(1)
    truth.instances(axes[0], ids)
    shown = axes[0].images[0].get_array().reshape(4, 3)
    assert len(np.unique(shown, axis=0)) == 4


def test_colours_are_told_apart_by_colour_blind_people():
    """Simulated red- and green-blindness (Vienot 1999) keeps the first six colours apart."""
    rgb = np.array([matplotlib.colors.to_rgb(c) for c in figures.COLORS[:6]]) ** 2.2
    red = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
    green = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    for blind in (red, green):
        seen = np.clip(rgb @ blind.T, 0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 9 * np.eye(6)
        assert apart.min() > 0.1


def test_looking_into_the_other_image():
    maps = {1: torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])}
    picture = figures.looks(IMAGES[0], IMAGES[1] / 255, maps, 8, {1: torch.tensor([20.0, 12.0])})
    one, two, lit = picture.axes
    assert drawn(picture) and lit.get_title() == "from patch 1"
    assert one.patches[0].get_xy() == (7.5, -0.5)  # the second patch of the first row
    for axis in (two, lit):  # the ring, twice: with a dark rim
        assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in axis.lines] == [
            (19.5, 11.5)
        ] * 2
    shown = lit.images[0].get_array()
    assert np.allclose(shown[8:, 16:], two.images[0].get_array()[8:, 16:])  # where it looks
    assert np.allclose(shown[:8], style.DARKEST * two.images[0].get_array()[:8])
    assert not figures.looks(IMAGES[0], IMAGES[1], maps, 8).axes[1].lines, "no truth, no ring"


def test_matches_join_what_was_found_to_the_truth():
    asked, found = torch.tensor([[4.0, 4.0], [20.0, 8.0]]), torch.tensor([[8.0, 4.0], [12.0, 8.0]])
    true = torch.tensor([[8.5, 6.0], [12.0, 8.0]])
    picture = figures.matches(IMAGES[0], IMAGES[1], asked, found, true)
    left, right = picture.axes
    assert drawn(picture)
    assert [line.get_xdata()[0] for line in left.lines] == [3.5, 19.5]
    error = right.lines[0]
    assert (list(error.get_xdata()), list(error.get_ydata())) == ([7.5, 8.0], [3.5, 5.5])
    assert right.get_xlim() == (-0.5, 23.5) and right.get_ylim() == (15.5, -0.5)
    with pytest.raises(ValueError):
        figures.matches(IMAGES[0], IMAGES[1], asked, found[:1], true)


def test_amounts_become_colours_and_unknown_ones_white():
    values = torch.tensor([[[0.0, 5.0, 10.0, 99.0]]])
    shown = figures.colored(values, 0, 10, torch.tensor([[[True, True, True, False]]]))
    assert shown.shape == (1, 3, 1, 4)
    brightness = shown[0].mean(0)[0]
    assert brightness[0] < brightness[1] < brightness[2] < brightness[3] == 1
    assert torch.equal(figures.colored(values, 0, 10)[..., 3], shown[..., 2]), "beyond the end"


def test_flow_has_a_colour_for_every_direction():
    around = torch.tensor([[[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [0.0, 0.0]]]])
    shown = figures.flow_colors(2 * around, longest=2)[0, :, 0].T  # [5, 3]
    assert torch.equal(shown[4], torch.ones(3)), "white stands still"
    apart = torch.cdist(shown[:4], shown[:4]) + 9 * torch.eye(4)
    assert apart.min() > 0.5
    half = figures.flow_colors(around, longest=2)[0, :, 0].T
    assert torch.allclose(half[:4], (shown[:4] + 1) / 2), "paler where it is slower"
    hidden = figures.flow_colors(around, 2, torch.zeros(1, 1, 5, dtype=torch.bool))
    assert (hidden == 1).all()


def test_the_wheel_is_the_key_of_the_colours():
    wheel = figures.flow_wheel(33)
    assert wheel.shape == (3, 33, 33) and (wheel[:, 0, 0] == 1).all()
    right = figures.flow_colors(torch.tensor([[[[16.0, 0.0]]]]), 16.5)[0, :, 0, 0]
    assert torch.allclose(wheel[:, 16, 32], right)
    assert drawn(figures.images([wheel]))


def test_detections_are_drawn_beside_the_truth_with_their_scores():
    masks = torch.zeros(2, 16, 24, dtype=torch.bool)
    masks[0, 2:8, 3:9], masks[1, 5:12, 6:20] = True, True
    boxes = torch.tensor([[3.0, 2, 9, 8], [6, 5, 20, 12]])
    truth = figures.Shown(boxes, torch.tensor([0, 2]), masks)
    found = truth._replace(scores=torch.tensor([0.93, 0.52]))
    nothing = figures.Shown(boxes[:0], torch.tensor([], dtype=torch.long), masks[:0], boxes[:0, 0])
    names = ["chair", "lamp", "ball"]
    picture = figures.detections(IMAGES[:2], [truth, truth], [found, nothing], names)
    assert drawn(picture) and len(picture.axes) == 4
    assert [axis.get_title() for axis in picture.axes] == ["true", "true", "found", "found"]
    assert [len(axis.patches) for axis in picture.axes] == [2, 2, 2, 0]
    assert [text.get_text() for text in picture.axes[2].texts] == ["0.5", "0.9"], "surest on top"
    legend = [text.get_text() for text in picture.legends[0].texts]
    assert legend == ["chair", "ball"]
    shown, plain = (axis.images[0].get_array() for axis in (picture.axes[1], picture.axes[3]))
    changed = (shown != plain).any(-1)
    assert (changed == masks.any(0).numpy()).all(), "only what a mask covers is tinted"
    assert figures.detections(IMAGES[:1], [nothing], [nothing], names).legends == []
