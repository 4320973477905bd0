"""What a real browser makes of a page: which pictures are drawn, and what sticks out at a given width."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

NAMES = ("chromium", "google-chrome")
LOOK = """
const frame = document.querySelector("iframe");
frame.addEventListener("load", async () => {
  const page = frame.contentDocument, width = frame.clientWidth, problems = [];
  page.querySelectorAll("details").forEach(part => part.open = true);
  const name = part => part.tagName.toLowerCase() + (part.className ? "." + part.className : "");
  const images = [...page.images];
  await Promise.all(images.map(image => image.decode().catch(() => {})));
  for (const image of images) {
    const box = image.getBoundingClientRect();
    if (!image.naturalWidth || box.width < 8 || box.height < 4) problems.push("not drawn: " + image.alt);
  }
  if (page.documentElement.scrollWidth > width) problems.push("scrolls sideways: " + page.documentElement.scrollWidth);
  const out = box => box.right > width + 0.5 || box.left < -0.5;
  const boxed = part => getComputedStyle(part).overflowX !== "visible" && !out(part.getBoundingClientRect());
  const scrolls = part => part && part !== page.body && (boxed(part) || scrolls(part.parentElement));
  for (const part of page.body.querySelectorAll("*")) {
    const box = part.getBoundingClientRect();
    if (box.width && out(box) && !scrolls(part.parentElement)) problems.push("sticks out: " + name(part));
  }
  const parts = page.querySelectorAll("*").length;
  const found = {images: images.length, parts, width: page.documentElement.clientWidth, problems};
  document.querySelector("pre").textContent = JSON.stringify(found);
});
"""


def chromium() -> str | None:
    """The browser, where there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def look(page: str, width: int, home: Path) -> dict:
    """Number of images and elements, width, and problems of a page that is shown at `width` pixels, all folds open."""
    frame = f'<iframe width="{width}" height="2000" style="border:0" srcdoc="{html.escape(page, quote=True)}"></iframe>'
    file = home / f"look{width}.html"
    file.write_text(f"<!doctype html><body><pre></pre>{frame}"
                    f"<script>{LOOK}</script></body>", encoding="utf-8")  # fmt: skip
    browser = chromium()
    assert browser is not None
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--window-size={width + 100},2100",
    ]
    where = [f"--user-data-dir={home / 'profile'}", "--virtual-time-budget=20000", "--dump-dom", file.as_uri()]
    done = subprocess.run([browser, *options, *where], capture_output=True, text=True, timeout=120, check=False)
    verdict = re.search(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    assert verdict, done.stderr[-2000:]
    assert verdict[1], "the page did not finish loading"
    found: dict = json.loads(html.unescape(verdict[1]))
    return found
