// A grid of molecules: sorted, searched, and only what is on the screen is drawn.
"use strict";

const CARD = { least: 156, height: 200, gap: 10, picture: 132 };
const NUMBER = /^([^<>=]+)(<=|>=|<|>|=)(.+)$/;

// What the page has of a molecule, unpacked when it is first drawn.
function unpacked(molecule) {
  if (!molecule.scene) {
    const bonds = decode(molecule.bonds, 0.5);
    const pairs = [];
    for (let i = 0; i < bonds.length; i += 3) pairs.push([...bonds.subarray(i, i + 3)]);
    const values = Object.entries(molecule.values).map(([k, v]) => [k, decode(v)]);
    molecule.scene = {
      elements: molecule.elements ? molecule.elements.split(" ") : [],
      positions: decode(molecule.positions), bonds: pairs,
      values: Object.fromEntries(values),
    };
  }
  return molecule.scene;
}

function worded(value) {
  if (typeof value !== "number" || Number.isInteger(value)) return String(value);
  return String(+value.toPrecision(5));
}

// Whether a molecule has each word of a search; `name<number` compares.
function matcher(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const tests = words.map((word) => {
    const [, name, sign, limit] = word.match(NUMBER) || [];
    const number = Number(limit);
    if (!name || limit === "" || Number.isNaN(number)) {
      return (molecule) => molecule.text.includes(word);
    }
    const compare = { "<": (x) => x < number, ">": (x) => x > number,
      "<=": (x) => x <= number, ">=": (x) => x >= number, "=": (x) => x === number };
    return (molecule) => {
      const found = Object.entries(molecule.fields).find(([key, value]) =>
        typeof value === "number" && key.toLowerCase() === name);
      return found ? compare[sign](found[1]) : molecule.text.includes(word);
    };
  });
  return (molecule) => tests.every((test) => test(molecule));
}

function ordered(molecules, key, isFalling) {
  const sign = isFalling ? -1 : 1;
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === undefined || y === undefined) {
      return (x === undefined) - (y === undefined); // What misses comes last.
    }
    if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
    return sign * (typeof x === "number" ? x - y : String(x).localeCompare(String(y)));
  };
  return [...molecules].sort((a, b) => compare(a, b) || a.index - b.index);
}

// The range of the numbers of atoms over all molecules, without the outermost.
function rangeOf(molecules, name) {
  const all = molecules.flatMap((one) =>
    one.values[name] ? [...decode(one.values[name])].filter(Number.isFinite) : []);
  all.sort((a, b) => a - b);
  const at = (share) => all[Math.round(share * (all.length - 1))];
  return all.length ? [at(0.02), at(0.98)] : [0, 1];
}

// The large drawing: 3Dmol where there is WebGL, else the plain one.
function makeStage(box, drawing) {
  if (!drawing) {
    const show = turnable(box, 346, 280);
    return (scene) => show(scene);
  }
  const view = drawing.createViewer(box, { backgroundColor: "white" });
  return (scene, isNew) => {
    const { elements, positions, bonds, colours } = scene;
    const atoms = elements.map((elem, index) => ({
      elem, index, serial: index, x: positions[3 * index], y: positions[3 * index + 1],
      z: positions[3 * index + 2], bonds: [], bondOrder: [],
    }));
    for (const [first, last, order] of bonds) {
      for (const [atom, other] of [[first, last], [last, first]]) {
        atoms[atom].bonds.push(other);
        atoms[atom].bondOrder.push(order);
      }
    }
    view.removeAllModels();
    view.addModel().addAtoms(atoms);
    const colorfunc = (atom) => colours ? colours[atom.index]
      : elements[atom.index] === "H" ? "#d9dde1" : colourOf(elements[atom.index]);
    view.setStyle({}, { stick: { radius: 0.11, colorfunc },
      sphere: { scale: 0.24, colorfunc } });
    if (isNew) {
      view.setView([0, 0, 0, 0, 0, 0, 0, 1]);
      view.zoomTo();
      view.zoom(1.2);
    }
    view.render();
  };
}

