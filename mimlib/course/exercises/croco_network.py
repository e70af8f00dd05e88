"""Exercises of lesson 03 about the network: turn, look at the other image, admit doubt."""

import torch
from torch import Tensor

from mimlib.course.exercises.exercise import Exercise, Wrong
from mimlib.layers.attention import CrossAttention
from mimlib.layers.rope import rotary_table, rotate
from mimlib.tasks.losses.laplacian import BOUNDED, laplacian_loss


def _turned(heads: Tensor, places: Tensor) -> Tensor:
    h, w = (places.max(dim=0).values + 1).tolist()
    table = rotary_table((h, w), heads.shape[1])  # [h * w, factors]
    turns = table[places[:, 0] * w + places[:, 1]]
    return rotate(heads[None, None], turns[None])[0, 0]


def _turn_cases() -> tuple[tuple, ...]:
    draw = torch.Generator().manual_seed(5)
    places = torch.tensor([[0, 0], [1, 0], [0, 2], [3, 1]])
    return (
        (torch.tensor([[1.0, 0.0, 1.0, 0.0]]), torch.tensor([[1, 2]])),
        (torch.randn(4, 8, generator=draw), places),
        (torch.randn(4, 32, generator=draw), places),
    )


def _turn_by(heads: Tensor, places: Tensor, base: float = 100.0, sign: int = 1) -> Tensor:
    quarter = heads.shape[1] // 4
    frequency = base ** (-torch.arange(quarter) / quarter)
    parts = []
    for half, place in zip(heads.chunk(2, dim=1), places.unbind(1)):
        u, v = half.chunk(2, dim=1)
        angle = sign * place[:, None] * frequency
        parts += [u * angle.cos() - v * angle.sin(), v * angle.cos() + u * angle.sin()]
    return torch.cat(parts, dim=1)


def _columns_first(heads: Tensor, places: Tensor) -> Tensor:
    return _turn_by(heads, places.flip(1))


def _backwards(heads: Tensor, places: Tensor) -> Tensor:
    return _turn_by(heads, places, sign=-1)


def _of_sentences(heads: Tensor, places: Tensor) -> Tensor:
    return _turn_by(heads, places, base=10000.0)


def _neighbours(heads: Tensor, places: Tensor) -> Tensor:
    """Pair channel 2 i with 2 i + 1, as many do for text."""
    halves = [half.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1) for half in heads.chunk(2, 1)]
    turned = _turn_by(torch.cat(halves, dim=1), places).chunk(2, 1)
    return torch.cat([t.unflatten(1, (2, -1)).transpose(1, 2).flatten(1) for t in turned], dim=1)


def _added(heads: Tensor, places: Tensor) -> Tensor:
    """Add the table instead of turning."""
    return heads + _turn_by(torch.ones_like(heads), places)


TURN = Exercise(
    name="croco.3",
    task="Turn queries or keys of one head [K, d] by the places (row, column) [K, 2] of their "
    "tokens: the first half of the channels by the row, the second by the column.",
    minutes=15,
    difficulty=3,
    answer=_turned,
    source=rotate,
    cases=_turn_cases,
    wrong=(
        Wrong(
            answer=_columns_first,
            hint="rows turn the first half of the channels, columns the second; published weights "
            "would look along the wrong axis",
        ),
        Wrong(
            answer=_backwards,
            hint="the sense of rotation is wrong: (u, v) becomes (u cos - v sin, v cos + u sin)",
        ),
        Wrong(
            answer=_of_sentences,
            hint="the base is 100, as in CroCo's code; 10000 is for sentences, and a grid has no "
            "such distances",
        ),
        Wrong(
            answer=_neighbours,
            hint="channel i of a half goes with channel i + d/4, not with its neighbour",
        ),
        Wrong(
            answer=_added,
            hint="nothing is added: the vector keeps its length and is turned, pair by pair",
        ),
    ),
    hints=(
        "with q = d / 4 the frequencies are 100 ** (-i / q), i = 0 ... q - 1, for both halves",
        "u, v = half.chunk(2, dim=1); angle = place[:, None] * frequency; "
        "then (u cos - v sin, v cos + u sin), rows first",
    ),
    tolerance=1e-5,
)


