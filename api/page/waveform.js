// The shape of the sound, and the place in it: a slider that can be seen.

import { el } from "./dom.js";
import { clock, span } from "./times.js";

const RATE = 8000;
const BARS = 600;
const STEP_S = 5;

// How loud each of BARS stretches is, 0 to 1. Raises where the browser cannot decode the file.
export async function loudness(blob) {
  const context = new OfflineAudioContext(1, 1, RATE);
  const sound = await context.decodeAudioData(await blob.arrayBuffer());
  const samples = sound.getChannelData(0);
  return peaks(samples, Math.min(BARS, samples.length));
}

export function peaks(samples, bars) {
  const found = new Float32Array(bars);
  for (let bar = 0; bar < bars; bar += 1) {
    const last = Math.floor(((bar + 1) * samples.length) / bars);
    for (let at = Math.floor((bar * samples.length) / bars); at < last; at += 1) {
      const height = Math.abs(samples[at]);
      if (height > found[bar]) found[bar] = height;
    }
  }
  const loudest = found.reduce((most, height) => Math.max(most, height), 1e-4);
  return found.map((height) => height / loudest);
}

// Where nobody can look into the sound: bars where somebody speaks.
export function speech(segments, durationS) {
  const found = new Float32Array(BARS).fill(0.06);
  for (const segment of segments) {
    found.fill(0.55, Math.floor((segment.start / durationS) * BARS), Math.ceil((segment.end / durationS) * BARS));
  }
  return found;
}

export function makeWaveform(onSeek) {
  const canvas = el("canvas", { "aria-hidden": "true" });
  const room = el("div", { class: "wave", id: "wave", role: "slider", tabindex: 0, "aria-label": "Place in the recording", "aria-valuemin": 0 }, canvas);
  let [heights, total, now] = [new Float32Array(0), 0, 0];

  function draw() {
    const { clientWidth: width, clientHeight: height } = room;
    if (!width) return;
    const scale = devicePixelRatio;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d");
    const style = getComputedStyle(room);
    const [played, ahead] = [style.getPropertyValue("--accent"), style.getPropertyValue("--wave")];
    const count = Math.max(1, Math.min(heights.length, Math.floor(width / 3)));
    const step = canvas.width / count;
    for (let bar = 0; bar < count; bar += 1) {
      const from = Math.floor((bar * heights.length) / count);
      const to = Math.max(from + 1, Math.floor(((bar + 1) * heights.length) / count));
      let loud = 0;
      for (let at = from; at < to; at += 1) loud = Math.max(loud, heights[at] ?? 0);
      const tall = Math.max(2 * scale, loud * canvas.height * 0.92);
      context.fillStyle = (bar + 0.5) / count <= now / (total || 1) ? played : ahead;
      context.fillRect(bar * step, (canvas.height - tall) / 2, Math.max(1, step * 0.62), tall);
    }
  }

  const secondsAt = (event) => {
    const box = room.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * total;
  };
  room.addEventListener("pointerdown", (event) => {
    room.setPointerCapture(event.pointerId);
    onSeek(secondsAt(event));
  });
  room.addEventListener("pointermove", (event) => room.hasPointerCapture(event.pointerId) && onSeek(secondsAt(event)));
  room.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: now - STEP_S, ArrowDown: now - STEP_S, ArrowRight: now + STEP_S, ArrowUp: now + STEP_S, PageDown: now - 30, PageUp: now + 30, Home: 0, End: total }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    onSeek(Math.min(total, Math.max(0, to)));
  });
  new ResizeObserver(draw).observe(room);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  return {
    room,
    shape(found) {
      heights = found;
      draw();
    },
    place(seconds, durationS) {
      [now, total] = [seconds, durationS];
      room.setAttribute("aria-valuemax", Math.round(total));
      room.setAttribute("aria-valuenow", Math.round(now));
      room.setAttribute("aria-valuetext", `${clock(now)} of ${span(total)}`);
      draw();
    },
  };
}
