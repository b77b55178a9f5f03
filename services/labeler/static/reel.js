// Several videos that loop in step, driven from one clock, with a short hold on the last picture.

const HOLD_S = 0.6;
const NEAR_END_S = 0.02; // so near its end a clip counts as seen
const JUMP_S = 0.2; // a video further off than this is set; one nearer is nudged by its speed

export class Reel {
  constructor(videos) {
    this.videos = videos;
    this.playing = false;
    this.phase = "ready"; // ready, starting, running, rewinding
    this.origin = 0; // performance.now() at which the clock showed 0
    this.rate = 1; // clip seconds in a second
    this.furthest = 0; // how far the clips were shown, in seconds
    this.onSeen = null; // called when they were shown to their end for the first time
    this.tick = this.tick.bind(this);
  }

  // Seconds from the start of the clips, as the clock has it.
  get time() {
    return this.playing ? ((performance.now() - this.origin) / 1000) * this.rate : this.stoppedAt ?? 0;
  }

  get length() {
    return Math.max(0, ...this.videos.map((video) => video.duration || 0));
  }

  get seen() {
    return this.length > 0 && this.furthest >= this.length - NEAR_END_S;
  }

  setRate(rate) {
    const time = this.time;
    this.rate = rate;
    this.origin = performance.now() - (time / rate) * 1000;
    for (const video of this.videos) video.playbackRate = rate;
  }

  // Goes `frames` on (or back) while paused; the clips have `count` frames, `fps` a second.
  step(frames, fps, count) {
    if (this.playing || !this.length) return;
    const last = count - 1;
    const at = Math.floor(Math.min(this.time, this.length) * fps + 1e-3);
    const frame = Math.min(Math.max(at + frames, 0), last);
    this.stoppedAt = (frame + 0.5) / fps; // the middle of a frame shows that frame, whatever the rounding
    for (const video of this.videos) video.currentTime = Math.min(this.stoppedAt, video.duration);
    this.#reach(frame === last ? this.length : this.stoppedAt);
  }

  play() {
    if (this.playing) return;
    this.playing = true;
    this.#start();
    this.frame = requestAnimationFrame(this.tick);
  }

  pause() {
    if (!this.playing) return;
    this.stoppedAt = Math.min(this.time, this.length);
    this.playing = false;
    cancelAnimationFrame(this.frame);
    for (const video of this.videos) video.pause();
  }

  stop() {
    this.pause();
    this.stoppedAt = 0;
    this.phase = "ready";
    for (const video of this.videos) if (video.currentTime > 0) video.currentTime = 0;
  }

  #start() {
    this.phase = "starting";
    this.origin = performance.now() - ((this.stoppedAt ?? 0) / this.rate) * 1000;
    this.startedAt = performance.now();
    for (const video of this.videos) {
      video.playbackRate = this.rate;
      if (!video.ended) video.play().catch(() => {}); // refused only when it is paused again meanwhile
    }
  }

  tick() {
    if (!this.playing) return;
    const now = performance.now();
    if (this.phase === "starting") this.#anchor(now);
    else if (this.phase === "rewinding") this.#afterRewind();
    else if (this.time >= this.length + HOLD_S * this.rate) this.#rewind();
    else this.#keepStep();
    if (this.phase === "running") this.#reach(Math.min(this.time, this.length));
    this.frame = requestAnimationFrame(this.tick);
  }

  // Players need a moment to get going: the clock starts with them, not before them.
  #anchor(now) {
    const moving = this.videos.filter((video) => !video.ended);
    if (!moving.length) {
      this.phase = "running";
      return;
    }
    const slowest = Math.min(...moving.map((video) => video.currentTime));
    this.origin = now - (slowest / this.rate) * 1000;
    const begun = slowest > (this.stoppedAt ?? 0);
    if (begun || now - this.startedAt > 1000) {
      this.phase = "running";
      this.stoppedAt = 0;
    }
  }

  #keepStep() {
    const time = this.time;
    for (const video of this.videos) {
      if (video.ended || !(time < video.duration)) continue;
      const ahead = video.currentTime - time;
      if (Math.abs(ahead) > JUMP_S) video.currentTime = time;
      const rate = this.rate * (Math.abs(ahead) < 0.008 ? 1 : Math.min(Math.max(1 - 2 * ahead, 0.8), 1.25));
      if (Math.abs(rate - video.playbackRate) > 0.02) video.playbackRate = rate;
      if (video.paused) video.play().catch(() => {});
    }
  }

  #reach(time) {
    const before = this.seen;
    this.furthest = Math.max(this.furthest, time);
    if (!before && this.seen) this.onSeen?.();
  }

  #rewind() {
    this.phase = "rewinding";
    for (const video of this.videos) {
      video.pause();
      video.currentTime = 0;
    }
  }

  #afterRewind() {
    if (this.videos.some((video) => video.seeking || (video.readyState < 2 && !video.error))) return;
    this.stoppedAt = 0;
    this.#start();
  }
}
