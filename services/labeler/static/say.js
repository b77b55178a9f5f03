// A word to the labeler: seen for a moment, and read out by a screen reader.

const $ = (id) => document.getElementById(id);

let toastTimer;
export function say(text, loud = false) {
  $("live").textContent = text;
  $("toast").textContent = text;
  $("toast").classList.toggle("loud", loud);
  $("toast").classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => $("toast").classList.remove("shown"), loud ? 6000 : 900);
}
