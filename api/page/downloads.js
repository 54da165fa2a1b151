// The transcript as a file or on the clipboard: written by the service, corrections and all.

import { asBody, corrections } from "./corrections.js";
import { el, say, setText } from "./dom.js";
import { call } from "./service.js";
import { sentence } from "./words.js";

const FORMATS = [
  ["text", "txt", "Text", "one line for each segment"],
  ["srt", "srt", "SRT", "subtitles for video players"],
  ["vtt", "vtt", "WebVTT", "subtitles for the web"],
  ["json", "json", "JSON", "words, times, confidence"],
  ["tsv", "tsv", "TSV", "table, tabs"],
  ["csv", "csv", "CSV", "table, for spreadsheets"],
];

// In the chosen format, as the service writes it.
export async function written(job, format, more = {}) {
  const query = new URLSearchParams({ format, ...more });
  const path = `jobs/${job.id}/transcript?${query}`;
  const own = corrections(job.id);
  if (!Object.keys(own).length) return call(path);
  return call(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: asBody(own) });
}

export function makeDownloads(job) {
  const lines = el("input", { type: "checkbox", id: "short-lines", checked: true });
  const words = el("input", { type: "checkbox", id: "word-cues" });
  const told = el("span", { class: "note", id: "download-note", role: "status" });
  const copy = el("button", { type: "button", id: "copy", text: "Copy text", onclick: () => attempt(copyText) });
  const menu = el(
    "details",
    { class: "menu", id: "downloads" },
    el("summary", { class: "button", text: "Download" }),
    el(
      "div",
      { class: "sheet" },
      FORMATS.map(([format, ending, name, hint]) =>
        el("button", { type: "button", class: "choice", data: { format }, onclick: () => attempt(() => save(format, ending)) }, el("strong", { text: name }), el("small", { text: hint })),
      ),
      el("label", { class: "check" }, lines, "Subtitles of two lines of 42 characters at most"),
      el("label", { class: "check" }, words, "WebVTT with the time of each word"),
    ),
  );
  document.addEventListener("click", (event) => menu.contains(event.target) || (menu.open = false));
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });

  async function attempt(act) {
    setText(told, "");
    try {
      await act();
    } catch (trouble) {
      setText(told, sentence(trouble.message));
    }
  }

  async function save(format, ending) {
    const shaping = {};
    if (lines.checked && (format === "srt" || format === "vtt")) Object.assign(shaping, { max_line_chars: 42, max_lines: 2 });
    if (words.checked && format === "vtt") shaping.word_cues = "true";
    if (format === "csv") shaping.guard_formulas = "true";
    const answer = await written(job, format, shaping);
    const url = URL.createObjectURL(await answer.blob());
    const stem = job.media.name.replace(/\.[A-Za-z0-9]{1,5}$/, "");
    el("a", { href: url, download: `${stem}.${ending}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    menu.open = false;
  }

  async function copyText() {
    await toClipboard(await (await written(job, "text")).text());
    setText(told, "Copied");
    say("The text is on the clipboard.");
  }

  return el("div", { class: "row" }, copy, menu, told);
}

// The clipboard itself is given over https only.
async function toClipboard(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const field = el("textarea", { class: "unseen" });
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}
