// The dialogs: asking for an API key, and asking whether something is really meant.

import { setKey } from "./api.js";
import { at, say } from "./dom.js";

// Asks for a key; resolves with true when one was given, which is then the one in use.
export function askKey(why) {
  say(at("access-why"), why);
  return asked(at("access"), () => {
    setKey(at("api-key").value.trim());
    at("api-key").value = "";
  });
}

export function confirmed(title, text, verb) {
  say(at("confirm-title"), title);
  say(at("confirm-text"), text);
  say(at("confirm-yes"), verb);
  return asked(at("confirm"), () => {});
}

// Opens a dialog; resolves with whether it was sent off, and not closed in another way.
function asked(dialog, take) {
  if (dialog.open) return new Promise(() => {});
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      const isMeant = dialog.returnValue === "yes";
      if (isMeant) take();
      resolve(isMeant);
    };
  });
}
