// Draws the frames of each `figure.viewer`: drag turns, the wheel zooms.
// 3Dmol.js draws them where the browser has WebGL, else sticks on a canvas.
"use strict";

const COLOURS = { C: "#5b6470", N: "#2f5fd0", O: "#d03b2f", S: "#c9a21c" };
const RADII = { C: 0.34, N: 0.32, O: 0.31, S: 0.40 }; // Å, of the balls
const KINDS = { H: "h", E: "s" };

function decode(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const values = new Float32Array(bytes.length / 2);
  for (let i = 0; i < values.length; i++) values[i] = 0.01 * view.getInt16(2 * i, true);
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

// One frame as the text of a PDB file, of which the library takes names.
function pdb(scene, positions) {
  const number = (value) => value.toFixed(3).padStart(8);
  const lines = scene.atoms.map(([name, residue, index, chain], atom) => {
    const label = name.length < 4 ? ` ${name}`.padEnd(4) : name;
    const at = [0, 1, 2].map((k) => number(positions[3 * atom + k])).join("");
    return `ATOM  ${String(atom + 1).padStart(5)} ${label} ${residue.padStart(3)} `
      + `${String.fromCharCode(65 + chain % 26)}${String(index).padStart(4)}    ${at}`
      + `  1.00  0.00          ${scene.elements[atom].padStart(2)}`;
  });
  return [...lines, "END"].join("\n");
}

// Returns a function that draws a frame with the library.
function molecular(figure, scene, positions, drawing) {
  const box = add(figure, "div", {});
  const view = drawing.createViewer(box, { backgroundColor: "white" });
  const model = view.addModel(pdb(scene, positions), "pdb", { keepH: true });
  const atoms = model.selectedAtoms({});
  atoms.forEach((atom) => Object.assign(atom, { bonds: [], bondOrder: [] }));
  for (const [first, last] of scene.bonds) {
    for (const [atom, other] of [[first, last], [last, first]]) {
      atoms[atom].bonds.push(other);
      atoms[atom].bondOrder.push(1);
    }
  }
  const sticks = { radius: scene.is_protein ? 0.08 : 0.16 };
  const style = scene.is_protein
    ? { cartoon: { color: "spectrum", thickness: 0.3 }, stick: sticks }
    : { stick: sticks, sphere: { scale: 0.22 } };
  const residues = scene.atoms.map(([, , index, chain]) => `${chain} ${index}`);
  const order = [...new Set(residues)];
  const place = residues.map((residue) => order.indexOf(residue));
  view.setStyle({}, style);
  view.zoomTo();
  view.zoom(0.85);
  return (frame) => {
    const from = 3 * frame * atoms.length;
    atoms.forEach((atom, k) => {
      [atom.x, atom.y, atom.z] = positions.subarray(from + 3 * k, from + 3 * k + 3);
      atom.ss = KINDS[scene.secondary[frame][place[k]]] || "c";
    });
    view.setStyle({}, style);
    view.render();
  };
}

// Returns a function that draws a frame on a canvas, without the library.
function plain(figure, scene, positions) {
  const size = scene.elements.length;
  const canvas = add(figure, "canvas", { width: 420, height: 340 });
  const context = canvas.getContext("2d");
  const reach = Math.sqrt(positions.subarray(0, 3 * size).reduce(
    (most, _, i, all) => i % 3 ? most
      : Math.max(most, all[i] ** 2 + all[i + 1] ** 2 + all[i + 2] ** 2), 1));
  let zoom = 0.38 * Math.min(canvas.width, canvas.height) / reach;
  let rotation = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
  let shown = 0;

  function project() {
    const points = [];
    for (let atom = 0; atom < size; atom++) {
      const at = 3 * (shown * size + atom);
      points.push(rotation.map((row) => row[0] * positions[at]
        + row[1] * positions[at + 1] + row[2] * positions[at + 2]));
    }
    return points;
  }

  function stick(points, first, last) {
    const middle = points[first].map((x, k) => (x + points[last][k]) / 2);
    for (const atom of [first, last]) {
      context.strokeStyle = COLOURS[scene.elements[atom]];
      context.lineWidth = 0.22 * zoom;
      context.lineCap = "round";
      context.beginPath();
      context.moveTo(zoom * points[atom][0], -zoom * points[atom][1]);
      context.lineTo(zoom * middle[0], -zoom * middle[1]);
      context.stroke();
    }
  }

  function ball(point, element) {
    context.fillStyle = COLOURS[element];
    context.strokeStyle = "#fff";
    context.lineWidth = 0.04 * zoom;
    context.beginPath();
    context.arc(zoom * point[0], -zoom * point[1], RADII[element] * zoom, 0, 7);
    context.fill();
    context.stroke();
  }

  function draw(frame) {
    shown = frame;
    const points = project();
    const parts = scene.elements.map((element, atom) =>
      [points[atom][2], () => ball(points[atom], element)]);
    for (const [first, last] of scene.bonds) {
      const depth = (points[first][2] + points[last][2]) / 2;
      parts.push([depth, () => stick(points, first, last)]);
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.setTransform(1, 0, 0, 1, canvas.width / 2, canvas.height / 2);
    parts.sort((a, b) => a[0] - b[0]).forEach(([, paint]) => paint());
  }

  function turn(across, down) {
    const [c, s, e, f] = [Math.cos(across), Math.sin(across),
      Math.cos(down), Math.sin(down)];
    const [x, y, z] = rotation;
    const aside = x.map((_, k) => c * x[k] + s * z[k]);
    const deep = x.map((_, k) => c * z[k] - s * x[k]);
    rotation = [aside, y.map((_, k) => e * y[k] - f * deep[k]),
      y.map((_, k) => f * y[k] + e * deep[k])];
    draw(shown);
  }

  canvas.onpointerdown = (event) => canvas.setPointerCapture(event.pointerId);
  canvas.onpointermove = (event) => {
    if (event.buttons) turn(0.01 * event.movementX, 0.01 * event.movementY);
  };
  canvas.onwheel = (event) => {
    event.preventDefault();
    zoom *= Math.exp(-0.001 * event.deltaY);
    draw(shown);
  };
  return draw;
}

function start(figure, drawing) {
  const scene = JSON.parse(figure.dataset.scene);
  const positions = decode(scene.positions);
  const draw = drawing ? molecular(figure, scene, positions, drawing)
    : plain(figure, scene, positions);
  const button = add(figure, "button", { type: "button", textContent: "play" });
  const slider = add(figure, "input", { type: "range", min: 0, value: 0,
    max: scene.num_frames - 1 });
  const clock = add(figure, "span", {});
  let timer = null;

  function show(frame) {
    slider.value = frame;
    clock.textContent = ` ${+(frame * scene.spacing).toFixed(3)} ps`;
    draw(frame);
  }

  button.onclick = () => {
    if (timer) { clearInterval(timer); timer = null; }
    else timer = setInterval(() => show((+slider.value + 1) % scene.num_frames), 60);
    button.textContent = timer ? "pause" : "play";
  };
  slider.oninput = () => show(+slider.value);
  show(0);
}

library().catch(() => null).then((drawing) =>
  document.querySelectorAll("figure.viewer").forEach((x) => start(x, drawing)));
