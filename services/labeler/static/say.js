// A word to the labeler: seen for a moment, and read out by a screen reader.

const $ = (id) => document.getElementById(id);

let toastTimer;
export function say(text, loud = false) {
  tell(text);
  $("toast").textContent = text;
  $("toast").classList.toggle("loud", loud);
  $("toast").classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => $("toast").classList.remove("shown"), loud ? 6000 : 900);
}

// Read out only. The same words again are read out again: a space that nobody sees makes them another text.
export function tell(text) {
  $("live").textContent = $("live").textContent === text ? `${text}\u00a0` : text;
}
