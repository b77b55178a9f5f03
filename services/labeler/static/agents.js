// Every round's agent, in step; new rounds join as they are done. While people answer nothing is shown.

import { call } from "./api.js";
import { listen } from "./events.js";
import { Films } from "./films.js";

const films = new Films(document.getElementById("films"));
const button = document.getElementById("play");

// `agents`: null while they are kept from who may be asked to compare clips of them.
function draw(agents) {
  films.update(agents?.rounds ?? []);
  document.getElementById("round").textContent = agents ? `Round ${agents.round} of ${agents.of}` : "";
  document.getElementById("closed").hidden = agents !== null;
  document.getElementById("empty").hidden = agents === null || films.count > 0;
  button.hidden = films.count === 0;
  drawWord();
}

function drawWord() {
  document.getElementById("play-word").textContent = films.playing ? "Pause" : "Play";
}

function toggle() {
  films.toggle();
  drawWord();
}

button.addEventListener("click", (event) => {
  if (event.detail) button.blur();
  toggle();
});
addEventListener("keydown", (event) => {
  if (event.key !== " " || event.target.matches("button, a")) return;
  event.preventDefault();
  toggle();
});
const { experiment } = document.body.dataset;
let before = null; // what was known last
let readings = 0; // an answer that was overtaken by a later one is not shown any more
listen(experiment, (status) => {
  const moved = status.batch !== before?.batch || status.round_state !== before?.round_state;
  if (before && moved && status.state === "running") {
    document.getElementById("ready").hidden = status.round_state !== "labeling";
  }
  const ended = status.state !== before?.state; // what is kept from labelers is shown at the end
  before = status;
  if (moved || ended) read();
}, () => {});

async function read() {
  const reading = ++readings;
  let agents = null;
  try {
    agents = await call("GET", `/api/experiments/${experiment}/rounds`);
  } catch (problem) {
    if (reading !== readings) return;
    if (problem.reason !== "labeling") {
      before = null; // the next news tries again
      return;
    }
  }
  if (reading === readings) draw(agents);
}
