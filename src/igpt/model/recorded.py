"""Functions that CUDA records once and then runs by one call, in place of hundreds of kernels called one by one."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

WARM_UP = 2  # calls before the recording, in which libraries make ready what may not be made while it runs


class Recording(NamedTuple):
    """A graph, the tensors that it reads, and the one that it writes."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor


class Recorded:
    """Calls of `function(variant, *tensors)`, recorded once for each variant; the tensors always have the same shapes.

    Recording calls the function a few times more, so that what it writes must not depend on how often it is called.
    It may not wait for the device, and what else it reads must stay where it is.
    """

    def __init__(self) -> None:
        self.recordings: dict[int, Recording] = {}
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[..., Tensor], variant: int, *tensors: Tensor) -> Tensor:
        """What the function returns, as a tensor of its own."""
        if variant not in self.recordings:
            self.recordings[variant] = self._record(function, variant, tensors)
        graph, inputs, output = self.recordings[variant]
        for held, given in zip(inputs, tensors, strict=True):
            held.copy_(given)
        graph.replay()
        return output.clone()

    def _record(self, function: Callable[..., Tensor], variant: int, tensors: tuple[Tensor, ...]) -> Recording:
        inputs = tuple(tensor.clone() for tensor in tensors)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                function(variant, *inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # "thread_local": other threads, such as the one that pins the loaders' batches, may go on meanwhile
        with uncollected(), torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            output = function(variant, *inputs)
        return Recording(graph, inputs, output)


@contextmanager
def uncollected() -> Iterator[None]:
    """Python collects no garbage meanwhile: to free another graph while one is recorded would spoil the recording."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
