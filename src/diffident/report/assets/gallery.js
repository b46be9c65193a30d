"use strict";
// The samples that the filters leave, as tiles or rows; one of them is active and follows the arrow keys.
class Gallery {
  constructor(source) {
    this.source = source;
    this.count = 0;
    this.active = 0;
    this.request = 0;
    const element = (id) => document.getElementById(id);
    this.scroller = element("gallery");
    this.output = element("count");
    this.download = element("download");
    this.views = { tiles: element("as-tiles"), rows: element("as-rows") };
    this.view = source.modality === "image" ? "tiles" : source.modality === "text" ? "tiles" : "rows";
    this.filters = new Filters(element("filters"), source, () => this.select());
    this.detail = new Detail(element("detail"), source, {
      moved: (step) => this.move(step, true),
      marked: (place) => this.mark(place),
    });
    this.showView();
    this.list = new VirtualList(this.scroller, this.scroller.firstElementChild, (width) => this.layout(width), (position) => this.build(position));
    if (source.onload !== undefined) source.onload = (positions) => positions.forEach((position) => this.list.update(position));
    this.listen();
  }

  listen() {
    this.scroller.addEventListener("keydown", (event) => this.key(event));
    this.scroller.addEventListener("click", (event) => this.click(event));
    this.download.addEventListener("click", async () => Dom.save("marked.csv", await this.source.csv()));
    for (const [view, button] of Object.entries(this.views)) {
      button.addEventListener("click", () => {
        this.view = view;
        this.showView();
        this.list.reset();
        this.list.scrollTo(this.active);
      });
    }
    window.addEventListener("beforeprint", () => this.list.beginPrint(60));
    window.addEventListener("afterprint", () => this.list.endPrint());
  }

  showView() {
    for (const [view, button] of Object.entries(this.views)) button.setAttribute("aria-pressed", String(view === this.view));
    this.scroller.dataset.view = this.view;
    this.scroller.dataset.modality = this.source.modality || "none";
  }

  layout(available) {
    const width = Math.max(available, 1);
    if (this.view === "rows") return { columns: 1, width, height: 52 };
    const least = this.source.modality === "image" ? 128 : 232;
    const columns = Math.max(1, Math.floor(width / least));
    const height = this.source.modality === "image" ? Math.min(168, Math.floor(width / columns)) + 42 : 148;
    return { columns, width: Math.floor(width / columns), height };
  }

  build(position) {
    const row = this.source.at(position);
    if (!row) return Tiles.waiting(position);
    const state = { position, count: this.count, active: position === this.active, marked: this.source.isMarked(row.place) };
    return this.view === "tiles" ? Tiles.tile(row, state) : Tiles.line(row, state);
  }

  async select() {
    this.request += 1;
    const request = this.request;
    const count = await this.source.select(this.filters.criteria());
    if (request !== this.request) return;
    this.count = count;
    this.active = 0;
    this.list.reset(count);
    this.list.scrollToTop();
    this.tell();
    this.pointOut();
  }

  tell() {
    const all = this.source.size < this.source.total ? `${Dom.count(this.source.size)} listed of ${Dom.count(this.source.total)}` : Dom.count(this.source.total);
    const marked = this.source.numMarked;
    this.output.textContent = `${Dom.count(this.count)} of ${all} samples${marked ? `, ${Dom.count(marked)} marked` : ""}`;
    this.download.disabled = marked === 0;
  }

  pointOut() {
    const row = this.count ? this.source.at(this.active) : null;
    if (row) this.scroller.setAttribute("aria-activedescendant", `sample-${row.place}`);
    else this.scroller.removeAttribute("aria-activedescendant");
  }

  activate(position) {
    const before = this.active;
    this.active = Math.max(0, Math.min(this.count - 1, position));
    this.list.scrollTo(this.active);
    this.list.update(before);
    this.list.update(this.active);
    this.pointOut();
  }

  move(step, open = false) {
    if (!this.count) return;
    this.activate(this.active + step);
    const row = this.source.at(this.active);
    if (open && row) this.detail.open(row.place);
  }

  async mark(place) {
    await this.source.toggleMark(place);
    for (const position of this.list.nodes.keys()) {
      const row = this.source.at(position);
      if (row && row.place === place) this.list.update(position);
    }
    this.tell();
  }

  key(event) {
    const { columns } = this.list.shape;
    const page = columns * Math.max(1, Math.floor(this.scroller.clientHeight / this.list.shape.height));
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: page, PageUp: -page, Home: -this.count, End: this.count };
    const row = this.count ? this.source.at(this.active) : null;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in steps) this.move(steps[event.key]);
    else if (event.key === "Enter" && row) this.detail.open(row.place);
    else if ((event.key === "m" || event.key === " ") && row) this.mark(row.place);
    else return;
    event.preventDefault();
  }

  click(event) {
    const item = event.target.closest(".item");
    if (!item) return;
    const row = this.source.at(Number(item.dataset.position));
    if (!row) return;
    this.activate(Number(item.dataset.position));
    if (event.target.closest(".star")) this.mark(row.place);
    else this.detail.open(row.place);
  }
}
