// The admin pages: buttons that act, and a part that keeps itself up to date.

import { call } from "./api.js";
import { ask } from "./ask.js";
import { morph } from "./morph.js";

const EVERY_MS = 2000;
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

async function refresh() {
  try {
    const response = await fetch(location.href);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const live of response.ok ? document.querySelectorAll("[data-live]") : []) {
      const news = page.getElementById(live.id);
      if (news) morph(live, news);
    }
  } catch {
    // the server is away for a moment: the next look will tell
  }
}

setInterval(() => document.hidden || refresh(), EVERY_MS);
