"""Several processes that work on one run, as torchrun starts them: `Ranks`. One process alone is
`ALONE`, for which nothing here does anything.

    torchrun --nproc_per_node 2 run_deepvoxels.py --train_test train --data_root SCENE/train
        --logging_root LOGS

Every rank takes the same step: it integrates the same source view and renders its share of the
target views. What depends on the targets is then averaged (`Ranks.average_`), so that all ranks
hold one state. They draw dropout from one random state too (`SpreadDropout2d`), so that a
checkpoint is that of one process and continues with any number of them.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any
from uuid import uuid4

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from machine.runtime import cuda_devices
from util import InputError, one_line

TIMEOUT = timedelta(minutes=30)  # how long ranks wait for one that saves or validates
VALUES_AT_ONCE = 2**24  # that are averaged, which bounds the memory for copies


@dataclass(frozen=True)
class Ranks:
    """This process among the `count` of a run. rank: its number, from 0. local_rank: its number on
    this machine, where there are `local_count`. The first logs and saves."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(
        self,
        targets: Int[np.ndarray, "v"] | Float[Tensor, "v *size"],
    ) -> Int[np.ndarray, "_"] | Float[Tensor, "_ *size"]:
        """This rank's part of what there is for each target; `count` divides their number."""
        size = len(targets) // self.count
        return targets[self.rank * size : (self.rank + 1) * size]

    def average_(self, tensors: list[Tensor]) -> None:
        """Replaces tensors of one type by their means over the ranks, which are the same on all to
        the bit.

        DistributedDataParallel is not used: it averages within one backward pass, of which a step
        has two, and knows nothing of losses, running statistics and the volume.
        """
        while tensors:
            size = tensors[0].numel()
            count = 1
            while count < len(tensors) and size + tensors[count].numel() <= VALUES_AT_ONCE:
                size = size + tensors[count].numel()
                count = count + 1
            flat = torch.cat([tensor.detach().flatten() for tensor in tensors[:count]])
            with _reaching_all():
                dist.all_reduce(flat)
            means = (flat / self.count).split([tensor.numel() for tensor in tensors[:count]])
            torch._foreach_copy_(
                [tensor.detach() for tensor in tensors[:count]],
                [mean.view_as(tensor) for tensor, mean in zip(tensors[:count], means, strict=True)],
            )
            tensors = tensors[count:]

    def largest(self, *values: int) -> tuple[int, ...]:
        """Each value's largest over the ranks. It waits for all ranks, but not for a GPU."""
        if self.count == 1:
            return values
        shared = torch.tensor(values)
        with _reaching_all():
            dist.all_reduce(shared, dist.ReduceOp.MAX)
        return tuple(shared.tolist())

    def gather(self, value: Any) -> list:
        """The values of all ranks by rank, on the first; nothing on the others."""
        if self.count == 1:
            return [value]
        values = [None] * self.count if self.first else None
        with _reaching_all():
            dist.gather_object(value, values)
        return values or []

    def gather_in_order(self, items: Iterator[object], total: int, turn: int) -> Iterator[object]:
        """Yields all ranks' items in order on the first rank, nothing on the others. All ranks must
        iterate. total: the number of all items, which the ranks have made in turns of `turn`."""
        if self.count == 1:
            yield from items
            return
        for _ in range(0, total, turn * self.count):
            for items_of_rank in self.gather(list(islice(items, turn))):
                yield from items_of_rank

    def from_first(self, make: Callable[[], Any]) -> Any:
        """Calls `make` on the first rank and broadcasts the result; its error ends all ranks."""
        if self.count == 1:
            return make()
        made = [None]
        with self.fail_together():
            if self.first:
                made = [make()]
        with _reaching_all():
            dist.broadcast_object_list(made)
        return made[0]

    @contextmanager
    def fail_together(self) -> Iterator[None]:
        """An error within, on any rank, ends all ranks: the first that has one raises it, the
        others exit. Nothing within may wait for other ranks."""
        if self.count == 1:
            yield
            return
        error = None
        try:
            yield
        except (Exception, SystemExit) as raised:  # argparse exits
            error = raised
        code = 2 if isinstance(error, (InputError, OSError)) else getattr(error, "code", 1)
        place = 0 if error is None else self.count - self.rank
        code, first_place = self.largest(code if place and isinstance(code, int) else 0, place)
        if error is not None and place == first_place:
            raise error
        if first_place:
            raise SystemExit(code)

    def own_device(self, name: str) -> str:
        """The device of this rank where `--device` is `name`. Raises `InputError` if there are too
        few GPUs."""
        if self.count == 1 or name == "cpu":
            return name
        if name != "cuda":
            raise InputError(
                f"--device {name}: torchrun's processes take a GPU each; choose cuda or cpu"
            )
        if self.local_count > torch.cuda.device_count():
            raise InputError(
                f"--device cuda: PyTorch finds {torch.cuda.device_count()} GPUs here, torchrun "
                "started "
                f"{self.local_count} processes; set its --nproc_per_node"
            )
        torch.cuda.set_device(self.local_rank)
        return f"cuda:{self.local_rank}"

    def share_random_state(self, device: torch.device) -> None:
        """Gives every rank's GPU the first one's random state; those of the CPUs are the same
        already."""
        if self.count > 1 and device.type == "cuda":
            state = self.from_first(lambda: torch.cuda.get_rng_state(device))
            torch.cuda.set_rng_state(state, device)

    def require_same(self, value: int, message: str) -> None:
        """Ends all ranks with an `InputError` of this message unless the value is the same on
        all."""
        largest, negated_smallest = self.largest(value, -value)
        with self.fail_together():
            if largest != -negated_smallest:
                raise InputError(message)

    def spread_dropout_(self, *networks: nn.Module) -> None:
        """Makes the networks' channel dropouts draw for the target views of all ranks."""
        if self.count == 1:
            return
        for network in networks:
            for layer in network.modules():
                if type(layer) is nn.Dropout2d:
                    layer.__class__ = SpreadDropout2d
                    layer.ranks = self


