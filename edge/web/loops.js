// A text that goes round in a loop: the one sign of doubt in a graph's bare text, which comes without probabilities.

/** Compression ratio above which a text is doubtful: openai-whisper's limit, and that of whisper_lab/confidence.py. */
export const LOOPS = 2.4;

/** Bytes of the text over its bytes when zlib has packed it; 0 for no text, or where the browser cannot pack. */
export async function compressionRatio(text) {
  if (!text || !window.CompressionStream) return 0;
  const raw = new Blob([text]);
  const packed = await new Response(raw.stream().pipeThrough(new CompressionStream("deflate"))).arrayBuffer();
  return raw.size / packed.byteLength;
}
