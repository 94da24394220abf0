"""The page in a real browser, as a reader uses it: with eyes, mouse and keys."""

import io

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

WIDE = """
[...document.querySelectorAll("header *, nav *, main *")]
  .filter((e) => !e.closest(".scroll"))
  .filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map((e) => e.outerHTML.slice(0, 80))
"""
CAPTION = "document.querySelector('#viewer figcaption').textContent"
OPEN = "document.getElementById('viewer').open"
# The contrast (WCAG 2) of each text with the nearest opaque ground behind it.
CONTRASTS = """
(() => {
  const parse = (text) => text.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const c = [r, g, b].map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92
                                                       : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2];
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), e = walker.currentNode.parentElement;
    if (!text || e.closest("script, style, dialog, .skip")) continue;
    const style = getComputedStyle(e);
    const ink = parse(e.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
    found.push([text.slice(0, 40), (a + 0.05) / (b + 0.05)]);
  }
  return found;
})()
"""


@pytest.fixture(scope="module")
def uri(page, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page, encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_screen(browser, uri, width):
    browser.open(uri, width)
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.run(WIDE) == []
    assert browser.complaints == []


def test_no_network(browser, uri):
    browser.open(uri, 1280)
    assert [url for url in browser.requests if not url.startswith("data:")] == [uri]


def test_pictures_open_by_click_and_step_by_keys(browser, uri):
    browser.open(uri, 1280)
    assert not browser.run(OPEN)
    browser.click(".panel", 1)
    assert browser.run(OPEN)
    assert browser.run(CAPTION) == "2.png · pixels_p8 · eigenvector"
    walk = {
        "ArrowRight": "2.png · proposals · 1 by 1 voter",
        "ArrowDown": "5.png · proposals · 1 by 1 voter",
        "ArrowLeft": "5.png · pixels_p8 · eigenvector",
        "ArrowUp": "2.png · pixels_p8 · eigenvector",
    }
    for key, caption in walk.items():
        browser.press(key)
        assert browser.run(CAPTION) == caption
    browser.click("#viewer [data-step='-1']")
    assert browser.run(CAPTION) == "2.png · image"
    browser.press("ArrowLeft")  # round to the last one
    assert browser.run(CAPTION) == "cuvler_round0 · augmented samples · copy-paste"
    browser.press("Escape")
    assert not browser.run(OPEN)
    assert browser.complaints == []


def test_pictures_open_by_keyboard_alone(browser, uri):
    browser.open(uri, 360)
    browser.run("document.querySelectorAll('.panel')[3].focus()")
    browser.press("Enter", text="\r")
    assert browser.run(OPEN)
    assert browser.run(CAPTION) == "2.png · votecut · 1 mask"
    browser.press("ArrowRight")
    browser.click("#viewer [data-close]")
    assert not browser.run(OPEN)
    # Where the reader left off, once the page has heard that the picture was closed.
    assert browser.becomes_true("document.activeElement === document.querySelectorAll('.panel')[4]")


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read(browser, uri, dark):
    browser.open(uri, 1280, dark=dark)
    browser.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    contrasts = browser.run(CONTRASTS)
    assert len(contrasts) > 100
    assert [(text, ratio) for text, ratio in contrasts if ratio < 4.5] == []
    picture = np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("L"))
    assert (np.median(picture) < 60) == dark
