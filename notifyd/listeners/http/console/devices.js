// The devices: each beats when it is heard.

import { beat, each, el, NOTHING, say } from "./dom.js";
import { mergedConnections } from "./feeds.js";
import { milliseconds, plural } from "./format.js";

const MOST = 8;

export class Devices {
  constructor(app) {
    this.app = app;
    this.list = el("ul", "devices");
    this.note = el("p", "hint");
    this.element = el("section", "card", el("h2", "", "Devices"), this.list, this.note);
  }

  tick() {
    const { connections } = this.app, devices = mergedConnections(connections).filter(({ transport }) => transport === "device").sort((one, other) => one.since - other.since);
    each(this.list, devices.slice(0, MOST), ({ session }) => session,
      () => el("li", "", el("i", "dot"), el("span", "mono"), el("span", "soft"), el("b")), write);
    say(this.note, !connections.nodes.size ? NOTHING : !devices.length ? "No device is connected." : devices.length > MOST ? plural(devices.length - MOST, "more device") : "");
  }
}

function write(row, { user, address, heartbeat, round_trip_ms: roundTrip, heard }) {
  const [dot, name, every, trip] = row.children;
  say(name, user || address);
  say(every, `every ${heartbeat} s`);
  say(trip, milliseconds(roundTrip));
  if (row.heard !== heard) beat(dot);
  row.heard = heard;
}
