"""Samplers and the DataLoader of training: a seeded order, a place in it that checkpoints keep, batches from memory."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from igpt.data.images import InMemory, LabelledImages, fetch, in_memory
from igpt.data.randomness import keys_of, rng_of
from igpt.data.workers import WatchedLoader


class TrainingOrder(DistributedSampler[tuple[int, int]]):
    """Training sampler: pairs (epoch, index), shuffled by (seed, epoch) alone, dealt in batches to the processes.

    A pass begins with batch number `start`, counted from the beginning of training, and is as long as an epoch. The
    processes share every global batch, so that the images of a step depend on `batch_size * world_size` only. (A
    `DistributedSampler`, since Lightning wraps any other.) What does not fill a last global batch is dropped, another
    part every epoch.
    """

    def __init__(self, count: int, batch_size: int, seed: int, world_size: int = 1, rank: int = 0) -> None:
        super().__init__(range(count), num_replicas=world_size, rank=rank, seed=seed)  # type: ignore[arg-type]
        self.count, self.batch_size = count, batch_size
        self.global_batch = batch_size * world_size
        self.batches = count // self.global_batch
        self.start = 0
        self._drawn, self._order = -1, torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for number in range(self.start, self.start + self.batches):
            epoch, place = divmod(number, self.batches)
            first = place * self.global_batch + self.rank * self.batch_size
            for index in self.images_at(epoch, first, first + self.batch_size):
                yield epoch, index

    def images_at(self, epoch: int, start: int, end: int) -> list[int]:
        """Indices of the images at these places of an epoch's order."""
        if epoch != self._drawn:
            self._drawn, self._order = epoch, torch.randperm(self.count, generator=rng_of(self.seed, epoch))
        found: list[int] = self._order[start:end].tolist()
        return found


class WholeBatches(DistributedSampler[int]):
    """Evaluation sampler of several processes: deals whole batches out, so that each image counts exactly once.

    Processes meet in every batch where weights are sharded. So those with one batch less get the first one once more,
    which `counts` tells from the others. (A `DistributedSampler`, since Lightning wraps any other, with one that
    repeats images to fill up, which then count twice.)
    """

    def __init__(self, count: int, batch_size: int, world_size: int, rank: int) -> None:
        super().__init__(range(count), num_replicas=world_size, rank=rank, shuffle=False)  # type: ignore[arg-type]
        firsts = range(rank * batch_size, count, world_size * batch_size)
        self.indices = [index for first in firsts for index in range(first, min(first + batch_size, count))]
        self.own = len(firsts)
        if self.own < len(range(0, count, world_size * batch_size)):
            self.indices += range(min(batch_size, count))

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def number(self, batch: int) -> int:
        """Which batch of one process this process' batch is."""
        return batch * self.num_replicas + self.rank

    def counts(self, batch: int) -> bool:
        """Whether this process' batch holds images that no other has."""
        return batch < self.own


class TrainingLoader(WatchedLoader):
    """DataLoader of training, resumable within an epoch: each pass goes on behind the last batch that was taken.

    `state_dict` keeps the place as an epoch and a number of images, so that a run may go on with other batch sizes;
    Lightning puts it into the checkpoint. Where `images` does not give batches, `finish` makes them, in this process.
    """

    def __init__(
        self,
        images: Dataset[Any],
        order: TrainingOrder,
        finish: Callable[..., tuple[Tensor, Tensor]] | None = None,
        **how: Any,
    ) -> None:
        super().__init__(images, batch_size=order.batch_size, sampler=order, drop_last=True, **how)
        self.order, self.finish, self.taken = order, finish, 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self.order.start = self.taken
        for batch in super().__iter__():
            self.taken += 1
            yield batch if self.finish is None else self.finish(*batch)

    def state_dict(self) -> dict[str, int]:
        """The place behind the last batch taken: epoch, and images of it that all processes have taken."""
        epoch, place = divmod(self.taken, self.order.batches)
        return {"epoch": epoch, "images": place * self.order.global_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on there, or at the beginning of the global batch that the place lies in."""
        self.taken = state["epoch"] * self.order.batches + state["images"] // self.order.global_batch


class TrainingImages(Dataset[Any]):
    """Training images addressed by (epoch, index), each augmented with a generator, or from memory a key, of its own.

    With `addresses` images in memory give the arguments of `InMemory.batch` instead of batches.
    """

    def __init__(self, images: LabelledImages, seed: int, addresses: bool = False) -> None:
        self.base, self.seed, self.addresses = images, seed, addresses
        self.memory = in_memory(images)

    def __len__(self) -> int:
        return len(self.base)

    def __getitems__(self, draws: list[tuple[int, int]]) -> Any:
        """A batch, or the list of its items."""
        if self.memory is not None:
            epochs, indices = torch.tensor(draws).unbind(1)
            found = self.memory.rows[indices], keys_of(self.seed, epochs, indices)
            return found if self.addresses else self.memory.batch(*found)
        if not self.base.augments:
            return fetch(self.base, [index for _, index in draws])
        return [self.base.draw(index, rng_of(self.seed, epoch, index)) for epoch, index in draws]


def fits(memory: InMemory, device: torch.device, gib: float) -> bool:
    """Whether the images take at most so many GiB, and on a GPU at most an eighth of what is free there now."""
    limit = gib * 2**30
    if device.type == "cuda":
        limit = min(limit, torch.cuda.mem_get_info(device)[0] / 8)
    return memory.images.nbytes <= limit
