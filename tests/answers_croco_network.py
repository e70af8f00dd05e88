"""Answers to the exercises of lesson 03 about the network, right and wrong."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from answers import right, wrong
from einops import einsum, rearrange
from torch import nn


@right("croco.2")
def by_cosines(heads, places):
    quarter = heads.shape[1] // 4
    angle = places[..., None] * 100 ** (-torch.arange(quarter) / quarter)  # [K, 2, q]
    u, v = heads.unflatten(1, (2, 2, -1)).unbind(2)
    turned = u * angle.cos() - v * angle.sin(), v * angle.cos() + u * angle.sin()
    return torch.stack(turned, dim=2).flatten(1)


@right("croco.2")
def by_complex_numbers_in_double(heads, places):
    quarter, parts = heads.shape[1] // 4, []
    frequency = 100 ** (-torch.arange(quarter).double() / quarter)
    for half, place in zip(heads.double().chunk(2, 1), places.unbind(1)):
        pairs = torch.complex(*half.chunk(2, 1)) * (1j * place[:, None] * frequency).exp()
        parts += [pairs.real, pairs.imag]
    return torch.cat(parts, dim=1)


@right("croco.2")
def by_turned_halves(heads, places):
    """As the official code: x cos + (-v, u) sin, the table laid out twice."""
    quarter = heads.shape[1] // 4
    frequency = 1 / 100.0 ** (torch.arange(0, quarter) / quarter)
    angle = torch.cat([frequency, frequency]) * places[..., None]
    halves = rearrange(heads, "k (two d) -> k two d", two=2)
    u, v = halves.chunk(2, dim=-1)
    return (halves * angle.cos() + torch.cat([-v, u], -1) * angle.sin()).flatten(1)


@right("croco.2")
def number_by_number(heads, places):
    table, quarter = heads.tolist(), heads.shape[1] // 4
    for row, place in zip(table, places.tolist()):
        for half in (0, 1):
            for i in range(quarter):
                a, j = place[half] * 100 ** (-i / quarter), 2 * half * quarter + i
                u, v = row[j], row[j + quarter]
                row[j] = u * math.cos(a) - v * math.sin(a)
                row[j + quarter] = v * math.cos(a) + u * math.sin(a)
    return table


@right("croco.2")
def in_the_arguments(heads, places):
    heads.copy_(by_cosines(heads, places))
    places.zero_()
    return heads


@wrong("croco.2", "the sense of rotation is wrong")
def backwards(heads, places):
    return by_cosines(heads, -places)


@wrong("croco.2", "published weights would look along the wrong axis")
def columns_first(heads, places):
    return number_by_number(heads, places.flip(1))


@wrong("croco.2", "the frequencies are 100 ** (-i / q)")
def twice_as_fast(heads, places):
    return by_cosines(heads, 2 * places)


@wrong("croco.2", "got complex64, expected float32")
def left_complex(heads, places):
    return by_cosines(heads, places).to(torch.complex64)


@right("croco.3")
def by_einsum(tokens, memory, to_queries, to_keys, heads):
    q = rearrange(tokens @ to_queries, "m (a d) -> a m d", a=heads)
    k = rearrange(memory @ to_keys, "r (a d) -> a r d", a=heads)
    return (einsum(q, k, "a m d, a r d -> a m r") / q.shape[-1] ** 0.5).softmax(dim=-1)


@right("croco.3")
def head_by_head(tokens, memory, to_queries, to_keys, heads):
    q, k = (tokens @ to_queries).chunk(heads, 1), (memory @ to_keys).chunk(heads, 1)
    return [F.softmax(a @ b.T / math.sqrt(a.shape[1]), dim=1) for a, b in zip(q, k)]


@right("croco.3")
def by_numpy_exponentials(tokens, memory, to_queries, to_keys, heads):
    q, k = tokens.numpy() @ to_queries.numpy(), memory.numpy() @ to_keys.numpy()
    q, k = (x.reshape(len(x), heads, -1).transpose(1, 0, 2) for x in (q, k))
    scores = np.exp((q @ k.transpose(0, 2, 1)).astype(np.float64) / np.sqrt(q.shape[-1]))
    return scores / scores.sum(axis=-1, keepdims=True)


@right("croco.3")
def by_the_module_of_torch(tokens, memory, to_queries, to_keys, heads):
    layer = nn.MultiheadAttention(tokens.shape[1], heads, bias=False)
    layer.in_proj_weight.data[: 2 * len(to_keys)] = torch.cat([to_queries.T, to_keys.T])
    return layer(tokens, memory, memory, average_attn_weights=False)[1]


@wrong("croco.3", "the width of one head")
def by_the_width_of_a_token(tokens, memory, to_queries, to_keys, heads):
    return by_einsum(tokens, memory, to_queries / heads**0.5, to_keys, heads)


@wrong("croco.3", "divide by the root of d before")
def not_divided(tokens, memory, to_queries, to_keys, heads):
    return by_einsum(tokens, memory, to_queries * (len(to_keys) / heads) ** 0.5, to_keys, heads)


@wrong("croco.3", "q = (tokens @ to_queries)")
def as_if_d_were_four(tokens, memory, to_queries, to_keys, heads):
    return by_einsum(tokens, memory, to_queries * (len(to_keys) / heads) ** 0.5 / 2, to_keys, heads)


@wrong("croco.3", "q = (tokens @ to_queries)")
def by_linear(tokens, memory, to_queries, to_keys, heads):
    return by_einsum(tokens, memory, to_queries.T, to_keys.T, heads)


@wrong("croco.3", "got shape [2, 3], expected [1, 2, 3]")
def averaged_over_heads(tokens, memory, to_queries, to_keys, heads):
    return by_einsum(tokens, memory, to_queries, to_keys, heads).mean(dim=0)


@right("croco.5")
def of_what_is_known(prediction, raw_scale, target, valid):
    error = (prediction - target).abs().sum(-1)[valid]
    scale = 0.25 + 3.75 * raw_scale[valid].sigmoid()
    return (error / scale + scale.log()).mean()


@right("croco.5")
def as_a_number_in_double(prediction, raw_scale, target, valid):
    given = (prediction.double(), raw_scale.double(), target.double(), valid)
    return of_what_is_known(*given).item()


@right("croco.5")
def by_where(prediction, raw_scale, target, valid):
    error = torch.where(valid, F.l1_loss(prediction, target, reduction="none").sum(-1), 0.0)
    scale = 0.25 + 3.75 / (1 + (-raw_scale).exp())
    return ((error / scale + scale.log()) * valid).sum() / valid.sum()


@right("croco.5")
def in_the_arguments_of_the_loss(prediction, raw_scale, target, valid):
    target[~valid] = 0
    prediction.sub_(target)
    scale = raw_scale.sigmoid_().mul_(3.75).add_(0.25)
    return np.mean((prediction.abs().sum(-1) / scale + scale.log())[valid].numpy())


@right("croco.5")
def pixel_by_pixel(prediction, raw_scale, target, valid):
    losses = []
    for r, c in valid.nonzero().tolist():
        s = 0.25 + 3.75 / (1 + math.exp(-raw_scale[r, c]))
        gaps = zip(prediction[r, c].tolist(), target[r, c].tolist())
        losses.append(sum(abs(a - b) for a, b in gaps) / s + math.log(s))
    return sum(losses) / len(losses)


@wrong("croco.5", "inf times 0 is not a number")
def not_a_number(prediction, raw_scale, target, valid):
    scale = 0.25 + 3.75 * raw_scale.sigmoid()
    loss = (prediction - target).abs().sum(-1) / scale + scale.log()
    return ((loss * valid).sum() / valid.sum()).item()


@wrong("croco.5", "e = (prediction - target).abs().sum(-1)")
def over_all_pixels(prediction, raw_scale, target, valid):
    return by_where(prediction, raw_scale, target, valid) * valid.float().mean()


@wrong("croco.5", "errors of the two channels are summed")
def averaged_over_channels(prediction, raw_scale, target, valid):
    error = (prediction - target).abs().mean(-1)[valid].double()
    scale = 0.25 + 3.75 * raw_scale[valid].sigmoid()
    return float((error / scale + scale.log()).mean())


@wrong("croco.5", "got shape [7], expected float")
def one_loss_for_each_pixel(prediction, raw_scale, target, valid):
    scale = 0.25 + 3.75 * raw_scale[valid].sigmoid()
    return (prediction - target).abs().sum(-1)[valid] / scale + scale.log()
