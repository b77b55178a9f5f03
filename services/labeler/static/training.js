// "The agent is training": what happens now and how long it may take, drawn from the public status.

const STAGES = ["training_reward", "training_agent", "collecting"];
const NOW = {
  training_reward: "Your answers are in. A model learns from them what you prefer.",
  training_agent: "The agent practises what you prefer.",
  collecting: "The agent plays, and new clips of it are filmed.",
};

// Between two batches: learning, practising, filming. The new round's filming belongs to the old round's wait.
// `passed` is how many seconds ago the status was sent.
export function drawTraining(root, status, passed = 0) {
  const first = status.round === 1 && status.round_state === "collecting";
  const at = STAGES.indexOf(status.round_state);
  const left = new Map(status.wait?.stages.map((one) => [one.stage, one.left_s]));
  for (const row of root.querySelectorAll("[data-stage]")) {
    const { stage } = row.dataset;
    const place = STAGES.indexOf(stage);
    const active = place === at;
    row.hidden = (first && !active) || (status.wait?.is_last && stage === "collecting");
    row.classList.toggle("active", active);
    row.classList.toggle("done", place < at);
    const part = place < at ? 1 : active ? status.attempt?.progress ?? 0 : 0;
    row.querySelector("progress").value = part;
    const seconds = left.get(stage) ?? null;
    row.querySelector(".note").textContent = place < at ? "done" : active ? note(status.attempt, part, seconds, passed) : about(seconds);
  }
  root.querySelector(".training-title").textContent = first ? "The first clips are being filmed" : "The agent is training";
  root.querySelector(".training-text").textContent = first ? "They come up here by themselves." : happening(status);
  root.querySelector(".training-wait").textContent = howLong(status, passed);
}

export function happening(status) {
  return NOW[status.round_state] ?? "";
}

function howLong({ wait, attempt, round }, passed) {
  if (!wait) return "";
  const what = wait.is_last ? "This was the last batch: all is done" : "The next clips come up here";
  if (attempt?.state === "offered" && wait.left_s === null) return `${what} once a trainer is free and has done its work.`;
  if (wait.left_s !== null) {
    const now = wait.stages[0].left_s; // the stage under way gets shorter by itself, the others do not
    return `${what} ${soon(wait.left_s - Math.min(passed, now))}.`;
  }
  if (round === 1) return `${what} by themselves. How long that takes is not known yet: this is the first round.`;
  return `${what} by themselves. It takes longer than in the last rounds.`;
}

function soon(seconds) {
  return seconds < 2 ? "any moment now" : `in about ${span(seconds)}`;
}

function note(attempt, part, seconds, passed) {
  if (!attempt || attempt.state === "offered") return "waits for a free trainer";
  const percent = `${Math.floor(100 * part)} %`;
  return seconds === null || seconds - passed < 1 ? percent : `${percent} · ${span(seconds - passed)} left`;
}

function about(seconds) {
  return seconds === null ? "" : `about ${span(seconds)}`;
}

export function span(seconds) {
  if (seconds < 10) return `${Math.max(Math.round(seconds), 1)} s`;
  if (seconds < 90) return `${5 * Math.round(seconds / 5)} s`; // an estimate is not more exact than that
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export function percentOf(status) {
  return Math.floor(100 * (status.attempt?.progress ?? 0));
}
