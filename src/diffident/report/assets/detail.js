"use strict";
// One sample large, with those most like it of its given and of its nearest class.
class Detail {
  constructor(dialog, source, { moved, marked }) {
    this.dialog = dialog;
    this.source = source;
    this.moved = moved;
    this.marked = marked;
    this.place = null;
    dialog.addEventListener("keydown", (event) => this.key(event));
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
  }

  async open(place) {
    this.place = place;
    const row = await this.source.detail(place);
    if (this.place !== place) return;
    this.dialog.replaceChildren(this.head(row), this.body(row));
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.scrollTop = 0;
    const near = await this.source.neighboursOf(place);
    if (this.place === place) this.dialog.append(...this.neighbours(row, near));
  }

  key(event) {
    if (event.target.matches("input, textarea")) return;
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    if (event.key in steps) this.moved(steps[event.key]);
    else if (event.key === "m") this.mark();
    else return;
    event.preventDefault();
  }

  async mark() {
    await this.marked(this.place);
    const button = this.dialog.querySelector(".mark");
    const on = this.source.isMarked(this.place);
    button.setAttribute("aria-pressed", String(on));
    button.textContent = on ? "★ Marked" : "☆ Mark";
  }

  head(row) {
    const on = this.source.isMarked(row.place);
    const button = (text, label, onclick) => Dom.make("button", { type: "button", "aria-label": label, textContent: text, onclick });
    return Dom.make(
      "div",
      { class: "head" },
      button("‹", "Previous sample", () => this.moved(-1)),
      button("›", "Next sample", () => this.moved(1)),
      Dom.make("button", { type: "button", class: "mark", "aria-pressed": String(on), textContent: on ? "★ Marked" : "☆ Mark", onclick: () => this.mark() }),
      Dom.make("span", { class: "grow" }),
      button("✕", "Close", () => this.dialog.close()),
    );
  }

  body(row) {
    const shown = row.content === null ? Tiles.picture(row, "large") : Dom.make("div", { class: "whole", tabIndex: 0 }, Dom.foreign(row.content));
    const facts = [
      ["id", Dom.foreign(row.id, "long")],
      ["given label", Dom.foreign(row.given, "long")],
      ["nearest label", Dom.foreign(row.other, "long")],
      ["difficulty", `${Dom.number(row.difficulty)}${Detail.rank(row.rank)}`],
      ["margin", Dom.number(row.margin)],
      ["suspect", row.suspect ? "yes" : "no"],
      ["probability that the label is wrong", row.wrong === null ? null : Dom.number(row.wrong)],
    ];
    const list = Dom.make("dl", {});
    for (const [name, value] of facts) {
      if (value !== null) list.append(Dom.make("div", {}, Dom.make("dt", { textContent: name }), Dom.make("dd", {}, value)));
    }
    return Dom.make("div", { class: row.content === null ? "body" : "body stacked" }, shown, list);
  }

  static rank(rank) {
    return rank >= 1 ? ", the hardest" : `, harder than ${Math.floor(1000 * rank) / 10} % of the samples`;
  }

  neighbours(row, near) {
    const open = (place) => this.open(place);
    const strip = (title, name, rows) =>
      Dom.make(
        "section",
        { class: "strip" },
        Dom.make("h3", {}, title, Dom.foreign(name)),
        Dom.make("div", { class: "neighbours" }, ...rows.map((other) => Tiles.neighbour(other, open))),
      );
    const strips = [];
    if (near.given.length) strips.push(strip("Most like it of the given class: ", row.given, near.given));
    if (near.nearest.length) strips.push(strip("Most like it of the nearest class: ", row.other, near.nearest));
    return strips;
  }
}
