// An ordering of clips in the making: tiers from the best to the worst, each of clips that are equal. Clips are
// numbered from 0 here, by the place at which they are shown.

export class Ranking {
  constructor(clips) {
    this.clips = clips;
    this.clear();
  }

  clear() {
    this.tiers = [];
    this.joining = false; // the next clip is equal to the last one
    this.earlier = []; // what it was before each step, to take steps back
  }

  get empty() {
    return this.tiers.length === 0;
  }

  // The clips that have no place yet.
  get left() {
    return [...Array(this.clips).keys()].filter((clip) => this.tierOf(clip) < 0);
  }

  tierOf(clip) {
    return this.tiers.findIndex((tier) => tier.includes(clip));
  }

  // How many clips are better, and with how many it is equal: what place it has, as people count.
  placeOf(clip) {
    const at = this.tierOf(clip);
    return { better: this.tiers.slice(0, at).flat().length, equal: this.tiers[at].length - 1 };
  }

  add(clip) {
    this.#keep();
    if (this.joining) this.tiers.at(-1).push(clip);
    else this.tiers.push([clip]);
    this.joining = false;
  }

  join() {
    this.#keep();
    this.joining = !this.joining;
  }

  takeOut(clip) {
    this.#keep();
    this.#remove(clip);
  }

  // Moves a clip to the tier that is number `at`, or in front of it. Numbers are those from before the move.
  put(clip, at, equal) {
    this.#keep();
    const target = this.tiers[at];
    if (equal && !target.includes(clip)) target.push(clip);
    if (!equal) this.tiers.splice(at, 0, [clip]);
    const home = equal ? target : this.tiers[at];
    this.#remove(clip, home);
  }

  // Those without a place share the last one.
  finish() {
    const { left } = this;
    if (!left.length) return;
    this.#keep();
    if (this.joining) this.tiers.at(-1).push(...left);
    else this.tiers.push(left);
    this.joining = false;
  }

  // Takes the last step back; false if there was none.
  back() {
    if (!this.earlier.length) return false;
    Object.assign(this, this.earlier.pop());
    return true;
  }

  get ranks() {
    return [...Array(this.clips).keys()].map((clip) => this.tierOf(clip));
  }

  #keep() {
    this.earlier.push({ tiers: structuredClone(this.tiers), joining: this.joining });
  }

  #remove(clip, but = null) {
    this.tiers = this.tiers.map((tier) => (tier === but ? tier : tier.filter((one) => one !== clip)));
    this.tiers = this.tiers.filter((tier) => tier.length);
    if (this.empty || !this.left.length) this.joining = false;
  }
}
