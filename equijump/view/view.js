// Trajectories: frames, a Ramachandran trace that moves with them, bonds and events.
"use strict";

const MAP = { size: 400, margin: 38, trail: 20 };
const COURSE = { width: 1238, height: 132, left: 52, bottom: 24, top: 10 };
const HEAT = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

function heat(share) {
  const place = Math.min(Math.max(share, 0), 1) * (HEAT.length - 1);
  const low = Math.min(Math.floor(place), HEAT.length - 2);
  return `rgb(${HEAT[low].map((x, k) =>
    Math.round(x + (place - low) * (HEAT[low + 1][k] - x))).join(",")})`;
}

function inPs(time) { return `${+time.toFixed(3)} ps`; }

class Trajectories {
  constructor(section) {
    this.data = JSON.parse(document.getElementById(section.dataset.of).textContent);
    this.section = section;
    this.makeTools();
    this.makeRow();
    const [width, height] = [COURSE.width, COURSE.height];
    this.course = add(section, "canvas", { className: "time" });
    this.course.setAttribute("aria-label", "course of time; a click goes there");
    this.courseRatio = sized(this.course, width, height);
    this.course.onclick = (event) => this.seek(event.offsetX);
    const first = this.data.trajectories.findIndex((one) => one.num_frames);
    this.which.value = first;
    library().catch(() => null).then((drawing) => {
      this.drawing = drawing;
      this.open(first);
    });
    this.slider.focus({ preventScroll: true });
  }

  makeTools() {
    const tools = add(this.section, "div", { className: "tools" });
    this.which = add(add(tools, "label", { textContent: "Trajectory " }), "select", {});
    this.data.trajectories.forEach(({ name, num_frames: count }, value) =>
      add(this.which, "option", { value, textContent: name, disabled: !count }));
    this.which.onchange = () => this.open(+this.which.value);
    this.player = add(tools, "button", { type: "button", textContent: "play" });
    this.player.onclick = () => this.play();
    this.slider = add(tools, "input", { type: "range", min: 0, value: 0 });
    this.slider.setAttribute("aria-label", "frame");
    this.slider.oninput = () => this.show(+this.slider.value);
    this.clock = add(tools, "span", {});
  }

  makeRow() {
    const row = add(this.section, "div", { className: "row" });
    this.stage = add(row, "div", { className: "stage" });
    const middle = add(row, "div", {});
    this.map = add(middle, "canvas", {});
    this.mapRatio = sized(this.map, MAP.size, MAP.size);
    const label = add(middle, "label", { textContent: "Residue " });
    this.residue = add(label, "select", {});
    this.data.residues.forEach((textContent, value) =>
      add(this.residue, "option", { value, textContent }));
    this.residue.onchange = () => { this.background = null; this.show(this.frame); };
    middle.hidden = !this.data.residues.length;
    this.told = add(row, "div", {});
  }

  open(index) {
    const one = this.data.trajectories[index];
    if (!one.decoded) {
      one.decoded = { positions: decode(one.positions), angles: decode(one.angles),
        away: decode(one.away, 0.001) };
    }
    this.now = one;
    this.slider.max = one.num_frames - 1;
    if (!this.draw) {
      const scene = { ...this.data, secondary: one.secondary };
      const { positions } = one.decoded;
      this.draw = this.drawing ? molecular(this.stage, scene, positions, this.drawing)
        : plain(this.stage, scene, positions);
    }
    this.tell();
    this.show(Math.min(this.frame || 0, one.num_frames - 1));
  }

  play() {
    if (this.timer) { clearInterval(this.timer); this.timer = null; }
    else this.timer = setInterval(() => this.show((this.frame + 1) % this.now.num_frames), 60);
    this.player.textContent = this.timer ? "pause" : "play";
  }

  seek(x) {
    const share = (x - COURSE.left) / (COURSE.width - COURSE.left - 8);
    this.goto(share * (this.now.num_frames - 1) * this.now.spacing);
  }

