// An experiment out, as one archive, and labels in from one: both take a while, so both say how far they are.

import { Problem } from "./api.js";

const MIB = 2 ** 20;
const PART = 16 * MIB; // what came is handed to the browser in such parts, which it may keep on the disk
const $ = (id) => document.getElementById(id);

const amount = (bytes) => `${(bytes / MIB).toFixed(1)} MiB`;

function problemOf(status, text) {
  try {
    const { reason, detail, errors } = JSON.parse(text);
    return new Problem(status, reason, detail, errors);
  } catch {
    return new Problem(status, "foreign", status ? "The server did not do it." : "The connection broke off.");
  }
}

async function download(address, say) {
  say("The server gathers the files …");
  const response = await fetch(address);
  if (!response.ok) throw problemOf(response.status, await response.text());
  const whole = Number(response.headers.get("Content-Length"));
  const reader = response.body.getReader();
  let parts = [], some = [], held = 0, got = 0;
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    some.push(next.value);
    held += next.value.length;
    got += next.value.length;
    if (held > PART) [parts, some, held] = [[...parts, new Blob(some)], [], 0];
    say(`${amount(got)} of ${amount(whole)}`);
  }
  return new Blob([...parts, ...some], { type: "application/zip" });
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// With fetch nobody could say how much is sent.
function upload(address, file, say) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address);
    request.setRequestHeader("Content-Type", "application/zip");
    request.upload.addEventListener("progress", ({ loaded }) => say(`${amount(loaded)} of ${amount(file.size)} sent`));
    request.upload.addEventListener("load", () => say("The server checks and stores it …"));
    request.addEventListener("load", () => {
      if (request.status === 201) resolve();
      else reject(problemOf(request.status, request.responseText));
    });
    request.addEventListener("error", () => reject(problemOf(0, "")));
    request.send(file);
  });
}

// Does `what` while the form rests, and says below it what becomes of it.
function whenSent(form, what) {
  form?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const [says, problem] = [form.querySelector("[role=status]"), form.querySelector("[role=alert]")];
    const button = form.querySelector("button");
    const say = (words) => (says.textContent = words);
    button.disabled = true;
    problem.textContent = "";
    try {
      await what(say);
    } catch (trouble) {
      say("");
      problem.textContent = trouble instanceof Problem ? trouble.message : "The connection broke off.";
    } finally {
      button.disabled = false;
    }
  });
}

whenSent($("export"), async (say) => {
  const form = $("export");
  const asked = new URLSearchParams(new FormData(form));
  if (asked.get("form") === "files" || !asked.get("licence")) asked.delete("licence");
  const blob = await download(`${form.action}?${asked}`, say);
  save(blob, `${form.dataset.name}.zip`);
  say(`Saved as ${form.dataset.name}.zip, ${amount(blob.size)}.`);
});

whenSent($("import"), async (say) => {
  const form = $("import");
  const name = $("import-name").value.trim();
  const [file] = $("import-file").files;
  const { most } = form.dataset; // the server would break off a larger one, and no browser tells why
  if (file.size > most * MIB) throw new Problem(413, "too_large", `The archive has ${amount(file.size)}: at most ${most} MiB are taken in.`);
  const asked = new URLSearchParams({ name });
  for (const line of $("import-set").value.split("\n")) if (line.trim()) asked.append("set", line.trim().replace(/\s*=\s*/, "="));
  await upload(`${form.action}?${asked}`, file, say);
  location.assign(`/admin/${name}`);
});
