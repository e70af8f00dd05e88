"""Processes of a test that work as two ranks, and a port for them to meet at."""

import multiprocessing
import socket

import torch

PATIENCE = 600  # seconds, for what hangs: no test is about how long its ranks take


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def in_two_ranks(find, folder):
    """What `find(rank)`, tensors by name, returns in each of two ranks."""
    context = multiprocessing.get_context("spawn")
    address = f"tcp://127.0.0.1:{free_port()}"
    workers = [context.Process(target=_work, args=(find, rank, address, folder)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=PATIENCE)
    assert [worker.exitcode for worker in workers] == [0, 0]
    return [torch.load(folder / f"rank_{rank}.pt") for rank in (0, 1)]


def _work(find, rank, address, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    torch.save(find(rank), folder / f"rank_{rank}.pt")
    torch.distributed.destroy_process_group()
