// A token that somebody was given becomes this browser's cookie.

import { Problem, call } from "./api.js";

const form = document.getElementById("join");
const { check, session } = form.dataset;

// A visitor who came by a link from another site brought no cookie along, and may be known all the same.
if (!location.search.includes("known")) {
  call("GET", check).then(() => location.replace("?known"), () => {});
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await call("POST", session, { token: document.getElementById("token").value });
    location.replace(location.pathname);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    document.getElementById("problem").textContent = problem.message;
  }
});
