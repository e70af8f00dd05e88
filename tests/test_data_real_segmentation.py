"""Real label maps, where there are any: MIMLIB_REALDATA names the folder of data set samples."""

import pytest
from real_data import FOLDER, sample
from segmentation_by_heart import FILES, NUM_CLASSES, WIDTH, by_heart, encoder_of, real_images

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")


def source_of(name, size):
    sample(FILES[name]["root"])
    return real_images(FOLDER, name, size)


@pytest.mark.parametrize("name", FILES)
def test_real_label_maps_are_read(name):
    crops = next(source_of(name, 64).build().batches(0, 3, seed=0))
    assert crops.images.shape == (3, 3, 64, 64) and crops.target.shape == (3, 64, 64)
    whole = source_of(name, 64).build().first(1)
    assert whole.images.shape[2:] == whole.target.shape[1:] > (64, 64)
    for batch in (crops, whole):
        known = batch.target[batch.valid]
        assert known.min() >= 0 and known.max() < NUM_CLASSES[name] and len(known.unique()) > 2
        assert batch.valid.float().mean() > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["convvit", "vit"])
def test_real_images_can_be_learnt_by_heart(kind):
    """ADE20K's three samples, briefly; see tests/segmentation_by_heart.py for the whole run."""
    data = source_of("ade20k", 64)
    scores = by_heart(data, encoder_of(kind, 64, 4, WIDTH), NUM_CLASSES["ade20k"], steps=240)
    assert scores["accuracy"] > 0.95 and scores["miou"] > 0.5, scores
