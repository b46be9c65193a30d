"use strict";
// One sample in the gallery: a picture, a card with text, or a row; and small ones beside a sample's neighbours.
const Tiles = (() => {
  const { make, foreign, number } = Dom;

  function describe(row, marked) {
    const parts = [row.id.slice(0, 100), `given ${row.given}`];
    parts.push(row.suspect ? `nearest ${row.other}, suspect` : "nearest to its own class");
    parts.push(`difficulty ${number(row.difficulty, 2)}`);
    if (marked) parts.push("marked");
    return parts.join(", ");
  }

  function picture(row, className) {
    if (!row.picture) return make("span", { class: `${className} none`, "aria-hidden": "true", textContent: "no thumbnail" });
    const image = make("img", { class: className, src: row.picture, alt: "", decoding: "async", draggable: false });
    image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth < 96), { once: true });
    return image;
  }

  function labels(row) {
    const given = make("span", { class: "given" }, foreign(row.given));
    if (!row.suspect) return make("span", { class: "labels" }, given);
    return make("span", { class: "labels" }, given, make("span", { class: "arrow", textContent: " → " }), foreign(row.other, "nearest"));
  }

  function probability(row) {
    return row.wrong === null ? "" : `wrong: ${Math.round(100 * row.wrong)} %`;
  }

  // `position` numbers the sample in what was selected, for screen readers.
  function shell(row, className, state) {
    const suspect = row.suspect ? " suspect" : "";
    const active = state.active ? " active" : "";
    const node = make("div", {
      class: `item ${className}${suspect}${active}`,
      role: "option",
      id: `sample-${row.place}`,
      "aria-label": describe(row, state.marked),
      "aria-selected": String(state.marked),
      "aria-posinset": state.position + 1,
      "aria-setsize": state.count,
    });
    node.dataset.position = state.position;
    return node;
  }

  function star(marked) {
    return make("span", { class: marked ? "star on" : "star", "aria-hidden": "true", textContent: marked ? "★" : "☆", title: "mark (m)" });
  }

  function tile(row, state) {
    const node = shell(row, "tile", state);
    const facts = make("span", { class: "facts" }, make("span", { textContent: number(row.difficulty, 2) }), make("span", { textContent: probability(row) }));
    const body = row.content === null ? picture(row, "picture") : foreign(row.content, "text");
    node.append(make("span", { class: "frame" }, body, star(state.marked), labels(row), facts));
    return node;
  }

  function line(row, state) {
    const node = shell(row, "line", state);
    const cells = [star(state.marked)];
    if (row.content === null) cells.push(picture(row, "thumb"));
    cells.push(foreign(row.id, "id"), labels(row));
    cells.push(make("span", { class: "value", textContent: number(row.difficulty, 2), title: "difficulty" }));
    cells.push(make("span", { class: "value wrong", textContent: probability(row) }));
    if (row.content !== null) cells.push(foreign(row.content, "content"));
    node.append(...cells);
    return node;
  }

  function waiting(position) {
    const node = make("div", { class: "item waiting", role: "option", "aria-selected": "false", "aria-label": "loading" });
    node.dataset.position = position;
    return node;
  }

  function neighbour(row, open) {
    const body = row.content === null ? picture(row, "picture") : foreign(row.content, "text");
    return make(
      "button",
      { type: "button", class: row.suspect ? "neighbour suspect" : "neighbour", "aria-label": describe(row, false), onclick: () => open(row.place) },
      body,
      foreign(row.id, "id"),
    );
  }

  return { tile, line, waiting, neighbour, picture, labels, probability };
})();
