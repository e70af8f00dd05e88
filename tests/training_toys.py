"""A method and a source small enough to train in milliseconds, for the trainer's tests."""

import os
import signal
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mimlib.protocol import Encoder, Features, Output, Trainable
from mimlib.training.config import TrainConfig
from mimlib.training.log import Summary
from mimlib.training.trainer import Trainer

SIDE = 4


class ToyBatch(NamedTuple):
    images: Tensor  # [B, 3, H, W] float32
    index: Tensor  # [B] int64


class ToyViews(NamedTuple):
    images: Tensor
    hidden: Tensor


class ToyEncoder(Encoder):
    stride, width, num_layers = SIDE, 8, 2

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3 * SIDE * SIDE, self.width)
        self.blocks = nn.ModuleList(nn.Linear(self.width, self.width) for _ in range(2))
        self.norm = nn.LayerNorm(self.width)

    def forward(self, images, mask=None, levels=()):
        tokens = self.embed(images.flatten(1)).unsqueeze(1)  # [B, 1, D]
        for block in self.blocks:
            tokens = tokens + torch.tanh(block(tokens))
        return Features(self.norm(tokens), None, (1, 1))

    def layer_of(self, name):
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return 0 if name.startswith("embed") else self.num_layers + 1


class Toy(Trainable):
    """Predict the image behind a random mask; a centre follows the mean of the features.

    `draws`: "index" draws the mask from the index of each image, so that it does not depend on
    how images are spread over ranks; "generator" draws it from the generator of the step.
    `uneven`: only what is hidden counts, and of some images nearly nothing is.
    """

    def __init__(self, draws: str = "generator", dropout: float = 0.0, uneven: bool = False):
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.encoder = ToyEncoder()
        self.decoder = nn.Linear(8, 3 * SIDE * SIDE)
        self.dropout = nn.Dropout(dropout)
        self.draws, self.uneven = draws, uneven
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(0, 0.2, generator=generator)
        self.register_buffer("centre", torch.zeros(8))
        self.progress = []

    def sample_views(self, batch, generator):
        if self.draws == "generator":
            shape, device = batch.images.shape, batch.images.device
            return ToyViews(
                batch.images, torch.rand(shape, generator=generator, device=device) < 0.5
            )
        hidden = [
            torch.rand(image.shape, generator=torch.Generator().manual_seed(int(index)))
            < (0.5 if not self.uneven or int(index) % 8 > 2 else 0.05)
            for image, index in zip(batch.images, batch.index, strict=True)
        ]
        return ToyViews(batch.images, torch.stack(hidden))

    def forward(self, views):
        features = self.encoder(views.images * ~views.hidden).tokens.squeeze(1)
        prediction = self.decoder(self.dropout(features)).float()
        error = (prediction - views.images.flatten(1)) ** 2
        loss, weight = error.mean(), None
        if self.uneven:
            loss, weight = error[views.hidden.flatten(1)].mean(), views.hidden.sum()
        return Output(
            loss=loss,
            weight=weight,
            terms={"largest": error.amax().detach()},
            state={"centre": features.detach().float().mean(0)},
        )

    def after_step(self, state, progress):
        self.progress.append(progress)
        self.centre.lerp_(state["centre"], 0.1)


class ToySource:
    """Images are a function of their place in one global order."""

    def __init__(self, **events):
        self.events = events  # e.g. interrupt=3: send SIGTERM to this process before batch 3

    def __len__(self):
        return 10_000

    def batches(self, start, batch_size, seed, rank=0, num_ranks=1):
        step = start
        while True:
            self.happen(step)
            first = (step * num_ranks + rank) * batch_size
            index = torch.arange(first, first + batch_size)
            images = torch.stack(
                [
                    torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed + i))
                    for i in index.tolist()
                ]
            )
            if step == self.events.get("nan"):
                images[0] = float("nan")
            yield ToyBatch(images, index)
            step += 1

    def happen(self, step):
        if step == self.events.get("interrupt"):
            os.kill(os.getpid(), signal.SIGTERM)
        if step == self.events.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)


def config(**changes) -> TrainConfig:
    """A short run on the CPU in float32."""
    values = {
        "steps": 5,
        "batch_size": 8,
        "base_rate": 0.3,
        "warmup_steps": 1,
        "precision": "float32",
        "device": "cpu",
        "log_every": 1,
    }
    return TrainConfig(**(values | changes))


def weights(method: Trainable) -> dict[str, Tensor]:
    """A copy of everything the method holds."""
    return {name: tensor.clone() for name, tensor in method.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Bitwise equality."""
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def fit(method=None, source=None, **changes) -> tuple[Trainable, Summary]:
    """Train a toy quietly; words that are not fields of the config go to the trainer."""
    own = {k: changes.pop(k) for k in ("out", "evaluations", "run_info") if k in changes}
    method = method or Toy()
    trainer = Trainer(method, source or ToySource(), config(**changes), progress=False, **own)
    return method, trainer.fit()
