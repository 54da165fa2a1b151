// One recording: what is going on with it, and its transcript once there is one.

import { forget } from "./corrections.js";
import { $, ask, el, say, setText, show } from "./dom.js";
import { makeDownloads } from "./downloads.js";
import { follow, hasEnded } from "./follow.js";
import { update } from "./jobs_list.js";
import { merge } from "./placing.js";
import { makePlayer } from "./player.js";
import { call, read } from "./service.js";
import { files, jobsChanged, modelOf, news } from "./state.js";
import { clock, language, percent, size, span, when } from "./times.js";
import { makeTranscript } from "./transcript.js";
import { advice, left, sentence, state, STATUS } from "./words.js";

const BEST_WIDTH = 72;

let close = () => {};

// Shows this job until another is opened. `goTo(hash)` leads away; `complain` tells of an absent service.
export function openJob(id, { goTo, complain }) {
  closeJob();
  const control = new AbortController();
  const room = $("job");
  let [job, segments, transcript, last] = [null, [], null, ""];

  const name = el("h1", { class: "name" });
  const facts = el("p", { class: "note facts" });
  const actions = el("div", { class: "row actions" });
  const told = el("p", { class: "told", id: "told" });
  const leftover = el("span", { class: "note" });
  const bar = el("progress", { id: "bar", max: 1, "aria-label": "Progress" });
  const going = el("div", { class: "going", hidden: true }, el("div", { class: "row" }, told, el("span", { class: "grow" }), leftover), bar);
  const outcome = el("div", { class: "outcome", id: "outcome", hidden: true });
  const live = el("ol", { class: "segments live", id: "live", "aria-label": "What has been heard so far" });
  const player = makePlayer((seconds, isPlaying) => transcript?.mark(seconds, isPlaying));
  const result = el("div", { class: "result" });
  const about = el("details", { class: "about" }, el("summary", { text: "About this recording" }), el("dl"));
  room.replaceChildren(el("a", { class: "back", href: "#/", text: "‹ All recordings" }), el("header", {}, name, facts, actions), going, outcome, live, result, about);
  show(about, false);
  name.textContent = "…";

  async function see(found) {
    complain("");
    const isNew = !job || job.status !== found.status;
    job = found;
    update(job);
    head();
    progress();
    if (isNew) {
      acts();
      if (hasEnded(job)) await ended();
    }
  }

  function head() {
    setText(name, job.media.name);
    document.title = `${hasEnded(job) ? "" : job.progress.fraction ? `${percent(job.progress.fraction)} ` : "… "}${job.media.name} · Ananse`;
    const { duration_s: length, size_bytes: bytes } = job.media;
    const spoken = job.language ? language(job.language.code) : null;
    const told = [length && clock(length), bytes && size(bytes), spoken, job.model.name, when(job.created_at)];
    setText(facts, told.filter(Boolean).join(" · "));
  }

  function progress() {
    show(going, !hasEnded(job));
    const text = state(job, modelOf(job.options.model));
    setText(told, text);
    const { fraction } = job.progress;
    if (job.status === "running" && fraction !== null) bar.value = fraction;
    else bar.removeAttribute("value");
    show(bar, job.status === "running");
    setText(leftover, [job.status === "running" && fraction !== null && percent(fraction), left(job)].filter(Boolean).join(", "));
    // By ear only what changes; not every percent.
    if (text !== last) say(`${job.media.name}: ${text}`);
    last = text;
  }

  function hear(window) {
    segments = merge(segments, window.segments);
    const isAtEnd = innerHeight + scrollY > document.documentElement.scrollHeight - BEST_WIDTH;
    segments.forEach((segment, at) => {
      const known = live.children[at];
      if (known?.dataset.start === String(segment.start)) return;
      const row = el("li", { class: "segment", data: { start: segment.start } }, el("span", { class: "at", text: clock(segment.start) }), el("p", { class: "words", text: segment.text.trim() }));
      live.insertBefore(row, known ?? null);
    });
    if (isAtEnd && !hasEnded(job)) scrollTo({ top: document.documentElement.scrollHeight });
  }

  function acts() {
    const canRetry = job.status === "failed" || job.status === "canceled";
    actions.replaceChildren(
      ...[
        !hasEnded(job) && el("button", { type: "button", id: "cancel", text: "Cancel", onclick: () => attempt(cancel) }),
        canRetry && el("button", { type: "button", id: "retry", class: job.status === "failed" && !job.error?.retryable ? null : "primary", text: "Try again", onclick: () => attempt(retry) }),
        el("button", { type: "button", id: "delete", class: "quiet danger-text", text: "Delete", onclick: () => attempt(remove) }),
      ].filter(Boolean),
    );
  }

  async function attempt(act) {
    try {
      await act();
    } catch (trouble) {
      if (!control.signal.aborted) complain(trouble.isAway || trouble.status === 401 ? trouble : sentence(trouble.message));
    }
  }

  async function cancel() {
    if (!(await ask("Cancel this transcription?", "What was heard so far stays readable.", "Cancel it"))) return;
    await see(await read(`jobs/${id}/cancel`, { method: "POST" }));
    jobsChanged();
  }

  async function retry() {
    const again = await read(`jobs/${id}/retry`, { method: "POST" });
    if (files.has(id)) files.set(again.id, files.get(id));
    jobsChanged();
    goTo(`#/jobs/${again.id}`);
  }

  async function remove() {
    const text = "The recording, its transcript and your corrections are removed for good.";
    if (!(await ask(`Delete “${job.media.name}”?`, text, "Delete"))) return;
    await call(`jobs/${id}`, { method: "DELETE" });
    forget(id);
    files.delete(id);
    jobsChanged();
    goTo("#/");
    say("Deleted.");
  }

  async function ended() {
    outcome.replaceChildren(...outcomeOf(job));
    show(outcome, Boolean(outcome.children.length));
    outcome.dataset.status = job.status;
    tell(about, job);
    if (job.status === "completed" || job.status === "canceled") await attempt(open);
    else show(live, job.status === "failed");
  }

  async function open() {
    const made = await read(`jobs/${id}/transcript?format=json`, { signal: control.signal });
    if (control.signal.aborted) return;
    show(live, false);
    live.replaceChildren();
    if (!made.segments.length) {
      result.replaceChildren(player.room, el("p", { class: "empty", text: made.partial ? "It was canceled before anything was heard." : "No speech was found in this recording." }));
    } else {
      transcript = makeTranscript(job, made, player, makeDownloads(job));
      result.replaceChildren(player.room, transcript.room);
    }
    if (made.suppressed.length) result.append(removed(made.suppressed));
    player.open(job, made.segments);
  }

  const elsewhere = (event) => event.detail === id && transcript?.takeOver();
  const models = () => job && progress();
  const keys = (event) => pressed(event, player);
  news.addEventListener("corrections", elsewhere);
  news.addEventListener("models", models);
  document.addEventListener("keydown", keys);
  close = () => {
    control.abort();
    player.close();
    news.removeEventListener("corrections", elsewhere);
    news.removeEventListener("models", models);
    document.removeEventListener("keydown", keys);
  };
  follow(id, { see, hear, miss }, control.signal);

  function miss(trouble) {
    if (trouble.status === 404 || trouble.status === 410) {
      setText(name, "Not here");
      outcome.replaceChildren(el("p", { text: "There is no such recording. It was deleted, or it belongs to another key." }));
      show(outcome, true);
      show(going, false);
      return;
    }
    complain(trouble);
  }
}

