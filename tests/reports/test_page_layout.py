"""The page's figures in a real browser: nothing that is written lies on something else."""

from pathlib import Path
from typing import Any

import pytest
from invented import Invented

from ftlab.reports.page.document import document
from ftlab.reports.page.plots import plots

NAMES = ["full", "probe", "lora", "bottleneck adapter", "probe then fine-tune",
         "gradual unfreezing by block", "a-name-without-any-place-to-break"]
CLASSES = ["business", "entertainment", "politics", "sports", "technology and science"]
TEXTS = "g[id*=text_]"  # letters are outlines, in the groups that matplotlib names so
OVERLAPS = """
const found = [];
for (const place of document.querySelectorAll('.plot')) {
    const boxes = [...place.querySelectorAll(arguments[0])]
        .map(text => [text.id, text.getBoundingClientRect()]).filter(([_, box]) => box.width);
    const heading = place.closest('figure').querySelector('h3').textContent;
    const edge = place.getBoundingClientRect();
    boxes.forEach(([text, a], n) => {
        if (a.left < edge.left - 1 || a.right > edge.right + 1 || a.bottom > edge.bottom + 1)
            found.push(`${heading}: ${text} is cut`);
        for (const [other, b] of boxes.slice(n + 1))
            if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1.5
                && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3)
                found.push(`${heading}: ${text} on ${other}`);
    });
}
return found;
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = Invented(NAMES, 2, 2, CLASSES, examples=120, trials=5).results()
    html = plots(results)
    assert html.count("<figure>") == 13
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(document("figures", [html]), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [390, 820, 1280])
def test_figures__no_text_lies_on_another_or_is_cut(page: Path, chromium: Any, width: int) -> None:
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 800})
    chromium.get(page.as_uri())
    run = chromium.execute_script
    shown = "[...document.querySelectorAll('.plot svg')].filter(svg => svg.clientWidth)"
    assert run(f"return {shown}.length") == 13
    assert run("return document.documentElement.scrollWidth") <= width
    assert run(OVERLAPS, TEXTS) == []
    if width == 1280:  # the axes go beside each other again, and below each other, as it changes
        tall = run("return document.documentElement.scrollHeight")
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": False})
        assert run("return document.documentElement.scrollHeight") > tall
        assert run(OVERLAPS, TEXTS) == []