def _look(
    tokens: Tensor, memory: Tensor, to_queries: Tensor, to_keys: Tensor, heads: int
) -> Tensor:
    layer = CrossAttention(tokens.shape[1], heads)
    with torch.no_grad():
        for part, weight in ((layer.projq, to_queries), (layer.projk, to_keys)):
            part.weight.copy_(weight.T)
            part.bias.zero_()
        return layer.weights(tokens[None], memory[None])[0]


def _look_cases() -> tuple[tuple, ...]:
    draw = torch.Generator().manual_seed(6)

    def _case(num_tokens: int, num_memory: int, width: int, heads: int) -> tuple:
        shapes = ((num_tokens, width), (num_memory, width), (width, width), (width, width))
        return *(torch.randn(*shape, generator=draw) for shape in shapes), heads

    return _case(2, 3, 4, 1), _case(4, 6, 8, 2), _case(5, 5, 12, 3)


def _scores(tokens: Tensor, memory: Tensor, wq: Tensor, wk: Tensor, heads: int) -> Tensor:
    q, k = (part.unflatten(1, (heads, -1)).transpose(0, 1) for part in (tokens @ wq, memory @ wk))
    return q @ k.transpose(1, 2) / q.shape[-1] ** 0.5  # [A, M, R]


def _over_askers(tokens: Tensor, memory: Tensor, wq: Tensor, wk: Tensor, heads: int) -> Tensor:
    return _scores(tokens, memory, wq, wk, heads).softmax(dim=1)


def _by_width(tokens: Tensor, memory: Tensor, wq: Tensor, wk: Tensor, heads: int) -> Tensor:
    scores = _scores(tokens, memory, wq, wk, heads)
    return (scores / heads**0.5).softmax(dim=-1)


def _unscaled(tokens: Tensor, memory: Tensor, wq: Tensor, wk: Tensor, heads: int) -> Tensor:
    scores = _scores(tokens, memory, wq, wk, heads)
    return (scores * (tokens.shape[1] / heads) ** 0.5).softmax(dim=-1)


def _at_itself(tokens: Tensor, memory: Tensor, wq: Tensor, wk: Tensor, heads: int) -> Tensor:
    return _scores(tokens, tokens, wq, wk, heads).softmax(dim=-1)


def _from_memory(tokens: Tensor, memory: Tensor, wq: Tensor, wk: Tensor, heads: int) -> Tensor:
    return _scores(memory, tokens, wq, wk, heads).softmax(dim=-1)


