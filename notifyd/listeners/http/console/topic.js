// One topic live: its messages, who is there, its numbers as a chart, and a form to publish.

import { LineChart } from "./chart.js";
import { each, el, heading, labelled, say, searchInput, setOptions } from "./dom.js";
import { mergedTopics } from "./feeds.js";
import { clock, count, exactClock, perSecond, plural } from "./format.js";
import { Readings } from "./readings.js";

const MOST_ROWS = 200, MOST_CHARACTERS = 4000, MOST_MEMBERS = 100, LOOK_BACK = 100, BATCH = 500;
const PRESENCE_MS = 5000, WINDOW_MS = 300_000, SHORTEST_MS = 60_000, GAP_MS = 60_000, BATCH_MS = 40;

export class Topic {
  feeds = ["topics"];

  constructor(app) {
    this.app = app;
    this.facts = el("p", "soft");
    this.trouble = el("p", { className: "bad", role: "alert" });
    this.members = el("ul", "members");
    this.presence = el("h2");
    this.title = heading("", el("a", { className: "button", href: "#/topics" }, "All topics"));
    this.element = el("div", "view", this.title, this.facts, this.trouble, el("div", "split",
      el("div", "", this.charting(), this.listening()),
      el("div", "", this.publishing(), el("section", "card", this.presence, this.members))));
  }

  charting() {
    this.chart = new LineChart({ title: "", zero: false, format: (value) => this.readings.write(this.fields.value, value) });
    this.fields = el("select", { ariaLabel: "What is drawn", onchange: () => this.draw(Date.now()) });
    this.chart.when.before(this.fields);
    return this.chart.element;
  }

  listening() {
    this.feed = el("ol", { id: "feed", role: "log", ariaLive: "off", ariaLabel: "Messages", tabIndex: 0 });
    this.none = el("p", "hint", "Messages are shown here as they arrive, newest first.");
    this.filter = searchInput("filter", "Show only…", () => {
      for (const row of this.feed.children) this.sift(row);
    });
    this.pause = el("button", { id: "pause", type: "button", onclick: () => this.setPaused(!this.isPaused) });
    const clear = el("button", { id: "clear", type: "button", onclick: () => this.feed.replaceChildren() }, "Clear");
    return el("section", "card", el("div", "bar", el("h2", "", "Messages"), this.filter, this.pause, clear), this.feed, this.none);
  }

  publishing() {
    this.data = el("textarea", { id: "publish-data", rows: 4, spellcheck: false, required: true, placeholder: 'text, or JSON such as {"n": 1}' });
    this.said = el("output", { id: "published" });
    return el("form", { className: "card publish", id: "publish-form", onsubmit: (event) => this.publish(event) }, el("h2", "", "Publish"),
      labelled("Data", this.data), el("button", "", "Publish"), this.said);
  }

  show(topic) {
    Object.assign(this, { topic, readings: new Readings(), arrived: [], hasBegun: false, askedAt: 0 });
    for (const text of [this.said, this.facts, this.trouble, this.presence]) say(text, "");
    for (const list of [this.feed, this.members, this.fields]) each(list, []);
    say(this.title.firstChild, topic);
    this.setPaused(false);
    this.stop = this.app.link.follow(topic, {
      begin: (standing) => this.begin(standing),
      message: (message) => this.arrive(message),
      gap: (gap) => this.arrive({ ...gap, time: Date.now() }),
      joined: () => (this.askedAt = 0),
      left: () => (this.askedAt = 0),
      refused: ({ message }) => say(this.trouble, `Not subscribed: ${message}.`),
    });
  }

  hide() {
    this.stop();
    clearTimeout(this.timer);
  }

  async begin(standing) {
    this.askedAt = 0;
    if (this.hasBegun || standing.epoch === undefined) return;
    this.hasBegun = true;
    const { topic, readings } = this, kept = await this.app.link.history(topic, standing, LOOK_BACK);
    if (readings !== this.readings) return;  // shown anew since
    for (const message of kept) readings.take(message);
    this.feed.append(...kept.reverse().map((message) => this.row(message)));
    this.tick(Date.now());
  }

