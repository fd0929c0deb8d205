"""Debian's Chromium without a window: what a page is like there, and pictures of it."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["CHROMIUM", "look", "picture"]

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_HEIGHT = 14_000  # of a frame, in which the whole page is to fit

_PROBE = Path(__file__).with_name("page_probe.js")
_FRAMES = """<!doctype html><body><pre id="found"></pre><script>
const found = [];
addEventListener('message', message => {
  found.push(JSON.parse(message.data));
  document.getElementById('found').textContent = JSON.stringify(found);
});
</script>%s</body>"""


def _run(*options: object) -> str:
    """Chromium's standard output."""
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        raise FileNotFoundError("The report's look needs Chromium: apt-get install chromium")
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    done = subprocess.run(
        [*command, *map(str, options)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _scheme(dark: bool) -> str:
    return f"--blink-settings=preferredColorScheme={0 if dark else 1}"


def look(page: Path, folder: Path, widths: tuple[int, ...], *, dark: bool) -> list[dict[str, Any]]:
    """What is on a page at each width in pixels, with all its details open.

    Gives ``width``, ``scroll`` (the width that the contents ask for), ``overflowing`` (elements
    beyond the right edge), ``texts`` with ``contrast`` by WCAG 2.2 and ``large``, ``pictures``
    with their sizes and how many shapes are ``drawn`` and ``seen``, ``paper``, the background.

    Raises
    ------
    FileNotFoundError
        There is no Chromium.
    """
    copy, frames = folder / "copy.html", folder / "frames.html"
    probe = f"<script>{_PROBE.read_text(encoding='utf-8')}</script>"
    copy.write_text(page.read_text(encoding="utf-8") + probe, encoding="utf-8")
    parts = [
        f'<iframe src="{copy.name}" style="width:{width}px;height:{_HEIGHT}px;border:0"></iframe>'
        for width in widths
    ]
    frames.write_text(_FRAMES % "".join(parts), encoding="utf-8")
    shown = _run(
        _scheme(dark), "--virtual-time-budget=20000", "--dump-dom", frames.resolve().as_uri()
    )
    text = re.search(r'<pre id="found">(.*?)</pre>', shown, re.DOTALL)
    assert text, shown[:500]
    found = {each["width"]: each for each in json.loads(html.unescape(text[1]))}
    return [found[width] for width in widths]


def picture(page: Path, target: Path, width: int, height: int, *, dark: bool = False) -> None:
    """A PNG of the page's top."""
    size = f"--window-size={width},{height}"
    _run(_scheme(dark), size, f"--screenshot={target}", page.resolve().as_uri())
