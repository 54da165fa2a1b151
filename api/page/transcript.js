// The transcript: words to click, the one being spoken marked, searched, corrected in place.

import { correct, corrections } from "./corrections.js";
import { el, say, setText, show } from "./dom.js";
import { written } from "./downloads.js";
import { findIn, highlight } from "./finding.js";
import { doubt, latest, pieces } from "./placing.js";
import { clock } from "./times.js";

// A word stays marked so long after its end, unless the next one begins.
const LINGER_S = 0.6;

export function makeTranscript(job, made, player, tools) {
  let current = new Map(made.segments.map((segment) => [segment.id, segment]));
  let [words, begun, marked, isFollowing] = [[], [], null, true];
  const counted = el("p", { class: "note", id: "corrections" });
  const note = el("p", { class: "note", role: "status" });
  const list = el("ol", { class: "segments", id: "segments" });
  const rows = new Map(made.segments.map((segment) => [segment.id, el("li", { class: "segment", data: { id: segment.id } })]));
  list.append(...rows.values());
  rows.forEach((_, id) => draw(id));
  index();
  list.addEventListener("click", (event) => {
    const word = event.target.closest(".word");
    if (word && !getSelection().toString()) player.seek(Number(word.dataset.start));
  });
  list.addEventListener("dblclick", (event) => {
    const row = event.target.closest(".words") && event.target.closest(".segment");
    if (row) edit(Number(row.dataset.id));
  });
  const bar = toolbar();
  if (Object.keys(corrections(job.id)).length) takeOver();
  const room = el("section", { class: "transcript", "aria-label": "Transcript" }, bar, list);

  function draw(id) {
    const segment = current.get(id);
    const row = rows.get(id);
    const isCorrected = segment.flags.includes("corrected");
    const text = el("p", { class: "words", lang: job.options.task === "translate" ? "en" : made.language?.code });
    for (const piece of pieces(segment)) {
      text.append(piece.word ? wordOf(piece, segment) : piece.text);
    }
    const hasFocus = row.contains(document.activeElement);
    row.classList.toggle("gone", isCorrected && !segment.text);
    if (isCorrected && !segment.text) text.append(el("em", { text: "Taken out" }));
    row.replaceChildren(
      el("button", { type: "button", class: "at", text: clock(segment.start), "aria-label": `Play from ${clock(segment.start)}`, onclick: () => playFrom(segment.start) }),
      text,
      el(
        "span",
        { class: "marks" },
        isCorrected && el("button", { type: "button", class: "quiet mark", text: "Undo", title: "Corrected by you: back to what was heard", "aria-label": `Undo the correction at ${clock(segment.start)}`, onclick: () => keep(id, null) }),
        !isCorrected && flagged(segment),
        el("button", { type: "button", class: "quiet fix", text: "Correct", "aria-label": `Correct what is said at ${clock(segment.start)}`, onclick: () => edit(id) }),
      ),
    );
    if (hasFocus) row.querySelector(".fix").focus();
  }

  function wordOf({ text, word }, segment) {
    const sure = word.probability ?? (segment.flags.includes("corrected") ? 1 : Math.exp(segment.avg_logprob));
    return el("span", { class: "word", text, data: { start: word.start, end: word.end, doubt: doubt(sure) } });
  }

  // In the order of time, for marking.
  function index() {
    words = [...list.querySelectorAll(".word")].map((element) => ({ element, start: Number(element.dataset.start), end: Number(element.dataset.end) }));
    words.sort((a, b) => a.start - b.start);
    begun = [...current.values()].sort((a, b) => a.start - b.start);
  }

  function mark(seconds, isPlaying) {
    const word = words[latest(words, seconds)];
    const now = word && seconds <= word.end + LINGER_S && (isPlaying || seconds > 0) ? word.element : null;
    if (now === marked) return;
    marked?.classList.remove("now");
    now?.classList.add("now");
    marked = now;
    const segment = begun[latest(begun, seconds)];
    list.querySelector(".segment.now")?.classList.remove("now");
    const row = segment && rows.get(segment.id);
    row?.classList.add("now");
    if (row && isPlaying && isFollowing && !row.contains(document.activeElement)) keepInView(row);
  }

  function playFrom(seconds) {
    player.seek(seconds);
    if (player.audio.paused) player.toggle();
  }

  function edit(id) {
    const segment = current.get(id);
    const row = rows.get(id);
    if (row.querySelector("textarea")) return;
    const field = el("textarea", { "aria-label": `What is said at ${clock(segment.start)}`, rows: 1, spellcheck: "true", lang: made.language?.code });
    field.value = segment.text.trim();
    const end = (isKept) => {
      if (!field.isConnected) return;
      const text = field.value.replace(/\s+/g, " ").trim();
      draw(id);
      index();
      row.querySelector(".fix").focus();
      if (isKept && text !== segment.text.trim()) keep(id, text === original(id) ? null : text);
    };
    field.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Escape") end(false);
      if (event.key === "Enter" && !event.isComposing) {
        event.preventDefault();
        end(true);
      }
    });
    row.querySelector(".words").replaceChildren(field);
    row.querySelector(".marks").replaceChildren(
      el("button", { type: "button", class: "primary mark", text: "Save", onclick: () => end(true) }),
      el("button", { type: "button", class: "quiet mark", text: "Cancel", onclick: () => end(false) }),
    );
    field.focus();
  }

  const original = (id) => made.segments.find((segment) => segment.id === id).text.trim();

  function keep(id, text) {
    const isKept = correct(job.id, id, text);
    setText(note, isKept ? "" : "This browser keeps no corrections: they are gone when you leave.");
    say(text === null ? "The correction is undone." : "Corrected.");
    return takeOver();
  }

  // The service says what a transcript with these corrections is; without it, it is shown as well as can be.
  async function takeOver() {
    const own = corrections(job.id);
    let segments = made.segments.map((segment) =>
      segment.id in own ? { ...segment, text: own[segment.id], words: null, flags: ["corrected"] } : segment,
    );
    redraw(segments);
    if (!Object.keys(own).length) return;
    try {
      segments = (await (await written(job, "json")).json()).segments;
      if (JSON.stringify(own) === JSON.stringify(corrections(job.id))) redraw(segments);
    } catch {
      setText(note, "The service does not answer: your correction is kept here.");
    }
  }

  function redraw(segments) {
    for (const segment of segments) {
      if (JSON.stringify(segment) === JSON.stringify(current.get(segment.id))) continue;
      current.set(segment.id, segment);
      // What is being typed here is not drawn over by another tab.
      if (!rows.get(segment.id).querySelector("textarea")) draw(segment.id);
    }
    index();
    const count = Object.keys(corrections(job.id)).length;
    setText(counted, count ? `${count} ${count === 1 ? "correction" : "corrections"} of yours, in this browser only` : "");
  }

  function toolbar() {
    const field = el("input", { type: "search", id: "find", placeholder: "Search the transcript", "aria-label": "Search the transcript" });
    const found = el("span", { class: "note", id: "found", role: "status" });
    const step = (by) => ((place += by), look());
    const steps = [
      el("button", { type: "button", class: "quiet", text: "↑", "aria-label": "The one before", onclick: () => step(-1) }),
      el("button", { type: "button", class: "quiet", text: "↓", "aria-label": "The next one", onclick: () => step(1) }),
    ];
    let place = 0;
    function look() {
      const ranges = field.value.trim() ? findIn(list, field.value.trim()) : [];
      place = ranges.length ? (place + ranges.length) % ranges.length : 0;
      highlight(ranges, ranges[place]);
      setText(found, !field.value.trim() ? "" : ranges.length ? `${place + 1} of ${ranges.length}` : "Not found");
      steps.forEach((button) => show(button, ranges.length > 1));
      if (ranges[place]) keepInView(ranges[place].startContainer.parentElement);
    }
    field.addEventListener("input", () => ((place = 0), look()));
    field.addEventListener("keydown", (event) => event.key === "Enter" && (event.preventDefault(), step(event.shiftKey ? -1 : 1)));
    steps.forEach((button) => show(button, false));
    return el("div", { class: "tools" }, el("div", { class: "row" }, field, found, steps), el("div", { class: "row" }, shading(), following(), el("span", { class: "grow" }), tools), counted, note);
  }

  function shading() {
    const box = el("input", { type: "checkbox", id: "shade", onchange: () => list.classList.toggle("shaded", box.checked) });
    return el("label", { class: "check" }, box, "Shade doubtful words");
  }

  function following() {
    const box = el("input", { type: "checkbox", id: "follow", checked: true, onchange: () => (isFollowing = box.checked) });
    return el("label", { class: "check" }, box, "Follow the sound");
  }

  return { room, mark, takeOver };
}

const FLAGS = { low_confidence: ["doubtful", "The model was not sure of this"], repetition: ["repeats", "This repeats itself more than speech does"] };

function flagged(segment) {
  return segment.flags.filter((flag) => FLAGS[flag]).map((flag) => el("span", { class: "flag", text: FLAGS[flag][0], title: FLAGS[flag][1] }));
}

function keepInView(element) {
  const box = element.getBoundingClientRect();
  const top = document.querySelector(".player")?.getBoundingClientRect().bottom ?? 0;
  if (box.top < top + 8 || box.bottom > innerHeight - 40) {
    const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    scrollBy({ top: box.top - Math.max(top, 0) - 80, behavior: isCalm ? "auto" : "smooth" });
  }
}
