"""`igpt show`: a page in the browser around one checkpoint."""

import sys
import threading

from igpt.api import open_model
from igpt.show import check_place, serve
from igpt.system import Precision, compute_of
from igpt.training import ready


def show(
    ckpt: str,
    probe: str | None = None,
    port: int = 7860,
    host: str = "127.0.0.1",
    open: bool = False,
    accelerator: str = "auto",
    precision: Precision = "auto",
    tf32: bool = True,
) -> None:
    """A page in the browser: complete a picture, see what surprises the model, classify, and walk through its layers.

    It runs until Ctrl+C. Nobody but this machine reaches it unless --host says otherwise; it asks no password.

    Args:
        ckpt: checkpoint, run's folder or run's name.
        probe: folder that `igpt probe --save` wrote for this checkpoint, to classify with.
        port: of the page.
        host: address to listen at; 0.0.0.0 lets every machine of the network in.
        open: show the page in the browser at once.
        accelerator: auto, cpu, gpu, cuda or mps.
        precision: of the network; auto is what is quickest here.
        tf32: on CUDA, let float32 products round to TF32.

    Raises:
        UserError: gradio is missing, nothing can listen there, or the checkpoint cannot be read.
    """
    check_place(host, port)
    ready(compute_of(accelerator, precision), tf32)
    model = open_model(ckpt, accelerator, precision, probe)
    with serve(model, host, port, open) as address:
        print(f"igpt show: {address} (Ctrl+C ends it)", file=sys.stderr, flush=True)
        threading.Event().wait()
