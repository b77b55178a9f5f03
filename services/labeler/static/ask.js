// Asks before something that cannot be taken back.

// Resolves to false if it was called off, else to the reason given ("" for none; true if none was asked for).
export function ask({ question, doing, reason = false }) {
  const dialog = document.createElement("dialog");
  dialog.className = "ask";
  dialog.setAttribute("aria-labelledby", "ask-question");
  dialog.innerHTML = `<form method="dialog">
    <p id="ask-question"></p>
    <p class="why"><label for="ask-reason">Why? It is kept in the history.</label><input id="ask-reason" maxlength="300" autocomplete="off"></p>
    <div class="row"><button value="" formnovalidate>Cancel</button><button class="danger" value="yes"></button></div>
  </form>`;
  const [cancel, go] = dialog.querySelectorAll("button");
  dialog.querySelector("#ask-question").textContent = question;
  dialog.querySelector(".why").hidden = !reason;
  go.textContent = doing;
  document.body.append(dialog);
  dialog.showModal();
  const field = dialog.querySelector("#ask-reason");
  (reason ? field : cancel).focus();
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // Enter would press the first button
    dialog.close("yes");
  });
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue !== "yes" ? false : reason ? field.value.trim() : true);
    });
  });
}
