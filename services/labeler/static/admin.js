// The admin pages: buttons that act, and a part that keeps itself up to date.

import { call } from "./api.js";
import { ask } from "./ask.js";
import { morph } from "./morph.js";
import { onNews } from "./news.js";

const LEAST_MS = 1000; // between two looks at the page, however much is new
const SLOW_MS = 15_000; // without news, which may not get through, and for what changes by itself
const QUESTIONS = {
  abandon: "Abandon this experiment for good? What it made stays; nothing more is done.",
  finish: "Finish this experiment as it stands? It cannot be resumed.",
};

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-admin]");
  if (!button) return;
  const { admin: action, experiment } = button.dataset;
  const body = {};
  if (action in QUESTIONS) {
    const answer = await ask({ question: QUESTIONS[action], doing: button.textContent.trim(), reason: true });
    if (answer === false) return;
    if (answer) body.reason = answer;
  }
  button.disabled = true;
  try {
    await call("POST", `/api/admin/experiments/${experiment}/${action}`, body);
    document.getElementById("problem").textContent = "";
  } catch (problem) {
    document.getElementById("problem").textContent = problem.message;
  }
  await refresh();
  button.disabled = false;
});

let waits = null; // the timer of the next look
let looked = 0; // when the last look was

async function refresh() {
  clearTimeout(waits);
  waits = null;
  looked = performance.now();
  try {
    const response = await fetch(location.href);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    // Without a session there is only the page that asks for the token.
    if (response.ok && !page.querySelector("[data-live]")) location.reload();
    for (const live of response.ok ? document.querySelectorAll("[data-live]") : []) {
      const news = page.getElementById(live.id);
      if (news) morph(live, news);
    }
  } catch {
    // the server is away for a moment: the next look will tell
  }
}

function soon() {
  if (document.hidden) return; // what is new by then is looked at when somebody does
  waits ??= setTimeout(refresh, Math.max(looked + LEAST_MS - performance.now(), 0));
}

onNews(soon);
setInterval(soon, SLOW_MS);
document.addEventListener("visibilitychange", soon);
