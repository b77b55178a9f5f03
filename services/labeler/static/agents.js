// Every round's agent, in step; new rounds join as they are done.

import { call } from "./api.js";
import { listen } from "./events.js";
import { Films } from "./films.js";

const films = new Films(document.getElementById("films"));
const button = document.getElementById("play");
const draw = () => {
  document.getElementById("play-word").textContent = films.playing ? "Pause" : "Play";
  document.getElementById("empty").hidden = films.count > 0;
  button.hidden = films.count === 0;
};

function toggle() {
  films.toggle();
  draw();
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
listen(experiment, (status) => {
  const moved = status.batch !== before?.batch || status.round_state !== before?.round_state;
  if (before && moved && status.state === "running") {
    document.getElementById("ready").hidden = status.round_state !== "labeling";
  }
  before = status;
  if (moved) read();
}, () => {});

async function read() {
  try {
    const agents = await call("GET", `/api/experiments/${experiment}/rounds`);
    films.update(agents.rounds);
    document.getElementById("round").textContent = `Round ${agents.round} of ${agents.of}`;
    draw();
  } catch {
    before = null; // the next news tries again
  }
}
