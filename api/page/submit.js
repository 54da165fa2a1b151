// A new transcription: drop, choose, record or paste an address; uploads go one after the other.

import { $, ask, el, say, setText, show } from "./dom.js";
import { makeOptions } from "./options.js";
import { record, whyNot } from "./recorder.js";
import { newKey, read, upload } from "./service.js";
import { files, jobsChanged } from "./state.js";
import { clock, percent, size } from "./times.js";
import { sentence } from "./words.js";

let options;
let recording = null;
let sending = 0;
const waiting = [];

export function startSubmit(open) {
  options = makeOptions();
  const room = $("submit");
  const choose = el("input", { type: "file", id: "file", class: "unseen", multiple: true, accept: "audio/*,video/*,.mka,.mkv,.opus,.flac" });
  const url = el("input", { type: "url", id: "url", placeholder: "https://…", autocomplete: "off", "aria-label": "Address of a recording" });
  const address = el("form", { class: "row", id: "by-url", novalidate: true }, url, el("button", { text: "Fetch it" }));
  const zone = el(
    "div",
    { class: "drop", id: "drop" },
    el("p", { class: "drop-big", text: "Drop recordings here" }),
    el("p", { class: "note", text: "Sound or video, of any length" }),
    el(
      "div",
      { class: "row center" },
      el("label", { class: "button primary", for: "file", text: "Choose files" }),
      choose,
      el("button", { type: "button", id: "record", text: "Record" }),
    ),
    recorderRoom(),
  );
  room.append(
    el("h1", { text: "New transcription" }),
    zone,
    el("div", { class: "or" }, el("span", { text: "or from an address" })),
    address,
    options.room,
    el("div", { id: "submit-trouble", class: "trouble", role: "alert", hidden: true }),
    el("ul", { id: "uploads", class: "uploads", "aria-label": "Uploads" }),
  );
  choose.addEventListener("change", () => {
    take([...choose.files], open);
    choose.value = "";
  });
  address.addEventListener("submit", (event) => {
    event.preventDefault();
    byAddress(url, open);
  });
  $("record").addEventListener("click", () => toggleRecording(open));
  takeDrops(zone, open);
  addEventListener("beforeunload", (event) => (sending || recording) && event.preventDefault());
}

function complain(text) {
  setText($("submit-trouble"), text);
  show($("submit-trouble"), Boolean(text));
}

// Files may be dropped anywhere; a miss does not make the browser leave for the file.
function takeDrops(zone, open) {
  const isFiles = (event) => event.dataTransfer?.types.includes("Files");
  let depth = 0;
  const over = (change) => {
    depth = Math.max(0, depth + change);
    zone.classList.toggle("over", depth > 0);
  };
  addEventListener("dragenter", (event) => isFiles(event) && over(1));
  addEventListener("dragleave", (event) => isFiles(event) && over(-1));
  addEventListener("dragover", (event) => isFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!isFiles(event)) return;
    event.preventDefault();
    depth = 0;
    over(0);
    location.hash = "#/";
    take([...event.dataTransfer.files], open);
  });
}

function take(chosen, open) {
  complain("");
  let fields;
  try {
    fields = options.chosen();
  } catch (error) {
    complain(error.message);
    return;
  }
  const isOne = chosen.length === 1;
  for (const file of chosen) {
    if (file.size) waiting.push(row(file, fields, isOne ? open : () => {}));
    else complain(`“${file.name}” is empty.`);
  }
  next();
}

// One at a time: the first is done soonest, and the list says which is which.
async function next() {
  while (!sending && waiting.length) {
    sending += 1;
    try {
      await waiting.shift()();
    } finally {
      sending -= 1;
    }
  }
}

