// The clips of a comparison play together, in step with the mark in each drawing of their predicted rewards.

import { Reel } from "./reel.js";

const near = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    for (const video of target.querySelectorAll("video")) video.preload = "auto";
  }
}, { rootMargin: "300px" });

for (const article of document.querySelectorAll(".comparison")) {
  near.observe(article);
  steer(article);
}

function steer(article) {
  const videos = [...article.querySelectorAll("video")];
  const { fps, steps } = videos[0].dataset;
  const count = Number(steps);
  const reel = new Reel(videos);
  const button = article.querySelector("[data-play]");
  const slider = article.querySelector("[type=range]");
  const marks = article.querySelectorAll(".moment");

  // What is on show, counted from 0.
  const now = () => Math.min(Math.max(Math.floor(reel.time * fps + 1e-3), 0), count - 1);

  function show(step) {
    slider.value = step + 1;
    article.querySelector("output").textContent = `step ${step + 1}`;
    for (const mark of marks) {
      const x = (mark.ownerSVGElement.viewBox.baseVal.width * step) / Math.max(count - 1, 1);
      mark.setAttribute("transform", `translate(${x} 0)`);
    }
  }

  function follow() {
    if (!reel.playing) return;
    show(now());
    requestAnimationFrame(follow);
  }

  function stop() {
    reel.pause();
    button.textContent = "Play";
  }

  button.addEventListener("click", async () => {
    if (reel.playing) return stop();
    button.textContent = "Pause";
    await Promise.all(videos.map(loaded));
    reel.videos = videos.filter((video) => !video.error); // a damaged clip does not keep the other from playing
    reel.play();
    follow();
  });

  slider.addEventListener("input", async () => {
    stop();
    const step = Number(slider.value) - 1;
    show(step);
    await Promise.all(videos.map(loaded));
    reel.step(step - now(), Number(fps), count);
  });
}

function loaded(video) {
  video.preload = "auto";
  if (video.readyState >= 2 || video.error) return Promise.resolve();
  return new Promise((resolve) => {
    for (const word of ["loadeddata", "error"]) video.addEventListener(word, resolve, { once: true });
  });
}
