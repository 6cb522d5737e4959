// Live readings: topics whose messages carry numbers get a small chart. The busiest are followed by themselves.

import { LineChart } from "./chart.js";
import { beat, each, el, say, topicLink } from "./dom.js";
import { mergedTopics } from "./feeds.js";
import { Readings } from "./readings.js";

const MOST = 8;               // topics followed at once
const TRIED = 3;              // messages without a number, after which a topic is left alone
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

  choose() {
    const busiest = mergedTopics(this.app.topics).filter(({ topic }) => !topic.startsWith("$") && !this.numberless.has(topic))
      .sort((one, other) => other.in - one.in || other.out - one.out || one.topic.localeCompare(other.topic));
    for (const { topic } of busiest) if (this.followed.size < MOST && !this.followed.has(topic)) this.follow(topic);
  }

  follow(topic) {
    const entry = { topic, readings: new Readings(), ...card(topic) }, { link } = this.app;
    this.followed.set(topic, entry);
    const leave = () => {
      this.numberless.add(topic);
      entry.stop?.();
      this.followed.delete(topic);
    };
    const take = (message) => {
      entry.readings.take(message);
      if (entry.readings.others >= TRIED && !entry.readings.fields.size) leave();
    };
    entry.stop = link.follow(topic, {
      begin: async (standing) => {
        if (standing.epoch === undefined || entry.readings.fields.size) return;
        for (const message of await link.history(topic, standing, LOOK_BACK)) take(message);
        this.tick(Date.now());
      },
      message(message) {
        take(message);
        beat(entry.dot);
      },
      refused: leave,
    });
  }

  tick(now) {
    this.choose();
    const shown = [...this.followed.values()].filter(({ readings }) => readings.fields.size).sort((one, other) => one.topic.localeCompare(other.topic));
    each(this.list, shown, ({ topic }) => topic, ({ element }) => element, (element, entry) => draw(entry, now));
    this.empty.hidden = shown.length > 0;
  }
}

function card(topic) {
  const chart = new LineChart({ title: topic, height: 44, zero: false, small: true });
  const dot = el("i", "dot"), value = el("b"), others = el("span", "soft");
  const name = el("a", { className: "mono", href: topicLink(topic), title: topic }, topic);
  return { chart, dot, value, others, element: el("li", "", el("div", "line", dot, name, value), chart.element, others) };
}

function draw({ readings, value, others, chart }, now) {
  const { main } = readings, points = readings.fields.get(main).filter(([time]) => time > now - WINDOW_MS);
  chart.onread = (at) => say(value, readings.write(main, at));
  chart.update({ from: Math.min(now - SHORTEST_MS, points[0]?.[0] ?? now), to: now, gap: GAP_MS, series: [{ name: main, points }] });
  const rest = [...readings.fields.keys()].filter((name) => name !== main).slice(0, 3).map((name) => `${name} ${readings.write(name)}`);
  say(others, [...(main === "value" ? [] : [main]), ...rest].join(" · "));
}
