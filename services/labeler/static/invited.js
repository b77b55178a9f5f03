// An invitation's link was opened: say whether it is still good, ask for a name, and begin.

import { Problem, call } from "./api.js";

const $ = (id) => document.getElementById(id);
const form = $("invited");
const token = location.hash.slice(1);

function tell(problem) {
  if (!(problem instanceof Problem)) throw problem;
  $("problem").textContent = problem.message;
}

async function look() {
  if (!token) {
    $("problem").textContent = "This link is not whole: copy it to its very end.";
    return;
  }
  try {
    const { name, returning } = await call("POST", "/api/invitations/look", { token });
    $("name").value = name ?? "";
    $("name").readOnly = returning;
    if (returning) $("ask").textContent = "Welcome back";
    form.hidden = false;
    if (!name) $("name").focus();
  } catch (problem) {
    tell(problem);
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  $("problem").textContent = "";
  try {
    await call("POST", "/api/invitations/redeem", { token, name: $("name").value });
    location.replace("/");
  } catch (problem) {
    tell(problem);
  }
});

// Another link pasted over this one changes only what is behind the #.
addEventListener("hashchange", () => location.reload());
look();
