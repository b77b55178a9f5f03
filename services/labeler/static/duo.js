// The newest agent's video beside an earlier one's, in step, paused and played together.

import { Reel } from "./reel.js";

export class Duo {
  #place;
  #choice;
  #word;
  #films = []; // rounds with a video, in order
  #shown = ""; // the addresses of the videos on show
  #reel = new Reel([]);
  #visible = false;
  #playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;

  // `choice` is the list from which the earlier round is chosen, `word` what the button to pause says.
  constructor(place, choice, word) {
    this.#place = place;
    this.#choice = choice;
    this.#word = word;
    choice.addEventListener("change", () => this.#draw());
    this.#say();
  }

  // `rounds` as in the public status.
  update(rounds) {
    const films = rounds.filter((one) => one.video);
    if (films.length !== this.#films.length) {
      this.#films = films;
      const earlier = films.slice(0, -1).reverse();
      this.#choice.replaceChildren(...earlier.map((one) => new Option(`Round ${one.round}`, one.round)));
      document.getElementById("against-part").hidden = earlier.length < 2;
    }
    this.#draw();
  }

  #draw() {
    const newest = this.#films.at(-1);
    const earlier = this.#films.find((one) => String(one.round) === this.#choice.value);
    const pair = [earlier, newest].filter(Boolean);
    const key = pair.map((one) => one.video).join();
    if (key === this.#shown) return;
    this.#shown = key;
    this.#reel.pause();
    this.#place.replaceChildren(...pair.map((one) => card(one, one === newest)));
    this.#begin();
  }

  // Both begin together, once both have their first picture.
  async #begin() {
    const reel = new Reel([...this.#place.querySelectorAll("video")]);
    this.#reel = reel;
    await Promise.all(reel.videos.map(hasPicture));
    reel.videos = reel.videos.filter((video) => !video.error);
    if (reel === this.#reel) this.#run();
  }

  #run() {
    if (this.#playing && this.#visible) this.#reel.play();
    else this.#reel.pause();
  }

  // Players that nobody sees rest.
  setVisible(visible) {
    if (visible === this.#visible) return;
    this.#visible = visible;
    if (visible && [...this.#place.querySelectorAll("video")].some((video) => video.error)) {
      this.#shown = ""; // one that was cut off when a batch began is fetched anew
      this.#draw();
    }
    this.#run();
  }

  toggle() {
    this.#playing = !this.#playing;
    this.#say();
    this.#run();
    return this.#playing;
  }

  #say() {
    this.#word.textContent = this.#playing ? "Pause" : "Play";
  }
}

function hasPicture(video) {
  return new Promise((resolve) => {
    if (video.readyState >= 2 || video.error) resolve();
    video.addEventListener("loadeddata", resolve, { once: true });
    video.addEventListener("error", resolve, { once: true });
  });
}

function card(one, newest) {
  const figure = document.createElement("figure");
  figure.className = newest ? "film newest" : "film";
  const video = document.createElement("video");
  Object.assign(video, { muted: true, playsInline: true, preload: "auto", disablePictureInPicture: true, src: one.video });
  video.setAttribute("aria-label", `The agent after round ${one.round}`);
  video.addEventListener("loadedmetadata", () => {
    video.style.aspectRatio = `${video.videoWidth} / ${video.videoHeight}`;
  });
  const caption = document.createElement("figcaption");
  caption.textContent = newest ? `Now: after round ${one.round}` : `Before: after round ${one.round}`;
  video.addEventListener("error", () => (caption.textContent += " (its video cannot be shown)"));
  figure.append(video, caption);
  return figure;
}