ALONE = Ranks()


class SpreadDropout2d(nn.Dropout2d):
    """Channel dropout of maps of target views: draws for those of all ranks, in their order, and
    takes this rank's.

    So all ranks' random states stay the same, those of one process with all the targets, and each
    view gets the dropout that it would have there.
    """

    ranks: Ranks

    def forward(self, x: Float[Tensor, "v c h w"]) -> Float[Tensor, "v c h w"]:
        if not self.training:
            return x
        factors = F.dropout2d(x.new_ones(len(x) * self.ranks.count, x.shape[1], 1, 1), self.p)
        return x * self.ranks.share(factors)


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks that torchrun started, connected within; `ALONE` if it started one or none. Other
    ranks than the first print nothing within."""
    count = int(os.environ.get("WORLD_SIZE", 1)) if "TORCHELASTIC_RUN_ID" in os.environ else 1
    if count == 1:
        yield ALONE
        return
    ranks = Ranks(
        *(
            int(os.environ[name])
            for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        )
    )
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda_devices()[0] else "gloo",
        timeout=TIMEOUT,
        store=_store_of_this_start(ranks),
        rank=ranks.rank,
        world_size=ranks.count,
    )
    with ExitStack() as stack:
        stack.callback(
            dist.destroy_process_group
        )  # or its threads would abort this process when it ends
        if not ranks.first:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        yield ranks


def _store_of_this_start(ranks: Ranks) -> dist.Store:
    """The store in which ranks find each other, for those that run now alone.

    torchrun has one store for all restarts, where a rank could read the address of one that was
    killed. So each takes a new name; the first repeats which names it has seen, until all have seen
    theirs among them.
    """
    store = next(dist.rendezvous("env://"))[0]
    name = uuid4().hex
    if ranks.first:
        while not store.check([f"{name} {rank}" for rank in range(1, ranks.count)]):
            others = [store.get(f"name {rank}").decode() for rank in range(1, ranks.count)]
            store.set("names", " ".join([name, *others]))
            time.sleep(0.02)
        return dist.PrefixStore(name, store)
    store.set(f"name {ranks.rank}", name)
    while name not in (names := store.get("names").decode().split()):
        time.sleep(0.02)
    store.set(f"{names[0]} {ranks.rank}", "seen")
    return dist.PrefixStore(names[0], store)


@contextmanager
def _reaching_all() -> Iterator[None]:
    """Ends this process with one line if the others cannot be reached."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        sys.exit(
            f"error: rank {dist.get_rank()} lost the other processes of this run "
            f"({one_line(str(error))[:200]})"
        )
