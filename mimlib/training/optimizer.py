"""AdamW or Muon over parameter groups: which weights decay, and how fast each layer learns."""

import re
from collections.abc import Iterable
from itertools import zip_longest

import torch
from torch import Tensor, nn

from mimlib.protocol import Trainable
from mimlib.training.config import TrainConfig
from mimlib.training.muon import Muon
from mimlib.training.precision import resolve_precision

HIDDEN = re.compile(r"(^|[._])blocks\d*\.\d+\..*weight$")  # weights inside a block
CLIP_EPS = 1e-6  # as official: a gradient is shortened to a little less than the limit


def parameter_groups(
    method: Trainable,
    weight_decay: float = 0.05,
    layer_decay: float = 1.0,
    no_decay: Iterable[str] = (),
    split_hidden: bool = False,
) -> list[dict]:
    """Sort the trainable parameters into groups of one rate scale and one weight decay.

    Decay (as official MAE): 1-D tensors, names ending in .bias and names whose last part is in
    `no_decay` get none; in pre-training the class and mask tokens do decay.
    Scale (BEiT, MAE table 9): layer_decay ** (L + 1 - layer), with the layer from
    `Encoder.layer_of`: 0 for embeddings, i + 1 for block i; whatever is outside the encoder is
    at L + 1 and keeps the full rate.
    Hidden: the matrices of blocks, apart if `split_hidden`.

    Returns one dict per group: params, names, weight_decay, decays, rate_scale, hidden; embeddings
    first. ValueError if no parameter is trainable.
    """
    encoder = method.trained_encoder
    names_in_encoder = {id(p): name for name, p in encoder.named_parameters()}
    top = encoder.num_layers + 1
    groups: dict[tuple[int, bool, bool], dict] = {}
    for name, parameter in method.named_parameters():
        if not parameter.requires_grad:
            continue
        inner = names_in_encoder.get(id(parameter))
        layer = top if inner is None or layer_decay == 1.0 else encoder.layer_of(inner)
        exempt = parameter.ndim <= 1 or name.endswith(".bias") or name.split(".")[-1] in no_decay
        hidden = split_hidden and parameter.ndim == 2 and HIDDEN.search(name) is not None
        empty = {
            "params": [],
            "names": [],
            "weight_decay": 0.0 if exempt else weight_decay,
            "decays": not exempt,
            "rate_scale": layer_decay ** (top - layer),
            "hidden": hidden,
        }
        group = groups.setdefault((layer, exempt, hidden), empty)
        group["params"].append(parameter)
        group["names"].append(name)
    if not groups:
        raise ValueError(
            f"{type(method).__name__} has no trainable parameter; set requires_grad on some"
        )
    return [groups[key] for key in sorted(groups)]


def build_optimizer(method: Trainable, config: TrainConfig) -> torch.optim.AdamW:
    """Build AdamW in its fused form, the fastest on every device, or Muon on top of it.

    Measured on 112 M parameters, one CPU core, 2026: fused 0.06 s a step, the loop 0.2 to 0.3 s,
    foreach 0.3 to 0.8 s.
    """
    muon = config.optimizer == "muon"
    decays = config.weight_decay, config.layer_decay, config.no_decay
    groups = parameter_groups(method, *decays, split_hidden=muon)
    if not muon:
        return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, fused=True)
    dtype = resolve_precision(config.precision, groups[0]["params"][0].device)
    return Muon(groups, dtype, config.betas)


def set_rate(optimizer: torch.optim.Optimizer, rate: float, weight_decay: float) -> None:
    """Give every group its share of `rate`, and the groups that decay their weight decay."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_scale"]
        group["weight_decay"] = weight_decay if group["decays"] else 0.0


def clip_gradients(method: Trainable, config: TrainConfig) -> Tensor:
    """Shorten the gradient to `clip_norm`, or that of every tensor; return its norm before."""
    if not config.clip_each:
        return nn.utils.clip_grad_norm_(method.parameters(), config.clip_norm)
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    norms = torch._foreach_norm(gradients)
    together = torch.stack(norms)
    shares = (config.clip_norm / (together + CLIP_EPS)).clamp(max=1.0)
    torch._foreach_mul_(gradients, [*shares.unbind()])
    return together.norm()


def check_groups(optimizer: torch.optim.Optimizer, stored: dict) -> None:
    """Raise ValueError if a stored state is not of the same parameters in the same order."""
    for mine, theirs in zip(optimizer.param_groups, stored["param_groups"]):
        for name in ("decays", "hidden"):
            theirs.setdefault(name, mine[name])  # older checkpoints lack it
    ours = [name for group in optimizer.param_groups for name in group["names"]]
    theirs = [name for group in stored["param_groups"] for name in group["names"]]
    if ours != theirs:
        mine, other = next(pair for pair in zip_longest(ours, theirs) if pair[0] != pair[1])
        raise ValueError(
            f"optimiser state is for {len(theirs)} parameters, the model trains {len(ours)}; "
            f"first difference: {other!r} stored, {mine!r} here"
        )
