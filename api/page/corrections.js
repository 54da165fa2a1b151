// What a reader put right: kept in this browser, by job, for all its tabs; nobody else has it.

import { news } from "./state.js";

const NAME = "ananse-corrections-";

addEventListener("storage", (event) => {
  if (event.key?.startsWith(NAME)) news.dispatchEvent(new CustomEvent("corrections", { detail: event.key.slice(NAME.length) }));
});

export function corrections(jobId) {
  try {
    return JSON.parse(localStorage.getItem(NAME + jobId)) ?? {};
  } catch {
    return {};
  }
}

// A text of null takes the correction back. False where the browser keeps nothing.
export function correct(jobId, segmentId, text) {
  const all = corrections(jobId);
  if (text === null) delete all[segmentId];
  else all[segmentId] = text;
  try {
    if (Object.keys(all).length) localStorage.setItem(NAME + jobId, JSON.stringify(all));
    else localStorage.removeItem(NAME + jobId);
    return true;
  } catch {
    return false;
  }
}

export function forget(jobId) {
  localStorage.removeItem(NAME + jobId);
}

// As the service takes them.
export function asBody(all) {
  return JSON.stringify({ corrections: Object.entries(all).map(([id, text]) => ({ id: Number(id), text })) });
}