class Grid {
  constructor(section) {
    this.data = JSON.parse(document.getElementById(section.dataset.of).textContent);
    this.section = section;
    this.cards = new Map();
    const { molecules, conventions } = this.data;
    for (const one of molecules) {
      const parts = [one.name, ...Object.values(one.fields), ...one.status];
      one.text = parts.join(" ").toLowerCase();
    }
    this.numbers = [...new Set(molecules.flatMap((one) => Object.keys(one.values)))];
    this.fields = [...new Set(molecules.flatMap((one) => Object.keys(one.fields)))];
    const usual = conventions.indexOf("xyz2mol_hueckel");
    this.convention = Math.max(usual, 0);
    this.makeTools();
    this.makeParts();
    this.recolour();
    library().catch(() => null).then((drawing) => {
      this.stage = makeStage(this.box, drawing);
      this.showDetail(true);
    });
  }

  select(parent, title, options, onChange) {
    const label = add(parent, "label", { textContent: `${title} ` });
    const select = add(label, "select", {});
    select.setAttribute("aria-label", title);
    options.forEach(([value, textContent]) =>
      add(select, "option", { value, textContent }));
    select.onchange = onChange;
    return select;
  }

  makeTools() {
    const tools = add(this.section, "div", { className: "tools" });
    this.search = add(add(tools, "label", { textContent: "Search " }), "input",
      { type: "search", placeholder: "words, num_atoms<18" });
    this.search.oninput = () => this.refresh();
    const keys = [["", "order of the file"], ["name", "name"], ["?", "judgement"],
      ...this.fields.map((name) => [`.${name}`, name])];
    this.sort = this.select(tools, "Sort by", keys, () => this.refresh());
    this.falling = add(tools, "button", { type: "button", textContent: "↑ rising" });
    this.falling.onclick = () => {
      this.isFalling = !this.isFalling;
      this.falling.textContent = this.isFalling ? "↓ falling" : "↑ rising";
      this.refresh();
    };
    const conventions = this.data.conventions.map((name, index) => [index, name]);
    this.judge = this.select(tools, "Judged by", conventions, () => {
      this.convention = +this.judge.value;
      this.refill();
      this.refresh();
    });
    this.judge.value = this.convention;
    this.only = this.select(tools, "Show", [], () => this.refresh());
    const colours = [["", "element"], ...this.numbers.map((name) => [name, name])];
    this.colour = this.select(tools, "Colour by", colours, () => this.recolour());
    this.colour.parentElement.hidden = !this.numbers.length;
    this.colour.value = this.numbers.find((n) => n.includes("log_likelihood")) || "";
    this.scale = add(tools, "span", { className: "scale" });
    this.count = add(tools, "span", { className: "count" });
    this.count.setAttribute("aria-live", "polite");
    this.refill();
  }

  // What may be shown: all, the valid ones, or those of one reason.
  refill() {
    const counts = new Map();
    this.data.molecules.forEach((one) => {
      const status = one.status[this.convention];
      counts.set(status, (counts.get(status) || 0) + 1);
    });
    const kept = this.only.value;
    this.only.replaceChildren();
    add(this.only, "option", { value: "", textContent: "all" });
    const invalid = this.data.molecules.length - (counts.get("valid") || 0);
    const entries = [...counts].sort((a, b) => b[1] - a[1]);
    if (invalid) entries.splice(1, 0, ["!", invalid]);
    for (const [value, count] of entries) {
      const word = value === "!" ? "not valid" : value;
      add(this.only, "option", { value, textContent: `${word} (${count})` });
    }
    this.only.value = [...this.only.options].some((x) => x.value === kept) ? kept : "";
  }

