// The node's HTTP API, the key to it, and the dialogs: asking for a key, and whether something is really meant.

import { at, say } from "./dom.js";

let key = "";  // here, and nowhere else

export const theKey = () => key;

// The answer's JSON, null where it has none. Raises Error; its `status` is 0 where nobody answered.
export async function ask(method, path) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const answer = await fetch(path, { method, headers }).catch(() => null);
  const json = await answer?.json().catch(() => null) ?? null;
  if (answer?.ok) return json;
  const message = json?.error?.message ?? (answer ? `the node answered ${answer.status}` : "the node does not answer");
  throw Object.assign(new Error(message), { status: answer?.status ?? 0 });
}

// Whether a key was given, which is then the one in use.
export async function askKey(why) {
  say(at("access-why"), why);
  const isGiven = await isAnswered(at("access")), field = at("api-key");
  if (isGiven) key = field.value.trim();
  field.value = "";
  return isGiven;
}

export function confirmed(question) {
  say(at("confirm-title"), question);
  return isAnswered(at("confirm"));
}

function isAnswered(dialog) {
  if (dialog.open) return new Promise(() => {});
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    // The event comes late: the dialog may have been opened again since.
    dialog.onclose = () => dialog.open || resolve(dialog.returnValue === "yes");
  });
}
