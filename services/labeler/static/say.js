// A word to the labeler: seen for a moment, and read out by a screen reader. What matters stays longer: a loud
// word gives way to none but a newer one of its own kind, and two of different kinds stand together.

const $ = (id) => document.getElementById(id);
const QUIET_MS = 900;
const LOUD_MS = 8000;

const standing = new Map(); // kind: its loud word
let timer = null;

export function say(text) {
  tell(text);
  if (!standing.size) show(text, QUIET_MS);
}

export function shout(kind, text) {
  standing.set(kind, text);
  $("alarm").textContent = text; // read out at once, apart from what else is told
  show([...standing.values()].join(" "), LOUD_MS);
}

// Whether a loud word of this kind is still on show.
export const stands = (kind) => standing.has(kind);

function show(text, ms) {
  $("toast").textContent = text;
  $("toast").classList.toggle("loud", standing.size > 0);
  $("toast").classList.add("shown");
  clearTimeout(timer);
  timer = setTimeout(() => {
    $("toast").classList.remove("shown");
    standing.clear();
  }, ms);
}

// Read out only. The same words again are read out again: a space that nobody sees makes them another text.
export function tell(text) {
  $("live").textContent = $("live").textContent === text ? `${text}\u00a0` : text;
}
