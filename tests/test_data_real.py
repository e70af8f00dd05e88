"""Real files, where there are any: set MIMLIB_REALDATA to a folder of data set samples."""

import pytest
import torch
from real_data import FOLDER, sample

from mimlib.data.images.configs import ImageFolderConfig

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")


def test_imagenet_photographs():
    source = ImageFolderConfig(root=str(sample("imagenet_sample")), size=224).build()
    batch = next(source.batches(0, 16, seed=0))
    assert batch.images.shape == (16, 3, 224, 224)
    assert 40 < batch.images.float().mean() < 200
    assert batch.images.float().std() > 30


def test_cifar_classes():
    config = ImageFolderConfig(
        root=str(sample("cifar10_jpeg")), split="train", size=32, labels=True, evaluation_share=1.0
    )
    source = config.build()
    names = sorted(path.name for path in (FOLDER / "cifar10_jpeg" / "train").iterdir())
    assert names[0] == "airplane"
    assert len(source) == 5000
    assert torch.bincount(source.first(500).labels).tolist() == [50] * 10
    assert source.folder.path(0).split("/")[-2] == "airplane"
