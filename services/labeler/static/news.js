// What is new of the experiments that an admin page shows: one stream, however many parts of the page listen.

import { follow } from "./events.js";

const listeners = [];
let last = null;

follow(document.body.dataset.news, "news", ({ experiments }) => {
  last = experiments;
  for (const listener of listeners) listener(experiments);
}, () => {});

export function onNews(listener) {
  listeners.push(listener);
  if (last) listener(last);
}
