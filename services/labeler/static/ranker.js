// Ranking three or four clips: by their numbers from the best to the worst, or by dragging them onto the shelf.

import { drag } from "./drag.js";
import { Ranking } from "./ordering.js";
import { inOrder } from "./ranking.js";
import { say, tell } from "./say.js";

const PLACES = ["1st", "2nd", "3rd", "4th"];
const GAP = 12; // pixels between clips
const BELOW = 52; // the button under a clip

const $ = (id) => document.getElementById(id);

export class Ranker {
  // current(): the clips on show. mayRank(): whether they may be ranked yet; says why not. changed(): draw anew.
  constructor(clips, { current, mayRank, changed }) {
    this.clips = clips;
    this.list = $("tiers");
    this.current = current;
    new ResizeObserver(() => this.fit()).observe($("stage"));
    drag({
      shelf: $("shelf"),
      list: this.list,
      mayDrag: () => {
        this.dragged = current();
        return mayRank();
      },
      onDrop: (clip, at, equal) => {
        if (current() !== this.dragged) return; // other clips have come meanwhile
        this.ranking.put(clip, at, equal);
        if (this.ranking.left.length) this.#tellOrder();
        else say("All are ranked: Enter or Done sends it");
        changed();
      },
    });
  }

  get ranking() {
    const pair = this.current();
    return pair && (pair.ranking ??= new Ranking(this.clips));
  }

  // Does what a key or button says; returns the ranks once they are all there, undefined before.
  take(action) {
    const { ranking } = this;
    const { left } = ranking;
    if (action === "tie" && ranking.empty) return Array(this.clips).fill(0);
    if (action === "tie" && left.length) {
      ranking.join();
      tell(ranking.joining ? "The next one is equal." : "The next one is worse.");
    } else if (action === "done" && ranking.empty) {
      say("First say which clip is best");
    } else if (action === "done") {
      ranking.finish();
      return ranking.ranks;
    } else if (/^clip\d$/.test(action)) {
      const clip = Number(action.at(-1)) - 1;
      if (clip >= this.clips) return undefined;
      if (!left.includes(clip)) {
        ranking.takeOut(clip);
        tell(`Clip ${clip + 1} is taken out.`);
        return undefined;
      }
      ranking.add(clip);
      if (left.length === 1) return ranking.ranks;
      this.#tellOrder();
    }
    return undefined;
  }

  #tellOrder() {
    tell(`Best first: ${inOrder(this.ranking.tiers)}.`);
  }

  draw(locked) {
    const { ranking } = this;
    if (!ranking) return;
    const { left, joining, tiers } = ranking;
    if (this.ratio !== this.#ratio()) this.fit();
    for (const button of this.current().element.querySelectorAll(".rank")) {
      const clip = Number(button.dataset.action.at(-1)) - 1;
      const placed = !left.includes(clip);
      button.classList.toggle("placed", placed);
      button.setAttribute("aria-disabled", locked);
      button.querySelector(".place").textContent = placed ? this.#place(clip) : this.#question();
    }
    const focused = this.list.contains(document.activeElement) && document.activeElement.dataset.action;
    this.list.replaceChildren(...tiers.map(drawTier), ...left.map(drawSlot));
    if (focused) (this.list.querySelector(`[data-action="${focused}"]`) ?? this.list.querySelector("button"))?.focus();
    const tie = document.querySelector(".answers [data-action=tie]");
    tie.setAttribute("aria-pressed", joining);
    $("tie-word").textContent = ranking.empty ? "All equal" : `Equal to ${tiers.at(-1).at(-1) + 1}`;
    $("done-word").parentElement.setAttribute("aria-disabled", locked || ranking.empty);
    $("done-word").textContent = !ranking.empty && left.length > 1 ? "Rest is last" : "Done";
  }

  #place(clip) {
    const { better, equal } = this.ranking.placeOf(clip);
    return `${equal ? "= " : ""}${PLACES[better]}`;
  }

  #question() {
    const { ranking } = this;
    if (ranking.joining) return `Equal to ${ranking.tiers.at(-1).at(-1) + 1}?`;
    return ranking.empty ? "Best?" : `${PLACES[this.clips - ranking.left.length]}?`;
  }

  #ratio() {
    return Number(this.current()?.element.querySelector(".clip").style.getPropertyValue("--ratio")) || 1.5;
  }

  // As many clips side by side as make them largest.
  fit() {
    const stage = $("stage");
    const ratio = (this.ratio = this.#ratio());
    const width = (columns) => {
      const rows = Math.ceil(this.clips / columns);
      const high = (stage.clientHeight - GAP * (rows - 1)) / rows - BELOW;
      return Math.min((stage.clientWidth - GAP * (columns - 1)) / columns, high * ratio);
    };
    const most = [1, 2, this.clips].reduce((best, columns) => (width(columns) > width(best) ? columns : best));
    stage.style.setProperty("--columns", most);
    stage.dataset.columns = most;
  }
}

function drawTier(tier) {
  const item = document.createElement("li");
  item.className = "tier";
  item.style.flexGrow = tier.length;
  item.append(...tier.map((clip) => {
    const chip = document.createElement("button");
    chip.type = "button";
    chip.className = "chip";
    chip.dataset.action = `clip${clip + 1}`;
    chip.dataset.clip = clip;
    chip.title = "Take out; or drag to another place";
    chip.setAttribute("aria-label", `${clip + 1}: take this clip out`);
    chip.textContent = clip + 1;
    return chip;
  }));
  return item;
}

function drawSlot() {
  const item = document.createElement("li");
  item.className = "slot";
  item.setAttribute("aria-hidden", true);
  return item;
}
