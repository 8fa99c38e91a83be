// The graph, beside the page: loading and transcribing must not freeze it. Messages in: {load}, {id, samples}.
import * as ort from "./ort/ort.wasm.min.mjs";

let session;

// A file, from the browser's cache where it is there, else from the network and into the cache; report(bytes) counts.
async function fetchOnce(url, version, report) {
  const cache = self.caches ? await caches.open(version) : null; // no cache on pages that are neither https nor localhost
  const kept = await cache?.match(url);
  const response = kept ?? (await fetch(url));
  if (!response.ok) throw new Error(`${url} cannot be loaded: ${response.status} ${response.statusText}`);
  const parts = [];
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    report(value.length);
  }
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (bytes.set(part, at), at + part.length), 0);
  // A cache that is full must not keep the page from working: it only will not work offline.
  if (!kept) await cache?.put(url, new Response(bytes, { headers: response.headers })).catch(() => {});
  return { bytes, kept: Boolean(kept) };
}

async function load(manifest) {
  const start = performance.now();
  const total = manifest.sizes[manifest.wasm] + manifest.sizes[manifest.graph];
  let loaded = 0;
  const report = (bytes) => postMessage({ progress: (loaded += bytes) / total, loaded, total });
  const [wasm, graph] = await Promise.all([manifest.wasm, manifest.graph]
    .map((file) => fetchOnce(new URL(file, location.href).href, manifest.version, report)));
  const fetched = performance.now();
  ort.env.wasm.wasmPaths = new URL("ort/", location.href).href;
  ort.env.wasm.wasmBinary = wasm.bytes;
  ort.env.logLevel = "error"; // it would remark that the optional inputs are optional
  // More than one thread needs a server that isolates the page (COOP and COEP headers); one works everywhere.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
  session = await ort.InferenceSession.create(graph.bytes, { executionProviders: ["wasm"], logSeverityLevel: 3 });
  postMessage({ ready: { fetch_s: (fetched - start) / 1000, open_s: (performance.now() - fetched) / 1000,
                         from_cache: wasm.kept && graph.kept, threads: ort.env.wasm.numThreads } });
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
    postMessage({ id: data.id, error: reason(error) });
  }
};
