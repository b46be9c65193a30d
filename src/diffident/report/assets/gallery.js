"use strict";
// The samples that the filters leave, as tiles or rows; one of them is active and follows the arrow keys.
// Positions count what was selected. Browsers draw nothing taller than some 17 million pixels, so of a longer list a
// window is shown, which begins at `start`; positions in the list are `start` less.
class Gallery {
  static MOST_PIXELS = 15e6;

  constructor(source) {
    this.source = source;
    this.count = 0;
    this.start = 0;
    this.active = 0;
    this.request = 0;
    const element = (id) => document.getElementById(id);
    this.scroller = element("gallery");
    this.output = element("count");
    this.download = element("download");
    this.windows = element("windows");
    this.views = { tiles: element("as-tiles"), rows: element("as-rows") };
    this.view = source.modality === "image" || source.modality === "text" ? "tiles" : "rows";
    this.filters = new Filters(element("filters"), source, () => this.select());
    this.detail = new Detail(element("detail"), source, {
      moved: (step) => this.move(step, true),
      marked: (place) => this.mark(place),
    });
    this.showView();
    const canvas = this.scroller.firstElementChild;
    this.list = new VirtualList(this.scroller, canvas, (width) => this.layout(width), (place) => this.build(this.start + place));
    source.onload = (start, end) => this.updateWhere((position) => position >= start && position < end);
    source.onfailure = (said) => { this.output.textContent = said; };
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
        this.show(this.active);
      });
    }
    document.getElementById("back").addEventListener("click", () => this.activate(this.start - this.most));
    document.getElementById("forth").addEventListener("click", () => this.activate(this.start + this.most));
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
    this.show(0);
    this.list.scrollToTop();
    this.tell();
    this.pointOut();
  }

  // How many items a window holds.
  get most() {
    const { columns, height } = this.list.shape;
    return Math.floor(Gallery.MOST_PIXELS / height) * columns;
  }

  // Draws the window that a position is in anew.
  show(position) {
    this.list.shape = this.layout(this.scroller.clientWidth);
    this.start = Math.floor(position / this.most) * this.most;
    this.list.reset(Math.min(this.count - this.start, this.most));
    this.list.scrollTo(position - this.start);
    this.windows.hidden = this.count <= this.most;
    this.windows.firstElementChild.disabled = this.start === 0;
    this.windows.lastElementChild.disabled = this.start + this.most >= this.count;
    if (!this.windows.hidden) this.tell();
  }

  tell() {
    const all = this.source.size < this.source.total ? `${Dom.count(this.source.size)} listed of ${Dom.count(this.source.total)}` : Dom.count(this.source.total);
    const marked = this.source.numMarked;
    const part = this.windows.hidden ? "" : `, here ${Dom.count(this.start + 1)} to ${Dom.count(Math.min(this.count, this.start + this.most))}`;
    this.output.textContent = `${Dom.count(this.count)} of ${all} samples${part}${marked ? `, ${Dom.count(marked)} marked` : ""}`;
    this.download.disabled = marked === 0;
  }

  pointOut() {
    const row = this.count ? this.source.at(this.active) : null;
    if (row) this.scroller.setAttribute("aria-activedescendant", `sample-${row.place}`);
    else this.scroller.removeAttribute("aria-activedescendant");
  }

  updateWhere(fits) {
    for (const place of [...this.list.nodes.keys()]) if (fits(this.start + place)) this.list.update(place);
    if (fits(this.active)) this.pointOut();
  }

  activate(position) {
    const before = this.active;
    this.active = Math.max(0, Math.min(this.count - 1, position));
    if (this.active < this.start || this.active >= this.start + this.most) this.show(this.active);
    else this.list.scrollTo(this.active - this.start);
    this.updateWhere((other) => other === before || other === this.active);
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
    this.updateWhere((position) => this.source.at(position)?.place === place);
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
    const position = Number(item.dataset.position);
    const row = this.source.at(position);
    if (!row) return;
    this.activate(position);
    if (event.target.closest(".star")) this.mark(row.place);
    else this.detail.open(row.place);
  }
}
