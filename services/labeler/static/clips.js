// The clips of a comparison play together: starting, stopping or moving one does the same to the others.

for (const article of document.querySelectorAll(".comparison")) {
  const videos = [...article.querySelectorAll("video")];
  const others = (video) => videos.filter((one) => one !== video);
  for (const video of videos) {
    video.addEventListener("play", () => {
      for (const one of others(video)) {
        if (one.paused) {
          one.currentTime = video.currentTime;
          one.play().catch(() => {}); // a damaged clip does not keep the other from playing
        }
      }
    });
    video.addEventListener("pause", () => others(video).forEach((one) => one.pause()));
  }
}
