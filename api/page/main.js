// Which room is shown, and what concerns them all: the key, and whether the service is there.

import { $, setText, show } from "./dom.js";
import { closeJob, openJob } from "./job.js";
import { choose, startList } from "./jobs_list.js";
import { key } from "./service.js";
import { jobsChanged, keepLooking, models } from "./state.js";
import { startSubmit } from "./submit.js";
import { sentence } from "./words.js";

const goTo = (hash) => {
  if (location.hash === hash) route();
  else location.hash = hash;
};

function route() {
  const [, id] = /^#\/jobs\/([\w-]+)$/.exec(location.hash) ?? [];
  show($("submit"), !id);
  show($("job"), Boolean(id));
  document.body.classList.toggle("at-job", Boolean(id));
  choose(id ?? "");
  if (id) openJob(id, { goTo, complain });
  else {
    closeJob();
    document.title = "Ananse";
  }
  scrollTo(0, 0);
}

// A Trouble, a text, or nothing.
function complain(trouble) {
  if (trouble?.status === 401 && !isDeclined) {
    askForKey(key.get() ? sentence(trouble.message) : "");
    return;
  }
  const text = !trouble ? "" : trouble.isAway ? "The service does not answer. What you sent is safe with it; this page goes on asking." : sentence(trouble.message ?? trouble);
  setText($("trouble"), text);
  show($("trouble"), Boolean(text));
}

function tellService(trouble) {
  complain(trouble);
  const live = models.all.filter((model) => model.live).length;
  const told = $("service");
  told.dataset.state = trouble ? "away" : live ? "up" : "waiting";
  setText(told, trouble ? (trouble.isAway ? "No answer" : trouble.status === 401 ? "A key is needed" : "Trouble") : live ? (live === 1 ? "Ready" : `${live} models ready`) : "No worker is up: recordings wait");
}

const WHY = "Where this service asks for a key, it goes here. It is kept in this tab until you close it, and sent to this service only.";
// Who closed the question is not asked again and again.
let isDeclined = false;

function askForKey(why) {
  if ($("key").open) return;
  setText($("key-why"), why || WHY);
  $("key-field").value = key.get();
  $("key").showModal();
}

function useKey(text) {
  isDeclined = false;
  key.set(text.trim());
  $("key").addEventListener("close", () => (isDeclined = false), { once: true });
  $("key").close();
  look();
  jobsChanged();
  route();
}

function startKey() {
  $("key-open").addEventListener("click", () => askForKey(""));
  $("key-close").addEventListener("click", () => $("key").close());
  $("key").addEventListener("close", () => (isDeclined = true));
  $("key-forget").addEventListener("click", () => useKey(""));
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    useKey($("key-field").value);
  });
}

let look = () => {};

startKey();
startSubmit((id) => goTo(`#/jobs/${id}`));
addEventListener("hashchange", route);
route();
look = keepLooking(tellService);
startList((trouble) => trouble.isAway || complain(trouble));
