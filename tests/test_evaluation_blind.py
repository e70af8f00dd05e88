"""Answers that never look at the image, against loops over hand-made batches."""

from collections import Counter
from statistics import fmean, median_low

import pytest
import torch
from test_tasks_video_evaluation import Given

from mimlib.data.batches import DenseBatch, DensePairBatch, LabelBatch
from mimlib.data.videos.masks import Video
from mimlib.evaluation.frozen import FrozenEvaluation, FrozenProbeConfig
from mimlib.evaluation.label_propagation import LabelPropagationConfig
from mimlib.evaluation.measurement import answer_blind
from mimlib.evaluation.validation import Validation, ValidationConfig
from mimlib.metrics.dense import depth_metrics
from mimlib.metrics.matching import flow_metrics

CLASSES = 4


class Source:
    """Gives one batch."""

    def __init__(self, batch):
        self.batch = batch

    def first(self, count):
        return self.batch


class Metrics:
    """In the place of a task."""

    def __init__(self, make):
        self.metrics = make


def draw(seed):
    return torch.Generator().manual_seed(seed)


def classes(seed, batch=5):
    """Ids of 8 x 8 pixels, one in four unknown; no pixel of the first one is known."""
    target = torch.randint(CLASSES, (batch, 8, 8), generator=draw(seed))
    valid = torch.rand(batch, 8, 8, generator=draw(seed + 1)) < 0.75
    valid[:, 0, 0] = seed >= 10  # what is held out
    return DenseBatch(torch.zeros(batch, 3, 8, 8, dtype=torch.uint8), target, valid)


def commonest(ids):
    """The lowest of those that occur most often."""
    counts = Counter(ids)
    return min((-count, each) for each, count in counts.items())[1] if ids else 0


def places(labeled):
    """What is known at each place."""
    _, target, valid = labeled
    for row in range(8):
        for column in range(8):
            yield row, column, target[:, row, column][valid[:, row, column]].tolist()


def test_the_commonest_class_of_each_pixel():
    labeled, held_out = classes(0), classes(10)
    answer, truth = answer_blind(labeled[1:], held_out[1:])
    expected = torch.zeros(8, 8, dtype=torch.long)
    for row, column, ids in places(labeled):
        expected[row, column] = commonest(ids)
    assert torch.equal(truth, held_out.target[held_out.valid])
    assert torch.equal(answer, expected.expand(5, 8, 8)[held_out.valid])


def test_the_mean_depth_of_each_pixel_has_the_least_squared_error():
    labeled, held_out = classes(0), classes(10)
    labeled, held_out = (b._replace(target=1 + b.target + 0.5) for b in (labeled, held_out))
    measured = measure(depth_metrics, labeled, held_out)
    whole = labeled.target[labeled.valid].mean()
    squares = []
    for row, column, known in places(labeled):
        answer = fmean(known) if known else float(whole)
        true = held_out.target[:, row, column][held_out.valid[:, row, column]]
        squares += [(answer - each) ** 2 for each in true.tolist()]
    assert measured["rmse"] == pytest.approx(fmean(squares) ** 0.5, abs=1e-5)


def test_the_median_displacement_of_each_pixel():
    batches = []
    for seed in (0, 10):
        images, _, valid = classes(seed)
        flow = torch.randn(5, 8, 8, 2, generator=draw(seed))
        flow[~valid] = torch.inf  # whatever is stored where nothing is known
        batches.append(DensePairBatch(images, images, flow, valid))
    labeled, held_out = batches
    measured = measure(flow_metrics, labeled, held_out)
    whole = labeled.target[labeled.valid].mean()
    errors = []
    for row in range(8):
        for column in range(8):
            known = labeled.target[:, row, column][labeled.valid[:, row, column]].tolist()
            answer = [median_low(each) for each in zip(*known)] if known else [float(whole)] * 2
            true = held_out.target[:, row, column][held_out.valid[:, row, column]]
            errors += [float((torch.tensor(answer) - each).norm()) for each in true]
    assert measured["epe"] == pytest.approx(fmean(errors), abs=1e-5)


def measure(metrics, labeled, held_out):
    validation = Validation(Source(held_out), ValidationConfig(source=None))
    return validation.run_blind(Metrics(metrics), labeled)


def probe(train, held_out):
    config = FrozenProbeConfig(train=None, held_out=None, num_classes=CLASSES)
    return FrozenEvaluation(Source(train), Source(held_out), config)


def test_the_commonest_class_of_each_patch():
    train, held_out = (
        b._replace(valid=torch.ones_like(b.valid)) for b in (classes(0), classes(10))
    )
    right = []
    for row in (0, 4):
        for column in (0, 4):
            square = (slice(None), slice(row, row + 4), slice(column, column + 4))
            found, true = (
                [commonest(each.flatten().tolist()) for each in b.target[square]]
                for b in (train, held_out)
            )
            right += [commonest(found) == each for each in true]
    assert probe(train, held_out).run_blind(4)["accuracy"] == pytest.approx(fmean(right))


def test_the_commonest_label():
    images = torch.zeros(5, 3, 8, 8, dtype=torch.uint8)
    train, held_out = (
        LabelBatch(images, torch.tensor(ids)) for ids in ([2, 1, 2, 0, 1], [1, 1, 2, 0, 3])
    )
    assert probe(train, held_out).run_blind(4) == {"accuracy": pytest.approx(0.4)}


def test_things_that_stay_where_they_are():
    mask = torch.zeros(8, 8, dtype=torch.uint8)
    mask[2:6, 2:6] = 1
    frames = [torch.zeros(3, 8, 8, dtype=torch.uint8)] * 4
    still = Video("still", frames, [mask] * 4)
    moving = Video("moving", frames, [mask, mask.roll(2, 1), mask.roll(4, 1), mask])
    for video, j in ((still, 1.0), (moving, (8 / 24 + 0 / 32) / 2)):
        clips = LabelPropagationConfig(source=Given([video])).build()
        assert clips.score(None, 4, torch.device("cpu"))["j_mean"] == pytest.approx(j)
