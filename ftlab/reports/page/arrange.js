"use strict";
// Where a figure's axes go at a given width. plotly places axes by fractions of the whole and knows
// nothing of the names beside them, so that on one screen or another they would overlap.
const arrange = (() => {
  const RIGHT = 20, TICKS = 22, LINE = 17, ROW = 21; // pixels
  const pen = document.createElement("canvas").getContext("2d");

  function wide(text, size = 12) {
    pen.font = `${size}px system-ui, sans-serif`;
    const lines = String(text).replace(/&(lt|gt|amp);/g, "x").split("<br>");
    return Math.max(...lines.map((line) => pen.measureText(line).width));
  }

  // Broken at spaces, so that no line is wider than `room` where that can be.
  function wrapped(text, room, size = 12) {
    const lines = [];
    for (const word of String(text).split(/\n|<br>/).join(" ").split(" ")) {
      const longer = lines.length ? `${lines[lines.length - 1]} ${word}` : word;
      if (lines.length && wide(longer, size) <= room) lines[lines.length - 1] = longer;
      else lines.push(word);
    }
    return lines.join("<br>");
  }

  const count = (text) => String(text || "").split("<br>").length;
  const most = (values) => Math.max(0, ...values);
  const titled = (axis) => (axis.title && axis.title.text ? 1 : 0);

  // What stands below an axis: names turned where they do not fit, numbers left out.
  function below(axis, room, turn) {
    if (axis.ticktext) {
      const longest = most(axis.ticktext.map((text) => wide(text))) + 8;
      if (longest * axis.ticktext.length > room && turn) {
        axis.tickangle = -90;
        return longest;
      }
      const step = Math.ceil((longest * axis.ticktext.length) / room);
      const keep = (_, n) => n % step === 0;
      axis.tickvals = axis.tickvals.filter(keep);
      axis.ticktext = axis.ticktext.filter(keep);
    } else axis.nticks = Math.max(3, Math.floor(room / 60));
    axis.tickangle = 0;
    return TICKS;
  }

  return (figure, width) => {
    const layout = structuredClone(figure.layout), { panels, height, least, need, widest, columns, matrix } = layout.meta;
    const titles = layout.annotations.slice(0, panels);
    const axes = titles.map((_, n) => [layout[`xaxis${n ? n + 1 : ""}`], layout[`yaxis${n ? n + 1 : ""}`]]);

    for (const [, y] of axes)
      if (y.ticktext && !need) y.ticktext = y.ticktext.map((text) => wrapped(text, 0.4 * width));
    const left = most(axes.map(([, y]) => (y.ticktext ? most(y.ticktext.map((text) => wide(text))) : 40)
      + 12 + 20 * titled(y)));
    const side = Math.max(1, Math.min(columns, titles.length, Math.floor(width / (left + least + RIGHT))));
    const whole = Math.max(width, side * (left + need + RIGHT)), cell = whole / side;
    const room = Math.min(cell - left - RIGHT, widest || Infinity), tall = matrix ? Math.min(height, Math.max(room, 120)) : height;

    const rows = [];
    axes.forEach(([x, y], n) => {
      titles[n].text = wrapped(titles[n].text, Math.min(cell, width) - 12, 14);
      const row = (rows[Math.floor(n / side)] ||= { above: 0, under: 0 });
      const under = below(x, room, matrix);
      if (titled(x)) x.title = { text: wrapped(x.title.text, room + 2 * RIGHT, 14), standoff: 6 };
      if (titled(y)) y.title = { text: wrapped(y.title.text, tall, 14), standoff: 8 };
      row.above = Math.max(row.above, titles[n].text ? 12 + LINE * count(titles[n].text) : 8);
      row.under = Math.max(row.under, under + titled(x) * (8 + LINE * count(x.title && x.title.text)));
    });

    const across = (side - 1) * cell + room;
    let legend = 0, at = 0; // plotly breaks the legend where the axes end
    const named = figure.data.filter((trace) => trace.showlegend).map((trace) => 62 + wide(trace.name));
    if (layout.showlegend && named.length) {
      legend = ROW;
      for (const entry of named)
        if (at + entry > across && at) { legend += ROW; at = entry; } else at += entry;
      legend += 12;
    }
    const total = rows.reduce((sum, row) => sum + row.above + tall + row.under, legend);
    const top = rows[0].above, bottom = rows[rows.length - 1].under + legend;
    const area = [across, total - top - bottom];
    let down = -top;
    rows.forEach((row, r) => {
      down += row.above;
      axes.slice(r * side, (r + 1) * side).forEach(([x, y], k) => {
        x.domain = [(k * cell) / area[0], Math.min(1, (k * cell + room) / area[0])];
        y.domain = [Math.max(0, 1 - (down + tall) / area[1]), Math.min(1, 1 - down / area[1])];
        x.automargin = y.automargin = false;
        Object.assign(titles[r * side + k], { x: x.domain[0], y: y.domain[1], xshift: 4 - left,
          yshift: 3, xanchor: "left", yanchor: "bottom", align: "left" });
      });
      down += tall + row.under;
    });
    return Object.assign(layout, { width: whole, height: total, autosize: false,
      margin: { l: left, r: whole - left - across, t: top, b: bottom, pad: 0 },
      legend: { orientation: "h", xref: "container", x: 0, xanchor: "left", yref: "container", y: 0,
                yanchor: "bottom", tracegroupgap: 0 } });
  };
})();
