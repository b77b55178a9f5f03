// The label page: hands out prepared pairs, takes answers by key or button, shows training in between.

import { call, sleep, uuid, whoAmI } from "./api.js";
import { listen } from "./events.js";
import { Films } from "./films.js";
import { DIALOGS, onActions } from "./keys.js";
import { Outbox } from "./outbox.js";
import { Pair } from "./pair.js";
import { inWords, Recent } from "./recent.js";
import { offerRename } from "./rename.js";
import { say } from "./say.js";
import { Speed } from "./speed.js";
import { drawTraining } from "./training.js";
import { drawHead, drawTitle, drawView, flash } from "./views.js";

const AHEAD = 4; // the pair on show and the next three, decoded
const AWAY_MS = 5 * 60 * 1000; // without a sign of life for so long, pairs are left to others
const RANKS = { left: [0, 1], right: [1, 0], tie: [0, 0], incomparable: null };

const $ = (id) => document.getElementById(id);
const { experiment, lease, clips } = document.body.dataset;
const LOCKED = `First watch ${clips > 2 ? "all" : "both"} clips once.`;
const stage = $("stage");
const films = new Films($("films"));
const speed = new Speed();

let me = null;
let status = null;
let outbox = null;
let queue = []; // pairs; the first is the one on show
let history = []; // answers that can be undone: {id, action, comparison, pair?}
let view = "loading";
let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
let shownAt = 0;
let claiming = false;
let activeAt = performance.now();
let waited = false; // for a batch, while the agent trained
let fresh = false; // a batch has come that nobody has looked at yet
const settledAt = new Map(); // comparison: when the server took its answer

// ------------------------------------------------------------------ what people do

function act(action) {
  activeAt = performance.now();
  fresh = false;
  if (action === "recent" && !$("recent").open) recent.draw();
  if (DIALOGS.includes(action)) return $(action).open ? $(action).close() : $(action).showModal();
  if (action === "undo") return undo();
  if (view !== "labeling") return undefined;
  if (action === "pause") return pause();
  if (action === "back" || action === "forward") return step(action === "back" ? -1 : 1);
  if (["slower", "faster", "speed"].includes(action)) return changeSpeed(action);
  return settle(action);
}

function settle(action) {
  const pair = queue[0];
  if (action !== "skip" && tooEarly(pair)) return undefined;
  if (pair.failure && !["skip", "incomparable"].includes(action)) return undefined;
  const ranks = ranker && !["skip", "incomparable"].includes(action) ? ranker.take(action) : RANKS[action];
  if (ranks === undefined && action !== "skip") return render(); // the ranking is not whole yet
  const seconds = Math.round(performance.now() - shownAt) / 1000;
  const focused = pair.element.contains(document.activeElement);
  queue.shift();
  pair.hide();
  show(); // first of all the next pair
  if (focused) queue[0]?.element.querySelector(".rank")?.focus();
  flash(action);
  const comparison = pair.comparison;
  if (action === "skip") {
    outbox.add({ kind: "skip", comparison: pair.id });
    pair.destroy();
    say("Skipped");
  } else {
    const id = uuid();
    outbox.add({ kind: "answer", id, comparison: pair.id, ranks, seconds });
    history.at(-1)?.pair?.destroy();
    if (history.length) delete history.at(-1).pair;
    history.push({ id, action, comparison, pair });
    me.labels += 1;
    say(inWords(ranks));
  }
  render();
  return refill();
}

// Says so if the clips on show cannot be judged yet.
function tooEarly(pair) {
  if (pair.locked && pair.isReady) say(playing ? LOCKED : `${LOCKED} Space plays them.`);
  return pair.locked;
}

function undo() {
  if (view === "labeling" && queue[0].ranking?.back()) {
    say("Taken back");
    return render();
  }
  const last = history.at(-1);
  if (!last) return say(view === "training" ? "This batch is in training: its answers are final" : "Nothing to undo");
  return takeBack(last);
}