  goto(time) {
    const frame = Math.floor(time / this.now.spacing + 1e-6);
    this.show(Math.min(Math.max(frame, 0), this.now.num_frames - 1));
  }

  show(frame) {
    this.frame = frame;
    this.slider.value = frame;
    const { positions, angles, away } = this.now.decoded;
    const words = [inPs(frame * this.now.spacing)];
    const count = this.data.residues.length;
    if (count) {
      const at = 2 * (frame * count + +this.residue.value);
      words.push(`phi ${angles[at].toFixed(0)}°, psi ${angles[at + 1].toFixed(0)}°`);
    }
    words.push(`largest bond deviation ${away[frame].toFixed(3)} Å`);
    if (this.now.repeated[frame]) words.push("repeated");
    this.clock.textContent = words.join(" · ");
    if (this.draw) this.draw(frame, positions, this.now.secondary);
    if (count) this.drawMap(frame);
    this.drawCourse(frame);
  }

  // All frames behind, drawn once for each residue.
  makeBackground() {
    const bins = this.data.num_bins;
    const counts = decode(this.data.counts[+this.residue.value]);
    const most = Math.max(...counts.filter(Number.isFinite), 1);
    const canvas = Object.assign(document.createElement("canvas"),
      { width: bins, height: bins });
    const context = canvas.getContext("2d");
    counts.forEach((value, index) => {
      if (!Number.isFinite(value)) return;
      context.fillStyle = heat((value + 0.5) / (most + 0.5));
      context.fillRect(Math.floor(index / bins), bins - 1 - index % bins, 1, 1);
    });
    return canvas;
  }

  drawMap(frame) {
    const [context, inside] = [this.map.getContext("2d"), MAP.size - MAP.margin - 10];
    context.setTransform(this.mapRatio, 0, 0, this.mapRatio, 0, 0);
    context.clearRect(0, 0, MAP.size, MAP.size);
    context.translate(MAP.margin, 8);
    this.background ||= this.makeBackground();
    context.imageSmoothingEnabled = false;
    context.drawImage(this.background, 0, 0, inside, inside);
    context.strokeStyle = "#888";
    context.lineWidth = 1;
    context.strokeRect(0, 0, inside, inside);
    const at = (angle) => (angle + 180) / 360 * inside;
    context.fillStyle = "#333";
    context.font = "12px system-ui, sans-serif";
    context.textAlign = "center";
    for (const angle of [-180, -90, 0, 90, 180]) {
      context.fillText(angle, at(angle), inside + 15);
      context.save();
      context.textAlign = "right";
      context.fillText(angle, -4, inside - at(angle) + 4);
      context.restore();
    }
    context.fillText("phi (°)", inside / 2, inside + 29);
    context.save();
    context.rotate(-Math.PI / 2);
    context.fillText("psi (°)", -inside / 2, -27);
    context.restore();
    this.drawTrail(context, frame, (angle) => at(angle), inside);
  }

  drawTrail(context, frame, at, inside) {
    const { angles } = this.now.decoded;
    const [count, own] = [this.data.residues.length, +this.residue.value];
    const point = (k) => {
      const place = 2 * (k * count + own);
      return [angles[place], angles[place + 1]];
    };
    for (let k = Math.max(1, frame - MAP.trail + 1); k <= frame; k++) {
      const [from, to] = [point(k - 1), point(k)];
      // A line over the edge would cross the whole map.
      if (Math.max(...from.map((x, axis) => Math.abs(x - to[axis]))) > 180) continue;
      context.globalAlpha = 1 - (frame - k) / MAP.trail;
      context.strokeStyle = "#e0261b";
      context.lineWidth = 1.6;
      context.beginPath();
      context.moveTo(at(from[0]), inside - at(from[1]));
      context.lineTo(at(to[0]), inside - at(to[1]));
      context.stroke();
    }
    context.globalAlpha = 1;
    const [phi, psi] = point(frame);
    context.beginPath();
    context.arc(at(phi), inside - at(psi), 6, 0, 7);
    context.fillStyle = "#e0261b";
    context.fill();
    context.strokeStyle = "#fff";
    context.lineWidth = 2;
    context.stroke();
  }

