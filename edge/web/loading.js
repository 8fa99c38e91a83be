// Loading: how much it is, who decides, how far it is, what went wrong, and what stays in this browser.
import { $, megabytes, seconds, show } from "./page.js";

let since = performance.now(); // when the load began that the reader waits for
let manifest, ready;

/** Reads the manifest and loads the graph: whenRead(manifest), and later whenReady(worker), which can listen then.
 * A large graph that this browser has not kept waits for the reader's click. */
export async function start(whenReady, whenRead) {
  ready = whenReady;
  try {
    const answer = await fetch("manifest.json");
    if (!answer.ok) throw new Error(`the server answers ${answer.status} for manifest.json`);
    manifest = await answer.json();
  } catch (error) {
    return failed(`The page is not complete: ${error.message}.`, whatToDo(), () => start(whenReady, whenRead));
  }
  whenRead(manifest);
  const lacking = await notKept();
  if (!lacking.length) $("size").textContent += " This browser has kept it: nothing of it is fetched.";
  if (manifest.asksFirst && lacking.includes(manifest.graph)) offer(lacking);
  else load();
}

// The files that count, as far as this browser has no copy of them.
async function notKept() {
  const large = [manifest.wasm, manifest.graph];
  try {
    const cache = await caches.open(manifest.version);
    const kept = await Promise.all(large.map((file) => cache.match(file)));
    return large.filter((_, i) => !kept[i]);
  } catch {
    return large; // no cache on pages that are neither https nor localhost, nor where it is switched off
  }
}

function offer(lacking) {
  const runtime = lacking.includes(manifest.wasm) ? ` + ${megabytes(manifest.load.runtime)} runtime` : "";
  // Whether there is room shows only afterwards: Chromium names 10 GB to every page, whatever the disk has.
  const kept = window.caches ? "kept in this browser afterwards" : "not kept: that needs https or localhost";
  press(`Load ${name()} (${megabytes(manifest.load.graph)}${runtime}; ${kept})`, load);
}

// The one button of this section: to load, or to try again.
function press(label, action) {
  $("progress").hidden = true;
  $("load").textContent = label;
  $("load").hidden = false;
  $("load").onclick = () => {
    $("load").hidden = $("trouble").hidden = true;
    since = performance.now();
    action();
  };
}

function load() {
  const worker = new Worker("worker.js", { type: "module" });
  $("progress").hidden = false;
  $("bar").value = 0;
  $("phase").textContent = "Loading";
  let arrived = 0;
  const stop = (problem, remedy) => {
    worker.terminate();
    failed(problem, remedy, load);
  };
  worker.onmessage = ({ data }) => {
    if (data.ready) return done(worker, data.ready);
    if (data.undelivered) return stop(`${name()} was not loaded (${megabytes(arrived)} arrived): ${data.undelivered}.`, whatToDo());
    if (data.error) return stop(`The graph cannot be used here: ${data.error}.`, "Close other tabs and try again; a device with " +
      "little memory, or an old browser, needs a smaller model or another browser.");
    arrived = data.loaded;
    $("bar").value = data.loaded / data.total;
    $("phase").textContent = data.loaded < data.total ? `Loading: ${megabytes(data.loaded)} of ${megabytes(data.total)}` : "Opening the graph";
  };
  worker.onerror = (event) => {
    event.preventDefault();
    stop(`${name()} was not loaded: ${event.message || "a file of this page cannot be reached"}.`, whatToDo());
  };
  worker.postMessage({ load: manifest });
}

const name = () => `${manifest.name} ${manifest.precision}`;

function whatToDo() {
  return navigator.onLine ? "Check the network, and that the server runs; then press Retry. Nothing incomplete was kept."
    : "This browser is offline: connect it, then press Retry. Nothing incomplete was kept.";
}

function failed(problem, remedy, again) {
  $("trouble").textContent = `${problem} ${remedy}`;
  $("trouble").hidden = false;
  press("Retry", again);
}

async function done(worker, cost) {
  $("loading").hidden = true;
  window.lab.load = { ...cost, total_s: (performance.now() - since) / 1000 };
  show("loaded in", `${seconds(window.lab.load.total_s)}${cost.from_cache ? ", from this browser's copy" : ""}`);
  show("of which opening", seconds(cost.open_s));
  show("threads", cost.threads);
  ready(worker);
  window.lab.offline = await keepForOffline(cost.not_kept).catch((error) => `no: ${error.message}`);
  show("works offline", window.lab.offline);
  if (cost.not_kept) $("size").textContent += ` This browser kept no copy (${cost.not_kept}): the next visit loads it again.`;
}

// Whether the page will open without a server: "yes", or "no: " and why.
async function keepForOffline(notKept) {
  if (!navigator.serviceWorker) return "no: needs https or localhost";
  if (notKept) return "no: the browser kept no copy";
  const registration = await navigator.serviceWorker.register("sw.js");
  await settled(registration.installing);
  // A first one that could not keep the page's files is thrown away, and `serviceWorker.ready` would wait for ever.
  return registration.active || registration.waiting ? "yes" : "no: the browser kept no copy of the page";
}

function settled(installing) {
  const over = () => !installing || ["activated", "redundant"].includes(installing.state);
  return new Promise((resolve) => {
    if (over()) return resolve();
    installing.addEventListener("statechange", () => over() && resolve());
  });
}