// A line of the list of uploads; the function that sends its file.
function row(file, fields, open) {
  const bar = el("progress", { max: 1, value: 0, "aria-label": `Upload of ${file.name}` });
  const told = el("span", { class: "note", text: "Waits for the one before" });
  const stop = el("button", { type: "button", class: "quiet", text: "Stop", "aria-label": `Stop ${file.name}` });
  const again = el("button", { type: "button", text: "Send again", hidden: true });
  const line = el("li", {}, el("strong", { text: file.name }), told, bar, el("span", { class: "row" }, again, stop));
  const key = newKey();
  let control = new AbortController();
  stop.addEventListener("click", () => {
    const at = waiting.indexOf(send);
    if (at >= 0) waiting.splice(at, 1);
    control.abort();
    line.remove();
  });
  again.addEventListener("click", () => {
    control = new AbortController();
    show(again, false);
    waiting.push(send);
    next();
  });

  async function send() {
    const form = new FormData();
    Object.entries(fields).forEach(([name, value]) => form.append(name, value));
    form.append("file", file, file.name);
    try {
      const job = await upload(form, key, progress, control.signal);
      files.set(job.id, file);
      line.remove();
      say(`${file.name} is sent.`);
      jobsChanged();
      open(job.id);
    } catch (trouble) {
      if (trouble.code === "stopped") return;
      // The same key again: a job that was made after all is not made twice.
      setText(told, `${sentence(trouble.message)} Nothing was lost: the file is still here.`);
      bar.value = 0;
      show(again, true);
      if (trouble.status === 401) $("key-open").click();
    }
  }

  function progress(sent, total) {
    bar.value = sent / total;
    setText(told, sent < total ? `${percent(sent / total)} of ${size(file.size)}` : "Sent, being stored");
  }

  $("uploads").append(line);
  return send;
}

async function byAddress(field, open) {
  complain("");
  const text = field.value.trim();
  if (!/^(https?|s3):\/\/\S+$/i.test(text)) {
    complain("An address begins with https://, and leads to the recording itself.");
    field.focus();
    return;
  }
  try {
    const body = JSON.stringify({ ...typed(options.chosen()), audio_url: text });
    const headers = { "Content-Type": "application/json", "Idempotency-Key": newKey() };
    const job = await read("jobs", { method: "POST", headers, body });
    field.value = "";
    jobsChanged();
    open(job.id);
  } catch (trouble) {
    complain(sentence(trouble.message));
  }
}

// JSON has kinds of values, a form has text.
function typed(fields) {
  return fields.word_timestamps ? { ...fields, word_timestamps: true } : fields;
}

function recorderRoom() {
  return el(
    "div",
    { class: "recorder", id: "recorder", hidden: true },
    el("span", { class: "dot", "aria-hidden": "true" }),
    el("span", { id: "recorded", class: "time", text: "0:00" }),
    el("meter", { id: "level", min: 0, max: 1, low: 0.35, high: 0.95, optimum: 0.6, value: 0, "aria-label": "Level of the microphone" }),
    el("span", { id: "level-note", class: "note" }),
  );
}

async function toggleRecording(open) {
  const button = $("record");
  if (recording) {
    const { end } = recording;
    recording = null;
    button.disabled = true;
    const file = await end();
    button.disabled = false;
    setText(button, "Record");
    show($("recorder"), false);
    if (!file.size) complain("Nothing was recorded.");
    else if (await ask("Transcribe this recording?", `${$("recorded").textContent} of sound, ${size(file.size)}.`, "Transcribe", "primary")) take([file], open);
    return;
  }
  complain(whyNot());
  if (whyNot()) return;
  button.disabled = true;
  try {
    let loudest = 0;
    recording = await record((level, seconds) => {
      loudest = Math.max(loudest, level);
      $("level").value = level;
      setText($("recorded"), clock(seconds));
      setText($("level-note"), seconds > 3 && loudest < 0.25 ? "Nothing is heard" : "");
    });
    recording.stopped.then(() => recording && toggleRecording(open));
    setText(button, "Stop");
    show($("recorder"), true);
    say("Recording.");
  } catch (error) {
    complain(error.message);
  }
  button.disabled = false;
}
