// Practice pairs of a newcomer: shown and answered as any pair is, then told what most others answered.

import { call, uuid } from "./api.js";
import { inWords } from "./recent.js";
import { say, shout } from "./say.js";

const $ = (id) => document.getElementById(id);

export class Practice {
  // page.add(comparison): prepare a pair behind the last one. page.next(): the pair on show is done with.
  // page.render(): draw all. page.end(): go on with real pairs.
  constructor(experiment, page) {
    this.path = `/api/experiments/${experiment}/practice`;
    this.page = page;
    this.isUnknown = true; // the server was not asked yet whether there is something to practise
    this.forget();
  }

  // The batch is over: what is left may come up before the next one.
  forget() {
    this.isUnknown ||= this.on;
    this.on = false;
    this.told = null; // what others answered to the pair on show
    this.id = null; // of the answer to the pair on show
    this.waiting = []; // comparisons that are not prepared yet
  }

  // Begins the practice, if this labeler is to have any. False: there is none, or nobody could say.
  async begin() {
    if (!this.isUnknown) return false;
    try {
      const found = await call("POST", this.path);
      this.isUnknown = false;
      this.on = found.comparisons.length > 0;
      [this.done, this.of, this.waiting] = [found.done, found.of, found.comparisons];
    } catch {
      return false; // practice is not worth waiting for
    }
    for (let prepared = 0; prepared < 2; prepared++) this.#prepare();
    return this.on;
  }

  async answer(pair, action, ranks, seconds) {
    if (action === "skip") return this.#skip();
    if (this.isSending) return undefined;
    this.id ??= uuid();
    this.isSending = true;
    try {
      this.told = await call("PUT", `/api/practice/${this.id}`, { comparison: pair.id, ranks, seconds });
    } catch (problem) {
      if (problem.passing) shout("practice", `${problem.message} Answer again.`);
      else this.#next(); // it was answered in another window
    }
    this.isSending = false;
    this.page.render();
    if (this.told) $("practice-next").focus();
    return undefined;
  }

  // What is done once others' answers are told.
  goOn(action) {
    if (action === "skip") return this.#skip();
    return ["next", "done"].includes(action) ? this.#next() : say("Press Enter to go on.");
  }

  draw() {
    $("practice").hidden = !this.on;
    if (!this.on) return;
    const words = `Practice ${this.done + 1} of ${this.of}`;
    const text = this.told ? `${words}. ${inFull(this.told)}` : `${words}: it does not count. Afterwards you are told what others answered.`;
    if ($("practice-text").textContent !== text) $("practice-text").textContent = text;
    $("practice-next").hidden = !this.told;
    if (this.told) for (const button of document.querySelectorAll(".answers button")) button.setAttribute("aria-disabled", true);
  }

  async #skip() {
    this.#end();
    say("Practice skipped");
    await call("POST", `${this.path}/skip`).catch(() => {}); // it ends with the first real answer anyway
  }

  #next() {
    this.told = this.id = null;
    this.done += 1;
    this.#prepare();
    if (this.done < this.of) return this.page.next();
    shout("practice", "That was the practice. From here on your answers count.");
    return this.#end();
  }

  #end() {
    this.on = false;
    this.forget();
    this.page.end();
  }

  #prepare() {
    if (this.waiting.length) this.page.add({ ...this.waiting.shift(), isPractice: true });
  }
}

function inFull({ others, most, of, agreed }) {
  const who = of === 1 ? "Somebody else said" : `${most} of ${of} others said`;
  return `${who}: ${inWords(others)}. ${agreed ? "So did you." : "You did not: watch once more what they may have seen."}`;
}
