"use strict";
// Draws only the items of a long list that are in view, one or several in a line; TanStack Virtual says which.
class VirtualList {
  // layout(width) gives { columns, width, height } of an item; build(position) makes it.
  constructor(scroller, canvas, layout, build) {
    this.scroller = scroller;
    this.canvas = canvas;
    this.layout = layout;
    this.build = build;
    this.count = 0;
    this.nodes = new Map();
    this.printed = false;
    this.shape = layout(scroller.clientWidth);
    this.virtualizer = new vendor.Virtualizer(this.options());
    this.virtualizer._didMount();
    this.virtualizer._willUpdate();
    new ResizeObserver(() => this.resize()).observe(scroller);
  }

  options() {
    return {
      count: Math.ceil(this.count / this.shape.columns),
      getScrollElement: () => this.scroller,
      estimateSize: () => this.shape.height,
      scrollToFn: vendor.elementScroll,
      observeElementRect: vendor.observeElementRect,
      observeElementOffset: vendor.observeElementOffset,
      onChange: () => this.draw(),
      overscan: 2,
    };
  }

  resize() {
    if (this.printed) return;
    const shape = this.layout(this.scroller.clientWidth);
    if (shape.columns !== this.shape.columns || shape.width !== this.shape.width) this.reset();
  }

  // Draws everything anew, after the items or their layout have changed.
  reset(count = this.count) {
    this.count = count;
    this.shape = this.layout(this.scroller.clientWidth);
    this.clear();
    this.virtualizer.setOptions(this.options());
    this.virtualizer._willUpdate();
    this.virtualizer.measure();
    this.draw();
  }

  clear() {
    for (const node of this.nodes.values()) node.remove();
    this.nodes.clear();
  }

  draw() {
    if (this.printed) return;
    const { columns, width, height } = this.shape;
    this.canvas.style.height = `${this.virtualizer.getTotalSize()}px`;
    const wanted = new Set();
    for (const line of this.virtualizer.getVirtualItems()) {
      for (let column = 0; column < columns; column += 1) {
        const position = line.index * columns + column;
        if (position >= this.count) break;
        wanted.add(position);
        if (!this.nodes.has(position)) this.place(position, column * width, line.start, width, height);
      }
    }
    for (const [position, node] of this.nodes) {
      if (!wanted.has(position)) {
        node.remove();
        this.nodes.delete(position);
      }
    }
  }

  place(position, x, y, width, height) {
    const node = this.build(position);
    node.style.transform = `translate(${x}px, ${y}px)`;
    node.style.width = `${width}px`;
    node.style.height = `${height}px`;
    this.nodes.set(position, node);
    this.canvas.append(node);
  }

  // Builds an item anew in its place.
  update(position) {
    const node = this.nodes.get(position);
    if (!node) return;
    const next = this.build(position);
    next.style.cssText = node.style.cssText;
    node.replaceWith(next);
    this.nodes.set(position, next);
  }

  scrollTo(position) {
    this.virtualizer.scrollToIndex(Math.floor(position / this.shape.columns), { align: "auto" });
    this.draw();
  }

  scrollToTop() {
    this.scroller.scrollTop = 0;
  }

  // On paper nothing scrolls: the first items stand one after the other.
  beginPrint(most) {
    this.clear();
    this.printed = true;
    this.canvas.style.height = "";
    for (let position = 0; position < Math.min(this.count, most); position += 1) {
      const node = this.build(position);
      this.nodes.set(position, node);
      this.canvas.append(node);
    }
  }

  endPrint() {
    this.printed = false;
    this.reset();
  }
}
