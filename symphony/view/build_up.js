// One molecule step by step: focus, species, density of the position, stop.
"use strict";

const STAGE = { width: 698, height: 540 };
const DENSITY = [[236, 231, 242], [201, 148, 199], [221, 28, 119], [122, 1, 119]];
const MOST_FOCI = 6;
const NATS = 10; // Below the highest density, at which shells fade out.

function densityColour(share) {
  const place = Math.min(share, 1) * (DENSITY.length - 1);
  const low = Math.min(Math.floor(place), DENSITY.length - 2);
  const mixed = DENSITY[low].map((x, k) =>
    Math.round(x + (place - low) * (DENSITY[low + 1][k] - x)));
  return `rgba(${mixed.join(",")},${(0.16 + 0.74 * share ** 2).toFixed(2)})`;
}

function disc(context, x, y, radius, paint, isRing) {
  context.beginPath();
  context.arc(x, y, radius, 0, 7);
  context[isRing ? "strokeStyle" : "fillStyle"] = paint;
  if (isRing) context.stroke(); else context.fill();
}

class BuildUp {
  constructor(section) {
    this.data = JSON.parse(document.getElementById(section.dataset.of).textContent);
    const data = this.data;
    this.elements = data.elements.split(" ");
    this.positions = decode(data.positions);
    this.directions = decode(data.directions, 0.001);
    const bonds = decode(data.bonds, 0.5);
    this.bonds = [];
    for (let i = 0; i < bonds.length; i += 3) this.bonds.push([...bonds.subarray(i, i + 3)]);
    this.makeParts(section);
    this.show(0);
    this.slider.focus({ preventScroll: true });
  }

  makeParts(section) {
    const left = add(section, "div", {});
    this.stage = turnable(left, STAGE.width, STAGE.height);
    const controls = add(left, "div", { className: "controls" });
    const button = (textContent, onclick) =>
      add(controls, "button", { type: "button", textContent, onclick });
    button("◀ back", () => this.show(this.place - 1));
    button("next ▶", () => this.show(this.place + 1));
    this.player = button("play", () => this.play());
    this.slider = add(controls, "input",
      { type: "range", min: 0, max: this.elements.length, value: 0 });
    this.slider.setAttribute("aria-label", "number of atoms placed");
    this.slider.oninput = () => this.show(+this.slider.value);
    const choices = add(left, "div", {});
    this.shells = this.box(choices, "shells of directions");
    this.draws = this.box(choices, "positions drawn by the network");
    add(choices, "span", { className: "hint", textContent: "density e⁻¹⁰ " });
    add(choices, "span", { className: "scale" });
    add(choices, "span", { className: "hint", textContent: " 1" });
    this.told = add(section, "div", {});
    this.told.setAttribute("aria-live", "polite");
  }

  box(parent, title) {
    const label = add(parent, "label", {});
    const input = add(label, "input", { type: "checkbox", checked: true });
    label.append(` ${title}`);
    input.onchange = () => this.show(this.place);
    return input;
  }

  play() {
    if (this.timer) { clearInterval(this.timer); this.timer = null; }
    else {
      if (this.place === this.elements.length) this.show(0);
      this.timer = setInterval(() => {
        this.show(this.place + 1);
        if (this.place === this.elements.length) this.play();
      }, 1200);
    }
    this.player.textContent = this.timer ? "pause" : "play";
  }

  show(place) {
    this.place = Math.min(Math.max(place, 0), this.elements.length);
    this.slider.value = this.place;
    const step = this.place ? this.data.steps[this.place - 1] : null;
    this.tell(step);
    const count = this.place;
    const scene = {
      elements: this.elements.slice(0, count),
      positions: this.positions.subarray(0, 3 * count),
      bonds: this.bonds.filter(([first, last]) => first < count && last < count),
      parts: (points) => this.overlay(step, points),
    };
    // The view fits the whole molecule, at every step.
    if (!this.wasShown) this.stage({ ...scene, positions: this.positions,
      elements: this.elements, bonds: [] });
    if (!this.wasShown) this.stage.view.zoom *= 1.15;
    this.wasShown = true;
    this.stage(scene, false);
  }

