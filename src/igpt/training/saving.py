"""Lightning's checkpoint IO: how checkpoints of a training reach the disk."""

from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import TorchCheckpointIO

from igpt.checkpoints import META, remove_checkpoint, to_one_file, write_checkpoint
from igpt.system import UserError, complain


class WholeCheckpoints(TorchCheckpointIO):
    """Writes each checkpoint whole and durably, with its checksum (`igpt.checkpoints.format.write_checkpoint`).

    A write that fails is one line and does not end the training: the previous checkpoint is untouched, and the next is
    tried at its time. `StepCheckpoint` looks whether the last one is there. (Only the main process writes; an error of
    its own would also leave the others waiting for it.)
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write, or say why that was not possible."""
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_checkpoint(checkpoint, path)
        except OSError as error:
            complain(
                f"igpt: {path} could not be written ({error.strerror or error}); earlier checkpoints are untouched and "
                "training goes on; make room before the next one"
            )

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        """Read a file; a UserError for a sharded one, which only a strategy that writes such can read."""
        if (Path(path) / META).is_file():
            raise UserError(
                f"--ckpt_path {path} is sharded, and --trainer.strategy is not the one that wrote it; use that one, or "
                f"{to_one_file(Path(path))}"
            )
        content: dict[str, Any] = super().load_checkpoint(path, map_location, weights_only)
        return content

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint with its checksum."""
        remove_checkpoint(Path(path))
