// The dialogs: asking for an API key, and asking whether something is really meant.

import { setKey } from "./api.js";
import { at, say } from "./dom.js";

// Asks for a key; resolves with whether one was given, which is then the one in use.
export async function askKey(why) {
  say(at("access-why"), why);
  const isGiven = await isAnswered(at("access"));
  if (isGiven) setKey(at("api-key").value.trim());
  at("api-key").value = "";
  return isGiven;
}

export function confirmed(question) {
  say(at("confirm-title"), question);
  return isAnswered(at("confirm"));
}

// Opens a dialog; resolves with whether it was sent off, and not closed in another way.
function isAnswered(dialog) {
  if (dialog.open) return new Promise(() => {});
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    // The event comes late: the dialog may have been opened again since.
    dialog.onclose = () => dialog.open || resolve(dialog.returnValue === "yes");
  });
}
