// Live events. A stream comes back by itself after a lost connection.

const AGAIN_MS = 1000;

// The status of an experiment.
export function listen(name, onStatus, onTrouble) {
  follow(`/api/experiments/${name}/events`, "status", onStatus, onTrouble);
}

// What is sent from `address` under the name `kind`.
export function follow(address, kind, onNews, onTrouble) {
  let source;
  function connect() {
    source = new EventSource(address);
    source.addEventListener("open", () => onTrouble(false));
    source.addEventListener(kind, (event) => onNews(JSON.parse(event.data)));
    source.addEventListener("error", () => {
      onTrouble(true);
      source.close(); // a browser gives up for good after some errors: we don't
      setTimeout(connect, AGAIN_MS);
    });
  }
  connect();
  addEventListener("pagehide", () => source.close());
}
