"""Who is near whom and who is chosen."""

import pytest
import torch
import torch.nn.functional as F

from mimlib.layers.neighbors import nearest_neighbors, neighbor_table

KNOWN = {  # of the released code
    (14, 14): {
        0: [1, 13, 14, 15, 27, 182, 183, 195],
        7: [6, 8, 20, 21, 22, 188, 189, 190],
        30: [15, 16, 17, 29, 31, 43, 44, 45],
        195: [0, 12, 13, 168, 180, 181, 182, 194],
    },
    (6, 6): {0: [1, 5, 6, 7, 11, 30, 31, 35]},
}


def tokens(batch, num, width=6, seed=0):
    return torch.randn(batch, num, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("grid", KNOWN)
def test_the_known_neighbours(grid):
    table, inside = neighbor_table(grid, 3)
    assert inside.all()
    for patch, near in KNOWN[grid].items():
        assert table[patch].sort().values.tolist() == near


@pytest.mark.parametrize("grid,window", [((14, 14), 3), ((6, 6), 5), ((3, 5), 3), ((4, 7), 0)])
def test_neighbours_are_distinct_and_mutual(grid, window):
    num = grid[0] * grid[1]
    table, inside = neighbor_table(grid, window)
    assert table.shape == (num, (window**2 if window else num) - 1) and inside.all()
    near = torch.zeros(num, num, dtype=torch.bool).scatter(1, table, True)
    assert not near.diagonal().any() and torch.equal(near, near.T)
    assert (near.sum(1) == table.shape[1]).all()


def test_beyond_the_border_there_is_nothing():
    table, inside = neighbor_table((4, 5), 3, wrap=False)
    counts = inside.sum(1).view(4, 5)
    assert counts[0, 0] == counts[3, 4] == 3 and counts[0, 2] == 5 and counts[1, 1] == 8
    for patch in range(20):
        row, column = divmod(patch, 5)
        near = {r * 5 + c for r in range(4) for c in range(5)
                if max(abs(r - row), abs(c - column)) == 1}  # fmt: skip
        assert set(table[patch][inside[patch]].tolist()) == near
    assert neighbor_table((2, 2), 3, wrap=False)[1].sum() == 12


@pytest.mark.parametrize("wrap", [True, False])
@pytest.mark.parametrize("grid,window,k", [((5, 4), 3, 4), ((6, 6), 5, 3), ((4, 3), 0, 6)])
def test_the_nearest_are_those_of_a_loop(grid, window, k, wrap):
    given = tokens(2, grid[0] * grid[1])
    table, inside = neighbor_table(grid, window, wrap)
    found = nearest_neighbors(given, grid, k, window, wrap)
    assert found.index.shape == (2, len(table), k)
    for image in range(2):
        for patch in range(len(table)):
            near = table[patch][inside[patch]]
            cosine = F.cosine_similarity(given[image, patch], given[image, near], dim=-1)
            expected = near[cosine.topk(min(k, len(near))).indices]
            chosen = found.index[image, patch][found.valid[image, patch]]
            assert set(chosen.tolist()) == set(expected.tolist())


def test_a_planted_neighbour_is_found_whatever_its_length():
    given = torch.zeros(1, 36, 40)
    given[0, torch.arange(36), torch.arange(36)] = 1.0
    given[0, 8] = 1000 * given[0, 7]
    for scale in (1.0, 1e-3):
        given[0, 8] *= scale
        assert nearest_neighbors(given, (6, 6), 1).index[0, 7].tolist() == [8]


@pytest.mark.parametrize("window,wrap,grid,message", [
    (7, True, (6, 6), "window of 7 patches that wraps around a grid of 6 x 6 meets itself"),
    (3, True, (2, 5), "choose larger crops, a smaller window or wrap=False"),
    (4, True, (6, 6), "window is 4; choose an odd side from 3"),
    (1, False, (6, 6), "window is 1"),
])  # fmt: skip
def test_impossible_windows_are_refused(window, wrap, grid, message):
    with pytest.raises(ValueError, match=message):
        neighbor_table(grid, window, wrap)
