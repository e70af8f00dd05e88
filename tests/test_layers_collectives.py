"""Two ranks normalise as one process does: values, gradients, running statistics."""

import multiprocessing

import pytest
import torch
from collectives_worker import make, maps, step, work
from torch import nn
from two_ranks import PATIENCE, free_port

from mimlib.layers.collectives import SyncBatchNorm

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["collectives_worker"])
SIZES = (1, 5)  # images of the ranks


def test_two_ranks_are_one_process(tmp_path):
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    workers = [
        CONTEXT.Process(target=work, args=(tmp_path, SIZES, common | {"RANK": str(rank)}))
        for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=PATIENCE)
    assert [worker.exitcode for worker in workers] == [0, 0]
    parts = [torch.load(tmp_path / f"rank_{rank}.pt") for rank in range(2)]
    whole = step(make(), maps())
    for name in ("output", "maps"):
        found = torch.cat([part[name] for part in parts])
        torch.testing.assert_close(found, whole[name], rtol=1e-4, atol=1e-4)
    for name in ("weight", "bias"):
        found = parts[0][name] + parts[1][name]
        torch.testing.assert_close(found, whole[name], rtol=1e-4, atol=1e-4)
    for name in ("mean", "variance"):
        torch.testing.assert_close(parts[0][name], whole[name])
        assert torch.equal(parts[0][name], parts[1][name])


def test_alone_it_is_batch_normalisation():
    plain = nn.BatchNorm2d(3)
    plain.load_state_dict(make().state_dict())
    ours = make()
    for training in (True, False):
        torch.testing.assert_close(ours.train(training)(maps()), plain.train(training)(maps()))
    torch.testing.assert_close(ours.state_dict(), plain.state_dict())


def test_one_value_per_channel_cannot_be_normalised():
    norm = SyncBatchNorm(3)
    with pytest.raises(ValueError, match=r"maps of \(1, 3, 1, 1\); train on two images or more"):
        norm(torch.randn(1, 3, 1, 1))
    assert norm.eval()(torch.randn(1, 3, 1, 1)).shape == (1, 3, 1, 1)
