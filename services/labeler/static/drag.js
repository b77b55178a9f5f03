// Clips dragged onto the shelf, with a mouse, a pen or a finger: between two tiers, or onto one to be equal to it.

const FAR = 6; // pixels after which a press is a drag
const REACH = 48; // pixels around the shelf that still count as on it

// mayDrag(): false if not now. onDrop(clip, at, equal): the clip belongs to tier `at`, or in front of it.
export function drag({ shelf, list, mayDrag, onDrop }) {
  let held = null; // {clip, x, y, handle, ghost}

  addEventListener("pointerdown", (event) => {
    const handle = event.target.closest(".pair.current [data-clip], .shelf [data-clip]");
    if (!handle || event.button || !event.isPrimary) return;
    held = { clip: Number(handle.dataset.clip), x: event.clientX, y: event.clientY, handle, ghost: null };
  });
  addEventListener("pointermove", (event) => {
    if (!held || !event.isPrimary) return;
    if (!held.ghost) {
      if (Math.hypot(event.clientX - held.x, event.clientY - held.y) < FAR) return;
      if (!mayDrag()) return drop();
      begin(event);
    }
    held.ghost.style.translate = `${event.clientX}px ${event.clientY}px`;
    mark(place(event));
  });
  addEventListener("pointerup", (event) => {
    if (!held?.ghost || !event.isPrimary) return drop();
    const { clip } = held;
    const target = place(event);
    addEventListener("click", swallow, { capture: true }); // what ends a drag is no click
    setTimeout(() => removeEventListener("click", swallow, { capture: true }));
    drop();
    if (target) onDrop(clip, target.at, target.equal);
  });
  addEventListener("pointercancel", drop);
  addEventListener("keydown", (event) => held && event.key === "Escape" && drop());

  function begin(event) {
    held.handle.setPointerCapture(event.pointerId);
    held.ghost = document.createElement("span");
    held.ghost.className = "chip ghost";
    held.ghost.textContent = held.clip + 1;
    document.body.append(held.ghost);
    document.body.classList.add("dragging");
  }

  function drop() {
    held?.ghost?.remove();
    held = null;
    mark(null);
    document.body.classList.remove("dragging");
  }

  // Where on the shelf a pointer is: on a tier, in front of one, or behind the last; null elsewhere.
  function place({ clientX: x, clientY: y }) {
    const box = shelf.getBoundingClientRect();
    const off = x < box.left - REACH || x > box.right + REACH || y < box.top - REACH || y > box.bottom + REACH;
    if (off) return null;
    const tiers = [...list.querySelectorAll(".tier")];
    for (const [at, tier] of tiers.entries()) {
      const { left, right, width } = tier.getBoundingClientRect();
      if (x < left + width / 4) return { at, equal: false };
      if (x <= right - width / 4) return { at, equal: true };
    }
    return { at: tiers.length, equal: false };
  }

  function mark(target) {
    for (const [at, item] of [...list.children].entries()) {
      item.classList.toggle("equal", target?.at === at && target.equal);
      item.classList.toggle("before", target?.at === at && !target.equal);
    }
    list.classList.toggle("behind", Boolean(target) && target.at === list.children.length);
  }
}

function swallow(event) {
  event.stopPropagation();
  event.preventDefault();
}
