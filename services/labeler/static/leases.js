// Keeps a labeler's pairs while somebody is here, and looks after them at once when somebody is back.

import { call, sleep } from "./api.js";

const AWAY_MS = 5 * 60 * 1000; // without a sign of life for so long, pairs are left to others

export class Leases {
  // kept(): the pairs to keep. onLost(pair, problem): another has it now. onKept(): all were looked after.
  constructor(seconds, { kept, onLost, onKept }) {
    this.every = (1000 * seconds) / 3;
    this.handlers = { kept, onLost, onKept };
    this.activeAt = this.keptAt = Date.now(); // a clock that goes on while the machine sleeps
    this.isKeeping = false;
  }

  // A sign of life. After an absence the pairs may be gone: better said now than after the answer.
  present() {
    this.activeAt = Date.now();
    if (this.activeAt - this.keptAt > 2 * this.every) this.keep();
  }

  async keepForEver() {
    for (;;) {
      await sleep(this.every);
      if (!document.hidden && Date.now() - this.activeAt <= AWAY_MS) await this.keep();
    }
  }

  async keep() {
    if (this.isKeeping) return;
    this.isKeeping = true;
    this.keptAt = Date.now();
    for (const pair of this.handlers.kept()) {
      try {
        await call("POST", `/api/comparisons/${pair.id}/renew`);
      } catch (problem) {
        if (!problem.passing) this.handlers.onLost(pair, problem);
      }
    }
    this.isKeeping = false;
    this.handlers.onKept();
  }
}
