// The label page: hands out prepared pairs, takes answers by key or button, shows training in between.

import { call, sleep, uuid, whoAmI } from "./api.js";
import { listen } from "./events.js";
import { DIALOGS, onActions } from "./keys.js";
import { Leases } from "./leases.js";
import { Outbox } from "./outbox.js";
import { Pace } from "./pace.js";
import { Pair } from "./pair.js";
import { inWords, Recent } from "./recent.js";
import { offerRename } from "./rename.js";
import { say, shout, stands } from "./say.js";
import { Speed } from "./speed.js";
import { drawHead, drawTitle, drawTrouble, drawView, flash } from "./views.js";
import { Waiting } from "./waiting.js";

const AHEAD = 4; // the pair on show and the next three, decoded
const DOWN_MS = 3000; // without news of the server before the page says so
const RANKS = { left: [0, 1], right: [1, 0], tie: [0, 0], incomparable: null };

const $ = (id) => document.getElementById(id);
const { experiment, lease, clips, practice: offered } = document.body.dataset;
const LOCKED = `First watch ${clips > 2 ? "all" : "both"} clips once.`;
const stage = $("stage");
const waiting = new Waiting(experiment);
const speed = new Speed();
const pace = new Pace();
const leases = new Leases(lease, {
  kept: () => queue.filter((pair) => !pair.comparison.isPractice && !outbox.pending.has(pair.id)),
  onLost,
  onKept: refill,
});
// What only some experiments need is only loaded there.
const practice = Number(offered) > 0 ? new (await import("./practice.js")).Practice(experiment, {
  add: (comparison) => queue.push(new Pair(comparison, stage, render)),
  next: () => (drop(queue[0]), render()),
  end: () => (drop(...queue), refill(), render()),
  render,
}) : null;

let me = null;
let status = null;
let outbox = null;
let queue = []; // pairs; the first is the one on show
let history = []; // answers that can be undone: {id, action, comparison, pair?}
let view = "loading";
let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
let shownAt = 0;
let claiming = false;
let trouble = null; // why answers are not getting through
let refused = 0; // answers that the server never took, as far as the labeler is being told now
const settledAt = new Map(); // comparison: when the server took its answer

// ------------------------------------------------------------------ what people do

function act(action) {
  leases.present();
  waiting.looked();
  if (action === "recent" && !$("recent").open) recent.draw();
  if (DIALOGS.includes(action)) return $(action).open ? $(action).close() : $(action).showModal();
  if (action === "undo") return undo();
  if (action === "pause" && waiting.hasFilms) return waiting.toggle();
  if (view !== "labeling") return undefined;
  if (action === "pause") return pause();
  if (action === "back" || action === "forward") return step(action === "back" ? -1 : 1);
  if (["slower", "faster", "speed"].includes(action)) return changeSpeed(action);
  if (practice?.told) return practice.goOn(action);
  return action === "next" ? undefined : settle(action);
}

function settle(action) {
  const pair = queue[0];
  if (action !== "skip" && tooEarly(pair)) return undefined;
  if (pair.failure && !["skip", "incomparable"].includes(action)) return undefined;
  const ranks = ranker && !["skip", "incomparable"].includes(action) ? ranker.take(action) : RANKS[action];
  if (ranks === undefined && action !== "skip") return render(); // the ranking is not whole yet
  const seconds = Math.round(performance.now() - shownAt) / 1000;
  if (practice?.on) return practice.answer(pair, action, ranks, seconds);
  const focused = pair.element.contains(document.activeElement);
  queue.shift();
  pair.hide();
  show(); // first of all the next pair
  if (focused) queue[0]?.element.querySelector(".rank")?.focus();
  flash(action.startsWith("clip") ? "done" : action); // the last number is as good as Done
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
    pace.answered();
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
  if (view === "training") return say("This batch is in training: its answers are final");
  if (!last) return me.labels ? act("recent") : say("Nothing to undo"); // this page knows none: the server may
  return takeBack(last);
}

