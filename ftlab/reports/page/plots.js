// Draws each figure in the page's colours, again when they change, and in black on white for paper.
(() => {
  const figures = JSON.parse(document.getElementById("drawn").textContent);
  const places = [...document.querySelectorAll(".plot")];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)").matches;
  const PAPER = { text: "#1b1f24", line: "#d4d8dd", width: 640, invert: false };

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    return { text: read("--text"), line: read("--line"), invert: dark.matches };
  }

  // Greys, which figures use for what is of no technique, would vanish on a dark page.
  function inverted(value, key = "") {
    if (typeof value === "string" && /color$/i.test(key) && /^#([0-9a-f]{2})\1\1$/i.test(value)) {
      const grey = (255 - parseInt(value.slice(1, 3), 16)).toString(16).padStart(2, "0");
      return `#${grey.repeat(3)}`;
    }
    if (Array.isArray(value)) return value.map((each) => inverted(each, key));
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, inverted(v, k)]));
    return value;
  }

  function themed(layout, { text, line, invert }) {
    const made = invert ? inverted(layout) : structuredClone(layout);
    Object.assign(made, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" });
    made.font = { ...made.font, color: text, family: "system-ui, sans-serif" };
    made.modebar = { bgcolor: "rgba(0,0,0,0)", color: line, activecolor: text };
    if (touch) made.dragmode = false; // a finger scrolls the page
    for (const [name, axis] of Object.entries(made))
      if (/^[xy]axis\d*$/.test(name))
        Object.assign(axis, { gridcolor: line, zerolinecolor: line, linecolor: line });
    return made;
  }

  const config = { displaylogo: false, displayModeBar: touch ? false : "hover",
                   modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

  function draw(look) {
    places.forEach((place, n) => {
      const { data } = figures[n], width = look.width || place.parentElement.clientWidth;
      const layout = figures[n].layout.meta ? arrange(figures[n], width) : { ...figures[n].layout, width };
      const traces = look.invert ? inverted(data) : structuredClone(data);
      place.style.width = `${layout.width}px`;
      place.style.height = `${layout.height}px`;
      Plotly.react(place, traces, themed(layout, look), config);
    });
  }

  let drawn = innerWidth;
  draw(colours());
  dark.addEventListener("change", () => draw(colours()));
  addEventListener("resize", () => {
    if (innerWidth !== drawn) draw(colours()); // a phone's bars change the height alone
    drawn = innerWidth;
  });
  addEventListener("beforeprint", () => draw(PAPER));
  addEventListener("afterprint", () => draw(colours()));
})();
