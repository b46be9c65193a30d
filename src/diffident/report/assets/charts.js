"use strict";
// Draws the plots with Observable Plot, when they come into view. The numbers are those of the tables and figures.
const Charts = (() => {
  // Okabe and Ito's colours, safe for colour-blind readers, less the yellow, which is too light on white.
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C"];
  const DASHES = ["none", "6,3", "2,3", "8,3,2,3"];
  const SCHEME = "cividis";
  const { make, number, count } = Dom;

  const colour = (place) => COLOURS[place % COLOURS.length];
  const dash = (place) => DASHES[Math.floor(place / COLOURS.length) % DASHES.length];
  const percent = (value) => `${number(100 * value, 1)} %`;

  function plot(chart, width, options) {
    const drawing = vendor.plot({ className: "plot", width, height: 300, marginLeft: 52, marginBottom: 40, ariaLabel: chart.title, ariaDescription: chart.note, ...options });
    drawing.setAttribute("role", "img");
    return drawing;
  }

  // Names need room; a bold guess at the width of a letter does.
  const roomFor = (names) => Math.min(190, 16 + 6.6 * Math.max(...names.map((name) => name.length)));

  function drawLines(chart, width) {
    const at = (x) => (chart.categories.length ? chart.categories[x] : number(x));
    const rows = chart.lines.flatMap((line, series) =>
      line.x.map((x, place) => ({
        x,
        y: line.y[place],
        name: line.name,
        low: line.low.length ? line.low[place] : null,
        high: line.high.length ? line.high[place] : null,
        count: line.counts.length ? line.counts[place] : null,
        series,
      })),
    );
    const title = (row) => {
      const lines = [row.name, `${chart.x_label} ${at(row.x)}`, `${chart.y_label} ${number(row.y, 4)}`];
      if (row.low !== null) lines.push(`${number(row.low, 4)} to ${number(row.high, 4)}`);
      if (row.count !== null) lines.push(`${count(row.count)} samples`);
      return lines.join("\n");
    };
    const few = Math.max(...chart.lines.map((line) => line.x.length)) <= 30;
    const ranged = rows.filter((row) => row.low !== null && row.high !== null);
    const largest = Math.max(1, ...rows.map((row) => row.count || 0));
    const radius = (row) => (row.count === null ? 3 : 2 + 6 * Math.sqrt(row.count / largest));
    const marks = [];
    if (chart.diagonal) marks.push(vendor.line([[0, 0], [1, 1]], { stroke: "currentColor", strokeOpacity: 0.5, strokeDasharray: "4,4" }));
    if (few) marks.push(vendor.ruleX(ranged, { x: "x", y1: "low", y2: "high", stroke: (row) => colour(row.series), strokeOpacity: 0.7 }));
    else marks.push(vendor.areaY(ranged, { x: "x", y1: "low", y2: "high", z: "name", fill: (row) => colour(row.series), fillOpacity: 0.15 }));
    chart.lines.forEach((line, series) => {
      const own = rows.filter((row) => row.series === series);
      marks.push(vendor.line(own, { x: "x", y: "y", stroke: colour(series), strokeWidth: 2, strokeDasharray: dash(series) }));
    });
    if (few) marks.push(vendor.dot(rows, { x: "x", y: "y", r: radius, fill: (row) => colour(row.series), stroke: "var(--panel)" }));
    marks.push(vendor.tip(rows, vendor.pointer({ x: "x", y: "y", title })));
    const categories = chart.categories.length ? { tickFormat: (x) => chart.categories[x] ?? "", ticks: chart.categories.map((_, place) => place) } : {};
    const unit = chart.diagonal ? { domain: [0, 1] } : {};
    return plot(chart, width, {
      x: { label: chart.x_label, ...unit, ...categories },
      y: { label: chart.y_label, grid: true, ...unit },
      r: { type: "identity" },
      marks,
    });
  }

  function drawHistogram(chart, width) {
    const rows = chart.groups.flatMap(([name, values], series) =>
      values.map((y, bin) => ({ x1: chart.edges[bin], x2: chart.edges[bin + 1], y, name, series, count: chart.counts[series][bin] })),
    );
    const title = (row) => `${row.name}\n${chart.x_label} ${number(row.x1)} to ${number(row.x2)}\n${count(row.count)} samples${row.y === row.count ? "" : ` (${percent(row.y)})`}`;
    const shown = rows.filter((row) => row.y > 0);
    const marks = [
      vendor.rect(shown, { x1: "x1", x2: "x2", y1: 0, y2: "y", fill: (row) => colour(row.series), fillOpacity: 0.45, stroke: (row) => colour(row.series), insetLeft: 1 }),
      vendor.ruleY([0]),
      vendor.tip(shown, vendor.pointer({ x: (row) => (row.x1 + row.x2) / 2, y: "y", title })),
    ];
    return plot(chart, width, { x: { label: chart.x_label }, y: { label: chart.y_label, grid: true }, marks });
  }

  function drawRanges(chart, width) {
    const rows = chart.names.map((name, place) => {
      const [least, low, median, high, most] = chart.quantiles[place];
      return { name, least, low, median, high, most, count: chart.counts[place], mark: chart.marks.length ? chart.marks[place] : null };
    });
    const title = (row) => {
      const lines = [row.name, `median ${number(row.median, 2)}`, `half from ${number(row.low, 2)} to ${number(row.high, 2)}`, `90 % from ${number(row.least, 2)} to ${number(row.most, 2)}`, `${count(row.count)} samples`];
      if (row.mark !== null) lines.push(`${percent(row.mark)} ${chart.mark_label}`);
      return lines.join("\n");
    };
    const marks = [
      vendor.ruleY(rows, { y: "name", x1: "least", x2: "most", stroke: COLOURS[0], strokeWidth: 1.5 }),
      vendor.ruleY(rows, { y: "name", x1: "low", x2: "high", stroke: COLOURS[0], strokeWidth: 8, strokeOpacity: 0.5 }),
      vendor.dot(rows, { y: "name", x: "median", r: 4, fill: COLOURS[1], stroke: "var(--panel)" }),
      vendor.tip(rows, vendor.pointer({ y: "name", x: "median", title })),
    ];
    return plot(chart, width, {
      height: 60 + (rows.length > 20 ? 15 : 24) * rows.length,
      marginLeft: roomFor(chart.names),
      x: { label: chart.x_label, grid: true },
      y: { type: "point", domain: chart.names, label: null },
      marks,
    });
  }

  function drawMatrix(chart, width) {
    const cells = chart.rows.flatMap((row, i) =>
      chart.columns.map((column, j) => ({ row, column, value: chart.values[i][j], count: chart.counts.length ? chart.counts[i][j] : null })),
    );
    const known = cells.filter((cell) => cell.value !== null);
    const shares = chart.value_label === "share";
    const most = shares ? 1 : Math.max(...known.map((cell) => cell.value));
    const least = shares ? 0 : Math.min(...known.map((cell) => cell.value));
    const shown = shares ? (value) => percent(value) : (value) => number(value, 3);
    const title = (cell) => {
      const lines = [`${chart.y_label} ${cell.row}`, `${chart.x_label} ${cell.column}`, `${shares ? "" : `${chart.value_label} `}${shown(cell.value)}`];
      if (cell.count !== null) lines.push(`${count(cell.count)} samples`);
      return lines.join("\n");
    };
    const left = roomFor(chart.rows);
    const side = (width - left - 16) / chart.columns.length;
    const marks = [vendor.cell(known, { x: "column", y: "row", fill: "value", inset: side > 12 ? 0.5 : 0 })];
    if (side > 30) {
      const text = (cell) => (shares ? (cell.value < 0.0005 ? "" : (100 * cell.value).toFixed(cell.value < 0.0995 ? 1 : 0)) : number(cell.value, 2));
      const dark = (cell) => Math.sqrt((cell.value - least) / (most - least || 1)) < 0.6;
      marks.push(vendor.text(known, { x: "column", y: "row", text, fill: (cell) => (dark(cell) ? "white" : "black"), fontSize: 10 }));
    }
    marks.push(vendor.tip(known, vendor.pointer({ x: "column", y: "row", title })));
    return plot(chart, width, {
      height: 40 + Math.min(120, roomFor(chart.columns)) + Math.max(14, Math.min(side, 34)) * chart.rows.length,
      marginLeft: left,
      marginBottom: Math.min(120, roomFor(chart.columns)) + 30,
      padding: 0,
      x: { domain: chart.columns, label: chart.x_label, tickRotate: -45 },
      y: { domain: chart.rows, label: null },
      color: { type: shares ? "sqrt" : "linear", scheme: SCHEME, domain: [least, most] },
      marks,
    });
  }

  function drawPoints(chart, width) {
    const rows = chart.names.map((name, place) => ({ name, x: chart.x[place], y: chart.y[place], colour: chart.colours[place], size: chart.sizes[place] }));
    const strongest = Math.max(1, ...chart.links.map((link) => link[2]));
    const links = chart.links.map(([a, b, weight]) => ({ from: rows[a], to: rows[b], weight }));
    const title = (row) => `${row.name}\n${chart.colour_label} ${number(row.colour, 2)}\n${count(row.size)} ${chart.size_label}`;
    const marks = [
      vendor.link(links, {
        x1: (link) => link.from.x,
        y1: (link) => link.from.y,
        x2: (link) => link.to.x,
        y2: (link) => link.to.y,
        stroke: "currentColor",
        strokeOpacity: 0.35,
        strokeWidth: (link) => 0.5 + (7 * link.weight) / strongest,
      }),
      vendor.dot(rows, { x: "x", y: "y", r: "size", fill: "colour", stroke: "currentColor" }),
    ];
    if (rows.length <= 60) marks.push(vendor.text(rows, { x: "x", y: "y", text: "name", dy: -14, fill: "currentColor", stroke: "var(--panel)", strokeWidth: 4 }));
    marks.push(vendor.tip(rows, vendor.pointer({ x: "x", y: "y", title })));
    return plot(chart, width, {
      height: 380,
      inset: 30,
      x: { label: chart.x_label, ticks: [] },
      y: { label: chart.y_label, ticks: [], axis: "left" },
      r: { domain: [0, Math.max(...chart.sizes)], range: [2, 11] },
      color: { scheme: SCHEME },
      marks,
    });
  }

  const DRAWERS = { lines: drawLines, histogram: drawHistogram, ranges: drawRanges, matrix: drawMatrix, points: drawPoints };

  function legend(chart) {
    const names = chart.kind === "lines" ? chart.lines.map((line) => line.name) : chart.kind === "histogram" ? chart.groups.map(([name]) => name) : [];
    if (names.length) {
      return names.map((name, place) => {
        const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
        swatch.style.background = colour(place);
        return make("span", { class: "key" }, swatch, Dom.foreign(name));
      });
    }
    if (chart.kind !== "matrix" && chart.kind !== "points") return [];
    const values = chart.kind === "points" ? chart.colours : chart.values.flat().filter((value) => value !== null);
    const ends = chart.kind === "matrix" && chart.value_label === "share" ? ["0 %", "100 %"] : [number(Math.min(...values), 2), number(Math.max(...values), 2)];
    const label = chart.kind === "points" ? chart.colour_label : chart.value_label;
    return [make("span", { class: "key" }, `${label} ${ends[0]} `, make("span", { class: "ramp", "aria-hidden": "true" }), ` ${ends[1]}`)];
  }

  function start(charts) {
    const figures = [...document.querySelectorAll("figure.chart")];
    const widths = new Map();
    const draw = (figure, width) => {
      const chart = charts[Number(figure.dataset.chart)];
      const room = figure.querySelector(".drawing");
      if (width < 50 || widths.get(figure) === width) return;
      if (!widths.has(figure)) figure.querySelector(".legend").replaceChildren(...legend(chart));
      widths.set(figure, width);
      room.replaceChildren(DRAWERS[chart.kind](chart, width));
    };
    const inView = new Set();
    const observer = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) {
          if (isIntersecting) {
            inView.add(target);
            draw(target, target.querySelector(".drawing").clientWidth);
          } else inView.delete(target);
        }
      },
      { rootMargin: "300px" },
    );
    const resized = new ResizeObserver((entries) => {
      for (const { target } of entries) {
        const figure = target.closest("figure");
        if (inView.has(figure)) draw(figure, target.clientWidth);
      }
    });
    for (const figure of figures) {
      observer.observe(figure);
      resized.observe(figure.querySelector(".drawing"));
    }
    window.addEventListener("beforeprint", () => figures.forEach((figure) => draw(figure, figure.matches(".lines, .histogram") ? 330 : 660)));
  }

  return { start };
})();
