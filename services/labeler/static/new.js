// The form of a new experiment: the server checks it as it checks a file; its words go beside the fields.

import { Problem, call } from "./api.js";

const form = document.getElementById("new");
const problem = document.getElementById("problem");
const source = document.getElementById("labels_from");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const config = {};
  for (const [key, value] of new FormData(form)) {
    if (key === source.name || value.trim() === "") continue; // left to the default
    const [leaf, ...tables] = key.split(".").reverse();
    const table = tables.reverse().reduce((into, part) => (into[part] ??= {}), config);
    table[leaf] = value;
  }
  const body = { config, origin: form.dataset.origin };
  if (source.value) body.labels_from = source.value;
  tell({}, "");
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    await call("POST", "/api/admin/experiments", body);
    location.assign(`/admin/${config.name}`);
  } catch (trouble) {
    if (!(trouble instanceof Problem)) throw trouble;
    button.disabled = false; // before the focus goes where something is wrong
    // The one conflict there can be: somebody has the name.
    tell(trouble.status === 409 ? { name: trouble.message } : trouble.errors, trouble.message);
  } finally {
    button.disabled = false;
  }
});

function tell(errors, message) {
  const fields = [...form.querySelectorAll("[name]")];
  const words = new Map();
  const elsewhere = [];
  for (const [key, why] of Object.entries(errors)) {
    // What is wrong between two fields is said of the form; it goes beside the first that it names.
    const whole = key.replace(/\.\d+$/, ""); // what is wrong with one of several numbers is said of all
    const field = fields.find((one) => one.name === whole) ?? fields.find((one) => one.name.includes(".") && why.includes(one.name));
    if (field) words.set(field, why);
    else elsewhere.push(why);
  }
  for (const field of fields) {
    document.getElementById(`${field.name}-error`).textContent = words.get(field) ?? "";
    if (words.has(field)) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
  }
  problem.textContent = words.size
    ? ["Something is not right yet: see the marked fields.", ...elsewhere].join(" ")
    : message;
  form.querySelector("[aria-invalid]")?.focus();
}

// Labels fit only where what they were given with is the same: the others cannot be chosen, and say why.
function fit() {
  const options = [...source.options].filter((one) => one.value);
  for (const option of options) {
    const apart = Object.entries(JSON.parse(option.dataset.givenWith)).filter(([key, value]) => {
      const here = form.elements.namedItem(key)?.value.trim() ?? "";
      return here !== String(value) && !(here !== "" && Number(here) === value);
    });
    option.dataset.words ??= option.textContent;
    option.disabled = apart.length > 0;
    option.textContent = apart.length
      ? `${option.dataset.words} (given with ${apart.map(([key, value]) => `${key} = ${value}`).join(", ")})`
      : option.dataset.words;
  }
  if (source.selectedOptions[0]?.disabled) source.value = "";
  if (!options.length) return;
  const fits = options.filter((one) => !one.disabled).length;
  document.getElementById("labels_from-fit").textContent = fits
    ? `${fits} of ${options.length} experiments with labels fit what stands above.`
    : "None of the experiments with labels fits what stands above.";
}

form.addEventListener("input", fit);
fit();
