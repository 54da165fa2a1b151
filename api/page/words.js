// Plain words for states and failures.

import { span } from "./times.js";

export const STATUS = {
  queued: "Waiting",
  running: "Running",
  completed: "Done",
  failed: "Failed",
  canceled: "Canceled",
  expired: "Expired",
};

const STAGE = {
  fetching: "Fetching the recording",
  decoding: "Reading the recording",
  transcribing: "Transcribing",
  finishing: "Finishing",
};

// What to do about it, by the service's own codes; the service says what happened.
const ADVICE = {
  unsupported_format: "Send an ordinary sound or video file: MP3, M4A, WAV, FLAC, OGG, WebM, MP4.",
  no_audio: "Only the picture is in there. Export the file with its sound.",
  empty_audio: "Check that the recording has sound, and send it again.",
  corrupt_audio: "Open it in a player: if it plays, export it anew and send that.",
  too_long: "Cut it in two and send both.",
  fetch_blocked: "Download it, and send the file.",
  fetch_failed: "Check the address, or download it and send the file.",
  fetch_refused: "Open the address without being signed in: it must give the sound file itself.",
  fetch_timeout: "Try again, or download it and send the file.",
  fetch_too_large: "Download it, and send the file in pieces.",
  worker_crashed: "Something in this recording is too much for the service. Export it anew, for example as FLAC.",
  deadline_exceeded: "It had to wait too long. Try again.",
  out_of_memory: "Try again later, or send the recording in pieces.",
  internal: "Try again. If it fails again, tell who runs this service the number of the recording.",
};

export function advice(error) {
  return ADVICE[error.code] ?? (error.retryable ? "Trying again may help." : "");
}

export function sentence(text) {
  const trimmed = (text ?? "").trim();
  return !trimmed || /[.!?…]$/.test(trimmed) ? trimmed : `${trimmed}.`;
}

export function state(job, model) {
  if (job.status === "queued") return waiting(job, model);
  if (job.status === "running") return STAGE[job.stage] ?? "Running";
  return STATUS[job.status];
}

function waiting(job, model) {
  if (model && !model.live) return "Waiting: no worker is up for this model. It begins by itself when one is.";
  const files = job.queue.position;
  if (!files) return "Waiting for its turn";
  return `Waiting: ${files === 1 ? "one recording is" : `${files} recordings are`} before this one`;
}

export function left(job) {
  const seconds = job.progress.eta_s;
  return seconds === null ? "" : `about ${span(Math.max(seconds, 1))} left`;
}
