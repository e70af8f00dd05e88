"""Student and teacher: what DINO, MoBY and SelfPatch have in common.

Two networks of one shape see crops of the same images. The student learns by gradients to predict
the teacher's outputs; the teacher is an exponential moving average (EMA) of the student:

    teacher <- m teacher + (1 - m) student,   m from 0.996 to 1 along half a cosine    (DINO, 3.1)

Letters: B images, V crops, S side of a crop, D width.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mimlib.checks import check_range
from mimlib.encoders import EncoderConfig
from mimlib.layers.class_attention import Aggregator
from mimlib.layers.projection import PrototypeHead, initialize_narrow
from mimlib.layers.views.multicrop import MultiCropConfig, MultiCropViews, multi_crop
from mimlib.methods.objectives.contrast import ContrastConfig
from mimlib.methods.objectives.distillation import DistillationConfig
from mimlib.protocol import Encoder, Trainable

ObjectiveConfig = DistillationConfig | ContrastConfig


@dataclass(frozen=True, kw_only=True)
class SiameseConfig:
    """A student and a teacher. Defaults: DINO, as SelfPatch uses it."""

    encoder: EncoderConfig  # of both; the teacher's has no stochastic depth
    crops: MultiCropConfig = MultiCropConfig()  # what they see of an image
    image: ObjectiveConfig = DistillationConfig()  # how their outputs for an image are compared
    momentum: float = 0.996  # m of the first step
    freeze: float = 0.005  # share of the run in which prototypes stand still: 1 epoch of 200

    def __post_init__(self):
        for size in self.crops.sizes:
            if size % self.encoder.patch_size:
                raise ValueError(
                    f"crops of {size} pixels are not a multiple of the encoder's stride "
                    f"{self.encoder.patch_size}; choose other sizes in crops"
                )
        if getattr(self.image, "center", "run") == "crop":
            raise ValueError(
                "image.center is 'crop', which leaves nothing of the logits of a whole crop; "
                "set it to 'run', and that of patches to 'crop'"
            )
        check_range(self, "momentum", "freeze", least=0, most=1)


class Network(nn.Module):
    """The student or the teacher: an encoder and one head for each thing that is compared."""

    def __init__(
        self, encoder: Encoder, heads: Mapping[str, nn.Module], aggregator: Aggregator | None
    ):
        super().__init__()
        self.encoder, self.aggregator = encoder, aggregator
        self.heads = nn.ModuleDict(heads)


class Siamese(Trainable):
    """Student, teacher, and what compares them."""

    def __init__(
        self,
        config: SiameseConfig,
        objectives: Mapping[str, ObjectiveConfig],
        aggregator: tuple[int, int] | None = None,
    ):
        """Make both networks equal.

        Args:
            config: of the method.
            objectives: what is compared and how, by name.
            aggregator: heads and depth of class attention, if images are summed up by it.
        """
        super().__init__()
        self.config = config
        self.objectives = nn.ModuleDict({n: each.build() for n, each in objectives.items()})
        plain = replace(config.encoder, drop_path=0.0)
        networks = []
        for encoder, for_student in ((config.encoder, True), (plain, False)):
            width = encoder.width
            heads = {n: each.build_head(width, for_student) for n, each in objectives.items()}
            summary = Aggregator(width, *aggregator) if aggregator else None
            networks.append(Network(encoder.build(), heads, summary))
        self.student, self.teacher = networks
        for part in (self.student.encoder, self.student.aggregator):
            if part is not None:
                initialize(part)
        self.teacher.requires_grad_(False)
        state = self.student.state_dict()
        self.teacher.load_state_dict({n: state[n] for n in self.teacher.state_dict()})

    @property
    def encoder(self) -> Encoder:
        """The encoder that is kept: the teacher's, as official."""
        return self.teacher.encoder

    @property
    def trained_encoder(self) -> Encoder:
        """The student's."""
        return self.student.encoder

    def sample_views(self, batch: tuple, generator: torch.Generator) -> MultiCropViews:
        """Cut crops of `batch.images` (uint8, of any batch that has them)."""
        shapes = getattr(batch, "stretched_from", None)
        return multi_crop(batch.images, self.config.crops, generator, shapes)

    def both_heads(self, name: str) -> tuple[nn.Module, nn.Module]:
        """Return the student's and the teacher's head."""
        return self.student.heads[name], self.teacher.heads[name]

    def after_step(self, state: Mapping[str, Tensor] | None, progress: float) -> None:
        """Update centers and teacher; at the beginning of a run, put the prototypes back.

        # differs from official: while the prototypes stand still, AdamW gathers their moments.
        """
        for name, mean in (state or {}).items():
            self.objectives[name].update_center(mean)
        for name in self.objectives if progress < self.config.freeze else ():
            head, kept = self.both_heads(name)
            if isinstance(head, PrototypeHead):
                head.last_layer.weight.data.copy_(kept.last_layer.weight)
        student = dict(self.student.named_parameters())
        teacher = dict(self.teacher.named_parameters())
        share = (1 - self.config.momentum) * (math.cos(math.pi * progress) + 1) / 2  # 1 - m
        torch._foreach_lerp_([*teacher.values()], [student[name].data for name in teacher], share)


class Encoded(NamedTuple):
    """What an encoder makes of the crops of one size."""

    raw: Tensor  # [V * B, N, D] tokens as the last block leaves them
    tokens: Tensor  # [V * B, N, D] the same after the final norm
    class_token: Tensor | None  # [V * B, D]
    grid: tuple[int, int]


def encode_crops(encoder: Encoder, by_size: Sequence[Float[Tensor, "_ B 3 _ _"]]) -> list[Encoded]:
    """Encode all crops of all sizes [V, B, 3, S, S], at once if the encoder can."""
    found = encoder.encode_sizes([crops.flatten(0, 1) for crops in by_size], levels=(-1,))
    return [
        Encoded(maps[0].flatten(2).transpose(1, 2), tokens, class_token, grid)
        for tokens, class_token, grid, maps in found
    ]


def initialize(part: nn.Module) -> None:
    """Initialise an encoder or aggregator as official: narrow, pixels as torch does."""
    part.apply(initialize_narrow)
    positions, embed = getattr(part, "pos_embed", None), getattr(part, "patch_embed", None)
    if isinstance(positions, nn.Parameter):
        nn.init.trunc_normal_(positions, std=0.02)
    if embed is not None:
        embed.proj.reset_parameters()
