"use strict";
// Starts the page: theme, plots, samples.
(() => {
  function startTheme() {
    const root = document.documentElement;
    const button = document.getElementById("theme");
    const dark = window.matchMedia("(prefers-color-scheme: dark)");
    const isDark = () => (root.dataset.theme === "auto" ? dark.matches : root.dataset.theme === "dark");
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
    });
  }

  async function startSamples(settings) {
    if (settings.live) {
      await new Gallery(new RemoteSource(settings.live)).select();
      return;
    }
    const rows = document.getElementById("rows");
    if (!rows) return;
    const block = document.getElementById("pictures");
    const data = await Dom.unpack(rows.textContent);
    const source = new LocalSource(data, block ? JSON.parse(block.textContent) : null, settings.key);
    rows.remove();
    if (block) block.remove();
    await new Gallery(source).select();
  }

  async function start() {
    const settings = JSON.parse(document.getElementById("settings").textContent);
    startTheme();
    Charts.start(settings.charts);
    await startSamples(settings);
    performance.mark("interactive");
    document.documentElement.dataset.ready = "true";
  }

  start();
})();
