"""Features extracted once, and what is learnt from them in a moment."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from mimlib.data.batches import DenseBatch
from mimlib.encoders.vit import ViTConfig
from mimlib.evaluation.frozen import extract, fit_linear, knn, majority_classes, patch_samples
from mimlib.evaluation.measurement import evaluating
from mimlib.layers.patches import normalize
from mimlib.tasks.heads.linear import pooled


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    config = ViTConfig(width=16, depth=2, heads=2, patch_size=8, image_size=16, drop_path=0.5)
    return config.build()


@pytest.fixture
def images():
    return torch.randint(256, (7, 3, 16, 16), generator=generator(), dtype=torch.uint8)


def clusters(count, num_classes=3, width=6, spread=0.3, seed=0):
    """Points around one centre per class, not standardised at all."""
    draw = generator(seed)
    labels = torch.randint(num_classes, (count,), generator=draw)
    centres = torch.randn(num_classes, width, generator=generator(99)) * 2
    points = centres[labels] + spread * torch.randn(count, width, generator=draw)
    return points * torch.logspace(-3, 3, width) + 5, labels


def test_extract_is_one_forward_in_evaluation_mode_and_keeps_what_is_asked_for(encoder, images):
    encoder.train()
    encoder.blocks[1].eval()
    modes = [module.training for module in encoder.modules()]
    seen = []

    def last_token(features, rows):
        seen.append((rows, features.tokens.shape))
        return features.tokens[:, -1]

    kept = extract(encoder, images, last_token, batch_size=3)
    assert [module.training for module in encoder.modules()] == modes
    encoder.eval()
    expected = encoder(normalize(images))
    torch.testing.assert_close(kept, expected.tokens[:, -1])
    assert kept.shape == (7, 16) and not kept.requires_grad, "no token but the last is held"
    assert seen == [(slice(i, i + 3), (min(3, 7 - i), 4, 16)) for i in (0, 3, 6)]


def test_evaluating_gives_modes_back_after_an_error(encoder):
    encoder.train()
    with pytest.raises(RuntimeError, match="inside"), evaluating(encoder):
        assert not encoder.training and not torch.is_grad_enabled()
        raise RuntimeError("inside")
    assert all(module.training for module in encoder.modules()) and torch.is_grad_enabled()


def test_pooled_vectors(encoder, images):
    features = encoder.eval()(normalize(images))
    assert torch.equal(pooled(features, "class_token"), features.class_token)
    assert torch.equal(pooled(features, "mean"), features.tokens.mean(1))
    with pytest.raises(ValueError, match="has no class token"):
        pooled(features._replace(class_token=None), "class_token")


def test_majority_class_by_hand():
    classes = torch.tensor(
        [
            [0, 0, 2, 2],
            [0, 1, 1, 1],
            [3, 3, 9, 9],
            [1, 1, 9, 9],
        ]
    )[None]
    valid = classes < 9
    labels, counted = majority_classes(classes, valid, patch_size=2, num_classes=4)
    assert labels.tolist() == [[0, 1, 1, 0]]  # ties go to the lower id
    assert counted.tolist() == [[True, True, True, False]]
    valid[0, 0, 0] = valid[0, 0, 1] = False  # one 0 and one 1 are left in the first patch
    valid[0, 1, 0] = False
    assert majority_classes(classes, valid, 2, 4)[0].tolist() == [[1, 1, 1, 0]]


def test_majority_class_against_loops():
    draw = generator(1)
    classes = torch.randint(5, (3, 12, 8), generator=draw)
    valid = torch.rand(3, 12, 8, generator=draw) < 0.3
    labels, counted = majority_classes(classes, valid, 4, 5)
    for b in range(3):
        for n in range(6):
            row, column = n // 2 * 4, n % 2 * 4
            window = (b, slice(row, row + 4), slice(column, column + 4))
            counts = torch.bincount(classes[window][valid[window]], minlength=5)
            assert counted[b, n] == bool(counts.sum())
            assert counts[labels[b, n]] == counts.max()


def test_fit_linear_reaches_the_optimum_that_scikit_learn_finds():
    features, labels = clusters(400, spread=1.5)
    head = fit_linear(features, labels, 3, decay=1e-2)
    standard = (features - features.mean(0)) / (features.var(0, unbiased=False) + 1e-6).sqrt()
    solver = LogisticRegression(C=1 / (1e-2 * len(labels)), tol=1e-8, max_iter=1000)
    expected = solver.fit(standard.double().numpy(), labels.numpy())
    ours = functional.softmax(head(features), dim=1)
    theirs = torch.from_numpy(expected.predict_proba(standard.double().numpy())).float()
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)


def test_fit_linear_separates_held_out_points_and_repeats_itself():
    features, labels = clusters(200)
    held_out, truth = clusters(100, seed=1)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = fit_linear(features, labels, 3)
    assert torch.equal(torch.get_rng_state(), state), "a measurement disturbed the random state"
    torch.manual_seed(2)
    with torch.no_grad():  # as inside the trainer's evaluation
        second = fit_linear(features, labels, 3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))
    assert not first.training and not any(p.requires_grad for p in first.parameters())
    assert (first(held_out).argmax(1) == truth).float().mean() > 0.98


def test_fit_linear_survives_a_dead_feature_and_a_missing_class():
    features, labels = clusters(60)
    features[:, 2] = 4.0
    head = fit_linear(features, labels, num_classes=5)
    assert head(features).isfinite().all()
    assert (head(features).argmax(1) == labels).float().mean() > 0.95


def test_fit_linear_refuses_what_does_not_fit():
    features, labels = clusters(10)
    with pytest.raises(ValueError, match="got 10 features and 9 labels"):
        fit_linear(features, labels[:9], 3)
    with pytest.raises(ValueError, match="got 0 features"):
        fit_linear(features[:0], labels[:0], 3)
    with pytest.raises(ValueError, match="class ids run from 0 to 2, but this task has 2"):
        fit_linear(features, labels, 2)


def test_samples_are_the_patches_that_have_a_class(encoder, images):
    draw = generator(3)
    classes = torch.randint(3, (7, 16, 16), generator=draw)
    valid = torch.rand(7, 16, 16, generator=draw) < 0.02  # some patches have no truth
    features, labels = patch_samples(encoder, DenseBatch(images, classes, valid), 3)
    assert 0 < len(labels) < 7 * 4
    expected, counted = majority_classes(classes, valid, 8, 3)
    torch.testing.assert_close(features, encoder.eval()(normalize(images)).tokens[counted])
    assert torch.equal(labels, expected[counted])


def test_knn_by_hand():
    features = torch.tensor([[1.0, 0.0], [10.0, 1.0], [0.0, 2.0], [-1.0, 0.0]])
    labels = torch.tensor([0, 1, 1, 2])
    query = torch.tensor([[5.0, 0.1]])
    assert knn(features, labels, query, 3, neighbors=1).tolist() == [0]
    assert knn(features, labels, query, 3, neighbors=3, temperature=1.0).tolist() == [1]
    # similarities 0.9998, 0.997 and 0.02: at a low temperature only the nearest one has a say
    assert knn(features, labels, query, 3, neighbors=3, temperature=1e-3).tolist() == [0]
    assert knn(features, labels, features, 3, neighbors=1).tolist() == labels.tolist()


def test_knn_against_loops():
    features, labels = clusters(40, num_classes=4, spread=3.0)
    queries, _ = clusters(15, num_classes=4, spread=3.0, seed=5)
    predicted = knn(features, labels, queries, 4, neighbors=7, temperature=0.2)
    for query, got in zip(queries, predicted):
        similarity = torch.stack([functional.cosine_similarity(query, f, dim=0) for f in features])
        votes = [0.0] * 4
        for index in similarity.argsort(descending=True)[:7]:
            votes[labels[index]] += float(torch.exp(similarity[index] / 0.2))
        assert int(got) == max(range(4), key=votes.__getitem__)


def test_knn_separates_held_out_points():
    features, labels = clusters(200)
    held_out, truth = clusters(100, seed=1)
    predicted = knn(features / features.std(0), labels, held_out / features.std(0), 3)
    assert (predicted == truth).float().mean() > 0.95


def test_knn_refuses_more_neighbours_than_there_are():
    features, labels = clusters(10)
    for wrong in (0, 11):
        with pytest.raises(ValueError, match=rf"\[1, 10\].*got {wrong}"):
            knn(features, labels, features, 3, neighbors=wrong)
