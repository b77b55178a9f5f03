// The dialog in which a labeler changes their name.

import { call } from "./api.js";

const $ = (id) => document.getElementById(id);

export function offerRename(who, onRenamed) {
  $("who").addEventListener("click", () => {
    $("name").value = who().name;
    $("name-problem").textContent = "";
    $("rename").showModal();
  });
  $("rename-form").addEventListener("submit", async (event) => {
    if (event.submitter?.value === "cancel") return;
    event.preventDefault();
    try {
      const me = await call("PATCH", "/api/me", { name: $("name").value });
      onRenamed(me);
      $("who").textContent = me.name;
      $("rename").close();
    } catch (problem) {
      $("name-problem").textContent = problem.message;
    }
  });
}
