// What several rooms of the page look at: the models, and the files that were sent from this tab. One owner
// each; whoever wants to know of a change listens.

import { read } from "./service.js";

const LOOK_MS = 10000;

export const news = new EventTarget();
export const models = { all: [], areKnown: false };

// Recordings of this tab, for the player: what is here need not be fetched back.
export const files = new Map();

const tabs = new BroadcastChannel("ananse-jobs");
tabs.onmessage = () => news.dispatchEvent(new Event("jobs"));

// Jobs came, went or changed: here, and in the other tabs.
export function jobsChanged() {
  news.dispatchEvent(new Event("jobs"));
  tabs.postMessage("changed");
}

export async function lookAtModels() {
  models.all = (await read("models")).models;
  models.areKnown = true;
  news.dispatchEvent(new Event("models"));
}

export function modelOf(name) {
  return models.all.find((model) => model.name === name);
}

// Looks now and then, and when asked; `tell` gets the trouble, or null.
export function keepLooking(tell) {
  const look = () => lookAtModels().then(() => tell(null), tell);
  const turn = async () => {
    if (!document.hidden) await look();
    setTimeout(turn, LOOK_MS);
  };
  document.addEventListener("visibilitychange", () => document.hidden || look());
  turn();
  return look;
}