// Withdraws one of the labeler's standing answers; its pair is on show again.
function takeBack({ id, comparison, pair }) {
  history = history.filter((one) => one.id !== id);
  if (!outbox.recall(id)) outbox.add({ kind: "undo", id, comparison: comparison.id });
  me.labels -= 1;
  pace.undone();
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
  if (claiming || practice?.on || missing <= 0 || status?.state !== "running" || status.round_state !== "labeling") return;
  if (waiting.called && document.hidden) return; // who was called takes no pairs from others before they are back
  claiming = true;
  if (await practice?.begin()) {
    claiming = false;
    show();
    waiting.callBack();
    return render();
  }
  const sentAt = performance.now();
  const count = Math.min(10, AHEAD + outbox.pending.size);
  let claims;
  try {
    claims = await call("POST", `/api/experiments/${experiment}/claims`, { count });
  } catch (problem) {
    if (problem.status === 401) onTrouble(problem);
    else if (!problem.passing) say(problem.message);
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
  for (const comparison of came) {
    const later = claims.comparisons.slice(claims.comparisons.indexOf(comparison) + 1).map(({ id }) => id);
    const place = queue.findIndex((pair, index) => index > 0 && later.includes(pair.id)); // the server's order
    queue.splice(place < 0 ? queue.length : place, 0, new Pair(comparison, stage, render));
  }
  if (wasEmpty && queue.length) {
    show();
    waiting.callBack();
  }
  return render();
}

function onStatus(news) {
  const moved = status && (news.batch !== status.batch || news.round_state !== status.round_state);
  status = news;
  if (moved || status.round_state !== "labeling") {
    if (queue.length && status.round_state !== "labeling") say("This batch is complete.");
    const stale = status.round_state === "labeling" ? queue.filter((pair) => pair.comparison.batch !== status.batch) : queue;
    practice?.forget();
    drop(...stale);
    for (const one of history.splice(0)) one.pair?.destroy();
  }
  if (moved && document.hidden && status.state === "running" && status.round_state === "labeling") waiting.callBack();
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
    pace.undone();
    refused = stands("refused") ? refused + 1 : 1;
    shout("refused", `${refused === 1 ? "One answer was" : `${refused} answers were`} not taken: ${problem.message}.`);
  } else if (item.kind === "undo") {
    const pair = queue.find((one) => one.id === item.comparison);
    if (pair) drop(pair);
    me.labels += 1;
    shout("late", `Too late to undo: ${problem.message}.`);
  }
  render();
  refill();
}

function onTrouble(problem) {
  trouble = problem;
  drawTrouble(problem, outbox?.size ?? 0);
}

// The news of the server ended, or came back. A server that restarts quickly is no trouble.
let downTimer = null;
function onConnection(isDown) {
  document.body.dataset.connection = isDown ? "down" : "up";
  if (isDown) {
    downTimer ??= setTimeout(() => onTrouble({ status: 0 }), DOWN_MS);
  } else {
    clearTimeout(downTimer);
    downTimer = null;
    if (outbox.size) outbox.wake?.();
    else onTrouble(null);
  }
}

function drop(...pairs) {
  const first = queue[0];
  queue = queue.filter((one) => !pairs.includes(one));
  for (const pair of pairs) pair.destroy();
  if (queue[0] !== first) show();
}

function onLost(pair, problem) {
  if (!queue.includes(pair)) return;
  const wasShown = pair === queue[0];
  drop(pair);
  if (wasShown) shout("lost", `${queue.length ? "Here are other clips" : "Those clips are gone"}: ${problem.message}.`);
  render();
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
  drawView(view, status, undoable, me.labels > 0);
  drawTrouble(trouble, outbox.size);
  waiting.draw(view, status);
  if (labeling !== (before === "labeling") && queue[0]) labeling ? queue[0].show(playing, speed.value) : queue[0].reel.pause();
  drawHead(status, {
    // What is on its way counts when it is stuck: else the server says in a moment how far the batch is.
    given: status.given + ($("offline").hidden ? 0 : outbox.count("answer") - outbox.count("undo")),
    mine: me.labels,
    pace: pace.value,
    undoable: undoable || me.labels > 0,
    playing,
    speed: speed.value,
    locked: Boolean(queue[0]?.locked),
  });
  ranker?.draw(queue[0]?.locked);
  practice?.draw();
  drawTitle(view, status, waiting.called);
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
  leases.present();
  waiting.looked();
  refill();
  render();
});
addEventListener("pointermove", () => leases.present(), { passive: true });
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
  listen(experiment, onStatus, onConnection);
  leases.keepForEver();
  setInterval(() => view === "waiting" && refill(), 3000);
}

begin();
