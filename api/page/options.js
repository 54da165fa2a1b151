// The options of a new transcription: only what the chosen model can do is offered.

import { el, show } from "./dom.js";
import { models, modelOf, news } from "./state.js";
import { language } from "./times.js";

const KEPT = "ananse-options";

export function makeOptions() {
  const model = el("select", { id: "model" });
  const spoken = el("select", { id: "language" });
  const words = el("input", { type: "checkbox", id: "words", checked: true });
  const translate = el("input", { type: "checkbox", id: "translate" });
  const prompt = el("textarea", { id: "prompt", rows: 2, maxlength: 1000, placeholder: "Ama Serwaa, Kumasi, Ananse" });
  const silence = el("input", { type: "checkbox", id: "silence" });
  const start = el("input", { id: "start", inputmode: "decimal", placeholder: "0:00", pattern: TIME, size: 8 });
  const end = el("input", { id: "end", inputmode: "decimal", placeholder: "the end", pattern: TIME, size: 8 });
  const tag = el("input", { id: "tag", maxlength: 64, size: 16 });
  const rows = {
    words: check(words, "Times of single words", "for clicking, marking and finer subtitles"),
    translate: check(translate, "Translate into English"),
    prompt: el("label", {}, "Names and words to expect", prompt),
  };
  const about = el("p", { class: "note", id: "model-about" });
  const room = el(
    "fieldset",
    { class: "options" },
    el("legend", { class: "unseen", text: "Options" }),
    el("div", { class: "pair" }, el("label", {}, "Model", model), el("label", {}, "Language spoken", spoken)),
    about,
    rows.words,
    rows.translate,
    el(
      "details",
      {},
      el("summary", { text: "More options" }),
      rows.prompt,
      el("div", { class: "pair" }, el("label", {}, "From", start), el("label", {}, "To", end), el("label", {}, "Tag", tag)),
      check(silence, "Transcribe silence and noise too", "where speech is missed"),
    ),
  );

  function offer() {
    const chosen = model.value || kept().model;
    fill(model, models.all.map((one) => [one.name, one.live ? one.name : `${one.name} (no worker up)`]), chosen);
    offerAbilities();
  }

  function offerAbilities() {
    const one = modelOf(model.value);
    const can = one?.abilities;
    const languages = (can?.languages ?? []).map((code) => [code, language(code)]).sort((a, b) => a[1].localeCompare(b[1]));
    const first = !can || can.language_detection || languages.length !== 1 ? [["auto", "Found out by itself"]] : [];
    fill(spoken, [...first, ...languages], spoken.value || kept().language);
    show(rows.words, Boolean(can?.word_timestamps));
    show(rows.translate, Boolean(can?.tasks.includes("translate")));
    show(rows.prompt, !can || can.prompt);
    about.textContent = one ? describe(one) : "";
  }

  model.addEventListener("change", offerAbilities);
  news.addEventListener("models", offer);
  offer();

  // As the API names them; what is left out is the service's own choice. Raises an Error with plain words.
  function chosen() {
    const can = modelOf(model.value)?.abilities;
    const from = seconds(start, "From");
    const to = seconds(end, "To");
    if (to !== "" && from !== "" && to <= from) throw new Error("“To” must be after “From”.");
    localStorage.setItem(KEPT, JSON.stringify({ model: model.value, language: spoken.value }));
    const fields = {
      model: model.value,
      language: spoken.value,
      word_timestamps: can?.word_timestamps && words.checked ? "true" : "",
      task: can?.tasks.includes("translate") && translate.checked ? "translate" : "",
      prompt: prompt.value.replace(/\s+/g, " ").trim(),
      vad: silence.checked ? "off" : "",
      start_s: from,
      end_s: to,
      tag: tag.value.trim(),
    };
    return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== ""));
  }

  return { room, chosen };
}

const TIME = "\\s*(\\d+:)?(\\d+:)?\\d+(\\.\\d+)?\\s*";

function seconds(field, name) {
  const text = field.value.trim();
  if (!text) return "";
  if (!new RegExp(`^${TIME}$`).test(text)) throw new Error(`“${name}” is a time like 1:30.`);
  return text.split(":").reduce((sum, part) => sum * 60 + Number(part), 0);
}

function check(box, text, hint) {
  return el("label", { class: "check" }, box, el("span", {}, text, hint && el("small", { text: ` ${hint}` })));
}

function fill(select, choices, chosen) {
  // One that is open would close.
  if (select.dataset.choices === JSON.stringify(choices)) return;
  select.dataset.choices = JSON.stringify(choices);
  select.replaceChildren(...choices.map(([value, text]) => el("option", { value, text })));
  if (choices.some(([value]) => value === chosen)) select.value = chosen;
}

function describe(model) {
  if (!model.live) return "No worker is up for this model: what you send waits until one is.";
  const speed = model.rtfx >= 1 ? `, about ${Math.round(model.rtfx)} times as fast as speech` : "";
  const what = model.name === "synthetic-en" ? "The small model that comes along, taught with synthetic English; " : "";
  return `${what}${what ? "on" : "On"} ${model.device}${speed}.`;
}

function kept() {
  try {
    return JSON.parse(localStorage.getItem(KEPT)) ?? {};
  } catch {
    return {};
  }
}
