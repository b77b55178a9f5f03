// Answers on their way. Each is kept in localStorage until the server has it, and sent again after a dropped
// connection or a reload; the id it carries makes a second arrival harmless. Sent strictly in order, so that an
// undo never overtakes its answer.

import { call } from "./api.js";

const PREFIX = "lockstep.outbox.";
const FIRST_WAIT_MS = 300;
const LONGEST_WAIT_MS = 10000;

const REQUESTS = {
  answer: (one) => ["PUT", `/api/preferences/${one.id}`, { comparison: one.comparison, ranks: one.ranks, seconds: one.seconds }],
  undo: (one) => ["DELETE", `/api/preferences/${one.id}`],
  skip: (one) => ["POST", `/api/comparisons/${one.comparison}/skip`],
};

export class Outbox {
  // onDone(item, answer): the server took it. onRefused(item, problem): it never will.
  // onTrouble(problem | null): the connection is down, or back.
  constructor(labeler, { onDone, onRefused, onTrouble }) {
    this.labeler = labeler;
    this.handlers = { onDone, onRefused, onTrouble };
    this.items = this.#load();
    this.sending = false;
    this.wake = null;
    addEventListener("online", () => this.wake?.());
    addEventListener("beforeunload", (event) => this.items.some((item) => item.isLoose) && event.preventDefault());
    this.#send();
  }

  get size() {
    return this.items.length;
  }

  count(kind) {
    return this.items.filter((item) => item.kind === kind).length;
  }

  // The comparisons whose answers the server may not have yet.
  get pending() {
    return new Set(this.items.map((item) => item.comparison));
  }

  add(item) {
    const order = Math.max(Date.now(), (this.items.at(-1)?.order ?? 0) + 1);
    const kept = { ...item, order, labeler: this.labeler };
    this.items.push(kept);
    this.#store(kept);
    this.#send();
  }

  // Take an answer back that was never sent at all. False: it may have arrived, so an undo must follow it.
  recall(id) {
    const index = this.items.findIndex((item) => item.kind === "answer" && item.id === id && !item.tried);
    if (index < 0) return false;
    const item = this.items[index];
    const kept = item.isLoose ? item : JSON.parse(localStorage.getItem(this.#key(item)));
    if (!kept || kept.tried) return false; // another window of this browser has sent it
    this.#remove(item);
    return true;
  }

  async #send() {
    if (this.sending) return;
    this.sending = true;
    let wait = FIRST_WAIT_MS;
    while (this.items.length) {
      const item = this.items[0];
      if (!item.tried) {
        item.tried = true;
        this.#store(item);
      }
      try {
        const answer = await call(...REQUESTS[item.kind](item));
        wait = FIRST_WAIT_MS;
        this.#remove(item);
        this.handlers.onTrouble(null);
        this.handlers.onDone(item, answer);
      } catch (problem) {
        if (problem.passing || problem.status === 401) {
          this.handlers.onTrouble(problem);
          await this.#pause(wait * (0.75 + Math.random() / 2));
          wait = Math.min(wait * 2, LONGEST_WAIT_MS);
        } else {
          this.#remove(item);
          this.handlers.onTrouble(null);
          this.handlers.onRefused(item, problem);
        }
      }
    }
    this.sending = false;
  }

  #pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.wake = () => (clearTimeout(timer), resolve());
    });
  }

  #key = (item) => `${PREFIX}${item.labeler}.${item.kind}.${item.id ?? item.comparison}`;

  #store(item) {
    try {
      localStorage.setItem(this.#key(item), JSON.stringify(item));
      item.isLoose = false;
    } catch {
      item.isLoose = true; // a full or forbidden store: the answer lives in this page, which asks before it goes
    }
  }

  #remove(item) {
    this.items = this.items.filter((one) => one !== item);
    localStorage.removeItem(this.#key(item));
  }

  // What an earlier page left behind. Those of others, who may log in here again, wait for them.
  #load() {
    const items = [];
    for (const key of Object.keys(localStorage)) {
      if (!key.startsWith(PREFIX)) continue;
      try {
        const item = JSON.parse(localStorage.getItem(key));
        if (item.labeler === this.labeler) items.push(item);
      } catch {
        // Not written by this page: it must not keep the others from being sent.
      }
    }
    return items.sort((one, other) => one.order - other.order);
  }
}