def _cut_across(tokens: Tensor, memory: Tensor, wq: Tensor, wk: Tensor, heads: int) -> Tensor:
    q, k = (
        part.reshape(heads, len(part), -1) for part in (tokens @ wq, memory @ wk)
    )  # fmt: skip
    return (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(dim=-1)


LOOK = Exercise(
    name="croco.4",
    task="Return where the tokens of image 1 [M, D] look in the memory of image 2 [R, D]: weights "
    "[A, M, R] that sum to 1 over R, with queries tokens @ to_queries and keys memory @ to_keys.",
    minutes=15,
    difficulty=2,
    answer=_look,
    source=CrossAttention,
    cases=_look_cases,
    wrong=(
        Wrong(
            answer=_over_askers,
            hint="the softmax runs over the memory, the last axis: each token of image 1 spreads "
            "one unit of attention over image 2",
        ),
        Wrong(
            answer=_by_width,
            hint="divide by the root of the width of one head, d = D / A, not of the whole token",
        ),
        Wrong(answer=_unscaled, hint="divide the products by the root of d before the softmax"),
        Wrong(
            answer=_at_itself,
            hint="that is self-attention: image 1 asks, so its tokens make the queries; the keys "
            "are made from the memory of image 2",
        ),
        Wrong(answer=_from_memory, hint="image 1 asks and image 2 answers: exchange the two"),
        Wrong(
            answer=_cut_across,
            hint="the heads are cut out of the channels: unflatten the last axis into (A, d), then "
            "bring A to the front; a reshape to [A, M, d] mixes tokens",
        ),
    ),
    hints=(
        "q = (tokens @ to_queries) cut into heads [A, M, d], k = (memory @ to_keys) [A, R, d]",
        "(q @ k.transpose(1, 2) / d ** 0.5).softmax(dim=-1)",
    ),
    tolerance=1e-5,
)


def _doubt(prediction: Tensor, raw_scale: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    parts = (prediction, raw_scale, target, valid)
    return laplacian_loss(*(part[None] for part in parts), "bounded")


def _doubt_cases() -> tuple[tuple, ...]:
    draw = torch.Generator().manual_seed(7)
    target = torch.randn(3, 4, 2, generator=draw)
    valid = torch.rand(3, 4, generator=draw) < 0.7
    target[~valid] = float("inf")
    scattered = torch.randn(3, 4, 2, generator=draw), torch.randn(3, 4, generator=draw)
    one = torch.tensor([[[3.0, 4.0]]]), torch.zeros(1, 1), torch.zeros(1, 1, 2)
    return (*one, torch.tensor([[True]])), (*scattered, target, valid)


def _terms(prediction: Tensor, raw_scale: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    low, high = BOUNDED
    return (prediction - target).abs().sum(-1), low + (high - low) * raw_scale.sigmoid()


def _never_sorry(prediction: Tensor, raw_scale: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    error, scale = _terms(prediction, raw_scale, target)
    return (error / scale)[valid].mean()


def _euclidean(prediction: Tensor, raw_scale: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    _, scale = _terms(prediction, raw_scale, target)
    error = (prediction - target).square().sum(-1).sqrt()
    return (error / scale + scale.log())[valid].mean()


def _unbounded(prediction: Tensor, raw_scale: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    error, _ = _terms(prediction, raw_scale, target)
    return (error / raw_scale.exp() + raw_scale)[valid].mean()


def _mean_channel(prediction: Tensor, raw_scale: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    error, scale = _terms(prediction, raw_scale, target)
    return (error / 2 / scale + scale.log())[valid].mean()


def _times_mask(prediction: Tensor, raw_scale: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    error, scale = _terms(prediction, raw_scale, target)
    return ((error / scale + scale.log()) * valid).sum() / valid.sum()


DOUBT = Exercise(
    name="croco.5",
    task="Score flow [H, W, 2] as CroCo-Flow does: the mean over valid pixels of e / s + log s, "
    "with e the absolute error summed over both channels and s = 0.25 + 3.75 sigmoid(raw scale).",
    minutes=10,
    difficulty=2,
    answer=_doubt,
    source=laplacian_loss,
    cases=_doubt_cases,
    wrong=(
        Wrong(
            answer=_never_sorry,
            hint="without + log s doubt is free: the network would answer with the largest scale "
            "everywhere",
        ),
        Wrong(
            answer=_euclidean,
            hint="a Laplacian has absolute errors: |dx| + |dy|, not the length of the difference",
        ),
        Wrong(
            answer=_unbounded,
            hint="that is the unbounded kind, s = exp(c); flow keeps s between 0.25 and 4 pixels",
        ),
        Wrong(answer=_mean_channel, hint="the errors of the two channels are summed, not averaged"),
        Wrong(
            answer=_times_mask,
            hint="unknown truth is inf here, and inf times 0 is not a number: choose the valid "
            "pixels before you average",
        ),
    ),
    hints=(
        "e = (prediction - target).abs().sum(-1); s from the sigmoid of the raw scale",
        "(e / s + s.log())[valid].mean()",
    ),
    tolerance=1e-6,
)

EXERCISES = (TURN, LOOK, DOUBT)
