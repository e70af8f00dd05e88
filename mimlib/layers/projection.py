"""Projection heads: where representations are compared while they are learned, and left behind.

Letters: D width of what comes in, E width of the space in which things are compared, G prototypes.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mimlib.layers.collectives import SyncBatchNorm

# With fewer rows, making the prototypes narrow (bfloat16) takes longer than the products.
FEW_ROWS = 64


class PrototypeHead(nn.Module):
    """A projection onto a sphere, and its cosines to many prototypes there.

    DINO (arXiv 2104.14294), section 3.1, "Network architecture": three linear maps, unit length, a
    linear map whose rows have unit length, too. As official, that length is fixed; batch
    normalisation before each GELU is an option.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        bottleneck: int,
        num_prototypes: int,
        batch_norm: bool = False,
        depth: int = 3,
    ):
        super().__init__()
        layers = []
        for inputs in (width, *[hidden] * (depth - 2)):
            norm = [RowNorm(hidden)] if batch_norm else []
            layers += [nn.Linear(inputs, hidden), *norm, nn.GELU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden, bottleneck))
        # as official: the last layer keeps the framework's own initialisation.
        self.last_layer = nn.Linear(bottleneck, num_prototypes, bias=False)
        self.mlp.apply(initialize_narrow)

    def embed(self, inputs: Float[Tensor, "*B D"]) -> Float[Tensor, "*B E"]:
        """Project onto the unit sphere."""
        return F.normalize(self.mlp(inputs), dim=-1)

    def classify(self, embedded: Float[Tensor, "*B E"]) -> Float[Tensor, "*B G"]:
        """Return the cosine to each prototype. Linear, so that of a mean is the mean."""
        rows = embedded.reshape(-1, embedded.shape[-1])
        logits = PrototypeLogits.apply(rows, self.last_layer.weight)
        return logits.reshape(*embedded.shape[:-1], -1)

    def forward(self, inputs: Float[Tensor, "*B D"]) -> Float[Tensor, "*B G"]:
        """Project and classify."""
        return self.classify(self.embed(inputs))


class PrototypeLogits(torch.autograd.Function):
    """Products with prototypes w_g of any length, as if these had length 1: x w_g / |w_g|.

    There are many more numbers in the prototypes than products, so the prototypes are never
    normalised, and their gradient is written in one pass over it:

        sum_rows (dy_g / |w_g|) x  -  (sum_rows dy_g y_g / |w_g|^2) w_g
    """

    @staticmethod
    def forward(ctx, inputs: Tensor, weight: Tensor) -> Tensor:
        """Multiply rows [rows, E] with prototypes [G, E]; the result is [rows, G]."""
        lengths = torch.linalg.vector_norm(weight, dim=-1)  # [G]
        products = F.linear(inputs, weight)
        outputs = products / lengths
        ctx.save_for_backward(inputs, weight, lengths, outputs)
        ctx.dtype = products.dtype if len(inputs) >= FEW_ROWS else weight.dtype
        return outputs

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of rows and prototypes."""
        inputs, weight, lengths, outputs = ctx.saved_tensors
        scaled = (gradient / lengths).to(ctx.dtype)  # [rows, G]
        share = (gradient * outputs).sum(dim=0) / lengths.square()  # [G]
        of_weight = (scaled.T @ inputs.to(ctx.dtype)).to(weight.dtype)
        of_weight.addcmul_(weight, share[:, None], value=-1)
        return (scaled @ weight.to(ctx.dtype)).to(inputs.dtype), of_weight


class RowNorm(SyncBatchNorm):
    """Batch normalisation of vectors: over the rows of all ranks together."""

    def forward(self, rows: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        """Normalise each channel."""
        return super().forward(rows.flatten(0, -2)[..., None, None]).reshape(rows.shape)


class ContrastHead(nn.Module):
    """Two linear maps, batch normalisation and ReLU between them: the projector of MoBY.

    Xie et al. (arXiv 2105.04553), section 3.1; the predictor has the same form.
    """

    def __init__(self, width: int, hidden: int, outputs: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.norm = RowNorm(hidden)
        self.fc2 = nn.Linear(hidden, outputs)

    def forward(self, inputs: Float[Tensor, "rows D"]) -> Float[Tensor, "rows E"]:
        """Map every row; the rows of all ranks are normalised together."""
        return self.fc2(self.norm(self.fc1(inputs)).relu())


def initialize_narrow(module: nn.Module) -> None:
    """Initialise one layer as DINO does: a normal of 0.02, cut at two units; biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
