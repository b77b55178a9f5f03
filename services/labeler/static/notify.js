// A notification of the browser for a labeler who waits in another tab. Nothing asks for the permission
// but the labeler's own press of a plain button; the choice is kept by this browser.

const KEY = "lockstep.notify";

export class Bell {
  #rung = null;

  constructor(experiment, button, note) {
    this.experiment = experiment;
    this.button = button;
    this.note = note;
    this.wanted = kept() === "yes";
    button.addEventListener("click", () => this.#press());
    this.#draw();
  }

  ring(title, body) {
    if (!this.wanted || !possible() || Notification.permission !== "granted") return;
    try {
      this.#rung = new Notification(title, { body, tag: `lockstep-${this.experiment}`, icon: icon() });
    } catch {
      return; // some browsers on phones let only service workers notify: the title says it
    }
    this.#rung.addEventListener("click", () => {
      window.focus();
      this.still();
    });
  }

  still() {
    this.#rung?.close();
    this.#rung = null;
  }

  async #press() {
    if (this.wanted && Notification.permission === "granted") {
      this.wanted = false;
    } else {
      this.wanted = (await Notification.requestPermission()) === "granted";
    }
    keep(this.wanted ? "yes" : "no");
    this.#draw();
    this.note.textContent = this.#said();
  }

  #draw() {
    this.button.hidden = !possible();
    const on = this.wanted && possible() && Notification.permission === "granted";
    this.button.textContent = on ? "Do not notify me" : "Notify me when clips are here";
  }

  #said() {
    if (Notification.permission === "denied") return "This browser does not allow it. The tab’s title will tell.";
    return this.wanted ? "If this tab is in the background then, the browser tells you." : "The tab’s title will tell.";
  }
}

// Only pages that came over https, or from this machine, may notify.
function possible() {
  return isSecureContext && "Notification" in window;
}

function icon() {
  return document.querySelector("link[rel=icon]").href;
}

function kept() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function keep(value) {
  try {
    localStorage.setItem(KEY, value);
  } catch {
    // a forbidden store: the choice lives in this page
  }
}
