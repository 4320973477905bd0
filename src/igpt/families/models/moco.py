"""MoCo (He et al. 2020): as SimCLR, but against the keys of earlier batches, made by a slow copy of the network."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from igpt.data import Resolution
from igpt.families.maps import mean_of
from igpt.families.models.module import gathered
from igpt.families.models.simclr import SimCLR
from igpt.system import UserError


def info_nce(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Cross-entropy in nats of finding each query's key `(B, D)` among its own and a queue `(K, D)` of others.

    Scores are cosines over temperature.
    """
    queries, keys, queue = (F.normalize(one.float(), dim=1) for one in (queries, keys, queue))
    own = (queries * keys).sum(1, keepdim=True)
    logits = torch.cat([own, queries @ queue.T], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


class MoCo(SimCLR):
    """SimCLR's network, views and layers; the loss asks for a view's twin among a queue of views of earlier batches.

    Keys come from a copy of network and head that follows them slowly. Copy and queue are part of the checkpoint, so
    that a resumed run goes on with both. Of several processes each begins with its own keys and goes on with the
    first's, as buffers do.

    Args:
        resolution: side of the images, or rows and columns.
        width: channels of the stem; 64 in torchvision's.
        projection: numbers of a view that are compared.
        temperature: of the loss.
        queue_size: keys that are kept; at least a batch.
        momentum: share of itself that the copy keeps at a step.
        smallest_crop: share of a side that a crop has at least.
        jitter: brightness and contrast are multiplied by 1 - jitter to 1 + jitter.
        mirror: mirror half of the views; off for digits and letters.
        learning_rate: peak learning rate of Adam.
        betas: of Adam.
        weight_decay: of Adam.
        warmup_steps: optimizer steps of linear warm-up; None is one epoch.

    Raises:
        UserError: a number that describes no such network or views.
    """

    queue: Tensor
    place: Tensor

    def __init__(
        self,
        resolution: Resolution,
        width: int = 64,
        projection: int = 64,
        temperature: float = 0.2,
        queue_size: int = 1024,
        momentum: float = 0.99,
        smallest_crop: float = 0.6,
        jitter: float = 0.4,
        mirror: bool = True,
        learning_rate: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        warmup_steps: int | None = None,
    ) -> None:
        views = (temperature, smallest_crop, jitter, mirror)
        super().__init__(resolution, width, projection, *views, learning_rate, betas, weight_decay, warmup_steps)
        if queue_size < 1 or not 0 <= momentum < 1:
            raise UserError("model.init_args: queue_size must be at least 1, and momentum in 0..1, below 1")
        self.queue_size, self.momentum = queue_size, momentum
        self.followers = nn.ModuleList(copy.deepcopy(part).requires_grad_(False) for part in self.followed())
        self.register_buffer("queue", F.normalize(torch.randn(queue_size, projection), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    def followed(self) -> tuple[nn.Module, nn.Module]:
        """What the copy is of."""
        return self.network, self.head

    @torch.no_grad()
    def follow(self) -> None:
        """Move the copy's weights towards the network's; its batch norms count for themselves."""
        for own, other in zip(self.followed(), self.followers, strict=True):
            for new, slow in zip(own.parameters(), other.parameters(), strict=True):
                slow.lerp_(new, 1 - self.momentum)

    @torch.no_grad()
    def keys(self, views: Tensor) -> Tensor:
        """Keys `(B, D)` of length 1 of views `(B, 3, R, R)`, by the copy."""
        network, head = self.followers
        for part in network.values():  # type: ignore[operator]
            views = part(views)
        found: Tensor = F.normalize(head(mean_of(views)).float(), dim=1)
        return found

    @torch.no_grad()
    def remember(self, keys: Tensor) -> None:
        """Put keys `(B, D)`, those of all processes, in place of the oldest."""
        keys = gathered(keys)[-self.queue_size :]
        places = (self.place + torch.arange(len(keys), device=keys.device)) % self.queue_size
        self.queue[places] = keys.to(self.queue.dtype)
        self.place.copy_((self.place + len(keys)) % self.queue_size)

    def losses(self, images: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """InfoNCE in nats a view, and the share of views whose key is nearer than any of the queue's.

        In training the copy moves before, and the queue behind it.
        """
        one, other = self.view(images, rng), self.view(images, rng)
        queries = self.head(mean_of(self.stages(one)[-1]))
        if self.training:
            self.follow()
        keys, queue = self.keys(other), self.queue.clone()
        if self.training:
            self.remember(keys)
        found = F.normalize(queries.detach().float(), dim=1)
        twins = ((found * keys).sum(1) > (found @ queue.T).amax(1)).float().mean()
        return {"loss": info_nce(queries, keys, queue, self.temperature), "twins": twins}
