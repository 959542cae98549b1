// Shared by the pages: unpacking, the library of molecules, and a plain drawing of
// balls and sticks. Positions are in Å.
"use strict";

const COLOURS = {
  H: "#e9ecef", B: "#e8a87c", C: "#5b6470", N: "#2f5fd0", O: "#d03b2f", F: "#4fae3f",
  Si: "#b59a6a", P: "#e08a1e", S: "#c9a21c", Cl: "#2fa34a", Se: "#c9771c",
  Br: "#8c3a1f", I: "#7a3fa0",
};
const OTHER = "#b0579a"; // Of an element without a colour of its own.
const RADII = { H: 0.24, C: 0.34, N: 0.32, O: 0.31, F: 0.30, S: 0.40, P: 0.40,
  Cl: 0.40, Br: 0.44, I: 0.48 }; // Å, of the balls.
const STICK = 0.11; // Å
const MISSING = -32768;
const PRINCIPAL = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];

function decode(text, unit = 0.01) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const values = new Float32Array(bytes.length / 2);
  for (let i = 0; i < values.length; i++) {
    const found = view.getInt16(2 * i, true);
    values[i] = found === MISSING ? NaN : unit * found;
  }
  return values;
}

function add(parent, tag, properties) {
  return parent.appendChild(Object.assign(document.createElement(tag), properties));
}

// The library of molecules, unpacked from the page; null where it cannot be used.
async function library() {
  const box = document.getElementById("molecule-library");
  const hasWebGL = document.createElement("canvas").getContext("webgl");
  if (!box || !hasWebGL || !window.DecompressionStream) return null;
  const bytes = Uint8Array.from(atob(box.textContent), (x) => x.charCodeAt(0));
  const packed = new Blob([bytes]).stream();
  const plain = packed.pipeThrough(new DecompressionStream("gzip"));
  add(document.head, "script", { textContent: await new Response(plain).text() });
  return window.$3Dmol || null;
}

function colourOf(element) { return COLOURS[element] || OTHER; }

// From unlikely (red) over middling (yellow) to likely (blue); `share` is 0 to 1.
const SCALE = [[165, 0, 38], [244, 109, 67], [254, 224, 144], [116, 173, 209],
  [49, 54, 149]];
function scaled(share) {
  if (!Number.isFinite(share)) return "#c8c8c8";
  const place = Math.min(Math.max(share, 0), 1) * (SCALE.length - 1);
  const low = Math.min(Math.floor(place), SCALE.length - 2);
  const mixed = SCALE[low].map((x, k) =>
    Math.round(x + (place - low) * (SCALE[low + 1][k] - x)));
  return `rgb(${mixed.join(",")})`;
}

// A shaded ball of a colour, drawn once.
const sprites = new Map();
function sprite(colour) {
  if (sprites.has(colour)) return sprites.get(colour);
  const canvas = Object.assign(document.createElement("canvas"),
    { width: 64, height: 64 });
  const context = canvas.getContext("2d");
  const ball = () => { context.beginPath(); context.arc(32, 32, 31, 0, 7); };
  ball();
  context.fillStyle = colour;
  context.fill();
  const light = context.createRadialGradient(23, 20, 2, 32, 32, 32);
  light.addColorStop(0, "rgba(255,255,255,.75)");
  light.addColorStop(0.35, "rgba(255,255,255,.1)");
  light.addColorStop(0.75, "rgba(0,0,0,.05)");
  light.addColorStop(1, "rgba(0,0,0,.45)");
  context.fillStyle = light;
  context.fill();
  sprites.set(colour, canvas);
  return canvas;
}

// A canvas of so many pixels of the page, sharp on any screen.
function sized(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  Object.assign(canvas, { width: width * ratio, height: height * ratio });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  return ratio;
}

// Pixels for an Å at which atoms fit, flat as they lie or however they are turned.
function fitting(positions, width, height, isTurned) {
  let [across, up, reach] = [0.8, 0.8, 0.8];
  for (let i = 0; i < positions.length; i += 3) {
    const [x, y, z] = positions.subarray(i, i + 3);
    across = Math.max(across, Math.abs(x) + 0.6);
    up = Math.max(up, Math.abs(y) + 0.6);
    reach = Math.max(reach, Math.hypot(x, y, z) + 0.6);
  }
  if (isTurned) return Math.min(width, height) / (2 * reach);
  return Math.min(width / (2 * across), height / (2 * up), 30);
}

function turned(rotation, across, down) {
  const [c, s, e, f] = [Math.cos(across), Math.sin(across), Math.cos(down),
    Math.sin(down)];
  const [x, y, z] = rotation;
  const aside = x.map((_, k) => c * x[k] + s * z[k]);
  const deep = x.map((_, k) => c * z[k] - s * x[k]);
  return [aside, y.map((_, k) => e * y[k] - f * deep[k]),
    y.map((_, k) => f * y[k] + e * deep[k])];
}

