"""Exercises of lesson 03 about the network: turn, look at the other image, admit doubt."""

from functools import partial

import torch

from mimlib.course.exercises.exercise import Exercise
from mimlib.layers.attention import CrossAttention
from mimlib.layers.rope import rotary_table, rotate
from mimlib.tasks.losses.laplacian import BOUNDED, laplacian_loss


def _turned(heads, places):
    """Turn heads [K, d] by places [K, 2]: the first half by the row, the second by the column."""
    h, w = (places.max(dim=0).values + 1).tolist()
    table = rotary_table((h, w), heads.shape[1])  # [h * w, factors]
    turns = table[places[:, 0] * w + places[:, 1]]
    return rotate(heads[None, None], turns[None])[0, 0]


def _turn_cases():
    draw = torch.Generator().manual_seed(5)
    places = torch.tensor([[0, 0], [1, 0], [0, 2], [3, 1]])
    one = torch.tensor([[1.0, 0.0, 1.0, 0.0]]), torch.tensor([[1, 2]])
    return one, *((torch.randn(4, width, generator=draw), places) for width in (8, 32))


def _turn_by(heads, places, base=100.0, sign=1):
    quarter = heads.shape[1] // 4
    frequency = base ** (-torch.arange(quarter) / quarter)
    parts = []
    for half, place in zip(heads.chunk(2, dim=1), places.unbind(1)):
        u, v = half.chunk(2, dim=1)
        angle = sign * place[:, None] * frequency
        parts += [u * angle.cos() - v * angle.sin(), v * angle.cos() + u * angle.sin()]
    return torch.cat(parts, dim=1)


def _neighbors(heads, places):
    """Pair channel 2 i with 2 i + 1, as many do for text."""
    halves = [half.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1) for half in heads.chunk(2, 1)]
    turned = _turn_by(torch.cat(halves, dim=1), places).chunk(2, 1)
    return torch.cat([t.unflatten(1, (2, -1)).transpose(1, 2).flatten(1) for t in turned], dim=1)


TURN = Exercise(
    name="croco.2",
    answer=_turned,
    source=rotate,
    cases=_turn_cases,
    wrong={
        (lambda x, places: _turn_by(x, places.flip(1))): "rows turn the first half of the "
        "channels, columns the second; published weights would look along the wrong axis",
        partial(_turn_by, sign=-1): "the sense of rotation is wrong: (u, v) becomes (u cos - v "
        "sin, v cos + u sin)",
        partial(_turn_by, base=10000.0): "the base is 100, as in CroCo's code; 10000 is for "
        "sentences, and a grid has no such distances",
        _neighbors: "channel i of a half goes with channel i + d/4, not with its neighbour",
        (lambda x, places: x + _turn_by(torch.ones_like(x), places)): "nothing is added: the "
        "vector keeps its length and is turned, pair by pair",
    },
    hints=(
        "with q = d / 4 the frequencies are 100 ** (-i / q), i = 0 ... q - 1, for both halves",
        "u, v = half.chunk(2, dim=1); angle = place[:, None] * frequency; "
        "then (u cos - v sin, v cos + u sin), rows first",
    ),
)


def _look(tokens, memory, to_queries, to_keys, heads):
    """Weights [A, M, R], over R, of tokens [M, D] that look in memory [R, D]."""
    layer = CrossAttention(tokens.shape[1], heads)
    with torch.no_grad():
        for part, weight in ((layer.projq, to_queries), (layer.projk, to_keys)):
            part.weight.copy_(weight.T)
            part.bias.zero_()
        return layer.weigh(
            (layer.project_queries(tokens[None]), layer.project_memory(memory[None]))
        )[0]


def _look_cases():
    draw = torch.Generator().manual_seed(6)

    def _case(num_tokens, num_memory, width, heads):
        shapes = ((num_tokens, width), (num_memory, width), (width, width), (width, width))
        return *(torch.randn(*shape, generator=draw) for shape in shapes), heads

    return _case(2, 3, 4, 1), _case(4, 6, 8, 2), _case(5, 5, 12, 2)


