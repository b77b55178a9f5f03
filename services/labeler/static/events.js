// The live status of an experiment. Comes back by itself after a lost connection.

const AGAIN_MS = 1000;

export function listen(name, onStatus, onTrouble) {
  let source;
  function connect() {
    source = new EventSource(`/api/experiments/${name}/events`);
    source.addEventListener("open", () => onTrouble(false));
    source.addEventListener("status", (event) => onStatus(JSON.parse(event.data)));
    source.addEventListener("error", () => {
      onTrouble(true);
      source.close(); // a browser gives up for good after some errors: we don't
      setTimeout(connect, AGAIN_MS);
    });
  }
  connect();
  addEventListener("pagehide", () => source.close());
}
