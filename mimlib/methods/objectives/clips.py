"""Contrast between clips, and between their regions: the two objectives of ConST-CL.

Yuan et al., CVPR 2022, arXiv 2112.05181, after SimCLR (arXiv 2002.05709). Two clips a and b are cut
out of every video. Clips are told from those of all other videos, by vectors v of unit length,

    L_global = sum over both directions of mean_i - log exp(v_i . v'_i / tau) / S_i
    S_i = sum_j exp(v_i . v'_j / tau) + sum_{j != i} exp(v_i . v_j / tau)

and regions, whose features h of one clip the decoder has turned into z, from those of the other
clip of all other videos:

    L_local = 1/2 sum over both directions of mean_r - log p_r / (p_r + sum_q exp(z_r . h'_q / tau))
    p_r = exp(z_r . h'_m(r) / tau),   m(r) = argmax over regions s of the video of h_r . h'_s

Negatives are those of all ranks. As official, nothing is detached: all that is compared learns, and
the first loss is a sum while the second is a mean.

Letters: B videos, C videos of all ranks, E width of a clip's vector, R regions of a clip, D width
of their features.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mimlib.layers.collectives import gather_from_ranks


def contrast_clips(
    a: Float[Tensor, "B E"], b: Float[Tensor, "B E"], temperature: float = 0.1
) -> Float[Tensor, ""]:
    """Return the global loss of vectors of unit length; 0 for a video alone."""
    both = ((a, b), (b, a))
    return sum(F.cross_entropy(*clip_logits(*views, temperature)) for views in both)


def clip_logits(
    clips: Float[Tensor, "B E"], others: Float[Tensor, "B E"], temperature: float
) -> tuple[Float[Tensor, "B pairs"], Int[Tensor, " B"]]:
    """Compare each clip with the other clips of all videos, then with those of its own view.

    Returns:
        Logits [B, 2 * C], -inf for a clip with itself, and where the clip of its own video is.
    """
    of_others, first = gather_from_ranks(others, gradient=True)
    of_own, _ = gather_from_ranks(clips, gradient=True)
    own = torch.arange(first, first + len(clips), device=clips.device)
    logits = (clips @ torch.cat([of_others, of_own]).T).float() / temperature
    itself = F.one_hot(own + len(of_others), logits.shape[1]).bool()
    return logits.masked_fill(itself, -torch.inf), own


def match_regions(
    a: Float[Tensor, "B R D"], b: Float[Tensor, "B R D"]
) -> tuple[Int[Tensor, "B R"], Int[Tensor, "B R"]]:
    """Return, for each region of one clip, which of the other's is most similar; both directions.

    Boxes are not asked: they are drawn apart and know neither crops nor motion. Several regions may
    have the same match, ties go to the first.
    """
    similarity = a @ b.mT  # [B, R of a, R of b]
    return similarity.argmax(dim=2), similarity.argmax(dim=1)


def contrast_regions(
    decoded: Float[Tensor, "B R D"],
    targets: Float[Tensor, "B R D"],
    match: Int[Tensor, "B R"],
    temperature: float = 0.2,
    valid: Bool[Tensor, "B R"] | None = None,
) -> Float[Tensor, ""]:
    """Return the local loss in one direction; 0 without a valid region.

    Args:
        decoded: z, regions of one clip as they should look in the other, of unit length.
        targets: h', regions of the other clip, of unit length.
        match: m, the target that each decoded region should look like.
        temperature: tau.
        valid: which decoded regions count; None: all. As official, all targets are negatives.
    """
    logits, labels = region_logits(decoded, targets, match, temperature)
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    counts = torch.ones_like(losses) if valid is None else valid.flatten().to(losses.dtype)
    return (losses * counts).sum() / counts.sum().clamp(min=1)


def region_logits(
    decoded: Float[Tensor, "B R D"],
    targets: Float[Tensor, "B R D"],
    match: Int[Tensor, "B R"],
    temperature: float,
) -> tuple[Float[Tensor, "B R targets"], Int[Tensor, "B R"]]:
    """Compare each decoded region with its match and with all targets of all other videos.

    Returns:
        Logits [B, R, C * R], -inf for other targets of the same video, and where the matches are.
    """
    everyone, first = gather_from_ranks(targets, gradient=True)
    num_videos, num_regions = everyone.shape[:2]
    own = torch.arange(first, first + len(decoded), device=decoded.device)  # [B]
    logits = torch.einsum("brd,csd->brcs", decoded, everyone).float() / temperature
    same_video = F.one_hot(own, num_videos).bool()[:, None, :, None]  # [B, 1, C, 1]
    unmatched = ~F.one_hot(match, num_regions).bool()[:, :, None]  # [B, R, 1, R]
    logits = logits.masked_fill(same_video & unmatched, -torch.inf).flatten(2)
    return logits, own[:, None] * num_regions + match
