// The settings in force, and which of them can change while the node runs.

import { ask } from "./access.js";
import { setChip } from "./alerts.js";
import { el, heading, say, searchInput } from "./dom.js";

const RELOAD_MS = 10_000;
const MISSING = { 401: "The settings are for operators: give an API key.", 0: "The node does not answer." };

export class Settings {
  constructor(app) {
    Object.assign(this, { app, askedAt: 0, drawn: "" });
    this.filter = searchInput("setting-filter", "Filter", () => this.sift());
    this.version = el("p", "soft");
    this.none = el("p", "card");
    this.list = el("div", "settings");
    this.element = el("div", "view", heading("Settings", this.version, this.filter), this.none, this.list);
  }

  show() {
    this.askedAt = 0;
  }

  tick() {
    if (Date.now() - this.askedAt > RELOAD_MS && this.app.link.state === "connected") this.load();
  }

  async load() {
    this.askedAt = Date.now();
    try {
      this.draw(await ask("GET", "v1/config"));
    } catch ({ status, message }) {
      say(this.none, MISSING[status] ?? `Not available: ${message}.`);
      if (status) this.draw({});
      this.none.hidden = false;
    }
  }

  draw(answer) {
    const { version, settings = {}, live = [] } = answer, text = JSON.stringify(answer);
    this.none.hidden = true;
    if (text === this.drawn) return;
    this.drawn = text;
    say(this.version, version === undefined ? "" : `version ${version}`);
    const isLive = (path) => live.some((name) => path === name || path.startsWith(`${name}.`) || path.startsWith(`${name}[`));
    this.list.replaceChildren(...Object.entries(settings).map(([name, section]) => el("section", "card", el("h2", "", name),
      el("dl", "", leaves(section, name).map(([path, value]) => row(path, value, isLive(path)))))));
    this.sift();
  }

  sift() {
    const wanted = this.filter.value.trim().toLowerCase();
    for (const row of this.list.querySelectorAll("dl > div")) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    for (const section of this.list.children) section.hidden = !section.querySelector("dl > div:not([hidden])");
  }
}

function row(path, value, isLive) {
  const badge = isLive ? el("span") : null;
  if (badge) setChip(badge, "live", "good");
  return el("div", "", el("dt", "mono", path, badge), el("dd", "mono", typeof value === "string" ? value : JSON.stringify(value)));
}

// [[dotted path, value], …]; a list of plain values is one value.
function leaves(value, path) {
  const isNest = (one) => one !== null && typeof one === "object";
  if (!isNest(value) || (Array.isArray(value) && !value.some(isNest))) return [[path, value]];
  return Object.entries(value).flatMap(([name, item]) => leaves(item, Array.isArray(value) ? `${path}[${name}]` : `${path}.${name}`));
}
