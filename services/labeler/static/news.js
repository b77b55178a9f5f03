// What is new of the experiments that an admin page shows: one stream, however many parts of the page listen.

import { follow } from "./events.js";

const listeners = [];
let last = null;
let open = false;

follow(document.body.dataset.news, "news", ({ experiments }) => {
  last = experiments;
  tell();
}, (trouble) => {
  if (trouble && open && last) tell(); // it broke off: the server is going away, or the session has ended
  open = !trouble;
});

function tell() {
  for (const listener of listeners) listener(last);
}

export function onNews(listener) {
  listeners.push(listener);
  if (last) listener(last);
}
