"use strict";
// Draws each figure in the page's colours, again when they change, and in black on white for paper.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const places = [...document.querySelectorAll(".plot")];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)").matches;
  const PAPER = { text: "#1b1f24", line: "#d4d8dd", width: 640 };

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    return { text: read("--text"), line: read("--line") };
  }

  function themed(layout, { text, line, width }) {
    const made = structuredClone(layout);
    Object.assign(made, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" });
    made.font = { ...made.font, color: text, family: "system-ui, sans-serif" };
    if (width) made.width = width; else { delete made.width; made.autosize = true; }
    if (touch) made.dragmode = false; // a finger scrolls the page
    for (const [name, axis] of Object.entries(made))
      if (/^[xy]axis\d*$/.test(name))
        Object.assign(axis, { gridcolor: line, zerolinecolor: line, linecolor: line });
    return made;
  }

  const config = { responsive: true, displaylogo: false, displayModeBar: touch ? false : "hover",
                   modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  const draw = (look) => places.forEach((place, n) => Plotly.react(
    place, structuredClone(figures[n].data), themed(figures[n].layout, look), config));

  draw(colours());
  dark.addEventListener("change", () => draw(colours()));
  addEventListener("beforeprint", () => draw(PAPER));
  addEventListener("afterprint", () => draw(colours()));
})();
