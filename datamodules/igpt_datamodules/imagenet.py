"""ImageNet ILSVRC 2012 in the folders that torchvision makes of the archives."""

from collections.abc import Mapping
from pathlib import Path

from igpt.data import LabelledImages, Resolution, SplitOptions, UserError
from igpt_datamodules import files

MEND = (
    "put ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz there and unpack them with "
    "torchvision.datasets.ImageNet, or name the folder with --data.init_args.root"
)


class ImageNet(files.StoredModule):
    """ROOT/train/WNID/*.JPEG and ROOT/val/WNID/*.JPEG: 4 % of train validates, the official val is the test (3.1).

    1,281,167 training images: 1,229,920 train and 51,247 validate; 50,000 test.

    Args:
        root: folder that holds train/ and val/.
        resolution: side R in pixels, or rows and columns: 32, 48 or 64 in the paper.
        batch_size: images a batch and process; 128 in the paper, 64 for iGPT-XL.
        num_workers: loader processes; as many as there are cores, since every image is decoded anew.
        seed: of the validation split, the training order and the augmentation.
        split: validation share, folding, low-data subsets.
        augment: train on random crops, as the paper does in pre-training and fine-tuning; else on the centre.
    """

    num_classes = 1000

    def __init__(
        self,
        root: str = "data/imagenet",
        resolution: Resolution = 32,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        split: SplitOptions = SplitOptions(val_share=0.04),
        augment: bool = True,
    ) -> None:
        super().__init__(resolution, batch_size, num_workers, seed, split)
        self.root = root
        self.augment = augment

    def load(self) -> Mapping[str, LabelledImages]:
        """Lists of the files; the images are read when needed. `class_names` are the WordNet ids, sorted."""
        root = Path(self.root)
        folders = files.split_folders(root) if root.is_dir() else {}
        for name in ("train", "val"):
            if name not in folders:
                raise UserError(f"ImageNet has no folder {root / name}; {MEND}")
        self.class_names, train = files.training_files(folders["train"])
        self.num_classes = len(self.class_names)
        test = files.labelled_files(folders["val"], self.class_names)
        self.skipped = [*train.unused, *test.unused]
        return {
            "train": files.StoredImages(map(files.Stored, train.files), train.labels, self.resolution, self.augment),
            "test": files.StoredImages(map(files.Stored, test.files), test.labels, self.resolution),
        }
