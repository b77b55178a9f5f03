// Every round's agent, in step; new rounds join as they are done.

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
listen(
  document.body.dataset.experiment,
  (status) => {
    films.update(status.rounds);
    document.getElementById("round").textContent = `Round ${status.round} of ${status.of}`;
    draw();
  },
  () => {},
);
