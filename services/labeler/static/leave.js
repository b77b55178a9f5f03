// The button that logs out.

import { call } from "./api.js";

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-log-out]");
  if (!button) return;
  button.disabled = true;
  try {
    await call("DELETE", button.dataset.logOut);
    location.reload();
  } catch {
    button.disabled = false; // the server is away for a moment
  }
});
