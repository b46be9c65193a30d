"use strict";
// The samples of a page that holds them all. `RemoteSource` has the same methods and asks a server instead.
class LocalSource {
  constructor(data, pictures, key) {
    this.columns = data.columns;
    this.names = data.label_names;
    this.modality = data.modality;
    this.total = data.total;
    this.size = data.columns.id.length;
    this.contents = data.contents || null;
    this.whole = data.whole || {};
    this.order = new Uint32Array(0);
    this.thumbnails = new Map();
    this.large = {};
    if (pictures) {
      pictures.row.forEach((place, number) => this.thumbnails.set(place, pictures.webp[number]));
      this.large = pictures.large;
    }
    this.neighbours = new Map();
    if (data.neighbours) {
      data.neighbours.row.forEach((place, number) => {
        this.neighbours.set(place, { given: data.neighbours.given[number], nearest: data.neighbours.nearest[number] });
      });
    }
    this.marked = new Set();
    this.key = `diffident-marks-${key}`;
    this.haystacks = null;
    this.restoreMarks();
  }

  get hasProbabilities() {
    return this.columns.wrong !== null;
  }

  range() {
    let low = Infinity;
    let high = -Infinity;
    for (const value of this.columns.difficulty) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    return { low, high };
  }

  // Keeps the samples that fit, in the order asked for; how many there are.
  async select(criteria) {
    const { label, nearest, difficulty, margin } = this.columns;
    const words = criteria.text.toLowerCase().split(/\s+/).filter(Boolean);
    const haystacks = words.length ? this.searchable() : null;
    const found = [];
    for (let place = 0; place < this.size; place += 1) {
      if (criteria.either !== null && label[place] !== criteria.either && nearest[place] !== criteria.either) continue;
      if (criteria.given !== null && label[place] !== criteria.given) continue;
      if (criteria.nearest !== null && nearest[place] !== criteria.nearest) continue;
      if (criteria.low !== null && difficulty[place] < criteria.low) continue;
      if (criteria.high !== null && difficulty[place] > criteria.high) continue;
      if (criteria.suspects && !(margin[place] > 0)) continue;
      if (criteria.marked && !this.marked.has(place)) continue;
      if (haystacks && !words.every((word) => haystacks[place].includes(word))) continue;
      found.push(place);
    }
    this.order = this.sorted(Uint32Array.from(found), criteria.sort);
    return this.order.length;
  }

  sorted(places, sort) {
    const { difficulty, margin, wrong, id } = this.columns;
    const collator = new Intl.Collator("en", { numeric: true });
    const hardest = (a, b) => difficulty[b] - difficulty[a] || a - b;
    const probability = (place) => (wrong && wrong[place] !== null ? wrong[place] : margin[place] > 0 ? 0 : -1);
    const comparisons = {
      hardest,
      easiest: (a, b) => difficulty[a] - difficulty[b] || a - b,
      wrong: (a, b) => probability(b) - probability(a) || hardest(a, b),
      margin: (a, b) => margin[b] - margin[a] || hardest(a, b),
      id: (a, b) => collator.compare(id[a], id[b]) || a - b,
    };
    return sort === "row" ? places : places.sort(comparisons[sort]);
  }

  searchable() {
    if (!this.haystacks) {
      const { id, label, nearest } = this.columns;
      this.haystacks = id.map((name, place) => {
        const content = this.contents ? this.whole[place] || this.contents[place] : "";
        return `${name}\n${this.names[label[place]]}\n${this.names[nearest[place]]}\n${content}`.toLowerCase();
      });
    }
    return this.haystacks;
  }

  // The sample at a position of what was selected; a remote source may not have it yet and gives null.
  at(position) {
    return this.get(this.order[position]);
  }

  get(place) {
    const { row, id, label, nearest, difficulty, rank, margin, wrong } = this.columns;
    const thumbnail = this.thumbnails.get(place);
    return {
      place,
      row: row[place],
      id: id[place],
      label: label[place],
      nearest: nearest[place],
      given: this.names[label[place]],
      other: this.names[nearest[place]],
      difficulty: difficulty[place],
      rank: rank[place],
      margin: margin[place],
      suspect: margin[place] > 0,
      wrong: wrong ? wrong[place] : null,
      content: this.contents ? this.contents[place] : null,
      picture: thumbnail ? `data:image/webp;base64,${thumbnail}` : null,
    };
  }

  async detail(place) {
    const large = this.large[place];
    const row = this.get(place);
    return {
      ...row,
      picture: large ? `data:image/webp;base64,${large}` : row.picture,
      content: this.whole[place] || row.content,
    };
  }

  async neighboursOf(place) {
    const near = this.neighbours.get(place) || { given: [], nearest: [] };
    return { given: near.given.map((other) => this.get(other)), nearest: near.nearest.map((other) => this.get(other)) };
  }

  isMarked(place) {
    return this.marked.has(place);
  }

  get numMarked() {
    return this.marked.size;
  }

  async toggleMark(place) {
    if (!this.marked.delete(place)) this.marked.add(place);
    // A page opened from disk may have no storage: then the marks last as long as the page is open.
    try {
      localStorage.setItem(this.key, JSON.stringify([...this.marked]));
    } catch {
      return;
    }
  }

  restoreMarks() {
    try {
      const stored = JSON.parse(localStorage.getItem(this.key) || "[]");
      for (const place of stored) if (Number.isInteger(place) && place >= 0 && place < this.size) this.marked.add(place);
    } catch {
      this.marked.clear();
    }
  }

  async csv() {
    const header = "row,id,label,label_name,nearest_label,nearest_label_name,difficulty,rank,margin,probability_wrong";
    const lines = [...this.marked].sort((a, b) => a - b).map((place) => {
      const one = this.get(place);
      const names = [one.label, one.given, one.nearest, one.other].map(LocalSource.field);
      return [one.row, LocalSource.field(one.id), ...names, one.difficulty, one.rank, one.margin, one.wrong ?? ""].join(",");
    });
    return `${[header, ...lines].join("\r\n")}\r\n`;
  }

  // A field of a CSV file. A spreadsheet would take a text that begins so for a formula: the quote tells it not to.
  static field(value) {
    const text = String(value);
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }
}
