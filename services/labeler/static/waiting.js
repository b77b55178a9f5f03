// While trainers work: what happens and how long, the newest agent beside an earlier one, the call when
// clips are here again.

import { Duo } from "./duo.js";
import { Bell } from "./notify.js";
import { say, tell } from "./say.js";
import { drawTraining, happening } from "./training.js";

const TICK_MS = 1000;
const WITH_FILMS = ["training", "ended", "failed"];
const SHORT_MS = 5000; // without a pair, while others may give one back: no wait yet

const $ = (id) => document.getElementById(id);

export class Waiting {
  #duo = new Duo($("duo"), $("against"), $("films-word"));
  #status = null;
  #at = 0; // when the status came
  #view = "";
  #since = 0; // when the view came
  #stage = "";
  #waited = false; // for clips
  called = false; // clips came, and the labeler has not looked yet

  constructor(experiment) {
    this.bell = new Bell(experiment, $("notify"), $("notify-note"));
    setInterval(() => this.#view === "training" && this.#drawTraining(), TICK_MS);
  }

  draw(view, status) {
    if (status !== this.#status) [this.#status, this.#at] = [status, performance.now()];
    if (view !== this.#view) this.#since = performance.now();
    this.#view = view;
    const long = performance.now() - this.#since > SHORT_MS;
    if (!this.called && (view === "training" || (view === "waiting" && long))) this.#waited = true;
    const films = WITH_FILMS.includes(view) && status.rounds.some((one) => one.video);
    $("films-area").hidden = !films;
    if (films) this.#duo.update(status.rounds);
    this.#duo.setVisible(films);
    if (view === "training") {
      this.#drawTraining();
      this.#tellStage();
    } else {
      this.#stage = "";
    }
  }

  // Clips are here: calls a labeler who waited for them.
  callBack() {
    if (!this.#waited) return;
    this.#waited = false;
    this.called = true;
    say("New clips are here");
    if (document.hidden) this.bell.ring("New clips are here", "Come and say which are better.");
  }

  looked() {
    this.called = false;
    this.bell.still();
  }

  get hasFilms() {
    return !$("films-area").hidden;
  }

  toggle() {
    say(this.#duo.toggle() ? "Playing" : "Paused");
  }

  #drawTraining() {
    drawTraining($("view-training"), this.#status, (performance.now() - this.#at) / 1000);
  }

  // Read out when a stage begins; the ticking figures are not.
  #tellStage() {
    const { round_state: stage } = this.#status;
    if (stage === this.#stage) return;
    this.#stage = stage;
    tell(`${happening(this.#status)} ${document.querySelector(".training-wait").textContent}`);
  }
}
