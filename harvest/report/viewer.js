// The 3D view: an orbiting camera, drawn on a 2D canvas from the JSON in the page. Lengths in metres, world frame.
(() => {
"use strict";

const root = document.getElementById("viewer");
window.addEventListener("error", (event) => { root.dataset.viewer = "error: " + event.message; });

const data = JSON.parse(document.getElementById("viewer-data").textContent);
const canvas = root.querySelector("canvas");
const pen = canvas.getContext("2d");
const byId = (id) => document.getElementById(id);
const slider = byId("frame"), told = byId("told"), play = byId("play"), names = byId("names");

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const plus = (a, b, scale = 1) => [a[0] + scale * b[0], a[1] + scale * b[1], a[2] + scale * b[2]];
const unit = (a) => a.map((x) => x / Math.hypot(...a));

// Two axes that span the floor, so that worlds with another "up" than z stand upright.
const up = data.up;
const east = unit(cross(Math.abs(up[1]) < 0.9 ? [0, 1, 0] : [0, 0, 1], up));
const north = cross(up, east);

const FIELD = 1.1;  // focal length over the smaller side of the canvas
const NEAREST = 0.05;
const eye = { turn: -0.9, tilt: 0.3, far: 5, target: data.focus_m.slice() };
let at = 0, playing = false, since = 0;
let back, right, over;  // the viewing frame: towards the eye, to the right, upwards on the screen

function look() {
  const flat = plus(east.map((x) => x * Math.cos(eye.turn)), north, Math.sin(eye.turn));
  back = plus(flat.map((x) => x * Math.cos(eye.tilt)), up, Math.sin(eye.tilt));
  right = unit(cross(up, back));
  over = cross(back, right);
}

function onScreen(point) {
  const away = plus(point, eye.target, -1);
  const depth = eye.far - dot(away, back);
  if (depth < NEAREST) return null;
  const scale = FIELD * Math.min(canvas.clientWidth, canvas.clientHeight) / depth;
  return [canvas.clientWidth / 2 + scale * dot(away, right), canvas.clientHeight / 2 - scale * dot(away, over)];
}

function line(a, b) {
  const p = onScreen(a), q = onScreen(b);
  if (!p || !q) return;
  pen.beginPath();
  pen.moveTo(p[0], p[1]);
  pen.lineTo(q[0], q[1]);
  pen.stroke();
}

const colour = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim();

function floor() {
  const east0 = Math.round(dot(data.focus_m, east)), north0 = Math.round(dot(data.focus_m, north));
  const reach = Math.min(10, Math.max(2, Math.ceil(data.reach_m) + 1));
  const corner = (i, j) => plus(plus(up.map((x) => x * data.floor_m), east, east0 + i), north, north0 + j);
  pen.strokeStyle = colour("line");
  pen.lineWidth = 1;
  for (let i = -reach; i <= reach; i++) {
    for (let j = -reach; j < reach; j++) {
      line(corner(i, j), corner(i, j + 1));
      line(corner(j, i), corner(j + 1, i));
    }
  }
}

function cameras() {
  pen.font = "12px system-ui, sans-serif";
  pen.textAlign = "center";
  for (const camera of data.cameras) {
    pen.strokeStyle = colour("soft");
    pen.lineWidth = 1.2;
    camera.corners_m.forEach((corner, k) => {
      line(camera.centre_m, corner);
      line(corner, camera.corners_m[(k + 1) % 4]);
    });
    // The picture's upper edge, thicker: the first two corners.
    pen.lineWidth = 3;
    line(camera.corners_m[0], camera.corners_m[1]);
    const p = onScreen(camera.centre_m);
    if (p) label(camera.name, p[0], p[1] + 16);
  }
}

function label(text, x, y) {
  pen.lineWidth = 3;
  pen.strokeStyle = colour("card");
  pen.strokeText(text, x, y);
  pen.fillStyle = colour("ink");
  pen.fillText(text, x, y);
}

function joint(index) {
  const xyz = data.xyz_mm[at], k = 3 * index;
  return xyz[k] === null ? null : [xyz[k] / 1000, xyz[k + 1] / 1000, xyz[k + 2] / 1000];
}

function skeleton() {
  if (!data.frames.length) return;
  const state = data.state[at], points = data.joints.map((_, index) => joint(index));
  const thick = canvas.clientWidth < 600 ? 3 : 4.5;
  pen.lineCap = "round";
  data.parents.forEach((parent, child) => {
    if (parent < 0 || !points[child] || !points[parent]) return;
    const kept = state[child] === "k" && state[parent] === "k";
    pen.strokeStyle = colour(data.sides[child]);
    pen.lineWidth = kept ? 0.8 * thick : 1.5;
    pen.setLineDash(kept ? [] : [4, 5]);
    line(points[child], points[parent]);
  });
  pen.setLineDash([]);
  points.forEach((point, index) => {
    const p = point && onScreen(point);
    if (!p) return;
    pen.beginPath();
    pen.arc(p[0], p[1], thick, 0, 2 * Math.PI);
    pen.lineWidth = 2;
    if (state[index] === "k") {
      pen.fillStyle = colour("kept");
      pen.fill();
    } else {
      pen.strokeStyle = colour("dropped");
      pen.stroke();
    }
  });
  if (names.checked) nameJoints(points);
}

function nameJoints(points) {
  pen.font = "11px system-ui, sans-serif";
  pen.textAlign = "left";
  points.forEach((point, index) => {
    const p = point && onScreen(point);
    if (p) label(data.joints[index], p[0] + 8, p[1] + 4);
  });
}

function axes() {
  const x0 = 46, y0 = canvas.clientHeight - 46;
  pen.font = "bold 12px system-ui, sans-serif";
  pen.textAlign = "center";
  [["x", "right"], ["y", "kept"], ["z", "left"]].forEach(([name, hue], k) => {
    const axis = [0, 0, 0];
    axis[k] = 1;
    const dx = dot(axis, right), dy = -dot(axis, over);
    pen.strokeStyle = colour(hue);
    pen.lineWidth = 2;
    pen.beginPath();
    pen.moveTo(x0, y0);
    pen.lineTo(x0 + 26 * dx, y0 + 26 * dy);
    pen.stroke();
    label(name, x0 + 36 * dx, y0 + 36 * dy + 4);
  });
}

function draw() {
  const sharp = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * sharp), height = Math.round(canvas.clientHeight * sharp);
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  pen.setTransform(sharp, 0, 0, sharp, 0, 0);
  pen.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  look();
  floor();
  cameras();
  skeleton();
  axes();
  tell();
}

function tell() {
  if (!data.frames.length) {
    told.textContent = "no frames";
    return;
  }
  const state = data.state[at], time = data.time_s[at];
  const count = (letter) => state.split(letter).length - 1;
  const when = time === null ? "" : ` (${time.toFixed(2)} s)`;
  told.textContent = `frame ${data.frames[at]}${when}: ${count("k")} kept, ${count("d")} dropped, ${count("-")} not found`;
}

function seePerson() {
  eye.target = data.focus_m.slice();
  eye.far = 2.5 * data.reach_m + 0.5;
  draw();
}

function seeRig() {
  const places = data.cameras.map((camera) => camera.centre_m).concat([data.focus_m]);
  const middle = [0, 1, 2].map((k) => (Math.min(...places.map((p) => p[k])) + Math.max(...places.map((p) => p[k]))) / 2);
  eye.target = middle;
  const reach = Math.max(data.reach_m, ...places.map((p) => Math.hypot(...plus(p, middle, -1))));
  // The rig spreads sideways: a wide canvas may come nearer.
  eye.far = (canvas.clientWidth > 1.3 * canvas.clientHeight ? 1.6 : 2.2) * reach + 0.5;
  draw();
}

function show(index) {
  at = Math.min(Math.max(index, 0), Math.max(data.frames.length - 1, 0));
  slider.value = at;
  draw();
}

function tick(now) {
  if (!playing) return;
  const steps = Math.floor((now - since) / (1000 * data.step_s));
  if (steps > 0) {
    since += steps * 1000 * data.step_s;
    show((at + steps) % data.frames.length);
  }
  requestAnimationFrame(tick);
}

function togglePlay() {
  playing = !playing && data.frames.length > 1;
  play.textContent = playing ? "Pause" : "Play";
  since = performance.now();
  if (playing) requestAnimationFrame(tick);
}

function turn(dx, dy) {
  eye.turn -= dx;
  eye.tilt = Math.min(Math.max(eye.tilt + dy, -1.5), 1.5);
}

function move(dx, dy) {
  const scale = eye.far / (FIELD * Math.min(canvas.clientWidth, canvas.clientHeight));
  eye.target = plus(plus(eye.target, right, -dx * scale), over, dy * scale);
}

function zoom(factor) {
  eye.far = Math.min(Math.max(eye.far * factor, 0.3), 200);
}

const fingers = new Map();
const spread = () => {
  const [a, b] = [...fingers.values()];
  return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, gap: Math.max(Math.hypot(a.x - b.x, a.y - b.y), 1) };
};

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
});
canvas.addEventListener("pointermove", (event) => {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const now = { x: event.clientX, y: event.clientY };
  if (fingers.size === 2) {
    const was = spread();
    fingers.set(event.pointerId, now);
    const is = spread();
    zoom(was.gap / is.gap);
    move(is.x - was.x, is.y - was.y);
  } else if (event.shiftKey) {
    move(now.x - before.x, now.y - before.y);
  } else {
    turn((now.x - before.x) * 0.008, (now.y - before.y) * 0.008);
  }
  fingers.set(event.pointerId, now);
  draw();
});
for (const kind of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(kind, (event) => fingers.delete(event.pointerId));
}
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(event.deltaY * 0.001));
  draw();
}, { passive: false });
canvas.addEventListener("keydown", (event) => {
  const turns = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
  if (event.key in turns) turn(...turns[event.key]);
  else if (event.key === "+") zoom(0.9);
  else if (event.key === "-") zoom(1.1);
  else if (event.key === " ") togglePlay();
  else return;
  event.preventDefault();
  draw();
});

slider.max = Math.max(data.frames.length - 1, 0);
slider.addEventListener("input", () => show(Number(slider.value)));
play.addEventListener("click", togglePlay);
names.addEventListener("change", draw);
byId("see-person").addEventListener("click", seePerson);
byId("see-rig").addEventListener("click", seeRig);
window.addEventListener("resize", draw);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

at = Math.floor(data.frames.length / 2);
slider.value = at;
seeRig();
root.dataset.viewer = "ready";
})();
