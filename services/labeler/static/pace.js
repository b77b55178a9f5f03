// A labeler's own pace.

const LAST = 20; // answers that it is taken from
const BREAK_MS = 60000; // who answers nothing for so long had a break, which is no pace

export class Pace {
  constructor() {
    this.times = [];
  }

  answered() {
    this.times.push(performance.now());
    if (this.times.length > LAST) this.times.shift();
  }

  undone() {
    this.times.pop();
  }

  // Answers a minute, breaks left out; null while too few were given to say.
  get value() {
    const gaps = this.times.slice(1).map((time, place) => time - this.times[place]).filter((gap) => gap < BREAK_MS);
    const sum = gaps.reduce((one, other) => one + other, 0);
    return gaps.length < 3 || !sum ? null : Math.round((60000 * gaps.length) / sum);
  }
}
