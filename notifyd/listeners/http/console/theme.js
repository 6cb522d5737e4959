// Light, dark, or as the system has it: a preference, and no secret, so it may stay in the browser.

import { at } from "./dom.js";

const NAMES = { auto: "as the system has it", light: "light", dark: "dark" }, ORDER = Object.keys(NAMES), PLACE = "notifyd theme";

export function openTheme() {
  const show = (theme) => {
    document.documentElement.dataset.theme = theme;
    at("theme").title = `Colours: ${NAMES[theme]}`;
    at("theme").onclick = () => {
      const next = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
      localStorage.setItem(PLACE, next);
      show(next);
    };
  };
  const kept = localStorage.getItem(PLACE);
  show(kept in NAMES ? kept : "auto");
}
