"""What the runs that fine-tune on the embedded world share: a table of sizes, MAE's recipe."""

from collections.abc import Callable, Mapping

from mimlib.data.images.configs import WorldImagesConfig
from mimlib.evaluation.validation import ValidationConfig
from mimlib.presets.run import Preset
from mimlib.presets.scales import ENCODERS, HELD_OUT_SEED
from mimlib.training.config import TrainConfig

NO_DECAY = ("pos_embed", "cls_token")


def cross(
    task: str, what: str, sizes: Mapping[str, tuple], make: Callable[..., dict[str, object]]
) -> dict[str, Preset]:
    """Cross the sizes of a task with the encoders of MAE and ConvMAE: six rows.

    Args:
        task: name of the task, and of its presets with the encoder of MAE.
        what: what is trained, for the cards.
        sizes: of each size what `make` wants, then the parameters with either encoder.
        make: from an encoder and those values to the method, data, training and evaluations.
    """
    rows = {}
    for index, (pretraining, encoders) in enumerate(ENCODERS.items()):
        name = task if pretraining == "mae" else f"{task}_{pretraining}"
        for size, (*values, mae, convmae) in sizes.items():
            rows[f"{name}_{size}"] = Preset(
                parameters=(mae, convmae)[index],
                card=f"{what} on the encoder of `{pretraining}_{size}`: {COSTS[size]}.",
                pretrained=f"runs/{pretraining}_{size}",
                **make(encoders[size], *values),
            )
    return rows


COSTS = {
    "tiny": "seconds, for tests",
    "lesson": "a minute or two on two cores, 64 x 64 views of the world",
    "gpu": "some minutes on one GPU, 128 x 128 views of the world",
}


def on_world_images(
    task: object, images: dict, count: int, train: TrainConfig
) -> dict[str, object]:
    """Fine-tune a task on `count` world images and measure it on half as many held-out ones."""
    held_out = WorldImagesConfig(count=max(16, count // 2), seed=HELD_OUT_SEED, **images)
    return {
        "method": task,
        "data": WorldImagesConfig(count=count, seed=HELD_OUT_SEED + 2, **images),
        "train": train,
        "evaluations": (
            ValidationConfig(source=held_out, num_images=held_out.count, name="held_out"),
        ),
    }


def fine_tuning(steps: int, batch_size: int) -> TrainConfig:
    """AdamW with a lower rate towards the input, as MAE fine-tunes (appendix A.1, table 9)."""
    return TrainConfig(
        steps=steps, batch_size=batch_size, base_rate=8e-3, warmup_steps=steps // 10,
        betas=(0.9, 0.999), layer_decay=0.75, no_decay=NO_DECAY,
    )  # fmt: skip
