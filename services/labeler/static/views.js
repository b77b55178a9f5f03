// What the label page shows: one of its views, the head above it, the tab's title.

import { percentOf } from "./training.js";

const NOTES = {
  loading: ["One moment", "Looking for clips."],
  sending: ["One moment", "Your answers are on their way."],
  waiting: ["Nothing for you just now", "The rest of this batch is with other labelers. What they give back comes up here."],
  grace: ["Batch complete", "Thank you! The agent is about to learn from it."],
  paused: ["Paused", "Labeling goes on when the operator resumes this experiment."],
  failed: ["Something went wrong", "Training failed. The operator sees why and can try again; no answer is lost."],
  ended: ["This experiment has ended", "Thank you for every answer."],
};

const $ = (id) => document.getElementById(id);

// `undoable`: an answer of this page can be taken back; `answered`: some may be looked up.
export function drawView(view, status, undoable, answered) {
  document.body.dataset.view = view;
  $("view-labeling").hidden = view !== "labeling";
  $("view-training").hidden = view !== "training";
  $("view-note").hidden = !(view in NOTES);
  if (view in NOTES) [$("note-title").textContent, $("note-text").textContent] = NOTES[view];
  $("note-undo").hidden = !(undoable && (view === "grace" || view === "waiting"));
  $("note-recent").hidden = !(answered && (view === "grace" || view === "waiting"));
  if (view === "grace") countDown(status.final_in_s);
  else counting = null;
}

// `given` counts the labels of the batch as they will be in a moment, `mine` those of this labeler, who gives
// `pace` a minute (null: nobody knows yet).
export function drawHead(status, { given, mine, pace, undoable, playing, speed, locked }) {
  const inBatch = status.round_state === "labeling";
  $("batch").hidden = !inBatch;
  $("batch").max = status.wanted || 1;
  $("batch").value = given;
  $("count").textContent = inBatch ? count(Math.max(0, Math.min(given, status.wanted)), status.wanted) : "";
  $("mine").textContent = `You: ${mine}${pace === null ? "" : ` · ${pace} a minute`}`;
  $("undo").disabled = !undoable;
  $("pause-word").textContent = playing ? "Pause" : "Play";
  $("steps").hidden = playing;
  $("speed").textContent = `${speed}×`;
  for (const button of document.querySelectorAll(".answers button")) button.setAttribute("aria-disabled", locked);
}

// Where some pairs are asked for once more, which counts for nothing, an exact count would tell which they are.
function count(given, wanted) {
  if (!document.body.dataset.repeats) return `${given} of ${wanted}`;
  return `${given === wanted ? 100 : Math.floor((20 * given) / wanted) * 5} %`;
}

// `size` answers wait for the end of the trouble.
export function drawTrouble(problem, size) {
  $("offline").hidden = problem === null;
  if (!problem) return;
  const what = problem.status === 0 ? "No connection." : `The server is in trouble: ${problem.message}.`;
  const kept = size === 1 ? "One answer is kept here and sent" : `${size} answers are kept here and sent`;
  const words = `${what} ${size ? kept : "This page goes on by itself"} when it is back.`;
  const text = problem.status === 401 ? "This browser is no longer known here. Reload the page." : words;
  if ($("offline").textContent !== text) $("offline").textContent = text;
}

export function drawTitle(view, status, fresh) {
  const words = { training: `Training ${percentOf(status)} %`, paused: "Paused", ended: "Ended" };
  document.title = `${fresh ? "● New clips" : words[view] ?? "Label"} · Lockstep`;
}

// A ring too: on white nothing gets brighter.
export function flash(action) {
  document.querySelector(`.answers [data-action="${action}"]`)?.animate(
    [{ filter: "brightness(1.35)", boxShadow: "0 0 0 5px var(--accent)" }, {}], { duration: 250 },
  );
}

// The server says once how long is left; what it says later begins the count anew.
let counting = null;
function countDown(seconds) {
  if (seconds === counting) return;
  counting = seconds;
  const bar = $("note-countdown");
  bar.hidden = seconds === null;
  bar.getAnimations().forEach((one) => one.cancel());
  if (seconds === null) return;
  bar.animate([{ transform: "scaleX(1)" }, { transform: "scaleX(0)" }], { duration: 1000 * seconds, fill: "forwards" });
}
