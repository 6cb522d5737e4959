// The devices, beating: each shows when it was last heard, and its round trip.

import { el, hint, say, setChildren } from "./dom.js";
import { mergedConnections } from "./feeds.js";
import { milliseconds, plural } from "./format.js";

const MOST = 8;

export class Devices {
  constructor(app) {
    this.app = app;
    this.kept = new Map();
    this.list = el("ul", { class: "devices" });
    this.more = el("a", { href: "#/connections", hidden: true });
    this.empty = hint("No device is connected now.");
    this.element = el("section", { class: "card" }, el("h2", {}, "Devices"), this.list, this.more, this.empty);
  }

  show() {
    this.stop = this.app.connections.use(() => this.draw());
  }

  hide() {
    this.stop();
  }

  tick() {
    this.draw();
  }

  draw() {
    const devices = mergedConnections(this.app.connections).filter(({ transport }) => transport === "device").sort((one, other) => one.since - other.since);
    const shown = devices.slice(0, MOST).map((device) => this.row(device));
    for (const session of this.kept.keys()) if (!devices.some((device) => device.session === session)) this.kept.delete(session);
    setChildren(this.list, shown);
    this.more.hidden = devices.length <= MOST;
    say(this.more, `${plural(devices.length - MOST, "more device")}`);
    this.empty.hidden = devices.length > 0;
  }

  row(device) {
    const row = this.kept.get(device.session) ?? el("li", {}, el("i", { class: "dot", "aria-hidden": "true" }), el("span", { class: "mono" }), el("span", { class: "soft" }), el("b"));
    this.kept.set(device.session, row);
    say(row.children[1], device.user || device.address);
    say(row.children[2], `every ${device.heartbeat} s`);
    say(row.children[3], milliseconds(device.round_trip_ms));
    const sign = String(device.heard ?? device.round_trip_ms);
    if (row.dataset.sign !== sign) {
      row.dataset.sign = sign;
      beat(row.firstElementChild);
    }
    return row;
  }
}

// Lets a dot beat once.
export function beat(dot) {
  dot.classList.remove("beat");
  requestAnimationFrame(() => dot.classList.add("beat"));
}
