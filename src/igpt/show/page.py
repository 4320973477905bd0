"""The layout of the page: which parts there are, and which action each button calls."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import gradio as gr
import numpy as np

from igpt.show import actions
from igpt.show.actions import Desk
from igpt.system import UserError

KEPT = {
    "Keep the upper half": "half",
    "Redraw what I paint": "unpainted",
    "Keep what I paint": "painted",
}
CSS = """
footer {display: none !important}
.gradio-container {max-width: 980px !important; margin: 0 auto !important}
.gradio-container, .gradio-container > .main, .main > .wrap, .contain, .contain > .column, .tabs {
  width: 100% !important; min-width: 0 !important; box-sizing: border-box}
.pixels img {image-rendering: pixelated}
.said {min-height: 1.5em}
"""
STOPPED = "Stopped."
SHEET = 256  # pixels of an empty sheet's side
QUEUED: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 4, "concurrency_id": "model"}


def build(desk: Desk) -> gr.Blocks:
    """The page around a desk; nothing in it belongs to one user."""
    with gr.Blocks(title=f"igpt: {desk.model.path.name}", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(f"# igpt\n{headline(desk)} Upload, paste or draw a picture, or take an example.")
        picture = picture_part(desk)
        with gr.Tab("Complete"):
            complete_tab(desk, picture)
        with gr.Tab("Surprise"):
            surprise_tab(desk, picture)
        with gr.Tab("Classify"):
            classify_tab(desk, picture)
        with gr.Tab("Layers"):
            layers_tab(desk, picture)
        with gr.Tab("Palette"):
            palette_tab(desk, picture)
    return cast(gr.Blocks, page)


def headline(desk: Desk) -> str:
    """What the model is, in one line."""
    model, (rows, columns) = desk.model, desk.model.shape
    kind = type(model.module.core).__name__
    return f"{kind}, {model.n_layers} layers, pictures of {rows}x{columns} pixels, trained for {model.step:,} steps."


def said(function: Callable[..., Any], empty: Any = None) -> Callable[..., tuple[Any, str]]:
    """A function whose result comes with a line of text, and whose UserError is that line."""

    def answer(*values: Any) -> tuple[Any, str]:
        try:
            result, line = function(*values)
        except UserError as error:
            return empty, f"⚠️ {error}"
        return result, line

    return answer


def composite(value: dict[str, Any] | None) -> Any:
    """The picture that an editor shows, RGBA `(H, W, 4)`; None where there is none."""
    return None if value is None else value.get("composite")


def picture_part(desk: Desk) -> gr.ImageEditor:
    """The editor at the top, whose picture all tabs look at."""
    picture = gr.ImageEditor(
        label="Your picture",
        type="numpy", sources=("upload", "clipboard"), layers=False, transforms=("crop",), height=380,
        canvas_size=(SHEET, SHEET), format="png", elem_id="picture", buttons=[],
        brush=gr.Brush(default_size=20, colors=["#ffffff", "#000000", "#d62728", "#2ca02c", "#1f77b4"]),
    )  # fmt: skip
    number = gr.State(0)
    with gr.Row():
        example = gr.Button("An example", elem_id="example", min_width=90)
        black = gr.Button("Black sheet", elem_id="black", min_width=90)
        white = gr.Button("White sheet", elem_id="white", min_width=90)
    line = gr.Markdown(elem_classes="said")

    def take(count: int) -> tuple[Any, int, str]:
        try:
            return actions.shown(actions.example(desk, count)), count + 1, ""
        except UserError as error:
            return gr.skip(), count, f"⚠️ {error}"

    example.click(take, number, [picture, number, line], **QUEUED)
    for button, value in ((black, 0), (white, 255)):
        button.click(partial(np.full, (SHEET, SHEET, 3), value, np.uint8), None, picture, api_visibility="private")
    return picture


def complete_tab(desk: Desk, picture: gr.ImageEditor) -> None:
    """Completions, drawn one after another, with a button that stops."""
    kept = gr.Radio(list(KEPT), value=next(iter(KEPT)), label="What is kept", elem_id="kept")
    mask = gr.ImageEditor(
        label="Paint here", type="numpy", sources=(), transforms=(), height=380,
        layers=False, format="png", elem_id="mask", visible=False, buttons=[],
        brush=gr.Brush(default_size=28, colors=["#ff7f0eb0"], color_mode="fixed"),
    )  # fmt: skip
    with gr.Row():
        num = gr.Slider(1, 8, 4, step=1, label="Completions", min_width=140)
        temperature = gr.Slider(0.1, 2, 1, step=0.05, label="Temperature", min_width=140)
        top_k = gr.Slider(0, 64, 0, step=1, label="Top-k (0 is all)", min_width=140)
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31, min_width=140)
    with gr.Row():
        go = gr.Button("Complete", variant="primary", elem_id="complete")
        stop = gr.Button("Stop", variant="stop", elem_id="stop")
    line = gr.Markdown(elem_classes="said", elem_id="complete-said")
    gallery = gr.Gallery(
        label="Completions", show_label=False, columns=4, height="auto",
        format="png", elem_id="completions",
        elem_classes="pixels", buttons=[], interactive=False,
    )  # fmt: skip

    def prepare(value: Any, choice: str) -> Any:
        if KEPT[choice] == "half":
            return gr.update(visible=False)
        try:
            return gr.update(value=actions.shown(actions.seen(desk.model, composite(value)), 384), visible=True)
        except UserError:
            return gr.update(value=None, visible=True)

    gr.on([picture.change, kept.change], prepare, [picture, kept], mask,
          api_visibility="private", show_progress="hidden")  # fmt: skip

    def run(
        request: gr.Request, value: Any, choice: str, painted: Any, count: Any, *options: Any
    ) -> Iterator[tuple[Any, str]]:
        session = str(request.session_hash)
        desk.stopped.discard(session)
        yield [], "Drawing …"
        found: list[Any] = []
        try:
            small = actions.seen(desk.model, composite(value))
            drawn = actions.region(desk.model, (painted or {}).get("layers") or [], KEPT[choice])  # type: ignore[arg-type]
            heat, likeliest, start = options
            for one in actions.completions(desk, small, drawn, int(count), heat, int(likeliest), int(start or 0)):
                found.append(actions.shown(one))
                if session in desk.stopped:  # the button was pressed meanwhile, and has said so
                    yield found, STOPPED
                    return
                yield found, f"{len(found)} of {int(count)} drawn"
        except UserError as error:
            yield found, f"⚠️ {error}"

    event = go.click(run, [picture, kept, mask, num, temperature, top_k, seed], [gallery, line], **QUEUED)

    def end(request: gr.Request) -> str:
        desk.stopped.add(str(request.session_hash))
        return STOPPED

    stop.click(end, None, line, cancels=[event], api_visibility="private")


def surprise_tab(desk: Desk, picture: gr.ImageEditor) -> None:
    """The map of -log p."""
    gr.Markdown("How unlikely each pixel is to the model: bright is surprising.")
    go = gr.Button("Show the surprise", variant="primary", elem_id="surprise")
    line = gr.Markdown(elem_classes="said", elem_id="surprise-said")
    image = image_part("Surprise")

    def run(value: Any) -> tuple[Any, str]:
        map_, mean = actions.surprise(desk, composite(value))
        return actions.shown(map_), f"{mean:.2f} nats per pixel"

    go.click(said(run), picture, [image, line], **QUEUED)


def classify_tab(desk: Desk, picture: gr.ImageEditor) -> None:
    """Class probabilities, or why there are none."""
    if not desk.model.class_names:
        gr.Markdown(
            "This model tells no classes apart. Start the page with a fine-tuned checkpoint, or with `--probe FOLDER` "
            "of a probe that `igpt probe --save` wrote for this one."
        )
        return
    go = gr.Button("Classify", variant="primary", elem_id="classify")
    line = gr.Markdown(elem_classes="said", elem_id="classify-said")
    label = gr.Label(label="Classes", num_top_classes=5, elem_id="classes")
    go.click(said(lambda value: (actions.classes(desk, composite(value)), "")), picture, [label, line], **QUEUED)


def layers_tab(desk: Desk, picture: gr.ImageEditor) -> None:
    """The nearest images of the model's own data, by layer."""
    gr.Markdown(f"The nearest among the first {desk.limit} training images, by the features of a layer.")
    layer = gr.Slider(0, desk.model.n_layers, desk.model.n_layers // 2, step=1, label="Layer", elem_id="layer")
    go = gr.Button("Find neighbours", variant="primary", elem_id="neighbours")
    line = gr.Markdown(elem_classes="said", elem_id="layers-said")
    gallery = gr.Gallery(
        label="Nearest", show_label=False, columns=4, height="auto",
        format="png", elem_id="nearest", elem_classes="pixels",
        buttons=[], interactive=False,
    )  # fmt: skip

    def run(value: Any, number: float) -> tuple[Any, str]:
        found = actions.neighbours(desk, composite(value), int(number))
        return [(actions.shown(one), f"{cosine:.3f}") for one, cosine in found], f"Layer {int(number)}; cosine below"

    gr.on([go.click, layer.release], said(run, []), [picture, layer], [gallery, line], **QUEUED)


def palette_tab(desk: Desk, picture: gr.ImageEditor) -> None:
    """The colours, and the picture in them."""
    try:
        rgb = desk.model.palette.rgb
    except UserError as error:
        gr.Markdown(f"This model has no colours to show: {error}.")
        return
    gr.Markdown(f"Its {len(rgb)} colours:")
    gr.Image(actions.swatches(rgb), image_mode="RGBA", show_label=False, format="png", interactive=False, buttons=[])
    go = gr.Button("Show the picture in them", variant="primary", elem_id="palette")
    line = gr.Markdown(elem_classes="said", elem_id="palette-said")
    image = image_part("In the palette's colours")

    def run(value: Any) -> tuple[Any, str]:
        return actions.shown(actions.colours(desk, composite(value))), ""

    go.click(said(run), picture, [image, line], **QUEUED)


def image_part(label: str) -> gr.Image:
    """A picture that the page shows and nobody changes."""
    return gr.Image(label=label, format="png", interactive=False, buttons=[], height=300, elem_classes="pixels")
