"use strict";

// The person of the reference faces us: its right side is on our left. Joints in the middle, then those of the right.
const MIDDLE = {
  head_top: [50, 7], nose: [50, 22], upper_neck: [50, 34], neck: [50, 42], thorax: [50, 42], spine: [50, 68],
  pelvis: [50, 96], mid_hip: [50, 96], body_center: [50, 96],
};
const RIGHT = {
  eye: [45, 18], ear: [38, 20], shoulder: [30, 45], elbow: [20, 72], wrist: [14, 98], hip: [40, 97], knee: [38, 138],
  ankle: [37, 178], heel: [38, 183], foot_index: [30, 184], bigtoe: [31, 185], smalltoe: [28, 183],
};
const SIDES = { l: "left ", r: "right " };
const LETTERS = ["A", "B"];
const ASK_AGAIN_MS = 5000; // while others look at the last pictures
const NAME = "harvest.annotator", READY = "harvest.instructed";

const find = (id) => document.getElementById(id);
const answers = [...document.querySelectorAll(".answer")];
const delayMs = 1000 * Number(document.querySelector("main").dataset.delayS);

let state = null; // what the server told last
let shownAt = null; // when the picture was there to be judged, null before
let open = false; // whether an answer is taken
let busy = false; // whether the server is being asked
let failed = null; // what to try again
let timer = 0;

function spoken(joint) {
  if (joint === "head_top") return "top of the head";
  const side = SIDES[joint.split("_")[0]];
  return (side ? side + joint.slice(2) : joint).replaceAll("_", " ");
}

function placeOf(joint) {
  const there = RIGHT[joint.slice(2)];
  if (!there || !SIDES[joint[0]]) return MIDDLE[joint];
  return joint[0] === "r" ? there : [100 - there[0], there[1]];
}

function draw(parent, kind, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  parent.append(element);
}

function show(section) {
  for (const id of ["intro", "task", "end"]) find(id).hidden = id !== section;
  const name = localStorage.getItem(NAME);
  find("who").hidden = section === "intro" || !name;
  find("count").hidden = section === "intro" || !state;
  find("name").textContent = name ?? "";
  document.body.dataset.shows = section;
}

function ready(yes) {
  open = yes;
  for (const button of answers) button.setAttribute("aria-disabled", String(!yes));
}

/* A ring for A and a square for B, so that colour is not all; letters stand aside, away from the other mark. */
function mark(uv) {
  const svg = find("marks");
  svg.replaceChildren();
  const [du, dv] = [uv[1][0] - uv[0][0], uv[1][1] - uv[0][1]];
  const apart = Math.hypot(du, dv);
  const away = apart > 1 ? [du / apart, dv / apart] : [1, 0];
  LETTERS.forEach((letter, index) => {
    const [u, v] = uv[index], way = index ? 1 : -1, of = letter.toLowerCase();
    const outline = index
      ? ["rect", { x: u - 5.5, y: v - 5.5, width: 11, height: 11 }]
      : ["circle", { cx: u, cy: v, r: 7 }];
    for (const kind of ["halo", `shape ${of}`]) draw(svg, outline[0], { ...outline[1], class: kind });
    draw(svg, "circle", { cx: u, cy: v, r: 1.6, class: `dot ${of}` });
    const [x, y] = [u + 20 * way * away[0], v + 20 * way * away[1]].map((at) => Math.min(Math.max(at, 8), 247));
    if (index) draw(svg, "rect", { x: x - 7.5, y: y - 7.5, width: 15, height: 15, rx: 2, class: "badge b" });
    else draw(svg, "circle", { cx: x, cy: y, r: 8.5, class: "badge a" });
    draw(svg, "text", { x, y }, letter);
  });
}

function refer(joints) {
  const places = joints.map(placeOf);
  find("reference").hidden = places.includes(undefined);
  if (find("reference").hidden) return;
  const svg = find("places");
  svg.replaceChildren();
  places.forEach(([x, y], index) => {
    const of = LETTERS[index].toLowerCase();
    if (index) draw(svg, "rect", { x: x - 4.5, y: y - 4.5, width: 9, height: 9, class: "ring b" });
    else draw(svg, "circle", { cx: x, cy: y, r: 5.5, class: "ring a" });
    const aside = x === 50 ? (index ? 14 : -14) : x < 50 ? -13 : 13;
    draw(svg, "text", { x: Math.min(Math.max(x + aside, 6), 94), y: y - (x === 50 ? 0 : 8), class: of }, LETTERS[index]);
  });
}

