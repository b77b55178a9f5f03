// The admin's page of labelers: invitations made and revoked, sessions ended.

import { call } from "./api.js";
import { ask } from "./ask.js";
import { morph } from "./morph.js";

const $ = (id) => document.getElementById(id);

async function attempt(what) {
  try {
    await what();
    $("problem").textContent = "";
  } catch (problem) {
    $("problem").textContent = problem.message;
  }
  await refresh();
}

async function invite(body) {
  const made = await call("POST", "/api/admin/invitations", body);
  $("link").value = made.link;
  $("made-for").textContent = made.name ?? "whoever opens it first";
  $("made-until").textContent = new Date(made.expires_at).toLocaleString();
  $("made").hidden = false;
  $("link").focus();
  $("link").select();
}

async function refresh() {
  try {
    const response = await fetch(location.href);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const news = page.getElementById("lists");
    if (response.ok && news) morph($("lists"), news);
  } catch {
    // the server is away for a moment: a reload will tell
  }
}

$("invite").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("invite-name").value.trim() || null;
  attempt(() => invite({ name, days: Number($("invite-days").value) }));
});

$("copy").addEventListener("click", async () => {
  $("link").select();
  try {
    await navigator.clipboard.writeText($("link").value);
    $("copy").textContent = "Copied";
  } catch {
    $("copy").textContent = "Press Ctrl-C"; // plain http gives no clipboard; the link is selected
  }
});

$("lists").addEventListener("click", async (event) => {
  const { again, shutOut, revoke, name } = event.target.closest("button")?.dataset ?? {};
  if (again) attempt(() => invite({ labeler: Number(again) }));
  if (revoke && (await ask({ question: `Take the invitation of ${name} back? Its link lets nobody in any more.`, doing: "Revoke" }))) {
    attempt(() => call("DELETE", `/api/admin/invitations/${revoke}`));
  }
  const question = `Log ${name} out everywhere? Their answers stay; a new invitation lets them in again.`;
  if (shutOut && (await ask({ question, doing: "End sessions" }))) {
    attempt(() => call("DELETE", `/api/admin/labelers/${shutOut}/sessions`));
  }
});
