// The labeler's last answers of this batch, each of which can be taken back while the batch is open.

import { call } from "./api.js";
import { inOrder, tiersOf } from "./ranking.js";

const MOST = 10;
const STACKED = matchMedia("(max-width: 44rem), (max-aspect-ratio: 4/5)"); // as in the style sheet

export function inWords(ranks) {
  if (ranks === null) return "Cannot compare";
  if (ranks.length > 2) return new Set(ranks).size === 1 ? "All equal" : `Best first: ${inOrder(tiersOf(ranks))}`;
  const [left, right] = ranks;
  const [first, second] = STACKED.matches ? ["Upper", "Lower"] : ["Left", "Right"];
  return left === right ? "Equal" : `${left < right ? first : second} is better`;
}

export class Recent {
  // here(): what this page knows that the server may not yet. change(answer): take it back.
  constructor(experiment, here, change) {
    this.experiment = experiment;
    this.here = here;
    this.change = change;
    this.list = document.getElementById("recent-list");
    this.note = document.getElementById("recent-note");
  }

  async draw() {
    this.list.replaceChildren();
    this.note.textContent = "Looking them up.";
    let told;
    try {
      told = await call("GET", `/api/experiments/${this.experiment}/preferences`);
    } catch (problem) {
      this.note.textContent = problem.message;
      return;
    }
    const { history, outbox } = this.here();
    const undone = new Set(outbox.items.filter((item) => item.kind === "undo").map((item) => item.id));
    const known = new Set(told.answers.map((one) => one.id));
    const sending = new Map(outbox.items.map((item) => [item.id, item]));
    const unsent = history.filter((one) => sending.has(one.id) && !known.has(one.id)).reverse();
    const answers = [
      ...unsent.map((one) => ({ ...one, ranks: sending.get(one.id).ranks })),
      ...told.answers.map((one) => ({ ...one, pair: history.find((mine) => mine.id === one.id)?.pair })),
    ].filter((one) => !undone.has(one.id));
    this.note.textContent = told.frozen
      ? "This batch is complete and in training: its answers are final."
      : answers.length
        ? "The newest first. Change one, and its clips come up again."
        : "You have given no answer in this batch yet.";
    if (!told.frozen) this.list.replaceChildren(...answers.slice(0, MOST).map((one, place) => this.#row(one, place)));
  }

  #row(answer, place) {
    const which = place ? `${place + 1} answers ago` : "the last answer";
    const row = document.createElement("li");
    const words = document.createElement("span");
    words.textContent = `${which[0].toUpperCase()}${which.slice(1)}: ${inWords(answer.ranks)}`;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Change";
    button.setAttribute("aria-label", `Change ${place ? "what you said " : ""}${which}`);
    button.addEventListener("click", () => this.change(answer));
    row.append(words, button);
    return row;
  }
}
