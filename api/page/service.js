// The service as this page asks it: addresses, the key, and every failure as a Trouble with plain words.

const KEY = "ananse-key";
const base = new URL("v1/", document.baseURI);

export const address = (path) => new URL(path, base).href;

export class Trouble extends Error {
  constructor(code, message, { status = 0, retryAfterS = 0, fields = [] } = {}) {
    super(message);
    Object.assign(this, { code, status, retryAfterS, fields });
  }

  // Nobody answered, or somebody in between did.
  get isAway() {
    return this.code === "away";
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => (text ? sessionStorage.setItem(KEY, text) : sessionStorage.removeItem(KEY)),
};

export function authorization() {
  return key.get() ? { Authorization: `Bearer ${key.get()}` } : {};
}

export async function call(path, { headers = {}, ...more } = {}) {
  let answer;
  try {
    answer = await fetch(address(path), { ...more, headers: { ...authorization(), ...headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw away();
  }
  if (!answer.ok) throw trouble(answer.status, await answer.text(), answer.headers.get("Retry-After"));
  return answer;
}

export const read = async (path, more) => (await call(path, more)).json();

export function away() {
  return new Trouble("away", "The service does not answer.");
}

// A problem document, or what a proxy said instead of one.
export function trouble(status, text, retryAfter) {
  let told = {};
  try {
    told = JSON.parse(text);
  } catch {
    // Not ours.
  }
  if (!told.code) return status >= 500 ? away() : new Trouble("", `The answer was ${status}.`, { status });
  const fields = told.errors ?? [];
  const detail = told.detail && told.detail !== told.title ? `${told.title}. ${told.detail}` : told.title;
  return new Trouble(told.code, detail, { status, retryAfterS: Number(retryAfter) || 0, fields });
}

// XMLHttpRequest, because fetch tells nothing of what has been sent.
export function upload(form, idempotencyKey, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address("jobs"));
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.setRequestHeader("Idempotency-Key", idempotencyKey);
    request.upload.onprogress = (event) => onProgress(event.loaded, event.total);
    request.onload = () => {
      if (request.status === 202) resolve(JSON.parse(request.responseText));
      else reject(trouble(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    };
    request.onerror = () => reject(new Trouble("away", "The upload was cut off."));
    request.onabort = () => reject(new Trouble("stopped", "Stopped."));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

// crypto.randomUUID is not there on plain http.
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
