// "The agent is training": the stages of the work with their progress, drawn from the public status.

const STAGES = ["training_reward", "training_agent", "collecting"];

// Between two batches: learning, practising, filming. The new round's filming belongs to the old round's wait.
export function drawTraining(root, status) {
  const first = status.round === 1 && status.round_state === "collecting";
  const at = STAGES.indexOf(status.round_state);
  for (const row of root.querySelectorAll("[data-stage]")) {
    const place = STAGES.indexOf(row.dataset.stage);
    row.hidden = first && row.dataset.stage !== "collecting";
    const done = place < at;
    const active = place === at;
    row.classList.toggle("active", active);
    row.classList.toggle("done", done);
    const part = done ? 1 : active ? status.attempt?.progress ?? 0 : 0;
    const bar = row.querySelector("progress");
    bar.value = part;
    row.querySelector(".note").textContent = active ? note(status.attempt, part) : done ? "done" : "";
  }
  root.querySelector(".training-title").textContent = first ? "The first clips are being filmed" : "The agent is training";
  root.querySelector(".training-text").textContent = first
    ? "They come up here by themselves."
    : "Your answers are in. The next clips come up here by themselves.";
}

function note(attempt, part) {
  if (!attempt || attempt.state === "offered") return "starting";
  const percent = `${Math.floor(100 * part)} %`;
  return attempt.eta_s === null || attempt.eta_s < 1 ? percent : `${percent} · ${span(attempt.eta_s)} left`;
}

export function span(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export function percentOf(status) {
  return Math.floor(100 * (status.attempt?.progress ?? 0));
}
