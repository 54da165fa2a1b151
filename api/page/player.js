// The recording: where its bytes come from, and the controls to hear it.

import { el, setText, show } from "./dom.js";
import { address, call, key } from "./service.js";
import { files } from "./state.js";
import { clock, size } from "./times.js";
import { loudness, makeWaveform, speech } from "./waveform.js";

// Up to here it is loaded whole, for the shape of its sound; above, it comes as it is played.
const WHOLE_BYTES = 64e6;
const SHAPED_S = 2 * 3600;
const SPEEDS = [0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.5, 3];
const SKIP_S = 5;

export function makePlayer(onTime) {
  const audio = el("audio", { preload: "metadata" });
  const wave = makeWaveform((seconds) => seek(seconds));
  const play = el("button", { type: "button", class: "primary play", id: "play", "aria-label": "Play", title: "Play (space)" });
  const back = el("button", { type: "button", class: "quiet", text: "−5 s", "aria-label": "Back five seconds", onclick: () => seek(audio.currentTime - SKIP_S) });
  const on = el("button", { type: "button", class: "quiet", text: "+5 s", "aria-label": "On five seconds", onclick: () => seek(audio.currentTime + SKIP_S) });
  const time = el("span", { class: "time", id: "time" });
  const speed = el("select", { id: "speed", "aria-label": "Speed" }, SPEEDS.map((rate) => el("option", { value: rate, text: `${rate} ×`, selected: rate === 1 })));
  const told = el("p", { class: "note", id: "player-note", role: "status" });
  const load = el("button", { type: "button", hidden: true });
  const room = el("section", { class: "player", "aria-label": "Recording" }, wave.room, el("div", { class: "row" }, play, back, on, time, el("span", { class: "grow" }), speed), told, load, audio);
  let [job, durationS, url, frame] = [null, 0, "", 0];

  play.addEventListener("click", toggle);
  speed.addEventListener("change", () => (audio.playbackRate = Number(speed.value)));
  for (const name of ["play", "pause", "ended"]) audio.addEventListener(name, () => (dress(), tick()));
  for (const name of ["seeked", "timeupdate"]) audio.addEventListener(name, shown);
  audio.addEventListener("loadedmetadata", measure);
  audio.addEventListener("error", () => audio.src && fail("This browser cannot play this kind of recording. The transcript is whole all the same."));
  dress();

  // Recordings made in a browser do not say how long they are, until their end was looked for.
  function measure() {
    audio.playbackRate = Number(speed.value);
    if (Number.isFinite(audio.duration)) {
      durationS = audio.duration;
      shown();
    } else {
      audio.addEventListener("seeked", () => (audio.currentTime = 0), { once: true });
      audio.currentTime = 1e7;
    }
  }

  function dress() {
    const isPlaying = !audio.paused && !audio.ended;
    play.classList.toggle("playing", isPlaying);
    play.setAttribute("aria-label", isPlaying ? "Pause" : "Play");
  }

  function tick() {
    cancelAnimationFrame(frame);
    shown();
    if (!audio.paused) frame = requestAnimationFrame(tick);
  }

  function shown() {
    const seconds = Math.min(audio.currentTime, durationS || Infinity);
    setText(time, `${clock(seconds)} / ${clock(durationS)}`);
    wave.place(seconds, durationS);
    onTime(seconds, !audio.paused);
  }

  function seek(seconds) {
    audio.currentTime = Math.min(Math.max(0, seconds), durationS || seconds);
  }

  function toggle() {
    if (audio.paused) audio.play().catch(() => {});
    else audio.pause();
  }

  function fail(text) {
    setText(told, text);
    play.disabled = true;
  }

  async function open(given, segments) {
    close();
    [job, durationS] = [given, given.media.duration_s ?? 0];
    play.disabled = false;
    setText(told, "");
    show(load, false);
    wave.shape(speech(segments, durationS || 1));
    shown();
    const local = files.get(job.id);
    const bytes = job.media.size_bytes;
    if (local) await use(local);
    else if (bytes <= WHOLE_BYTES) await fetchWhole();
    else if (!key.get()) audio.src = address(`jobs/${job.id}/audio`);
    else {
      // A player sends no key: the whole of it has to be fetched for it.
      play.disabled = true;
      setText(load, `Load the recording (${size(bytes)})`);
      show(load, true);
      load.onclick = () => (show(load, false), (play.disabled = false), fetchWhole());
    }
  }

  async function fetchWhole() {
    const mine = job;
    setText(told, "Loading the recording …");
    try {
      const blob = await (await call(`jobs/${mine.id}/audio`)).blob();
      if (mine !== job) return;
      setText(told, "");
      await use(blob);
    } catch (trouble) {
      if (mine !== job) return;
      fail(trouble.status === 410 ? "The recording was deleted already; the transcript is still here." : "The recording could not be loaded.");
    }
  }

  async function use(blob) {
    const mine = job;
    url = URL.createObjectURL(blob);
    audio.src = url;
    if (durationS > SHAPED_S || blob.size > WHOLE_BYTES) return;
    try {
      const heights = await loudness(blob);
      if (mine === job) {
        wave.shape(heights);
        wave.room.dataset.shaped = "sound";
      }
    } catch {
      // The bars of speech stay.
    }
  }

  function close() {
    job = null;
    audio.pause();
    audio.removeAttribute("src");
    audio.load();
    if (url) URL.revokeObjectURL(url);
    url = "";
    delete wave.room.dataset.shaped;
  }

  return { room, audio, open, close, seek, toggle };
}
