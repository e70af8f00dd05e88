"""Gradients of micro-batches, weighted as the trainer weighs them."""

import torch
from torch import nn


def frozen_statistics(task):
    """A task in training mode whose batch normalisation does not look at the batch."""
    for module in task.train().modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return task


def gradient_of(task, parts):
    """The weighted mean of the gradients of micro-batches, as the trainer takes it."""
    task.zero_grad()
    outputs = [task(views) for views in parts]
    items = [torch.tensor(len(views[0])) for views in parts]
    weights = torch.stack([o.weight if o.weight is not None else n for o, n in zip(outputs, items)])
    losses = torch.stack([output.loss for output in outputs])
    (losses @ (weights / weights.sum())).backward()
    return torch.cat([p.grad.flatten() for p in task.parameters() if p.grad is not None])


def parts_of(views, *bounds):
    return [type(views)(*(field[a:b] for field in views)) for a, b in zip(bounds, bounds[1:])]