// Withdraws one of the labeler's standing answers; its pair is on show again.
function takeBack({ id, comparison, pair }) {
  history = history.filter((one) => one.id !== id);
  if (!outbox.recall(id)) outbox.add({ kind: "undo", id, comparison: comparison.id });
  me.labels -= 1;
  queue[0]?.hide();
  if (pair) pair.ranking = null;
  queue.unshift(pair ?? new Pair(comparison, stage, render));
  show();
  say("Undone: answer this one again");
  return render();
}

function pause() {
  playing = !playing;
  if (playing) queue[0]?.reel.play();
  else queue[0]?.reel.pause();
  say(playing ? "Playing" : "Paused");
  render();
}

function step(frames) {
  if (playing) return say("Pause first: then , and . step a frame");
  const { clips } = queue[0].comparison;
  return queue[0].reel.step(frames, clips[0].fps, Math.max(...clips.map((clip) => clip.steps)));
}

function changeSpeed(action) {
  speed.change(action);
  queue[0]?.reel.setRate(speed.value);
  say(`Speed ${speed.value}`);
  render();
}

function show() {
  const pair = queue[0];
  if (!pair) return;
  pair.show(playing, speed.value);
  shownAt = performance.now();
  if (!pair.isReady) {
    pair.ready.then(() => {
      if (pair !== queue[0]) return;
      shownAt = performance.now();
      pair.show(playing && view === "labeling", speed.value);
      render();
    });
  }
}

// ------------------------------------------------------------- what the server says

async function refill() {
  const missing = AHEAD - queue.length;
  if (claiming || missing <= 0 || status?.state !== "running" || status.round_state !== "labeling") return;
  claiming = true;
  const sentAt = performance.now();
  const count = Math.min(10, AHEAD + outbox.pending.size);
  let claims;
  try {
    claims = await call("POST", `/api/experiments/${experiment}/claims`, { count });
  } catch (problem) {
    if (!problem.passing) say(problem.message);
    await sleep(1000);
    claims = null;
  }
  claiming = false;
  if (claims === null) return refill();
  const pending = outbox.pending;
  const known = new Set(queue.map((pair) => pair.id));
  const came = claims.comparisons.filter(
    ({ id }) => !known.has(id) && !pending.has(id) && !(settledAt.get(id) > sentAt),
  );
  const wasEmpty = queue.length === 0;
  for (const comparison of came) queue.push(new Pair(comparison, stage, render));
  if (wasEmpty && queue.length) {
    show();
    if (waited) announceBatch();
  }
  return render();
}

function onStatus(news) {
  const moved = status && (news.round !== status.round || news.round_state !== status.round_state);
  status = news;
  if (moved || status.round_state !== "labeling") {
    if (queue.length && status.round_state !== "labeling") say("This batch is complete.");
    const stale = status.round_state === "labeling" ? queue.filter((pair) => pair.comparison.round !== status.round) : queue;
    for (const pair of stale) drop(pair);
    for (const one of history.splice(0)) one.pair?.destroy();
  }
  refill();
  render();
}

function onDone(item, answer) {
  settledAt.set(item.comparison, performance.now());
  if (item.kind === "answer") Object.assign(status, { given: answer.given, wanted: answer.wanted });
  // An answer undone at once may never have been news: ask.
  if (item.kind === "undo") call("GET", `/api/experiments/${experiment}`).then(onStatus, () => {});
  render();
  refill();
}

function onRefused(item, problem) {
  if (item.kind === "answer") {
    const index = history.findIndex((one) => one.id === item.id);
    if (index >= 0) history.splice(index, 1)[0].pair?.destroy();
    me.labels -= 1;
    say(`One answer was not taken: ${problem.message}.`, true);
  } else if (item.kind === "undo") {
    const pair = queue.find((one) => one.id === item.comparison);
    if (pair) drop(pair);
    me.labels += 1;
    say(`Too late to undo: ${problem.message}.`, true);
  }
  render();
  refill();
}