  drawCourse(frame) {
    const { away } = this.now.decoded;
    const context = this.course.getContext("2d");
    const [width, height] = [COURSE.width, COURSE.height];
    const floor = height - COURSE.bottom;
    const most = Math.max(...away, 0.1);
    const last = Math.max(this.now.num_frames - 1, 1);
    const x = (k) => COURSE.left + k / last * (width - COURSE.left - 8);
    const y = (value) => floor - value / most * (floor - COURSE.top);
    context.setTransform(this.courseRatio, 0, 0, this.courseRatio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.fillStyle = "rgba(224,140,27,.8)";
    this.now.repeated.forEach((count, k) => {
      if (count) context.fillRect(x(k) - 1, COURSE.top, 2, floor - COURSE.top);
    });
    context.fillStyle = "#c01717";
    for (const { time, what } of this.now.events) {
      if (what.includes("repeat")) continue;
      context.fillRect(x(time / this.now.spacing) - 1.5, COURSE.top, 3, floor - COURSE.top);
    }
    context.strokeStyle = "#3a6ea5";
    context.lineWidth = 1.2;
    context.beginPath();
    away.forEach((value, k) => context[k ? "lineTo" : "moveTo"](x(k), y(value)));
    context.stroke();
    context.strokeStyle = "#888";
    context.lineWidth = 1;
    context.strokeRect(COURSE.left, COURSE.top, width - COURSE.left - 8,
      floor - COURSE.top);
    context.strokeStyle = "#e0261b";
    context.lineWidth = 2;
    context.beginPath();
    context.moveTo(x(frame), COURSE.top);
    context.lineTo(x(frame), floor);
    context.stroke();
    this.nameAxes(context, x, y, last, most);
  }

  nameAxes(context, x, y, last, most) {
    const height = COURSE.height;
    context.fillStyle = "#333";
    context.font = "12px system-ui, sans-serif";
    context.textAlign = "right";
    for (const share of [0, 0.5, 1]) {
      context.fillText(`${(share * most).toFixed(2)} Å`, COURSE.left - 4, y(share * most) + 4);
      context.textAlign = share === 0 ? "left" : share === 1 ? "right" : "center";
      context.fillText(inPs(share * last * this.now.spacing), x(share * last), height - 8);
      context.textAlign = "right";
    }
  }

  tell() {
    this.told.replaceChildren();
    add(this.told, "h3", { textContent: "Bonds that leave their usual length most" });
    const table = add(this.told, "table", {});
    const row = (cells, tag) => {
      const line = add(table, "tr", {});
      cells.forEach((textContent) => add(line, tag, { textContent }));
      return line;
    };
    row(["bond", "usual", "by", "at"], "th");
    this.now.bonds.forEach(({ name, usual, away, time }) => {
      const line = row([name, `${usual} Å`, `${away} Å`], "td");
      this.link(add(line, "td", {}), time);
    });
    add(this.told, "h3", { textContent: "Gate and geometry" });
    if (!this.now.events.length) {
      add(this.told, "p", { className: "hint", textContent:
        "No frame repeats the one before, and no bond is broken." });
    }
    this.now.events.forEach(({ time, what }) => {
      const line = add(this.told, "p", { textContent: `${what} ` });
      this.link(line, time);
    });
    add(this.told, "p", { className: "hint", textContent: "Below: largest deviation of "
      + "a bond over time; orange, repeated frames (every draw of a jump refused); red, "
      + "broken geometry. Keys: Tab, and arrows on the slider." });
  }

  link(parent, time) {
    const button = add(parent, "button", { type: "button", textContent: inPs(time) });
    button.onclick = () => this.goto(time);
  }
}

document.querySelectorAll("section.trajectories").forEach((section) => {
  section.view = new Trajectories(section);
});
