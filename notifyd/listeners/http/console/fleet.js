// Live readings: the busiest topics whose messages carry numbers, each with a small chart.

import { LineChart } from "./chart.js";
import { beat, each, el, say, topicLink } from "./dom.js";
import { mergedTopics } from "./feeds.js";
import { Readings } from "./readings.js";

const MOST = 8;               // topics followed at once
const TRIED = 3;              // messages without a number, after which a topic is left alone
const PATIENCE_MS = 10_000;   // without a message
const LOOK_BACK = 120;        // kept messages that are drawn at once
const WINDOW_MS = 120_000, SHORTEST_MS = 20_000, GAP_MS = 30_000;

export class Fleet {
  constructor(app) {
    Object.assign(this, { app, followed: new Map(), numberless: new Set() });
    this.list = el("ul", "fleet");
    this.empty = el("p", "hint", "Topics whose messages carry numbers are drawn here as they arrive.");
    this.element = el("section", "card", el("h2", "", "Live readings"), this.list, this.empty);
  }

  hide() {
    for (const entry of this.followed.values()) entry.stop();
    this.followed.clear();
  }

  choose(now) {
    const listed = mergedTopics(this.app.topics);
    this.numberless = new Set(listed.map(({ topic }) => topic).filter((topic) => this.numberless.has(topic)));
    const others = listed.filter(({ topic }) => !this.numberless.has(topic) && !this.followed.has(topic))
      .sort((one, other) => other.in - one.in || one.topic.localeCompare(other.topic));
    for (const { topic, in: rate } of others) {
      if (rate && this.followed.size >= MOST) this.makeRoom(now);
      if (this.followed.size < MOST) this.follow(topic, now);
    }
  }

  // One that fell silent makes room for one that has not.
  makeRoom(now) {
    const idle = [...this.followed.values()].find(({ heardAt, readings }) => now - heardAt > (readings.fields.size ? WINDOW_MS : PATIENCE_MS));
    if (idle) this.leave(idle);
  }

  leave(entry) {
    entry.stop();
    this.followed.delete(entry.topic);
  }

  follow(topic, now) {
    const entry = { topic, heardAt: now, readings: new Readings(), ...card(topic) }, { link } = this.app;
    this.followed.set(topic, entry);
    const refuse = () => {
      this.numberless.add(topic);
      this.leave(entry);
    };
    const take = (message) => {
      entry.heardAt = Date.now();
      entry.readings.take(message);
      if (entry.readings.others >= TRIED && !entry.readings.fields.size) refuse();
    };
    entry.stop = link.follow(topic, {
      begin: async (standing) => {
        if (standing.epoch === undefined || entry.readings.fields.size) return;
        for (const message of await link.history(topic, standing, LOOK_BACK)) take(message);
      },
      message(message) {
        take(message);
        beat(entry.dot);
      },
      refused: refuse,
    });
  }

  tick(now) {
    this.choose(now);
    const shown = [...this.followed.values()].filter(({ readings }) => readings.fields.size).sort((one, other) => one.topic.localeCompare(other.topic));
    each(this.list, shown, ({ topic }) => topic, ({ element }) => element, (element, entry) => draw(entry, now));
    this.empty.hidden = shown.length > 0;
  }
}

function card(topic) {
  const chart = new LineChart({ title: topic, height: 44, zero: false, small: true });
  const dot = el("i", "dot"), value = el("b"), all = el("span", "soft");
  const name = el("a", { className: "mono", href: topicLink(topic), title: topic }, topic);
  return { chart, dot, value, all, element: el("li", "", el("div", "line", dot, name, value), chart.element, all) };
}

function draw({ readings, value, all, chart }, now) {
  const { main } = readings, points = readings.fields.get(main).filter(([time]) => time > now - WINDOW_MS);
  chart.onread = (at) => say(value, readings.write(main, at));
  chart.update({ from: Math.min(now - SHORTEST_MS, points[0]?.[0] ?? now), to: now, gap: GAP_MS, series: [{ name: main, points }] });
  say(all, [...readings.fields.keys()].slice(0, 4).map((name) => `${name} ${readings.write(name)}`).join(" · "));
}
