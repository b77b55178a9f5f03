// The admin pages: buttons that act, and a part that keeps itself up to date.

import { call } from "./api.js";

const EVERY_MS = 2000;
const QUESTIONS = {
  abandon: "Abandon this experiment for good? What it made stays; nothing more is done.",
  finish: "Finish this experiment as it stands? It cannot be resumed.",
};

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-admin]");
  if (!button) return;
  const { admin: action, experiment } = button.dataset;
  if (action in QUESTIONS && !confirm(QUESTIONS[action])) return;
  button.disabled = true;
  try {
    await call("POST", `/api/admin/experiments/${experiment}/${action}`, {});
    document.getElementById("problem").textContent = "";
  } catch (problem) {
    document.getElementById("problem").textContent = problem.message;
  }
  await refresh();
});

async function refresh() {
  try {
    const response = await fetch(location.href);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const live of response.ok ? document.querySelectorAll("[data-live]") : []) renew(live, page.getElementById(live.id));
  } catch {
    // the server is away for a moment: the next look will tell
  }
}

// Takes the news in place of what is shown, and leaves open what was opened.
function renew(live, news) {
  if (!news || news.innerHTML === live.dataset.shown) return;
  const open = new Map([...live.querySelectorAll("details")].map((one) => [one.id, one.open]));
  live.dataset.shown = news.innerHTML;
  live.innerHTML = news.innerHTML;
  for (const one of live.querySelectorAll("details")) one.open = open.get(one.id) ?? one.open;
}

setInterval(() => document.hidden || refresh(), EVERY_MS);