export function closeJob() {
  close();
  close = () => {};
  $("job").replaceChildren();
}

function outcomeOf(job) {
  if (job.status === "failed") {
    return [
      el("h2", { text: "This did not work" }),
      el("p", { text: sentence(job.error?.detail) }),
      el("p", { text: advice(job.error ?? {}) }),
      el("p", { class: "note", text: `${job.error?.code} · ${job.id}` }),
    ];
  }
  if (job.status === "canceled") return [el("p", { text: "Canceled. Below is what had been heard by then." })];
  if (job.status === "expired") {
    const on = job.expires_at ? ` on ${when(job.expires_at)}` : "";
    return [el("h2", { text: "Expired" }), el("p", { text: `The recording and its transcript were deleted${on}: they are kept for a limited time. Send the recording again to have it transcribed anew.` })];
  }
  return job.warnings.length ? job.warnings.map((warning) => el("p", { text: sentence(warning) })) : [];
}

function tell(about, job) {
  const { timings, model, media } = job;
  const rows = [
    ["Number", job.id],
    ["State", STATUS[job.status]],
    ["Model", [model.name, model.revision, model.device, model.dtype].filter(Boolean).join(", ")],
    ["Sound", [media.container, media.codec].filter(Boolean).join(", ")],
    ["Waited", timings.queued_s !== null && span(timings.queued_s)],
    ["Took", timings.total_s !== null && span(timings.total_s)],
    ["Tag", job.options.tag],
    ["From", media.url],
    ["Kept until", job.status !== "expired" && job.expires_at && when(job.expires_at)],
  ];
  about.querySelector("dl").replaceChildren(...rows.filter(([, value]) => value).flatMap(([term, value]) => [el("dt", { text: term }), el("dd", { text: value })]));
  show(about, true);
}

const REASONS = { no_speech: "nobody spoke", repetition: "the same words over and over" };

function removed(spans) {
  return el(
    "details",
    { class: "about" },
    el("summary", { text: `Taken out: ${spans.length}` }),
    el("ul", {}, spans.map(({ start, text, reason }) => el("li", { text: `${clock(start)} “${text.trim()}”: ${REASONS[reason] ?? reason}` }))),
  );
}

function pressed(event, player) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || !player.room.isConnected) return;
  if (event.target.closest("input, textarea, select, button, a, summary, dialog, [role=slider]") && event.key !== "k") return;
  if (event.target.closest("input, textarea, select")) return;
  const { audio, seek, toggle } = player;
  const act = { " ": toggle, k: toggle, ArrowLeft: () => seek(audio.currentTime - 5), ArrowRight: () => seek(audio.currentTime + 5) }[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}
