// The filmstrip of an experiment: the agent's video of each round, a dozen rounds at a time.

import { Films } from "./films.js";

const AT_ONCE = 12;
const $ = (id) => document.getElementById(id);
const films = new Films($("films"));
let all = []; // the rounds that have a video
let end = null; // how many of them come before the end of what is shown; null: the newest are, as they come

export function update(rounds) {
  all = rounds.filter((one) => one.video);
  $("films-part").hidden = all.length === 0; // before they are put in, or nothing could be scrolled
  draw();
}

function draw() {
  const last = end ?? all.length;
  const first = Math.max(last - AT_ONCE, 0);
  films.update(all.slice(first, last), last === all.length);
  $("films-earlier").disabled = first === 0;
  $("films-later").disabled = last === all.length;
  $("films-turn").hidden = all.length <= AT_ONCE;
  $("films-word").textContent = films.playing ? "Pause films" : "Play films";
}

function turn(by) {
  end = Math.max((end ?? all.length) + by, Math.min(AT_ONCE, all.length));
  if (end >= all.length) end = null;
  draw();
}

$("films-earlier").addEventListener("click", () => turn(-AT_ONCE));
$("films-later").addEventListener("click", () => turn(AT_ONCE));
$("play").addEventListener("click", () => {
  films.toggle();
  draw();
});
