// A text that goes round in a loop: the one sign of doubt in a graph's bare text, which comes without probabilities.

/** Compression ratio above which a text is doubtful: openai-whisper's limit, and that of whisper_lab/confidence.py. */
export const LOOPS = 2.4;

/** Bytes of the text over its bytes when zlib has packed it, one byte for a letter of any script, as decoding.py has
 *  it; 0 for no text, or where the browser cannot pack. */
export async function compressionRatio(text) {
  if (!text || !window.CompressionStream) return 0;
  const raw = new Blob([oneByteEach(text)]);
  const packed = await new Response(raw.stream().pipeThrough(new CompressionStream("deflate"))).arrayBuffer();
  return raw.size / packed.byteLength;
}

/** ASCII as it is, other characters numbered from 128 as they come; UTF-8 where there are too many of them for that. */
function oneByteEach(text) {
  const characters = Array.from(text), others = new Map();
  for (const character of characters) {
    if (character > "\x7f" && !others.has(character)) others.set(character, 128 + others.size);
  }
  if (others.size > 128) return text;
  return Uint8Array.from(characters, (character) => others.get(character) ?? character.codePointAt(0));
}
