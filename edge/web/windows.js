// Sound before it reaches the graph: one row of samples at the graph's rate, cut into windows it can hear.

/** Any file the browser can decode -> mono Float32Array at `rate` Hz. Throws where it is not sound. */
export async function decode(bytes, rate) {
  // An offline context decodes straight to its own rate; its length (1) does not matter for that.
  const sound = await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes);
  return mono(sound);
}

/** Mean of the channels, Float32Array. */
export function mono(sound) {
  const samples = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    const data = sound.getChannelData(channel);
    for (let i = 0; i < samples.length; i++) samples[i] += data[i] / sound.numberOfChannels;
  }
  return samples;
}

/** Float32Array at one rate -> at another; the browser's own resampler. */
export async function resample(samples, from, to) {
  if (from === to || samples.length === 0) return samples;
  const context = new OfflineAudioContext(1, Math.max(1, Math.round((samples.length * to) / from)), to);
  const buffer = new AudioBuffer({ length: samples.length, sampleRate: from, numberOfChannels: 1 });
  buffer.copyToChannel(samples, 0);
  const source = new AudioBufferSourceNode(context, { buffer });
  source.connect(context.destination);
  source.start();
  return (await context.startRendering()).getChannelData(0);
}

/** Pieces of at most `most` samples; longer sound is cut where it is softest in the last third of a window. */
export function windows(samples, most, rate) {
  const pieces = [];
  let start = 0;
  while (samples.length - start > most) {
    const end = softest(samples, start + Math.floor((2 * most) / 3), start + most, Math.round(rate / 10));
    pieces.push(samples.slice(start, end));
    start = end;
  }
  pieces.push(samples.slice(start));
  return pieces;
}

function softest(samples, from, to, width) {
  let best = to - width, least = Infinity;
  for (let at = from; at + width <= to; at += width >> 1) {
    let energy = 0;
    for (let i = at; i < at + width; i++) energy += samples[i] * samples[i];
    if (energy < least) [least, best] = [energy, at];
  }
  return best + (width >> 1);
}
