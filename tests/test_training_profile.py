"""Counts of operations, and what is said where there is none."""

import warnings

import pytest
import torch
from training_toys import Toy, ToySource

from mimlib.training import profile
from mimlib.training.profile import count_flops


class Uncountable(Toy):
    """Asks for a value in its forward pass, which shapes alone do not have."""

    def forward(self, views):
        """Fail on shapes without data."""
        if bool((views.images > 1e9).any()):
            raise AssertionError
        return super().forward(views)


@pytest.fixture
def views():
    batch = next(ToySource().batches(0, 4, seed=0))
    return Toy().sample_views(batch, torch.Generator())


@pytest.fixture(autouse=True)
def forget():
    profile._warn_uncounted.cache_clear()


def test_a_method_that_runs_on_shapes_is_counted_without_a_word(views):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counted = count_flops(Toy(), views)
    assert counted > 0 and count_flops(Toy(), views) == counted


def test_a_method_that_cannot_be_counted_says_why_and_once(views):
    with pytest.warns(UserWarning, match=r"operations of Uncountable are not counted.*\(\w+: .*"):
        assert count_flops(Uncountable(), views) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert count_flops(Uncountable(), views) == 0