  arrive(message) {
    this.arrived.push(message);
    // Also in a hidden tab, whose timers are rare, they must not pile up.
    if (this.arrived.length >= BATCH) this.showArrived();
    else if (this.arrived.length === 1) this.timer = setTimeout(() => this.showArrived(), BATCH_MS);
  }

  showArrived() {
    const batch = this.arrived;
    this.arrived = [];
    for (const message of batch) if (message.op === "message") this.readings.take(message);
    if (this.isPaused) return;
    this.feed.prepend(...batch.slice(-MOST_ROWS).reverse().map((message) => this.row(message)));
    while (this.feed.children.length > MOST_ROWS) this.feed.lastChild.remove();
    this.none.hidden = true;
  }

  row({ op, time, offset, data, sender, from, to, reason }) {
    const isGap = op === "gap";
    const text = isGap ? `${from ? `${from} to ${to}` : "messages"} may be missing (${reason})` : typeof data === "string" ? data : JSON.stringify(data);
    const row = el("li", isGap ? "gap" : "", el("time", "soft", exactClock(time)), el("span", "soft", offset === undefined ? "" : `#${offset}`),
      el("span", "data", text.length > MOST_CHARACTERS ? `${text.slice(0, MOST_CHARACTERS)}… (${count(text.length)} characters)` : text), el("span", "soft sender", sender ?? ""));
    this.sift(row);
    return row;
  }

  sift(row) {
    row.hidden = !row.textContent.toLowerCase().includes(this.filter.value.toLowerCase());
  }

  setPaused(isPaused) {
    this.isPaused = isPaused;
    this.pause.ariaPressed = String(isPaused);
    say(this.pause, isPaused ? "Go on" : "Pause");
  }

  async publish(event) {
    event.preventDefault();
    const text = this.data.value, { topic } = this;
    let data = text;
    try { data = JSON.parse(text); } catch { /* then it is text */ }
    Object.assign(this.said, { textContent: "On its way…", className: "" });
    try {
      const { offset, scope } = await this.app.link.client.publish(topic, data);
      if (topic === this.topic) say(this.said, `Published${offset ? ` at offset ${offset}` : ""}${scope === "node" ? ", to this node's clients only" : ""}.`);
    } catch ({ message }) {
      if (topic === this.topic) Object.assign(this.said, { textContent: `Not published: ${message}.`, className: "bad" });
    }
  }

  async askPresence() {
    const { topic, readings, app } = this;
    this.askedAt = Date.now();
    const members = await app.link.client.presence(topic).catch(() => null);
    if (readings !== this.readings || !members) return;
    say(this.presence, `Present: ${count(members.length)}`);
    each(this.members, members.slice(0, MOST_MEMBERS), ({ session }) => session, ({ user, session, since }) =>
      el("li", "", el("b", "", `${user || "anonymous"}${session === app.own ? " (this page)" : ""}`), el("span", "soft", `since ${clock(since)}`)));
  }

  tick(now) {
    if (now - this.askedAt > PRESENCE_MS && !this.trouble.textContent && this.app.link.state === "connected") this.askPresence();
    this.none.hidden = this.feed.children.length > 0;
    const known = mergedTopics(this.app.topics).find(({ topic }) => topic === this.topic);
    const facts = known ? [`${perSecond(known.in)} in`, `${perSecond(known.out)} out`, plural(known.subscribers, "subscriber"),
      known.history ? `keeps the last ${count(known.history)}` : "keeps no history", `newest offset ${count(known.offset)}`] : [];
    say(this.facts, facts.join(" · "));
    this.draw(now);
  }

  draw(now) {
    const { fields } = this.readings;
    this.chart.element.hidden = !fields.size;
    if (!fields.size) return;
    if (!this.fields.options.length) setOptions(this.fields, [[this.readings.main, this.readings.main]]);
    setOptions(this.fields, [...fields.keys()].map((name) => [name, name]));
    const name = this.fields.value, points = fields.get(name), from = Math.max(now - WINDOW_MS, Math.min(now - SHORTEST_MS, points[0][0]));
    this.chart.update({ from, to: now, gap: GAP_MS, series: [{ name, points: points.filter(([time]) => time >= from), now: this.readings.write(name) }] });
  }
}