function onTrouble(problem) {
  const size = outbox?.size ?? 0;
  $("offline").hidden = problem === null;
  if (problem) {
    const trouble = problem.status === 0 ? "No connection." : `The server is in trouble: ${problem.message}.`;
    $("offline").textContent =
      problem.status === 401
        ? "This browser is no longer known here. Reload the page."
        : `${trouble} ${size === 1 ? "One answer is" : `${size} answers are`} kept here and sent when it is back.`;
  }
}

function drop(pair) {
  const first = pair === queue[0];
  queue = queue.filter((one) => one !== pair);
  pair.destroy();
  if (first) show();
}

async function renewForEver() {
  for (;;) {
    await sleep((1000 * lease) / 3);
    if (document.hidden || performance.now() - activeAt > AWAY_MS) continue;
    for (const pair of [...queue]) {
      if (outbox.pending.has(pair.id)) continue;
      try {
        await call("POST", `/api/comparisons/${pair.id}/renew`);
      } catch (problem) {
        if (problem.passing || !queue.includes(pair)) continue;
        if (pair === queue[0]) say(`Here are other clips: ${problem.message}.`, true);
        drop(pair);
        render();
      }
    }
    refill();
  }
}

// ------------------------------------------------------------------------ what is shown

function currentView() {
  if (!status) return "loading";
  if (status.state === "paused") return "paused";
  if (status.state !== "running") return "ended";
  if (queue.length) return "labeling";
  if (status.round_state === "failed") return "failed";
  if (status.round_state !== "labeling") return "training";
  if (outbox.size) return "sending";
  if (status.given < status.wanted) return claiming ? view : "waiting";
  return "grace";
}

function render() {
  if (!status) return;
  const before = view;
  view = currentView();
  const labeling = view === "labeling";
  const undoable = history.length > 0 || Boolean(queue[0]?.ranking?.earlier.length);
  drawView(view, status, undoable);
  films.setVisible(!$("films-area").hidden);
  if (!$("films-area").hidden) films.update(status.rounds);
  if (view === "training") {
    waited = true;
    drawTraining($("view-training"), status);
  }
  if (labeling !== (before === "labeling") && queue[0]) labeling ? queue[0].show(playing, speed.value) : queue[0].reel.pause();
  drawHead(status, {
    given: status.given + outbox.count("answer") - outbox.count("undo"),
    mine: me.labels,
    undoable,
    playing,
    speed: speed.value,
    locked: Boolean(queue[0]?.locked),
  });
  ranker?.draw(queue[0]?.locked);
  drawTitle(view, status, fresh);
}

function announceBatch() {
  waited = false;
  fresh = true;
  say("New clips are here");
}

// ------------------------------------------------------------------------------ begin

const ranker = clips > 2 ? new (await import("./ranker.js")).Ranker(Number(clips), { // two clips need none
  current: () => queue[0],
  mayRank: () => view === "labeling" && !queue[0].failure && !tooEarly(queue[0]),
  changed: render,
}) : null;
onActions(act);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  activeAt = performance.now();
  fresh = false;
  render();
});
addEventListener("pointermove", () => (activeAt = performance.now()), { passive: true });
addEventListener("pageshow", (event) => event.persisted && location.reload());

offerRename(() => me, (renamed) => (me = renamed));
const recent = new Recent(experiment, () => ({ history, outbox }), (one) => {
  $("recent").close();
  takeBack(one);
});

async function begin() {
  for (let wait = 500; !me; wait = Math.min(wait * 2, 8000)) {
    try {
      me = await whoAmI();
      status = await call("GET", `/api/experiments/${experiment}`);
    } catch (problem) {
      me = null;
      $("note-text").textContent = problem.message;
      await sleep(wait);
    }
  }
  $("who").textContent = me.name;
  outbox = new Outbox(me.id, { onDone, onRefused, onTrouble });
  render();
  refill();
  listen(experiment, onStatus, (down) => (document.body.dataset.connection = down ? "down" : "up"));
  renewForEver();
  setInterval(() => view === "waiting" && refill(), 3000);
}

begin();
