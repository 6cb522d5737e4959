// Light, dark, or as the system has it. The choice is a preference, no secret: it may stay in the browser.

import { at, mark } from "./dom.js";

const NAMES = { auto: "as the system has it", light: "light", dark: "dark" };
const ORDER = Object.keys(NAMES);
const PLACE = "notifyd theme";

export function openTheme() {
  let theme = "auto";
  try {
    theme = ORDER.includes(localStorage.getItem(PLACE)) ? localStorage.getItem(PLACE) : theme;
  } catch { /* a browser that keeps nothing */ }
  const show = () => {
    document.documentElement.dataset.theme = theme;
    mark(at("theme"), "aria-label", `Colours: ${NAMES[theme]}`);
    mark(at("theme"), "title", `Colours: ${NAMES[theme]}`);
  };
  at("theme").onclick = () => {
    theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
    try { localStorage.setItem(PLACE, theme); } catch { /* then it holds until the page is left */ }
    show();
  };
  show();
}
