// What the report's scripts use of their libraries; the rest is left out of the bundle.
export { areaY, cell, dot, line, link, plot, pointer, rect, ruleX, ruleY, text, tip } from "@observablehq/plot";
export { elementScroll, observeElementOffset, observeElementRect, Virtualizer } from "@tanstack/virtual-core";
