// Live readings: every topic whose messages carry numbers gets a small chart. The busiest are followed by themselves.

import { LineChart } from "./chart.js";
import { beat } from "./devices.js";
import { el, hint, mark, say, setChildren } from "./dom.js";
import { mergedTopics } from "./feeds.js";
import { NONE } from "./format.js";
import { Readings } from "./readings.js";

const MOST = 8;               // topics followed at once
const TRIED = 3;              // messages without a number, after which a topic is left alone
const LOOK_BACK = 120;        // kept messages that are drawn at once
const WINDOW_MS = 120_000, SHORTEST_MS = 20_000;
const GAP_MS = 30_000;

export class Fleet {
  constructor(app) {
    Object.assign(this, { app, followed: new Map(), numberless: new Set() });
    this.list = el("ul", { class: "fleet" });
    this.empty = hint("Topics whose messages carry numbers are drawn here as they arrive.");
    this.element = el("section", { class: "card" }, el("h2", {}, "Live readings"), this.list, this.empty);
  }

  show() {
    this.stop = this.app.topics.use(() => this.choose());
  }

  hide() {
    this.stop();
    for (const entry of this.followed.values()) entry.stop();
    this.followed.clear();
  }

  choose() {
    const busiest = mergedTopics(this.app.topics).filter(({ topic }) => !topic.startsWith("$") && !this.numberless.has(topic))
      .sort((one, other) => other.in - one.in || other.out - one.out || one.topic.localeCompare(other.topic));
    for (const { topic } of busiest) if (this.followed.size < MOST && !this.followed.has(topic)) this.follow(topic);
  }

  follow(topic) {
    const entry = { topic, readings: new Readings(), ...card(topic) };
    this.followed.set(topic, entry);
    const take = (message) => {
      entry.readings.take(message);
      if (entry.readings.others >= TRIED && !entry.readings.fields.size) this.leave(topic);
    };
    entry.stop = this.app.link.follow(topic, {
      begin: (standing) => standing.epoch !== undefined && entry.readings.last === 0 && this.lookBack(topic, standing, take),
      message(message) {
        take(message);
        beat(entry.dot);
      },
      refused: () => this.leave(topic),
    });
  }

  async lookBack(topic, standing, take) {
    const messages = await this.app.link.history(topic, standing, LOOK_BACK).catch(() => []);
    for (const message of messages) take(message);
    this.tick(Date.now());
  }

  leave(topic) {
    this.numberless.add(topic);
    this.followed.get(topic)?.stop?.();
    this.followed.delete(topic);
  }

  tick(now) {
    const shown = [...this.followed.values()].filter(({ readings }) => readings.fields.size)
      .sort((one, other) => one.topic.localeCompare(other.topic));
    setChildren(this.list, shown.map((entry) => entry.element));
    for (const entry of shown) this.draw(entry, now);
    this.empty.hidden = shown.length > 0;
  }

  draw({ readings, value, others, chart }, now) {
    const main = readings.main;
    chart.onread = (pair) => say(value, readings.write(main, pair ? pair[1] : readings.newest(main)));
    const points = readings.fields.get(main).filter(([time]) => time > now - WINDOW_MS);
    const from = Math.min(now - SHORTEST_MS, points[0]?.[0] ?? now);
    chart.update({ from, to: now, gap: GAP_MS, series: [{ name: main, points }] });
    const rest = [...readings.fields.keys()].filter((name) => name !== main).slice(0, 3).map((name) => `${name} ${readings.write(name)}`);
    say(others, [main === "value" ? "" : main, ...rest].filter(Boolean).join(" · ") || NONE);
  }
}

function card(topic) {
  const chart = new LineChart({ title: topic, height: 44, zero: false, small: true });
  const dot = el("i", { class: "dot", "aria-hidden": "true" }), value = el("b"), others = el("span", { class: "soft" });
  const name = el("a", { class: "mono", href: `#/topics/${encodeURIComponent(topic)}` }, topic);
  mark(name, "title", topic);
  return { chart, dot, value, others, element: el("li", {}, el("div", { class: "line" }, dot, name, value), chart.element, others) };
}
