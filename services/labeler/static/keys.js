// The keys and buttons of the label page: each says an action's name.

const KEYS = {
  ArrowLeft: "left", ArrowRight: "right", ArrowUp: "tie", "=": "tie", ArrowDown: "incomparable",
  s: "skip", S: "skip", " ": "pause", Backspace: "undo", "?": "help", h: "instructions", H: "instructions",
  ",": "back", ".": "forward", "<": "slower", ">": "faster", l: "recent", L: "recent",
};
export const DIALOGS = ["help", "instructions", "recent"];
const REPEATABLE = ["pause", "back", "forward", ...DIALOGS];

const ranked = document.body.dataset.clips > 2;

function actionOf(event) {
  if (!ranked || event.key in KEYS) return KEYS[event.key];
  if (event.key === "Enter") return "done";
  const digit = event.code.match(/^(?:Digit|Numpad)([1-9])$/); // the key, whatever the layout writes with it
  return digit ? `clip${digit[1]}` : undefined;
}

export function onActions(act) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
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
