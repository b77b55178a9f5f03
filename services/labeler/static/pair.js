// A comparison in its players: fetched whole, decoded to its first picture, ready to play at once.

import { Reel } from "./reel.js";

const SMALL = 400; // pixels: clips narrower than this keep hard edges when enlarged
const TRIES = 4;
const TEMPLATE = document.getElementById("pair-template");

export class Pair {
  constructor(comparison, stage, onSeen = () => {}) {
    this.comparison = comparison;
    this.element = TEMPLATE.content.firstElementChild.cloneNode(true);
    this.videos = [...this.element.querySelectorAll("video")];
    this.reel = new Reel(this.videos);
    this.reel.onSeen = () => {
      this.element.classList.add("seen");
      onSeen();
    };
    this.urls = [];
    this.failure = null; // why it cannot be shown
    stage.append(this.element);
    this.ready = this.#prepare();
    this.isReady = false;
    this.ready.then(() => (this.isReady = true));
  }

  get id() {
    return this.comparison.id;
  }

  // Nobody can judge what could not be seen once; where nothing can be shown, there is nothing to wait for.
  get locked() {
    return !this.isReady || !(this.failure || this.reel.seen);
  }

  show(playing, speed) {
    this.reel.setRate(speed);
    this.element.classList.add("current");
    this.element.removeAttribute("inert");
    if (playing && this.isReady && !this.failure) this.reel.play();
  }

  hide() {
    this.element.classList.remove("current");
    this.element.setAttribute("inert", "");
    this.reel.stop();
  }

  destroy() {
    this.gone = true;
    this.reel.pause();
    for (const video of this.videos) video.removeAttribute("src");
    for (const url of this.urls) URL.revokeObjectURL(url);
    this.element.remove();
  }

  async #prepare() {
    try {
      await Promise.all(this.comparison.clips.map((clip, place) => this.#load(clip, this.videos[place])));
    } catch (error) {
      this.failure = error.message;
      this.element.classList.add("broken");
      this.element.querySelector(".failure").textContent = `These clips cannot be shown. ${error.message}`;
    }
    this.element.classList.add("ready");
  }

  async #load(clip, video) {
    const url = URL.createObjectURL(await fetchClip(clip.url));
    this.urls.push(url);
    if (this.gone) return;
    await new Promise((resolve, reject) => {
      video.addEventListener("loadeddata", resolve, { once: true });
      video.addEventListener("error", () => reject(new Error("The file is not a video.")), { once: true });
      video.src = url;
    });
    video.classList.toggle("small", video.videoWidth < SMALL);
    video.parentElement.style.setProperty("--ratio", video.videoWidth / video.videoHeight);
  }
}

async function fetchClip(url) {
  for (let tried = 1; ; tried++) {
    let response;
    try {
      response = await fetch(url);
      if (response.ok) return await response.blob();
    } catch (error) {
      if (tried >= TRIES) throw new Error("The connection is down.", { cause: error });
    }
    if (response && (response.status < 500 || tried >= TRIES)) {
      const problem = await response.json().catch(() => ({}));
      throw new Error(problem.detail ?? `The server answered ${response.status}.`);
    }
    await new Promise((resolve) => setTimeout(resolve, 300 * 2 ** tried));
  }
}