def _weights(tokens, memory, wq, wk, heads, axis=-1, width=lambda d, heads: d):
    q, k = (part.unflatten(1, (heads, -1)).transpose(0, 1) for part in (tokens @ wq, memory @ wk))
    scores = q @ k.mT / width(q.shape[-1], heads) ** 0.5  # [A, M, R]
    return scores.softmax(dim=axis)


def _cut_across(tokens, memory, wq, wk, heads):
    q, k = (part.reshape(heads, len(part), -1) for part in (tokens @ wq, memory @ wk))
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)


LOOK = Exercise(
    name="croco.3",
    answer=_look,
    source=CrossAttention,
    cases=_look_cases,
    wrong={
        partial(_weights, axis=1): "the softmax runs over the memory, the last axis: each token of "
        "image 1 spreads one unit of attention over image 2",
        partial(_weights, width=lambda d, heads: d * heads): "divide by the root of the width of "
        "one head, d = D / A, not of the whole token",
        partial(_weights, width=lambda *given: 1): "divide by the root of d before the softmax",
        (lambda tokens, memory, *rest: _weights(tokens, tokens, *rest)): "that is self-attention: "
        "image 1 asks, so its tokens make the queries; the keys come from the memory of image 2",
        (lambda tokens, memory, *rest: _weights(memory, tokens, *rest)): "image 1 asks and image 2 "
        "answers: exchange the two",
        _cut_across: "the heads are cut out of the channels: unflatten the last axis into (A, d), "
        "then bring A to the front; a reshape to [A, M, d] mixes tokens",
    },
    hints=(
        "q = (tokens @ to_queries) cut into heads [A, M, d], k = (memory @ to_keys) [A, R, d]",
        "(q @ k.transpose(1, 2) / d ** 0.5).softmax(dim=-1)",
    ),
)


def _doubt(prediction, raw_scale, target, valid):
    """Mean over valid pixels of e / s + log s, with s = 0.25 + 3.75 sigmoid(raw scale)."""
    parts = (prediction, raw_scale, target, valid)
    return laplacian_loss(*(part[None] for part in parts), "bounded")


def _doubt_cases():
    draw = torch.Generator().manual_seed(7)
    target = torch.randn(3, 4, 2, generator=draw)
    valid = torch.rand(3, 4, generator=draw) < 0.7
    target[~valid] = float("inf")
    scattered = torch.randn(3, 4, 2, generator=draw), torch.randn(3, 4, generator=draw)
    one = torch.tensor([[[3.0, 4.0]]]), torch.zeros(1, 1), torch.zeros(1, 1, 2)
    return (*one, torch.tensor([[True]])), (*scattered, target, valid)


def _score(
    prediction, raw_scale, target, valid, power=1, share=1.0, price=1.0, bounded=True, choose=True
):
    low, high = BOUNDED
    error = share * ((prediction - target).abs() ** power).sum(-1) ** (1 / power)
    scale = low + (high - low) * raw_scale.sigmoid() if bounded else raw_scale.exp()
    loss = error / scale + price * scale.log()
    return loss[valid].mean() if choose else (loss * valid).sum() / valid.sum()


DOUBT = Exercise(
    name="croco.5",
    answer=_doubt,
    source=laplacian_loss,
    cases=_doubt_cases,
    wrong={
        partial(_score, price=0.0): "without + log s doubt is free: the network would answer with "
        "the largest scale everywhere",
        partial(_score, power=2): "a Laplacian has absolute errors: |dx| + |dy|, not the length",
        partial(_score, bounded=False): "that is the unbounded kind, s = exp(c); flow keeps s "
        "between 0.25 and 4 pixels",
        partial(_score, share=0.5): "the errors of the two channels are summed, not averaged",
        partial(_score, choose=False): "unknown truth is inf here, and inf times 0 is not a "
        "number: choose the valid pixels before you average",
    },
    hints=(
        "e = (prediction - target).abs().sum(-1); s from the sigmoid of the raw scale",
        "(e / s + s.log())[valid].mean()",
    ),
)
