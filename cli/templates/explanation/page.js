"use strict";
// Weights come from the JSON in the page, other numbers from its HTML; nothing is fetched.
const found = JSON.parse(document.getElementById("explanation").textContent);
const $ = (id) => document.getElementById(id);
// As Python's formatting has it, for which a tie goes to the even digit.
const fixed = (x, digits) => {
  const up = x.toFixed(digits);
  const isTie = (x * 2 ** (digits + 1)) % 2 === 1;
  return isTie && up.at(-1) % 2 ? (x - 1e-6).toFixed(digits) : up;
};
const percent = (x) =>
  x === 0 ? "0%" : x < 0.0005 ? "<0.1%" : fixed(100 * x, x < 0.0995 ? 1 : 0) + "%";
const press = (buttons, chosen) =>
  buttons.forEach((button) => button.setAttribute("aria-pressed", button === chosen));

// ---- the text: what was expected in place of a token ----------------------------------------

const chips = [...document.querySelectorAll("#text .token")];
const expected = [...$("expected").children];

function showPlace(place) {
  press(chips, chips[place]);
  expected.forEach((detail, i) => { detail.hidden = i !== place; });
}
chips.forEach((chip, place) => {
  for (const event of ["mouseenter", "focus", "click"]) chip.addEventListener(event, () => showPlace(place));
});
document.querySelectorAll("input[name=colour]").forEach((input) =>
  input.addEventListener("change", () => { $("text").className = `text by-${input.value}`; }));
showPlace(Math.min(1, chips.length - 1));

// ---- heads ----------------------------------------------------------------------------------

const size = found.tokens.length;
const weights = found.attentions.map((one) => {
  const bytes = Uint8Array.from(atob(one.weights), (letter) => letter.charCodeAt(0));
  return found.weights_dtype === "<f8" ? new Float64Array(bytes.buffer) : new Float32Array(bytes.buffer);
});
const heads = [...document.querySelectorAll(".head")];
const others = [...document.querySelectorAll("#attended .token")];
let shown = 0;
let query = size - 1;

function colours() {
  const style = getComputedStyle(document.documentElement);
  const rgb = (name) => style.getPropertyValue(name).match(/[0-9a-f]{2}/gi).map((x) => parseInt(x, 16));
  return [rgb("--card"), rgb("--glow"), rgb("--line")];
}

function draw(canvas, values, marked = -1) {
  const [low, high, unseen] = colours();
  const context = canvas.getContext("2d");
  const image = context.createImageData(size, size);
  for (let i = 0; i < size * size; i++) {
    const row = Math.floor(i / size);
    const seen = i % size <= row || values[i] > 0;
    const share = Math.sqrt(values[i]); // small weights show, too
    for (let c = 0; c < 3; c++) {
      const blend = low[c] + share * (high[c] - low[c]);
      image.data[4 * i + c] = seen ? blend : low[c] + 0.35 * (unseen[c] - low[c]);
    }
    image.data[4 * i + 3] = marked < 0 || marked === row ? 255 : 170;
  }
  context.putImageData(image, 0, 0);
}

function showHead(column = -1) {
  if (!heads.length) return;
  press(heads, heads[shown]);
  press(others, others[query]);
  draw($("big"), weights[shown], query);
  $("which").textContent = heads[shown].dataset.words;
  const to = column < 0 ? "" :
    ` ${others[column].ariaLabel}, ${percent(weights[shown][query * size + column])}`;
  $("whose").textContent = `${others[query].ariaLabel} attends to:${to}`;
  others.forEach((chip, place) => {
    const weight = weights[shown][query * size + place];
    chip.style.setProperty("--weight", Math.sqrt(weight));
    chip.title = `${place}: ${percent(weight)}`;
  });
}
function drawAll() {
  heads.forEach((head, i) => draw(head.querySelector("canvas"), weights[i]));
  showHead();
}
heads.forEach((head, i) => {
  for (const event of ["mouseenter", "focus", "click"]) head.addEventListener(event, () => { shown = i; showHead(); });
});
others.forEach((chip, place) => {
  for (const event of ["mouseenter", "focus", "click"]) chip.addEventListener(event, () => { query = place; showHead(); });
});
if (heads.length) {
  $("big").addEventListener("mousemove", (event) => {
    const box = event.target.getBoundingClientRect();
    const place = (share) => Math.min(size - 1, Math.max(0, Math.floor(share * size)));
    query = place((event.clientY - box.top) / box.height);
    showHead(place((event.clientX - box.left) / box.width));
  });
  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
}
