"""The whole chain of detection, from files to metric, on images that can be learned by heart."""

import pytest
from detection_by_heart import WIDTH, by_heart, encoder_of, real_images, world_images
from real_data import sample


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["convvit", "vit"])
def test_rooms_can_be_learnt_by_heart(kind):
    """Measured with ConvViT and ViT: AP of boxes 0.89 and 0.94, of masks 0.72 and 0.78."""
    source = world_images(size=64, count=3)
    scores = by_heart(source, encoder_of(kind, 64, 8, WIDTH), 12, (6, 10, 16, 26, 44), steps=120)
    assert scores["box_ap_50"] > 0.95 and scores["box_ap"] > 0.75, scores
    assert scores["mask_ap_50"] > 0.8 and scores["mask_ap"] > 0.45, scores


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
def test_real_images_can_be_learnt_by_heart():
    """Two COCO images; with 5, 256 pixels and 320 steps: box AP 0.99, mask AP 0.93."""
    source = real_images(sample("coco_subset").parent, size=128, count=2)
    anchors = (12, 20, 36, 64, 100)
    scores = by_heart(source, encoder_of("convvit", 128, 16, WIDTH), 80, anchors, steps=120)
    assert scores["box_ap_50"] > 0.95 and scores["box_ap"] > 0.7, scores
    assert scores["mask_ap_50"] > 0.8 and scores["mask_ap"] > 0.5, scores
