// Where each word of a segment stands in its text, and when it is said. Pure functions.

const SPACELESS = /[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]/;

// The text in pieces, in order and whole: gaps have no `word`. Where the transcript has no times of words they
// are guessed from their share of the text, as the service does for subtitles.
export function pieces(segment) {
  const text = segment.text.trim();
  const words = segment.words?.length ? placed(segment.words, text) : guessed(segment, text);
  const found = [];
  let at = 0;
  for (const word of words) {
    if (word.at > at) found.push({ text: text.slice(at, word.at) });
    found.push({ text: text.slice(word.at, word.to), word });
    at = word.to;
  }
  if (at < text.length) found.push({ text: text.slice(at) });
  return found;
}

function placed(words, text) {
  const found = [];
  let after = 0;
  for (const { text: given, start, end, probability } of words) {
    const own = given.trim();
    const at = own ? text.indexOf(own, after) : -1;
    if (at < 0) continue;
    after = at + own.length;
    found.push({ at, to: after, start, end, probability });
  }
  return found;
}

function guessed(segment, text) {
  const perChar = (segment.end - segment.start) / Math.max(text.length, 1);
  return spans(text).map(([at, to]) => ({
    at,
    to,
    start: segment.start + at * perChar,
    end: segment.start + to * perChar,
    probability: null,
  }));
}

function spans(text) {
  if (SPACELESS.test(text) && Intl.Segmenter) {
    const parts = [...new Intl.Segmenter(undefined, { granularity: "word" }).segment(text)];
    return parts.filter((part) => part.isWordLike).map((part) => [part.index, part.index + part.segment.length]);
  }
  return [...text.matchAll(/\S+/g)].map((match) => [match.index, match.index + match[0].length]);
}

// 0 to 3, 3 the most doubtful; null where nobody knows.
export function doubt(probability) {
  if (probability === null || probability === undefined) return null;
  return probability >= 0.85 ? 0 : probability >= 0.65 ? 1 : probability >= 0.4 ? 2 : 3;
}

// The last of these that has begun by then; -1 before the first. They are sorted by `start`.
export function latest(spansOfTime, seconds) {
  let [low, high] = [0, spansOfTime.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    // Players round to the microsecond.
    if (spansOfTime[middle].start <= seconds + 1e-5) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

// Segments of windows as they come, each once, in the order of the recording.
export function merge(segments, more) {
  const byStart = new Map(segments.map((segment) => [segment.start, segment]));
  more.forEach((segment) => byStart.set(segment.start, segment));
  return [...byStart.values()].sort((a, b) => a.start - b.start);
}
