// The form of a new experiment: the server checks it as it checks a file; its words go beside the fields.

import { Problem, call } from "./api.js";

const form = document.getElementById("new");
const problem = document.getElementById("problem");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const config = {};
  for (const [key, value] of new FormData(form)) {
    if (value.trim() === "") continue; // left to the default
    const [leaf, ...tables] = key.split(".").reverse();
    const table = tables.reverse().reduce((into, part) => (into[part] ??= {}), config);
    table[leaf] = value;
  }
  tell({}, "");
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    await call("POST", "/api/admin/experiments", { config, origin: form.dataset.origin });
    location.assign(`/admin/${config.name}`);
  } catch (trouble) {
    if (!(trouble instanceof Problem)) throw trouble;
    tell(trouble.errors, trouble.message);
  } finally {
    button.disabled = false;
  }
});

function tell(errors, message) {
  for (const field of form.querySelectorAll("[name]")) {
    const wrong = errors[field.name] ?? "";
    document.getElementById(`${field.name}-error`).textContent = wrong;
    if (wrong) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
  }
  const beside = form.querySelectorAll("[aria-invalid]");
  const elsewhere = Object.keys(errors).filter((key) => !form.elements.namedItem(key)).map((key) => errors[key]);
  problem.textContent = beside.length
    ? ["Something is not right yet: see the marked fields.", ...elsewhere].join(" ")
    : message;
  beside[0]?.focus();
}
