// How fast the clips play: remembered by this browser.

const SPEEDS = [0.25, 0.5, 1, 1.5, 2];
const KEY = "lockstep.speed";

export class Speed {
  constructor() {
    let kept = 1;
    try {
      kept = Number(localStorage.getItem(KEY));
    } catch {
      // a forbidden store: the speed lives in this page
    }
    this.value = SPEEDS.includes(kept) ? kept : 1;
  }

  // "slower", "faster", or "speed": the next one, round and round.
  change(action) {
    const at = SPEEDS.indexOf(this.value);
    const last = SPEEDS.length - 1;
    const next = { slower: Math.max(at - 1, 0), faster: Math.min(at + 1, last), speed: (at + 1) % SPEEDS.length };
    this.value = SPEEDS[next[action]];
    try {
      localStorage.setItem(KEY, this.value);
    } catch {
      // as above
    }
  }
}
