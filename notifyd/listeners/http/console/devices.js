// The devices, beating: each shows when it was last heard, and its round trip.

import { beat, each, el, say } from "./dom.js";
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
    const devices = mergedConnections(this.app.connections).filter(({ transport }) => transport === "device").sort((one, other) => one.since - other.since);
    each(this.list, devices.slice(0, MOST), ({ session }) => session,
      () => el("li", "", el("i", "dot"), el("span", "mono"), el("span", "soft"), el("b")), write);
    say(this.note, !devices.length ? "No device is connected." : devices.length > MOST ? plural(devices.length - MOST, "more device") : "");
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
