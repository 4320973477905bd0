"""The page in a real browser, from an upload to completions: on a desk, on a phone, and by keyboard."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

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
