// The list of my recordings: newest first, searched by name, tag and number, kept fresh while it is looked at.

import { $, el, setText, show } from "./dom.js";
import { read } from "./service.js";
import { news } from "./state.js";
import { hasEnded } from "./follow.js";
import { ago, clock, percent } from "./times.js";
import { STATUS } from "./words.js";

const PAGE = 50;
const BUSY_MS = 2500;
const IDLE_MS = 15000;
// How far back a search looks by itself.
const MOST_SEARCHED = 1000;

let jobs = [];
let next = null;
let depth = 1;
let timer = 0;
let turn = 0;
let chosen = "";

export function startList(onTrouble) {
  const again = () => refresh(onTrouble);
  news.addEventListener("jobs", again);
  document.addEventListener("visibilitychange", () => document.hidden || again());
  $("jobs-search").addEventListener("input", () => (draw(), lookFurther(onTrouble)));
  $("jobs-status").addEventListener("change", () => ((depth = 1), again()));
  $("jobs-more").addEventListener("click", () => ((depth += 1), again()));
  return again();
}

export function choose(id) {
  chosen = id;
  draw();
}

// What the open job has told since the list was read.
export function update(job) {
  const at = jobs.findIndex((known) => known.id === job.id);
  if (at >= 0) jobs[at] = job;
  draw();
}

async function refresh(onTrouble) {
  clearTimeout(timer);
  const mine = ++turn;
  try {
    const found = await pages();
    if (mine !== turn) return;
    [jobs, next] = found;
    draw();
    lookFurther(onTrouble);
  } catch (trouble) {
    onTrouble(trouble);
  }
  if (mine === turn && !document.hidden) {
    timer = setTimeout(() => refresh(onTrouble), jobs.every(hasEnded) ? IDLE_MS : BUSY_MS);
  }
}

async function pages() {
  const found = [];
  let cursor = null;
  for (let page = 0; page < depth; page += 1) {
    const query = new URLSearchParams({ limit: PAGE });
    if ($("jobs-status").value) query.set("status", $("jobs-status").value);
    if (cursor) query.set("cursor", cursor);
    const answer = await read(`jobs?${query}`);
    found.push(...answer.jobs);
    cursor = answer.next_cursor;
    if (!cursor) break;
  }
  return [found, cursor];
}

function lookFurther(onTrouble) {
  if (wanted() && next && jobs.length < MOST_SEARCHED && !matching().length) {
    depth += 2;
    refresh(onTrouble);
  }
}

const wanted = () => $("jobs-search").value.trim().toLowerCase();

function matching() {
  const words = wanted();
  if (!words) return jobs;
  return jobs.filter((job) =>
    [job.media.name, job.media.url, job.options.tag, job.id].some((text) => text?.toLowerCase().includes(words)),
  );
}

function draw() {
  const found = matching();
  const list = $("jobs");
  const rows = new Map([...list.children].map((row) => [row.dataset.id, row]));
  found.forEach((job, at) => {
    const row = rows.get(job.id) ?? makeRow(job.id);
    fill(row, job);
    if (list.children[at] !== row) list.insertBefore(row, list.children[at] ?? null);
    rows.delete(job.id);
  });
  rows.forEach((row) => row.remove());
  setText($("jobs-note"), note(found));
  show($("jobs-more"), Boolean(next));
}

function note(found) {
  if (!jobs.length) return $("jobs-status").value ? "None of these." : "Your recordings will be listed here.";
  if (!found.length) return `None of the newest ${jobs.length} matches.`;
  return "";
}

function makeRow(id) {
  const link = el("a", { href: `#/jobs/${id}` });
  link.append(el("span", { class: "name" }), el("span", { class: "state" }), el("span", { class: "when" }), el("span", { class: "bar" }));
  return el("li", { data: { id } }, link);
}

function fill(row, job) {
  const [link] = row.children;
  const [name, state, when, bar] = link.children;
  setText(name, job.media.name);
  const { fraction } = job.progress;
  const isRunning = job.status === "running";
  setText(state, isRunning && fraction ? percent(fraction) : STATUS[job.status]);
  state.dataset.status = job.status;
  const length = job.media.duration_s ? `${clock(job.media.duration_s)} · ` : "";
  setText(when, length + ago(job.created_at));
  show(bar, isRunning);
  bar.style.setProperty("--done", fraction ?? 0);
  if (job.id === chosen) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}