function seen(rotation, positions) {
  const points = [];
  for (let i = 0; i < positions.length; i += 3) {
    points.push(rotation.map((row) => row[0] * positions[i]
      + row[1] * positions[i + 1] + row[2] * positions[i + 2]));
  }
  return points;
}

function line(context, from, to, zoom, width, colour) {
  context.beginPath();
  context.moveTo(zoom * from[0], -zoom * from[1]);
  context.lineTo(zoom * to[0], -zoom * to[1]);
  for (const [more, paint] of [[1.6, "rgba(0,0,0,.4)"], [0, colour]]) {
    context.lineWidth = width + more;
    context.strokeStyle = paint;
    context.stroke();
  }
}

// Half a bond, from the ball of its atom to the middle, as one, two or three lines.
function stick(context, from, to, order, colour, zoom) {
  const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
  const length = Math.hypot(dx, dy) || 1;
  const count = order > 2.4 ? 3 : order > 1.2 ? 2 : 1;
  const width = zoom * STICK * (count > 1 ? 0.9 : 2);
  for (let index = 0; index < count; index++) {
    const away = (index - (count - 1) / 2) * 0.24;
    const move = ([x, y]) => [x - away * dy / length, y + away * dx / length];
    if (order === 1.5 && index) context.setLineDash([width * 1.4, width]);
    line(context, move(from), move(to), zoom, width, colour);
    context.setLineDash([]);
  }
}

// Draws atoms and bonds, the farthest first.
//   scene: elements, positions, bonds ([first, last, order]), colours of the atoms
//   (by element where null), and parts: further [depth, function to draw it].
//   view: rotation, zoom in pixels for an Å, width, height, ratio of the canvas.
function paint(context, scene, view) {
  const { rotation, zoom, width, height, ratio } = view;
  const points = seen(rotation, scene.positions);
  const colours = scene.colours || scene.elements.map(colourOf);
  const parts = (scene.parts || (() => []))(points);
  scene.elements.forEach((element, atom) => parts.push([points[atom][2], () => {
    const radius = zoom * (RADII[element] || 0.4);
    const [x, y] = [zoom * points[atom][0] - radius, -zoom * points[atom][1] - radius];
    context.drawImage(sprite(colours[atom]), x, y, 2 * radius, 2 * radius);
    if (scene.colours && !"CH".includes(element)) {
      context.font = `bold ${Math.round(1.1 * radius)}px system-ui, sans-serif`;
      context.textAlign = "center";
      context.textBaseline = "middle";
      context.fillStyle = "#111";
      context.fillText(element, x + radius, y + 1.05 * radius);
    }
  }]));
  for (const [first, last, order = 1] of scene.bonds) {
    const middle = points[first].map((x, k) => (x + points[last][k]) / 2);
    for (const atom of [first, last]) {
      const way = middle.map((x, k) => x - points[atom][k]);
      const share = 0.8 * (RADII[scene.elements[atom]] || 0.4) / Math.hypot(...way);
      const from = way.map((x, k) => points[atom][k] + Math.min(share, 1) * x);
      parts.push([(from[2] + middle[2]) / 2, () =>
        stick(context, from, middle, order, colours[atom], zoom)]);
    }
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.translate(width / 2, height / 2);
  parts.sort((a, b) => a[0] - b[0]).forEach(([, draw]) => draw());
}

// Lets drags, the wheel and arrow keys turn a canvas; `draw` gets the view.
function orbit(canvas, view, draw) {
  const turn = (across, down) => {
    view.rotation = turned(view.rotation, across, down);
    draw();
  };
  canvas.tabIndex = 0;
  canvas.onpointerdown = (event) => canvas.setPointerCapture(event.pointerId);
  canvas.onpointermove = (event) => {
    if (event.buttons) turn(0.01 * event.movementX, 0.01 * event.movementY);
  };
  canvas.onwheel = (event) => {
    event.preventDefault();
    view.zoom *= Math.exp(-0.001 * event.deltaY);
    draw();
  };
  const keys = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15],
    ArrowDown: [0, 0.15] };
  canvas.addEventListener("keydown", (event) => {
    if ("+-".includes(event.key)) {
      view.zoom *= event.key === "+" ? 1.1 : 1 / 1.1;
      draw();
    } else if (keys[event.key]) {
      event.preventDefault();
      turn(...keys[event.key]);
    }
  });
}

// A canvas with a molecule that can be turned; returns a function that shows a scene.
function turnable(parent, width, height) {
  const canvas = add(parent, "canvas", { className: "turnable" });
  const context = canvas.getContext("2d");
  const view = { rotation: PRINCIPAL, zoom: 20, width, height, context,
    ratio: sized(canvas, width, height) };
  let shown = null;
  const draw = () => shown && paint(context, shown, view);
  orbit(canvas, view, draw);
  const show = (scene, isNew = true) => {
    shown = scene;
    if (isNew) view.zoom = fitting(scene.positions, width, height, true);
    if (isNew) view.rotation = PRINCIPAL;
    draw();
  };
  return Object.assign(show, { view });
}