  makeParts() {
    const split = add(this.section, "div", { className: "split" });
    this.list = add(split, "div", { className: "list", tabIndex: 0 });
    this.list.setAttribute("role", "listbox");
    this.list.setAttribute("aria-label", "molecules; arrow keys choose one");
    this.space = add(this.list, "div", {});
    this.detail = add(split, "aside", { className: "detail" });
    this.box = add(this.detail, "div", { className: "stage" });
    this.told = add(this.detail, "div", {});
    this.list.onscroll = () => this.draw();
    this.list.onkeydown = (event) => this.onKey(event);
    new ResizeObserver(() => this.draw()).observe(this.list);
    document.addEventListener("keydown", (event) => {
      const isTyping = /INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName);
      if (event.key !== "/" || isTyping) return;
      event.preventDefault();
      this.search.focus();
    });
  }

  keyOf(value) {
    if (value === "name") return (one) => one.name;
    if (value === "?") return (one) => one.status[this.convention];
    return value ? (one) => one.fields[value.slice(1)] : (one) => one.index;
  }

  refresh() {
    const chosen = this.shown && this.shown[this.place];
    const only = this.only.value;
    const isShown = (one) => !only || (only === "!"
      ? one.status[this.convention] !== "valid" : one.status[this.convention] === only);
    const matches = matcher(this.search.value);
    const found = this.data.molecules.filter((one) => isShown(one) && matches(one));
    this.shown = ordered(found, this.keyOf(this.sort.value), this.isFalling);
    this.count.textContent = `${this.shown.length} of ${this.data.molecules.length}`;
    this.clear();
    this.list.scrollTop = 0;
    this.choose(Math.max(this.shown.indexOf(chosen), 0));
  }

  clear() {
    this.cards.forEach((card) => card.remove());
    this.cards.clear();
  }

  recolour() {
    const name = this.colour.value;
    this.range = name ? rangeOf(this.data.molecules, name) : null;
    this.scale.replaceChildren();
    if (name) {
      const [low, high] = this.range.map((x) => x.toFixed(1));
      this.scale.append(low, document.createElement("i"), `${high} ${this.unit(name)}`);
    }
    this.refresh();
  }

  unit(name) { return name.includes("log_likelihood") ? "nats" : ""; }

  sceneOf(molecule) {
    const scene = unpacked(molecule);
    const values = scene.values[this.colour.value];
    if (!this.colour.value) return { ...scene, colours: null };
    const [low, high] = this.range;
    const share = (x) => (x - low) / (high - low || 1);
    const colours = scene.elements.map((_, k) => scaled(values ? share(values[k]) : NaN));
    return { ...scene, colours };
  }

  columns() {
    const width = this.list.clientWidth - CARD.gap;
    return Math.max(1, Math.floor(width / (CARD.least + CARD.gap)));
  }

  cardWidth() {
    return Math.floor((this.list.clientWidth - CARD.gap) / this.columns()) - CARD.gap;
  }

  draw() {
    const [columns, step] = [this.columns(), CARD.height + CARD.gap];
    const across = this.cardWidth() + CARD.gap;
    if (across !== this.across) this.clear();
    this.across = across;
    const rows = Math.ceil(this.shown.length / columns);
    this.space.style.height = `${rows * step + CARD.gap}px`;
    const top = Math.floor(this.list.scrollTop / step) - 1;
    const bottom = top + Math.ceil(this.list.clientHeight / step) + 2;
    const [from, to] = [Math.max(top, 0) * columns, (bottom + 1) * columns];
    for (const [place, card] of this.cards) {
      if (place >= from && place < to && place < this.shown.length) continue;
      card.remove();
      this.cards.delete(place);
    }
    for (let place = from; place < Math.min(to, this.shown.length); place++) {
      const card = this.cards.get(place) || this.makeCard(place);
      card.style.left = `${CARD.gap + (place % columns) * across}px`;
      card.style.top = `${CARD.gap + Math.floor(place / columns) * step}px`;
      card.classList.toggle("chosen", place === this.place);
      card.setAttribute("aria-selected", place === this.place);
    }
    this.list.setAttribute("aria-activedescendant", `molecule-${this.place}`);
  }

  makeCard(place) {
    const molecule = this.shown[place];
    const card = add(this.list, "div", { className: "card", id: `molecule-${place}` });
    Object.assign(card.style,
      { width: `${this.cardWidth()}px`, height: `${CARD.height}px` });
    card.setAttribute("role", "option");
    card.onclick = () => { this.choose(place); this.list.focus(); };
    const canvas = add(card, "canvas", {});
    const [width, height] = [this.cardWidth() - 18, CARD.picture];
    const scene = this.sceneOf(molecule);
    const zoom = fitting(scene.positions, width, height, false);
    const ratio = sized(canvas, width, height);
    const view = { rotation: PRINCIPAL, zoom, width, height, ratio };
    paint(canvas.getContext("2d"), scene, view);
    add(card, "div", { className: "name", textContent: molecule.name });
    add(card, "div", { className: "told", textContent: this.toldOf(molecule) });
    this.badge(add(card, "div", {}), molecule.status[this.convention]);
    this.cards.set(place, card);
    return card;
  }

  // The formula, or what the cards are sorted by.
  toldOf(molecule) {
    const name = this.sort.value.slice(1);
    const value = molecule.fields[name];
    const isOwn = this.sort.value.startsWith(".") && name !== "formula";
    return isOwn ? `${name} ${value === undefined ? "–" : worded(value)}`
      : molecule.fields.formula || "not in the file";
  }

  badge(parent, status) {
    const className = status === "valid" ? "badge valid" : "badge";
    add(parent, "span", { className, textContent: status });
  }

  choose(place) {
    this.place = Math.min(Math.max(place, 0), Math.max(this.shown.length - 1, 0));
    const step = CARD.height + CARD.gap;
    const top = Math.floor(this.place / this.columns()) * step;
    if (top < this.list.scrollTop) this.list.scrollTop = top;
    const below = top + step + CARD.gap - this.list.clientHeight;
    if (below > this.list.scrollTop) this.list.scrollTop = below;
    this.draw();
    this.showDetail();
  }

  showDetail() {
    const molecule = this.shown[this.place];
    const isNew = molecule !== this.last;
    this.last = molecule;
    this.box.hidden = !molecule;
    this.told.replaceChildren();
    if (!molecule) {
      add(this.told, "p", { textContent: "No molecule matches." });
      return;
    }
    if (this.stage) this.stage(this.sceneOf(molecule), isNew || !this.wasDrawn);
    this.wasDrawn = Boolean(this.stage);
    add(this.told, "h3", { textContent: molecule.name });
    const table = add(this.told, "table", {});
    this.data.conventions.forEach((name, index) =>
      this.badge(this.row(table, name), molecule.status[index]));
    Object.entries(molecule.fields).forEach(([name, value]) =>
      this.row(table, name).append(worded(value)));
    this.showAtoms(molecule);
    add(this.told, "p", { className: "hint", textContent:
      "Drag turns, the wheel zooms. Keys: arrows, Home, End, Page; / searches." });
  }

  row(table, name) {
    const row = add(table, "tr", {});
    add(row, "td", { textContent: name });
    return add(row, "td", {});
  }

  showAtoms(molecule) {
    const scene = unpacked(molecule);
    if (!Object.keys(scene.values).length) return;
    const box = add(this.told, "details", {});
    add(box, "summary", { textContent: "atoms" });
    const table = add(box, "table", {});
    const names = Object.keys(scene.values);
    this.row(table, "atom").append(names.join(", "));
    scene.elements.forEach((element, atom) => this.row(table, `${element} ${atom}`)
      .append(names.map((name) => scene.values[name][atom].toFixed(2)).join(", ")));
  }

  onKey(event) {
    const rows = Math.max(1, Math.floor(this.list.clientHeight / (CARD.height + CARD.gap)));
    const columns = this.columns();
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns,
      PageUp: -rows * columns, PageDown: rows * columns, Home: -Infinity,
      End: Infinity };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const last = this.shown.length - 1;
    this.choose(Math.min(Math.max(this.place + moves[event.key], 0), last));
  }
}

document.querySelectorAll("section.molecules").forEach((section) => {
  section.grid = new Grid(section);
});
