"""Image files on disk and in tars: finding, listing, reading, checking and downloading them."""

from igpt_datamodules.files.checking import bad_images, check_bad, without_bad
from igpt_datamodules.files.classes import (
    SPLIT_FOLDERS,
    ClassOrder,
    Labelled,
    beside,
    class_folders,
    labelled_files,
    no_folder,
    ordered,
    split_folders,
    training_files,
)
from igpt_datamodules.files.downloads import downloaded, find_or_download
from igpt_datamodules.files.manifest import kept_files, listed
from igpt_datamodules.files.module import StoredImages, StoredModule, check_shares, split_test
from igpt_datamodules.files.stored import SUFFIXES, Picture, Pictures, Stored, StoredList, read_rgb
from igpt_datamodules.files.walking import Skipped, files_below, stored_images, summary

__all__ = [
    "SPLIT_FOLDERS", "SUFFIXES", "ClassOrder", "Labelled", "Picture", "Pictures", "Skipped", "Stored", "StoredImages",
    "StoredList", "StoredModule", "bad_images", "beside", "check_bad", "check_shares", "class_folders", "downloaded",
    "files_below", "find_or_download", "kept_files", "labelled_files", "listed", "no_folder", "ordered", "read_rgb",
    "split_folders", "split_test", "stored_images", "summary", "training_files", "without_bad",
]  # fmt: skip