function ask(question) {
  show("task");
  hide(false);
  find("one").textContent = spoken(question.one);
  find("other").textContent = spoken(question.other);
  refer([question.one, question.other]);
  find("marks").replaceChildren();
  const picture = find("picture");
  picture.onload = () => begin(question);
  picture.onerror = () => complain("The picture cannot be shown.", () => ask(question));
  picture.src = `/picture?sample=${encodeURIComponent(question.sample)}&one=${encodeURIComponent(question.one)}`
    + `&other=${encodeURIComponent(question.other)}`;
}

function begin(question) {
  mark(question.uv_px);
  shownAt = performance.now();
  const wait = find("wait");
  wait.classList.remove("runs");
  void wait.offsetWidth; // so that the bar starts anew
  wait.style.animationDuration = `${delayMs}ms`;
  wait.classList.add("runs");
  timer = setTimeout(() => ready(true), delayMs);
}

function thank() {
  show("end");
  const name = localStorage.getItem(NAME);
  find("thanks").textContent = state.waiting ? "One moment" : `Thank you, ${name}!`;
  find("result").textContent = state.waiting
    ? "The last pictures are with others. This page looks again by itself."
    : `You compared ${state.done} ${state.done === 1 ? "pair" : "pairs"} of joints; nothing is left for you.`;
  find("total").textContent = `All together gave ${state.votes} of ${state.wanted} votes.`;
  if (state.waiting) timer = setTimeout(() => send("/next"), ASK_AGAIN_MS);
}

function update(told) {
  state = told;
  localStorage.setItem(READY, "yes");
  find("progress").max = Math.max(told.done + told.left, 1);
  find("progress").value = told.done;
  find("done").textContent = `${told.done} of ${told.done + told.left} done · ${told.votes} of ${told.wanted} votes by all`;
  for (const button of document.querySelectorAll(".undo")) button.disabled = !told.last;
  if (told.question) ask(told.question);
  else thank();
}

function complain(why, again) {
  failed = again;
  find("why").textContent = why;
  find("problem").hidden = false;
}

async function send(path, fields = {}) {
  if (busy) return;
  busy = true;
  clearTimeout(timer);
  ready(false);
  shownAt = null;
  find("problem").hidden = true;
  try {
    const body = JSON.stringify({ annotator: localStorage.getItem(NAME), ...fields });
    const response = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body });
    const told = await response.json();
    if (response.ok) update(told);
    else if (response.status === 404) complain(`Not asked any more: ${told.error}.`, () => send("/next"));
    else complain(`Not stored: ${told.error}.`, () => send(path, fields));
  } catch {
    complain("The server does not answer; is it still running?", () => send(path, fields));
  } finally {
    busy = false;
  }
}

function answer(nearer) {
  if (!open || busy || shownAt === null) return;
  const { sample, one, other } = state.question;
  send("/vote", { sample, one, other, nearer, seconds: Math.round(performance.now() - shownAt) / 1000 });
}

function undo() {
  if (state?.last) send("/undo", state.last);
}

function hide(yes) {
  find("hide").setAttribute("aria-pressed", String(yes));
  document.querySelector(".picture").classList.toggle("unmarked", yes);
}

function toggle() {
  hide(find("hide").getAttribute("aria-pressed") === "false");
}

function instruct() {
  if (busy) return;
  clearTimeout(timer);
  ready(false);
  find("problem").hidden = true;
  find("annotator").value = localStorage.getItem(NAME) ?? "";
  show("intro");
}

const KEYS = {
  task: { a: () => answer(-1), b: () => answer(1), s: () => answer(0), h: toggle, u: undo, "?": instruct },
  end: { u: undo },
};

document.addEventListener("keydown", (event) => {
  if (event.repeat && event.key === "Enter") event.preventDefault(); // a key held down on a button clicks again and again
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  KEYS[document.body.dataset.shows]?.[event.key.toLowerCase()]?.();
});
for (const button of answers) button.addEventListener("click", () => answer(Number(button.dataset.nearer)));
for (const button of document.querySelectorAll(".undo")) button.addEventListener("click", undo);
find("hide").addEventListener("click", toggle);
find("help").addEventListener("click", instruct);
find("again").addEventListener("click", () => failed?.());
find("leave").addEventListener("click", () => {
  if (busy) return;
  for (const key of [NAME, READY]) localStorage.removeItem(key);
  instruct();
});
find("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  localStorage.setItem(NAME, find("annotator").value.trim());
  send("/next");
});

ready(false);
if (localStorage.getItem(NAME) && localStorage.getItem(READY)) send("/next");
else instruct();
