"""The pages in the dark and at a phone's width: what a browser showed, held in the templates."""

import re
from pathlib import Path

import pytest

import pvq_hw

PAGES = sorted(Path(pvq_hw.__file__).parent.glob("*/templates/*.html"))
assert len(PAGES) == 2


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_color_is_a_variable_with_a_dark_value(path):
    text = path.read_text()
    light, dark = re.findall(r":root \{([^}]*)\}", text)
    assert "@media screen and (prefers-color-scheme: dark) { :root" in text
    named = [set(re.findall(r"--[a-z]+(?=:)", part)) for part in (light, dark)]
    assert named[0] == named[1]
    assert set(re.findall(r"var\((--[a-z]+)\)", text)) == named[0]
    rest = text.replace(light, "").replace(dark, "")
    assert not re.search(r"#[0-9a-f]{3,6}\b", rest)
    assert "background: var(--paper)" in rest


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_wide_tables_scroll_and_only_names_break(path):
    """At 375 pixels a table of more than three columns is wider than the page."""
    text = path.read_text()
    for head in re.findall(r"(.*)<table[^>]*>(<tr>.*?</tr>)", text):
        wide = head[1].count("<th") > 3 or "for head in" in head[1]
        assert head[0].endswith('<div class="scroll">') or not wide, head
    for rule in re.findall(r"([^{}]*)\{[^}]*overflow-wrap: anywhere", text):
        assert "first-child" in rule or ".words" in rule or ".key" in rule, rule
