// Draws the frames of each `figure.viewer`: drag turns, the wheel zooms.
// 3Dmol.js draws them where the browser has WebGL, else sticks on a canvas.
"use strict";

const KINDS = { H: "h", E: "s" };

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

// Returns a function that draws a frame with the library; of another trajectory of the
// same system too.
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
  return (frame, now = positions, secondary = scene.secondary) => {
    const from = 3 * frame * atoms.length;
    atoms.forEach((atom, k) => {
      [atom.x, atom.y, atom.z] = now.subarray(from + 3 * k, from + 3 * k + 3);
      atom.ss = KINDS[secondary[frame][place[k]]] || "c";
    });
    view.setStyle({}, style);
    view.render();
  };
}

// Returns a function that draws a frame on a canvas, without the library.
function plain(figure, scene, positions) {
  const size = 3 * scene.elements.length;
  const show = turnable(figure, figure.clientWidth || 420, 340);
  let isNew = true;
  return (frame, now = positions) => {
    const shown = now.subarray(size * frame, size * (frame + 1));
    show({ ...scene, positions: shown }, isNew);
    isNew = false;
  };
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
