"""The stored numbers of the losses of ConST-CL; see parity_constcl.py."""

import torch

from mimlib.layers.regions import normalize_length
from mimlib.methods.objectives.clips import (
    clip_logits,
    contrast_clips,
    contrast_regions,
    match_regions,
    region_logits,
)
from mimlib.weights.files import part_of


def global_outputs(golden):
    """The loss between clips, what it says of them and its gradient, of each case."""
    out = {}
    for case in golden.facts["cases"]:
        given = golden.inputs[case["input"]].double().requires_grad_()
        vectors = normalize_length(given) if case["normalize_inputs"] else given
        loss = contrast_clips(*vectors.chunk(2), case["temperature"])
        loss.backward()
        found = clip_statistics(*vectors.detach().chunk(2), case["temperature"])
        found |= {"loss": loss, "grad": given.grad}
        out |= {f"{case['name']}.{n}": t for n, t in found.items()}
    return out


def clip_statistics(a, b, temperature):
    """Accuracy and entropy of one direction, among the clips of the other view."""
    logits, own = clip_logits(a, b, temperature)
    logits = logits[:, : len(a)]
    shares = logits.softmax(dim=-1)
    accuracy = (logits.argmax(dim=-1) == own).double().mean()
    entropy = -(shares * shares.clamp(min=1e-30).log()).sum(dim=-1).mean()
    return {"contrastive_accuracy": accuracy, "contrastive_entropy": entropy}


def local_outputs(golden):
    """The loss between regions in both directions, what it says of them and its gradients."""
    out = {}
    for case in golden.facts["cases"]:
        given = part_of(golden.inputs, f"{case['input']}.")
        vectors = {n: t.double().requires_grad_() for n, t in given.items() if "masks" not in n}
        named = {n: normalize_length(t) for n, t in vectors.items()}
        found = region_contrast(
            named if case["normalize_inputs"] else vectors, given, case["temperature"]
        )
        found["loss"].backward()
        found |= {f"grad.{n}": t.grad for n, t in vectors.items()}
        out |= {f"{case['name']}.{n}": t for n, t in found.items()}
    return out


def region_contrast(vectors, masks, temperature):
    """Matches, losses and similarities of both directions."""
    a, b = vectors["instances_a"], vectors["instances_b"]
    matches, out, similarities = match_regions(a, b), {}, []
    pairs = (("a2b", b, matches[0], "masks_a"), ("b2a", a, matches[1], "masks_b"))
    for name, targets, match, masked in pairs:
        decoded, valid = vectors[f"instances_{name}"], masks[masked]
        out[f"matches_{name}"] = match
        out[f"loss_{name}"] = contrast_regions(decoded, targets, match, temperature, valid)
        similarities.append(similarity(*region_logits(decoded, targets, match, 1.0), valid))
    out |= {n: sum(each[n] for each in similarities) / 2 for n in similarities[0]}
    return out | {"loss": (out["loss_a2b"] + out["loss_b2a"]) / 2}


def similarity(logits, labels, valid):
    """How similar valid regions are to their matches, and to what they are told from.

    Of matches these are the extremes of the batch, of others the mean of each region's own.
    """
    if not valid.any():
        return {}
    positive = logits.gather(2, labels[..., None])[..., 0][valid]
    others = logits.scatter(2, labels[..., None], -torch.inf)
    negative = others[others.isfinite()].reshape(*valid.shape, -1)[valid]
    out = {f"positive_similarity_{n}": getattr(positive, n)() for n in ("mean", "min", "max")}
    if negative.shape[-1]:
        kinds = {"mean": negative.mean(1), "min": negative.amin(1), "max": negative.amax(1)}
        out |= {f"negative_similarity_{n}": each.mean() for n, each in kinds.items()}
    return out
