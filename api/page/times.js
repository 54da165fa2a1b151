// Times, sizes and names as people read them. Pure functions.

export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds + 1e-6));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

export function span(seconds) {
  if (seconds < 1.5) return "a second";
  if (seconds < 90) return `${Math.round(seconds)} seconds`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} minutes`;
  const hours = Math.round(seconds / 360) / 10;
  return hours < 48 ? `${hours} hours` : `${Math.round(hours / 24)} days`;
}

export function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let [value, at] = [bytes / 1000, 0];
  while (value >= 999.5 && at < units.length - 1) [value, at] = [value / 1000, at + 1];
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ${units[at]}`;
}

export function ago(instant, now = Date.now()) {
  const seconds = (now - new Date(instant).getTime()) / 1000;
  if (seconds < 45) return "just now";
  if (seconds < 90) return "a minute ago";
  if (seconds < 86400) return `${span(seconds)} ago`;
  return new Date(instant).toLocaleDateString(undefined, { dateStyle: "medium" });
}

export function when(instant) {
  return new Date(instant).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

export function percent(fraction) {
  return `${Math.floor(fraction * 100)} %`;
}

const names = new Intl.DisplayNames(undefined, { type: "language", fallback: "code" });

export function language(code) {
  try {
    return names.of(code);
  } catch {
    return code;
  }
}
