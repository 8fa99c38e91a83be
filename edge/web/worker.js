// The graph, beside the page: loading and transcribing must not freeze it. Messages in: {load}, {id, samples}.
let ort, session;

class Undelivered extends Error {} // the network's or the server's doing, not the graph's: trying again may help

// A file, from the browser's cache where it is there, else from the network and into the cache; report(bytes) counts.
async function fetchOnce(file, manifest, report) {
  const url = new URL(file, location.href).href, size = manifest.sizes[file];
  const cache = await openCache(manifest.version);
  const kept = await cache?.match(url);
  if (kept) {
    const bytes = new Uint8Array(await kept.arrayBuffer());
    report(bytes.length);
    return { bytes, kept: true, notKept: null };
  }
  const { bytes, headers } = await download(url, size, Boolean(cache), report);
  if (!(await isWhole(bytes, manifest.digests[file]))) throw new Undelivered(`${file} arrived damaged`);
  // A cache that is full must not keep the page from working: it only will not work offline.
  const full = (error) => (error.name === "QuotaExceededError" ? "its storage is full" : error.message);
  const notKept = cache ? await cache.put(url, new Response(bytes, { headers })).then(() => null, full)
    : self.isSecureContext ? "it has no storage" : "that needs https or localhost";
  return { bytes, kept: false, notKept };
}

// null on pages that are neither https nor localhost, and where the browser keeps nothing.
async function openCache(version) {
  try {
    return await caches.open(version);
  } catch {
    return null;
  }
}

// What is kept in the cache need not be kept a second time by the browser itself.
async function download(url, size, willBeKept, report) {
  const file = url.split("/").pop();
  let at = 0, response;
  const bytes = new Uint8Array(size);
  try {
    response = await fetch(url, { cache: willBeKept ? "no-store" : "default" });
    if (!response.ok) throw new Undelivered(`the server answers ${response.status} ${response.statusText} for ${file}`);
    for (const reader = response.body.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) break;
      if (at + value.length > size) throw new Undelivered(`${file} is longer than the page expects: reload the page`);
      bytes.set(value, at);
      at += value.length;
      report(value.length);
    }
  } catch (error) {
    if (error instanceof Undelivered) throw error;
    throw new Undelivered(response ? `the connection broke within ${file}` : "the server cannot be reached");
  }
  if (at < size) throw new Undelivered(`${file} ended after ${at} of ${size} bytes`);
  return { bytes, headers: response.headers };
}

// Are these the bytes that the build saw? Without https or localhost the browser cannot tell, and the length must do.
async function isWhole(bytes, digest) {
  if (!self.crypto?.subtle) return true;
  const found = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(found, (byte) => byte.toString(16).padStart(2, "0")).join("") === digest;
}

async function load(manifest) {
  const start = performance.now();
  const total = manifest.sizes[manifest.wasm] + manifest.sizes[manifest.graph];
  let loaded = 0;
  const report = (bytes) => postMessage({ loaded: (loaded += bytes), total });
  // The larger first, and one after the other: what fails fails early, and what has arrived by then is kept for the next try.
  const graph = await fetchOnce(manifest.graph, manifest, report), wasm = await fetchOnce(manifest.wasm, manifest, report);
  ort = await import("./ort/ort.wasm.min.mjs").catch(() => {
    throw new Undelivered("onnxruntime-web cannot be reached");
  });
  const fetched = performance.now();
  ort.env.wasm.wasmPaths = new URL("ort/", location.href).href;
  ort.env.wasm.wasmBinary = wasm.bytes;
  ort.env.logLevel = "error"; // it would remark that the optional inputs are optional
  // More than one thread needs a server that isolates the page (COOP and COEP headers); one works everywhere.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
  session = await ort.InferenceSession.create(graph.bytes, { executionProviders: ["wasm"], logSeverityLevel: 3 });
  postMessage({ ready: { fetch_s: (fetched - start) / 1000, open_s: (performance.now() - fetched) / 1000,
                         from_cache: wasm.kept && graph.kept, not_kept: graph.notKept ?? wasm.notKept,
                         threads: ort.env.wasm.numThreads } });
}

async function transcribe(id, samples) {
  const start = performance.now();
  const { text, tokens } = await session.run({ samples: new ort.Tensor("float32", samples, [1, samples.length]) });
  postMessage({ id, text: text.data[0], tokens: Array.from(tokens.data, Number), seconds: (performance.now() - start) / 1000 });
}

// A node of the graph that fails on purpose says why in its name: "error: samples must not be longer than ..."
const reason = (error) => String(error?.message ?? error).match(/Name:'error: ([^']+)'/)?.[1] ?? String(error?.message ?? error);

self.onmessage = async ({ data }) => {
  try {
    await (data.load ? load(data.load) : transcribe(data.id, data.samples));
  } catch (error) {
    postMessage(error instanceof Undelivered ? { undelivered: error.message } : { id: data.id, error: reason(error) });
  }
};
