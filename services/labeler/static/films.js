// Round by round, each agent's video, in step.

import { Reel } from "./reel.js";

export class Films {
  constructor(list) {
    this.list = list;
    this.shown = "";
    this.reel = null;
    this.playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  }

  // `rounds` as in the public status. Builds anew only when there is another video. `ends`: the last of them is
  // the newest there is.
  update(rounds, ends = true) {
    const films = rounds.filter((one) => one.video);
    const key = films.map((one) => one.video).join();
    if (key === this.shown) return;
    this.shown = key;
    this.reel?.pause();
    this.list.replaceChildren(...films.map((one, index) => card(one, ends && index === films.length - 1)));
    this.reel = new Reel([...this.list.querySelectorAll("video")]);
    this.list.scrollLeft = this.list.scrollWidth; // the newest is at the end
    const reel = this.reel;
    const ready = reel.videos.map((video) => new Promise((resolve) => {
      video.addEventListener("loadeddata", resolve, { once: true });
      video.addEventListener("error", resolve, { once: true });
    }));
    Promise.all(ready).then(() => {
      if (reel !== this.reel) return;
      reel.videos = reel.videos.filter((video) => !video.error);
      if (this.playing && this.visible !== false) reel.play();
    });
  }

  // Players that nobody sees rest.
  setVisible(visible) {
    this.visible = visible;
    if (visible && this.playing) this.reel?.play();
    if (!visible) this.reel?.pause();
  }

  toggle() {
    this.playing = !this.playing;
    if (this.playing) this.reel?.play();
    else this.reel?.pause();
    return this.playing;
  }

  get count() {
    return this.list.childElementCount;
  }
}

function card(one, newest) {
  const figure = document.createElement("figure");
  figure.className = newest ? "film newest" : "film";
  const video = document.createElement("video");
  Object.assign(video, { muted: true, playsInline: true, preload: "auto", src: one.video });
  video.addEventListener("loadedmetadata", () => {
    video.style.aspectRatio = `${video.videoWidth} / ${video.videoHeight}`;
  });
  const caption = document.createElement("figcaption");
  caption.textContent = newest ? `Round ${one.round} · newest` : `Round ${one.round}`;
  video.setAttribute("aria-label", `The agent after round ${one.round}`);
  figure.append(video, caption);
  return figure;
}