  // Atoms as foci, the next atom, shells and draws: what is drawn among the atoms.
  overlay(step, points) {
    const view = this.stage.view;
    const { context, zoom, rotation } = view;
    const at = (p) => [zoom * p[0], -zoom * p[1]];
    const parts = [];
    const ring = (p, radius, colour, dash) => () => {
      context.lineWidth = 3;
      context.setLineDash(dash);
      disc(context, ...at(p), zoom * radius, colour, true);
      context.setLineDash([]);
    };
    if (this.place < this.elements.length) {
      const next = seen(rotation, this.positions.subarray(3 * this.place,
        3 * this.place + 3))[0];
      parts.push([next[2] + 0.5, ring(next, 0.34,
        colourOf(this.elements[this.place]), [5, 4])]);
    }
    if (!step) return parts;
    const most = Math.max(...step.foci);
    points.forEach((p, atom) => {
      const share = most > 0 ? step.foci[atom] / most : 0;
      if (share > 0.02) parts.push([p[2] - 0.4, () =>
        disc(context, ...at(p), zoom * 0.55, `rgba(224,118,27,${0.45 * share})`)]);
    });
    if (step.focus === undefined) return parts;
    const focus = points[step.focus];
    parts.push([focus[2] + 0.5, ring(focus, 0.44, "#e0761b", [])]);
    if (this.shells.checked) parts.push(...this.shellParts(step, focus, at, context));
    if (this.draws.checked) {
      for (const p of seen(rotation, decode(step.draws))) {
        const place = p.map((x, k) => x + focus[k]);
        parts.push([place[2] + 0.01, () =>
          disc(context, ...at(place), 0.045 * zoom, "#111")]);
      }
    }
    return parts;
  }

  shellParts(step, focus, at, context) {
    const { zoom, rotation } = this.stage.view;
    const turned = seen(rotation, this.directions);
    const spread = Math.sqrt(4 * Math.PI / turned.length) / 2;
    const shells = step.shells.map((shell) => decode(shell.values, this.data.log_unit));
    const highest = Math.max(...shells.map((values) => Math.max(...values)));
    return step.shells.flatMap(({ radius }, index) => turned.map((p, k) => {
      const share = Math.max(0, 1 + (shells[index][k] - highest) / NATS);
      const place = p.map((x, axis) => focus[axis] + radius * x);
      const size = zoom * radius * spread * (0.4 + 0.7 * share);
      return [place[2], () => disc(context, ...at(place), size, densityColour(share))];
    }));
  }

  tell(step) {
    this.told.replaceChildren();
    const [count, total] = [this.place, this.elements.length];
    const isLast = count === total;
    const given = count < this.data.num_given ? " (given)" : "";
    const end = this.data.stopped ? "stop" : "the end, at the largest size";
    const next = isLast ? end : `${this.elements[count]} comes next${given}`;
    add(this.told, "h3", { textContent: `${count} of ${total} atoms placed: ${next}` });
    if (!step) {
      this.bars("First species", this.data.species, this.data.first,
        this.data.species.indexOf(this.elements[0]));
      return;
    }
    this.bars("Stop or go on", ["stop", "go on"], [step.stop, 1 - step.stop],
      isLast && this.data.stopped ? 0 : isLast ? -1 : 1);
    if (isLast && this.data.stopped) return;
    this.bars("Species of the next atom", this.data.species, step.species,
      isLast ? -1 : this.data.species.indexOf(this.elements[count]));
    const order = step.foci.map((_, atom) => atom)
      .sort((a, b) => step.foci[b] - step.foci[a]).slice(0, MOST_FOCI);
    if (step.focus !== undefined && !order.includes(step.focus)) {
      order.splice(-1, 1, step.focus);
    }
    this.bars("Focus", order.map((atom) => `${this.elements[atom]} ${atom}`),
      order.map((atom) => step.foci[atom]), order.indexOf(step.focus));
    if (isLast) return;
    const places = step.shells.map((shell) => `${shell.radius.toFixed(2)} Å`);
    const most = Math.max(...step.shells.map((shell) => shell.height), 1e-9);
    this.bars("Distance from the focus: peaks", places,
      step.shells.map((shell) => shell.height / most), -1,
      step.shells.map((shell) => `${shell.height.toFixed(1)} /Å`));
    const value = step.log_likelihood;
    add(this.told, "p", { textContent: `Log-likelihood of this atom, over all foci: ${
      value === null ? "minus infinity" : `${value.toFixed(2)} nats`}` });
    add(this.told, "p", { className: "hint", textContent: "Focus and bars in orange: "
      + "what was chosen; the focus is the most probable one of the atom placed. Halos: "
      + "probability of each focus. Dashed ring: where the next atom goes. Shells: "
      + "coarse density of directions at the peaks of distance. Dots: positions drawn "
      + "from the whole density, for this focus and species." });
  }

  bars(title, names, values, chosen, words) {
    add(this.told, "h4", { textContent: title });
    names.forEach((name, index) => {
      const className = index === chosen ? "bar chosen" : "bar";
      const bar = add(this.told, "div", { className });
      add(bar, "span", { textContent: name });
      const box = add(bar, "span", {});
      add(box, "i", {}).style.width = `${(100 * values[index]).toFixed(1)}%`;
      const text = words ? words[index] : `${(100 * values[index]).toFixed(1)} %`;
      add(bar, "span", { textContent: text });
    });
  }
}

document.querySelectorAll("section.steps").forEach((section) => {
  section.buildUp = new BuildUp(section);
});
