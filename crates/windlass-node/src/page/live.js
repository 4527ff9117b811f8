"use strict";
// The parts of the page come anew as server-sent events, rendered and escaped by the daemon.
const events = new EventSource("/events");
for (const name of ["head", "pulls", "rest"]) {
  events.addEventListener(name, (event) => {
    document.getElementById(name).innerHTML = event.data;
    document.body.dataset.live = "yes";
  });
}
events.onerror = () => { document.body.dataset.live = "no"; };
