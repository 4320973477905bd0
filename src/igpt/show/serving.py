"""Start the page's server: on one address, without telemetry, and with no file of the machine to be had."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from igpt.api import Model
from igpt.show.actions import Desk
from igpt.system import UserError

MISSING = "igpt show needs gradio; install it with pip install 'igpt[show]'"
UPLOAD = "20mb"  # of one picture
FONTS = ("system-ui", "-apple-system", "Segoe UI", "sans-serif")  # those of the machine: none is fetched
MONO = ("ui-monospace", "Consolas", "monospace")


def check_place(host: str, port: int) -> None:
    """Raise a UserError where gradio is missing or nothing can listen at this address."""
    if find_spec("gradio") is None:  # imported later: it reads its environment, which `serve` sets first
        raise UserError(MISSING)
    if not 1 <= port <= 65535:
        raise UserError(f"--port {port} must lie between 1 and 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as place:
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was just closed is free
            place.bind((host, port))
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"--host {host} --port {port}: cannot listen there ({reason}); choose another") from error


def names_of(host: str) -> list[str]:
    """Names that a browser may call this server by; any where it listens beyond this machine.

    Another site can give its own name the address 127.0.0.1, and would then be answered as if it were this page.
    """
    loopback = host in ("localhost", "::1") or host.startswith("127.")
    return [host, "localhost", "127.0.0.1", "[::1]"] if loopback else ["*"]


@contextmanager
def serve(model: Model, host: str, port: int, open_browser: bool = False) -> Iterator[str]:
    """The page while the block runs; gives its address.

    What is uploaded lies in a folder of this process and goes with it.
    """
    with tempfile.TemporaryDirectory(prefix="igpt-show-") as folder:
        os.environ |= {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "GRADIO_TEMP_DIR": folder,
            "GRADIO_ALLOWED_PATHS": "",
            "GRADIO_SHARE": "False",
        }
        import gradio as gr
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        from igpt.show.page import CSS, build

        page: Any = build(Desk(model))
        page.queue(max_size=32, api_open=False)
        named = Middleware(TrustedHostMiddleware, allowed_hosts=names_of(host), www_redirect=False)
        try:
            _, address, _ = page.launch(
                server_name=host, server_port=port, inbrowser=open_browser, prevent_thread_lock=True, share=False,
                quiet=True, show_error=True, allowed_paths=[], max_file_size=UPLOAD, footer_links=[], ssr_mode=False,
                pwa=False, mcp_server=False, enable_monitoring=False, css=CSS, app_kwargs={"middleware": [named]},
                theme=gr.themes.Default(font=FONTS, font_mono=MONO),
            )  # fmt: skip
            yield address
        finally:
            page.close(verbose=False)
