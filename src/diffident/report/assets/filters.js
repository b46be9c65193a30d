"use strict";
// The form above the gallery: what is chosen, as plain values.
class Filters {
  constructor(form, source, changed) {
    this.form = form;
    this.changed = changed;
    this.timer = 0;
    const names = source.names.map((name, label) => ({ name: name.length > 60 ? `${name.slice(0, 59)}…` : name, label }));
    for (const field of ["either", "given", "nearest"]) {
      form.elements[field].append(...names.map(({ name, label }) => Dom.make("option", { value: String(label), textContent: name })));
    }
    const { low, high } = source.range();
    form.elements.low.placeholder = Dom.number(low, 1);
    form.elements.high.placeholder = Dom.number(high, 1);
    if (!source.hasProbabilities) form.elements.sort.querySelector("[value=wrong]").remove();
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", (event) => this.later(event.target.name === "text" ? 150 : 0));
    form.addEventListener("reset", () => this.later(0));
  }

  // After the browser has taken the change over; while someone types, not at every key.
  later(milliseconds) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.changed(this.criteria()), milliseconds);
  }

  criteria() {
    const { elements } = this.form;
    const numeric = (name) => (elements[name].value === "" ? null : Number(elements[name].value));
    return {
      text: elements.text.value,
      either: numeric("either"),
      given: numeric("given"),
      nearest: numeric("nearest"),
      low: numeric("low"),
      high: numeric("high"),
      suspects: elements.suspects.checked,
      marked: elements.marked.checked,
      sort: elements.sort.value,
    };
  }
}
