"use strict";
// The samples of `diffident serve`: the same methods as `LocalSource`, answered by the server, a few hundred at a time.
class RemoteSource {
  constructor(about) {
    this.names = about.label_names;
    this.modality = about.modality;
    this.total = about.total;
    this.size = about.total;
    this.hasProbabilities = about.probabilities;
    this.difficulties = about.range;
    this.marked = new Set(about.marked);
    this.view = "";
    this.count = 0;
    this.known = new Map();
    this.asked = new Set();
    this.onload = null;
    this.onfailure = null;
  }

  static CHUNK = 120;
  static MOST_KNOWN = 6000;

  range() {
    return this.difficulties;
  }

  ask(path, query) {
    return this.request(`/${path}?${new URLSearchParams(query)}`);
  }

  async send(path, content) {
    const headers = { "Content-Type": "application/json" };
    return (await this.request(`/${path}`, { method: "POST", headers, body: JSON.stringify(content) })).json();
  }

  // What goes wrong is told to `onfailure`, and thrown.
  async request(address, options) {
    let said = "diffident serve does not answer; nothing was changed. Start it again, and open the address that it says.";
    const response = await fetch(address, options).catch(() => null);
    if (response && response.ok) return response;
    if (response) said = await response.text();
    if (this.onfailure) this.onfailure(said);
    throw new Error(said);
  }

  async select(criteria) {
    const { count, view } = await this.send("select", criteria);
    this.view = view;
    this.count = count;
    this.known.clear();
    this.asked.clear();
    if (count) await this.load(0);
    return count;
  }

  at(position) {
    const row = this.known.get(position);
    if (row) return row;
    const chunk = Math.floor(position / RemoteSource.CHUNK);
    if (!this.asked.has(chunk)) this.load(chunk);
    return null;
  }

  async load(chunk) {
    this.asked.add(chunk);
    const view = this.view;
    const start = chunk * RemoteSource.CHUNK;
    const end = Math.min(this.count, start + RemoteSource.CHUNK);
    const rows = await (await this.ask("rows", { view, start, end })).json();
    if (view !== this.view) return;
    if (this.known.size > RemoteSource.MOST_KNOWN) {
      this.known.clear();
      this.asked = new Set([chunk]);
    }
    rows.forEach((row, number) => this.known.set(start + number, this.dress(row, false)));
    if (this.onload) this.onload(start, end);
  }

  dress(row, large) {
    return {
      ...row,
      place: row.row,
      given: this.names[row.label],
      other: this.names[row.nearest],
      suspect: row.margin > 0,
      picture: row.picture ? `/${large ? "picture" : "thumbnail"}?row=${row.row}` : null,
    };
  }

  async detail(place) {
    return this.dress(await (await this.ask("sample", { row: place })).json(), true);
  }

  async neighboursOf(place) {
    const near = await (await this.ask("neighbours", { row: place })).json();
    return { given: near.given.map((row) => this.dress(row, false)), nearest: near.nearest.map((row) => this.dress(row, false)) };
  }

  isMarked(place) {
    return this.marked.has(place);
  }

  get numMarked() {
    return this.marked.size;
  }

  // The mark is shown when the server has it on the disk.
  async toggleMark(place) {
    const marked = !this.marked.has(place);
    await this.send("marks", { row: place, marked });
    if (marked) this.marked.add(place);
    else this.marked.delete(place);
  }

  async csv() {
    return (await this.ask("marks.csv", {})).text();
  }
}
