// The keys and buttons of the label page: each says an action's name.

const KEYS = {
  ArrowLeft: "left", ArrowRight: "right", ArrowUp: "tie", "=": "tie", ArrowDown: "incomparable",
  s: "skip", S: "skip", " ": "pause", Backspace: "undo", "?": "help", h: "instructions", H: "instructions",
  ",": "back", ".": "forward", "<": "slower", ">": "faster", l: "recent", L: "recent",
};
export const DIALOGS = ["help", "instructions", "recent"];
const REPEATABLE = ["pause", "back", "forward", ...DIALOGS];

const ranked = document.body.dataset.clips > 2;

const STORE = "lockstep.keys";
const signs = document.getElementById("sign-keys"); // off: for who speaks to the computer, or rests on the keys
try {
  signs.checked = localStorage.getItem(STORE) !== "off";
} catch {
  // a forbidden store: the choice lives in this page
}
signs.addEventListener("change", () => {
  try {
    localStorage.setItem(STORE, signs.checked ? "on" : "off");
  } catch {
    // as above
  }
});

function actionOf(event) {
  if (event.key in KEYS) return KEYS[event.key];
  if (event.key === "Enter") return ranked ? "done" : "next";
  if (!ranked) return undefined;
  const digit = event.code.match(/^(?:Digit|Numpad)([1-9])$/); // the key, whatever the layout writes with it
  return digit ? `clip${digit[1]}` : undefined;
}

// Keys that scroll do so where there is something to scroll and nothing to answer.
function scrolls(event) {
  if (!event.key.startsWith("Arrow") && event.key !== " ") return false;
  if (event.target.closest(".question")) return true;
  if (document.body.dataset.view === "labeling") return false;
  return event.key !== " " || document.getElementById("films-area").hidden;
}

export function onActions(act) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
    if ((event.key.length === 1 && event.key !== " " && !signs.checked) || scrolls(event)) return;
    const action = actionOf(event);
    if (!action || ([" ", "Enter"].includes(event.key) && event.target.matches("button, a"))) return;
    const open = document.querySelector("dialog[open]");
    if (open && open.id !== action) return;
    event.preventDefault();
    if (!event.repeat || REPEATABLE.includes(action)) act(action);
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-action]");
    if (!button) return;
    if (event.detail) button.blur(); // after a click, the space bar means pause again
    act(button.dataset.action);
  });
}
