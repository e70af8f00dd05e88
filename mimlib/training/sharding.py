"""Weights cut over the ranks with FSDP2, for models that one device cannot hold."""

from inspect import ismethod
from itertools import chain

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from mimlib.protocol import Trainable

# Of encoders and blocks, beside forward.
ENTRANCES = ("encode", "encode_together", "encode_sizes", "stages", "keys_values")


def shard_in_place(method: Trainable, device: torch.device) -> Trainable:
    """Cut every parameter over the ranks with FSDP2: block by block, then encoder, then the rest.

    Weights, gradients and moments then take 1 / num_ranks of the memory, for one gathering of
    each block per pass. The encoder and the whole method can be called, other parts cannot; what
    is left of the encoder stays gathered, since methods use its last norm by itself.
    """
    for tensor in method.state_dict().values():
        dist.broadcast(tensor, 0)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    lists = [part for part in method.modules() if isinstance(part, nn.ModuleList)]
    inside_out = chain.from_iterable(reversed(lists))  # a list may hold parts that have lists
    for part in [*inside_out, method.encoder, method]:
        fully_shard(part, mesh=mesh, reshard_after_forward=part is not method.encoder)
        for name in ENTRANCES if part is not method else ():
            if ismethod(getattr(part, name, None)):
                register_fsdp_forward_method(part, name)
    return method
