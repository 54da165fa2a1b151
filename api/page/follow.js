// One job from now to its end: by its event stream, taken up again after the last event seen; by polling where
// no stream is to be had. In a hidden tab it rests: browsers open only six connections to one host.

import { EventReader } from "./sse.js";
import { Trouble, call, read } from "./service.js";

const ENDS = new Set(["completed", "failed", "canceled", "expired"]);
const POLL_MS = 2000;
const SLOWEST_MS = 30000;

export const hasEnded = (job) => ENDS.has(job.status);

// `see(job)` for each new state, `hear(window)` for each window of segments, `miss(trouble)` while the service
// is away; a trouble that will not pass ends it.
export async function follow(id, { see, hear, miss }, signal) {
  let [after, failures] = ["0", 0];
  while (!signal.aborted) {
    await visible(signal);
    try {
      const job = await read(`jobs/${id}`, { signal });
      failures = 0;
      see(job);
      if (hasEnded(job)) return;
      after = await listen(id, after, { see, hear }, signal);
    } catch (error) {
      if (signal.aborted) return;
      if (error.isAway || error.status >= 500 || error.status === 429) {
        failures += 1;
        if (error.code !== "unavailable") miss(error);
        await pause(Math.max(error.retryAfterS * 1000, Math.min(SLOWEST_MS, POLL_MS * 1.5 ** (failures - 1))), signal);
      } else {
        miss(error);
        return;
      }
    }
  }
}

// The id of the last event, when the stream ends for whatever reason.
async function listen(id, after, { see, hear }, signal) {
  const stop = new AbortController();
  const hidden = () => document.hidden && stop.abort();
  document.addEventListener("visibilitychange", hidden);
  signal.addEventListener("abort", () => stop.abort());
  try {
    const answer = await stream(id, after, stop.signal);
    if (!answer?.body) {
      await pause(POLL_MS, signal);
      return after;
    }
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    const events = new EventReader();
    for (let step = await reader.read(); !step.done; step = await reader.read()) {
      let isStale = false;
      for (const event of events.push(step.value)) {
        after = event.id || after;
        if (event.event === "segments") hear(JSON.parse(event.data));
        else isStale = true;
      }
      // State and progress name what changed; the job itself has the estimates too.
      if (isStale) see(await read(`jobs/${id}`, { signal }));
    }
  } catch (error) {
    if (!signal.aborted && error instanceof Trouble) throw error;
    // A cut stream is taken up again.
    await pause(300, signal);
  } finally {
    document.removeEventListener("visibilitychange", hidden);
  }
  return after;
}

async function stream(id, after, signal) {
  try {
    return await call(`jobs/${id}/events`, { headers: { "Last-Event-ID": after, Accept: "text/event-stream" }, signal });
  } catch (error) {
    // Too many listen: this one asks instead.
    if (error.code === "unavailable") return null;
    throw error;
  }
}

function visible(signal) {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", resolve, { once: true });
    signal.addEventListener("abort", resolve, { once: true });
  });
}

export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
