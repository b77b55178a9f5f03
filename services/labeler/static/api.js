// Asking the server: JSON in, JSON out, problems as exceptions.

export class Problem extends Error {
  constructor(status, reason, detail, errors = {}) {
    super(detail);
    this.errors = errors; // by field, for a form
    this.status = status; // 0: the server could not be reached
    this.reason = reason;
  }

  // Trying again later may help: nobody answered, the server is in trouble, or it was not the server at all that
  // answered but something in between, which knows nothing of what it refuses.
  get passing() {
    return this.status === 0 || this.status === 429 || this.status >= 500 || this.reason === FOREIGN;
  }
}

const PATIENCE_MS = 15000;
const FOREIGN = "foreign"; // an error that is no problem document

export async function call(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
  } catch {
    throw new Problem(0, "unreachable", "The server cannot be reached.");
  }
  let data = null;
  if (response.status !== 204) {
    try {
      data = await response.json();
    } catch {
      if (response.ok) throw new Problem(0, "unreachable", "The connection broke off.");
    }
  }
  if (response.ok) return data;
  throw new Problem(response.status, data?.reason ?? FOREIGN, data?.detail ?? response.statusText, data?.errors);
}

// Who am I? Where visitors need no token, the first visit makes a labeler.
export async function whoAmI() {
  try {
    return await call("GET", "/api/me");
  } catch (problem) {
    if (problem.status !== 401) throw problem;
    await call("POST", "/api/labelers", { kind: "person" });
    return call("GET", "/api/me");
  }
}

// A random UUID, also where crypto.randomUUID is missing (plain http on a local network).
export function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
