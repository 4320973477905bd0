"""The page in a real browser, from an upload to completions: on a desk, on a phone, and by keyboard."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

import igpt
from igpt.cli import main
from igpt_datamodules import Digits
from tests.show.browsing import shown

pytest.importorskip("gradio")
api = pytest.importorskip("playwright.sync_api")
BROWSER = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
pytestmark = [
    pytest.mark.slow,  # test_actions and test_server hold the same without a browser
    pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on this machine"),
]
WAIT = 120_000  # milliseconds, on a busy machine


@pytest.fixture(scope="module")
def port(digits_run, tmp_path_factory):
    with shown(tmp_path_factory.mktemp("show"), digits_run.checkpoint, "--accelerator", "cpu") as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture(params=[1280, 390])
def page(browser, port, request):
    """The page at a width; it asks nobody but its own server."""
    asked = []
    context = browser.new_context(viewport={"width": request.param, "height": 900})
    page = context.new_page()
    page.set_default_timeout(WAIT)
    page.on("request", lambda one: asked.append(one.url))
    page.goto(f"http://127.0.0.1:{port}/")
    page.wait_for_selector("#picture canvas")
    yield page
    context.close()
    own = re.compile(rf"(http://127\.0\.0\.1:{port}/|data:|blob:)")
    assert [url for url in asked if not own.match(url)] == []


@pytest.fixture
def picture(tmp_path):
    file = tmp_path / "own.png"
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)
    Image.fromarray(pixels).resize((200, 200)).save(file)
    return file


def upload(page, file):
    page.locator("#picture input[type=file]").first.set_input_files(str(file))
    page.wait_for_timeout(2500)  # the editor draws it


def said(page, name):
    return page.locator(f"#{name}-said")


def test_an_uploaded_picture_is_completed_and_nothing_sticks_out(page, picture):
    upload(page, picture)
    page.click("#complete")
    api.expect(said(page, "complete")).to_contain_text("4 of 4 drawn", timeout=WAIT)
    api.expect(page.locator("#completions img")).to_have_count(4, timeout=WAIT)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_an_example_is_completed_by_keyboard(page):
    page.locator("#example").focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(2500)
    for _ in range(60):
        if page.evaluate("document.activeElement.id") == "complete":
            break
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "complete"
    page.keyboard.press("Enter")
    api.expect(said(page, "complete")).to_contain_text("4 of 4 drawn", timeout=WAIT)


def test_without_a_picture_the_page_says_so_where_one_looks(page):
    page.click("#complete")
    api.expect(said(page, "complete")).to_contain_text("upload or draw one", timeout=WAIT)


def test_what_is_no_picture_is_said_and_the_page_goes_on(page, tmp_path):
    file = tmp_path / "words.png"
    file.write_text("no picture")
    upload(page, file)
    page.click("#complete")
    api.expect(said(page, "complete")).to_contain_text("upload or draw one", timeout=WAIT)
    assert "Traceback" not in page.inner_text("body")
    page.click("#example")
    page.wait_for_timeout(2500)
    page.click("#complete")
    api.expect(said(page, "complete")).to_contain_text("4 of 4 drawn", timeout=WAIT)


def open_tab(page, name):
    """A narrow page keeps the tabs that do not fit behind a button."""
    tab = page.get_by_role("tab", name=name)
    if not tab.is_visible():
        page.locator(".overflow-menu > button").click()
        tab = page.locator(".overflow-dropdown button").filter(has_text=name)
    tab.click()


def take_example(page):
    page.click("#example")
    page.wait_for_timeout(2500)


def test_stop_ends_a_completion_that_goes_on(page):
    take_example(page)
    page.locator("input[type=number][aria-label*='Completions']").first.fill("8")
    page.click("#complete")
    api.expect(said(page, "complete")).to_contain_text("of 8 drawn", timeout=WAIT)
    page.click("#stop")
    api.expect(said(page, "complete")).to_contain_text("Stopped", timeout=WAIT)
    page.wait_for_timeout(3000)
    api.expect(said(page, "complete")).to_contain_text("Stopped")


def test_a_painted_part_is_drawn_anew(page):
    take_example(page)
    page.get_by_label("Redraw what I paint").check()
    canvas = page.locator("#mask canvas").last
    canvas.wait_for(state="visible")
    page.wait_for_timeout(2500)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2 - 20, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 20, box["y"] + box["height"] / 2, steps=8)
    page.mouse.up()
    page.wait_for_timeout(1000)
    page.click("#complete")
    api.expect(said(page, "complete")).to_contain_text("4 of 4 drawn", timeout=WAIT)


@pytest.mark.parametrize(("tab", "button", "line", "words"), [
    ("Surprise", "surprise", "surprise", "nats per pixel"),
    ("Layers", "neighbours", "layers", "cosine below"),
])  # fmt: skip
def test_every_look_at_a_picture_has_its_answer(page, tab, button, line, words):
    take_example(page)
    open_tab(page, tab)
    page.click(f"#{button}")
    api.expect(said(page, line)).to_contain_text(words, timeout=WAIT)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_model_without_classes_says_how_to_get_some(page):
    open_tab(page, "Classify")
    api.expect(page.get_by_text("tells no classes apart")).to_be_visible()
    api.expect(page.get_by_text("--probe FOLDER")).to_be_visible()
    api.expect(page.locator("#classify")).to_have_count(0)


@pytest.fixture(scope="module")
def saved_probe(digits_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("kept") / "probe"
    assert main(["probe", "--ckpt", str(digits_run.checkpoint), "--out", str(out), "--save"]) == 0
    return out


@pytest.fixture(scope="module")
def doubtful(digits_run, saved_probe, tmp_path_factory):
    """Files of two enlarged digits of different likeliest classes, of whose class the probe is in doubt."""
    images, folder = Digits().images("test").images[:100], tmp_path_factory.mktemp("doubtful")
    large = [Image.fromarray(one.permute(1, 2, 0).numpy()).resize((200, 200), Image.BICUBIC) for one in images]
    found = igpt.load(digits_run.checkpoint, probe=saved_probe).predict(large)
    least = {found.labels[index]: large[index] for index in np.argsort(-found.probs.max(1))}  # of each class
    files = [folder / "one.png", folder / "other.png"]
    for file, picture in zip(files, list(least.values())[-2:], strict=True):
        picture.save(file)
    return files


def test_an_uploaded_digit_has_the_classes_that_igpt_classify_gives_its_file(
    browser, digits_run, saved_probe, doubtful, tmp_path, capfd
):
    words = [digits_run.checkpoint, "--probe", saved_probe, "--accelerator", "cpu"]
    likeliest = []
    with shown(tmp_path, *words) as port:
        for file in doubtful:
            capfd.readouterr()
            assert main(["classify", str(file), "--top", "5", "--ckpt", *map(str, words)]) == 0
            told = [(name, float(share)) for share, name in re.findall(r"([\d.]+) % (\d)", capfd.readouterr().out)]
            page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
            page.set_default_timeout(WAIT)
            page.goto(f"http://127.0.0.1:{port}/")
            page.wait_for_selector("#picture canvas")
            open_tab(page, "Classify")
            upload(page, file)
            page.click("#classify")
            api.expect(page.locator("#classes")).to_contain_text("%", timeout=WAIT)
            seen = re.findall(r"(\d)\n(\d+)%", page.locator("#classes").inner_text())
            assert [name for name, _ in seen] == [name for name, _ in told]
            assert [int(share) for _, share in seen] == pytest.approx([share for _, share in told], abs=0.56)
            assert 1 < told[1][1] < told[0][1] < 99
            likeliest.append(told[0][0])
            page.context.close()
    assert likeliest[0] != likeliest[1]


def test_two_browsers_at_once_are_both_served(browser, port):
    pages = []
    for _ in range(2):
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        page.set_default_timeout(WAIT)
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("#picture canvas")
        pages.append(page)
    for page in pages:
        take_example(page)
    for page in pages:
        page.click("#complete")
    for page in pages:
        api.expect(said(page, "complete")).to_contain_text("4 of 4 drawn", timeout=WAIT)
        page.context.close()
