// One topic live: its messages, who is there, its numbers as a chart, and a form to publish.

import { LineChart } from "./chart.js";
import { el, heading, hint, labelled, say, setChildren, setOptions, textInput } from "./dom.js";
import { mergedTopics } from "./feeds.js";
import { clock, count, exactClock, number, perSecond, plural } from "./format.js";
import { Readings } from "./readings.js";

const MOST_ROWS = 200, MOST_CHARACTERS = 4000, LOOK_BACK = 100, PRESENCE_MS = 5000, MOST_MEMBERS = 100;
const WINDOW_MS = 300_000, GAP_MS = 60_000, BATCH_MS = 40, BATCH = 500;

export class Topic {
  constructor(app) {
    this.app = app;
    this.name = el("span", { class: "mono" });
    this.facts = el("p", { class: "soft" });
    this.trouble = el("p", { class: "bad", role: "alert" });
    this.chart = new LineChart({ title: "Numbers", zero: false, format: (value) => this.readings.write(this.field, value) });
    this.fields = el("select", { "aria-label": "What is drawn", onchange: () => { this.field = this.fields.value; this.tick(Date.now()); } });
    this.chart.element.querySelector("h2").replaceChildren(this.fields, this.chart.when);
    this.feed = el("ol", { id: "feed", role: "log", "aria-live": "off", "aria-label": "Messages", tabIndex: 0 });
    this.none = hint("Nothing yet. Messages are shown here as they arrive, newest first.");
    this.filter = textInput({ id: "filter", type: "search", placeholder: "Show only…", "aria-label": "Show only messages that contain", oninput: () => this.sift() });
    this.pause = el("button", { id: "pause", type: "button", ariaPressed: "false", onclick: () => this.setPaused(!this.isPaused) }, "Pause");
    const clear = el("button", { id: "clear", type: "button", onclick: () => this.feed.replaceChildren() }, "Clear");
    this.members = el("ul", { class: "members" });
    this.presence = el("h2", {}, "Present");
    const title = heading("", el("a", { class: "button", href: "#/topics" }, "All topics"));
    title.firstChild.append(this.name);
    this.element = el("div", { class: "view" }, title, this.facts, this.trouble,
      el("div", { class: "split" },
        el("div", {}, this.chart.element, el("section", { class: "card" }, el("div", { class: "bar" }, el("h2", {}, "Messages"), this.filter, this.pause, clear), this.feed, this.none)),
        el("div", { class: "side" }, this.publishing(), el("section", { class: "card" }, this.presence, this.members))));
  }

  publishing() {
    this.data = el("textarea", { id: "publish-data", rows: 4, spellcheck: false, required: true, placeholder: 'text, or JSON such as {"n": 1}' });
    this.key = textInput({ id: "publish-key", maxLength: 255, placeholder: "none" });
    this.said = el("output", { id: "published" });
    const form = el("form", { class: "card publish", id: "publish-form", onsubmit: (event) => this.publish(event) }, el("h2", {}, "Publish"),
      labelled("Data", this.data), labelled("Key (a retry with the same one is not delivered again)", this.key), el("button", {}, "Publish"), this.said);
    this.data.onkeydown = (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && form.requestSubmit();
    return form;
  }

  show(topic) {
    Object.assign(this, { topic, readings: new Readings(), field: "", arrived: [], count: 0, hasBegun: false, askedAt: 0, isRefused: false });
    for (const text of [this.said, this.facts, this.trouble]) say(text, "");
    say(this.name, topic);
    this.setPaused(false);
    this.feed.replaceChildren();
    this.members.replaceChildren();
    this.chart.element.hidden = true;
    this.stop = this.app.link.follow(topic, {
      begin: (standing) => this.begin(topic, standing),
      message: (message) => this.arrive(message),
      gap: (gap) => this.arrive({ ...gap, isGap: true, time: Date.now() }),
      joined: () => this.askPresence(),
      left: () => this.askPresence(),
      refused: (error) => { this.isRefused = true; say(this.trouble, `Not subscribed: ${error.message}.`); },
    });
    this.stopTopics = topic.startsWith("$") ? () => {} : this.app.topics.use(() => this.tick(Date.now()));
  }

  hide() {
    this.stop();
    this.stopTopics();
    clearTimeout(this.timer);
  }

  async begin(topic, standing) {
    this.askPresence();
    if (standing.epoch === undefined || this.hasBegun) return;
    this.hasBegun = true;
    const kept = await this.app.link.history(topic, standing, LOOK_BACK).catch(() => []);
    if (topic !== this.topic) return;
    for (const message of kept) this.readings.take(message);
    this.feed.append(...kept.reverse().map((message) => this.row({ topic, ...message })));
    this.tick(Date.now());
  }

  arrive(message) {
    this.arrived.push(message);
    // No animation frames come in a tab that is not looked at, and messages must not pile up there.
    if (this.arrived.length >= BATCH) this.showArrived();
    else if (this.arrived.length === 1) this.timer = setTimeout(() => this.showArrived(), BATCH_MS);
  }

  showArrived() {
    const batch = this.arrived;
    this.arrived = [];
    for (const message of batch) if (!message.isGap) this.readings.take(message);
    this.count += batch.length;
    if (this.isPaused) return;
    this.feed.prepend(...batch.slice(-MOST_ROWS).reverse().map((message) => this.row(message)));
    while (this.feed.children.length > MOST_ROWS) this.feed.lastChild.remove();
    this.none.hidden = true;
  }

  row(message) {
    const text = message.isGap ? `${message.from} to ${message.to} were not delivered (${message.reason})`
      : typeof message.data === "string" ? message.data : JSON.stringify(message.data);
    const cut = text.length > MOST_CHARACTERS ? `${text.slice(0, MOST_CHARACTERS)}… (${plural(text.length - MOST_CHARACTERS, "more character")})` : text;
    const row = el("li", { class: message.isGap ? "gap" : "" },
      el("time", { class: "soft", dateTime: new Date(message.time).toISOString() }, exactClock(message.time)),
      el("span", { class: "soft offset" }, message.offset === undefined ? "" : `#${message.offset}`),
      el("span", { class: "data" }, cut), el("span", { class: "soft sender" }, message.sender || ""));
    row.hidden = !this.matches(row);
    return row;
  }

  matches(row) {
    return row.textContent.toLowerCase().includes(this.filter.value.toLowerCase());
  }

  sift() {
    for (const row of this.feed.children) row.hidden = !this.matches(row);
  }

  setPaused(isPaused) {
    this.isPaused = isPaused;
    this.pause.ariaPressed = String(isPaused);
    say(this.pause, isPaused ? "Go on" : "Pause");
  }

  publish(event) {
    event.preventDefault();
    const text = this.data.value, topic = this.topic;
    let data = text;
    try { data = JSON.parse(text); } catch { /* then it is text */ }
    const tell = (words, className) => topic === this.topic && Object.assign(this.said, { textContent: words, className });
    this.app.link.publish(topic, data, this.key.value.trim()).then(
      ({ offset, scope }) => tell(`Published${offset ? ` at offset ${offset}` : ""}${scope === "node" ? ", to this node's clients only" : ""}.`, ""),
      (error) => tell(`Not published: ${error.message}.`, "bad"));
  }

  async askPresence() {
    const topic = this.topic;
    this.askedAt = Date.now();
    if (this.isRefused || topic.startsWith("$")) return;
    const members = await this.app.link.presence(topic).catch(() => null);
    if (members === null || topic !== this.topic) return;
    say(this.presence, `Present: ${count(members.length)}`);
    setChildren(this.members, members.slice(0, MOST_MEMBERS).map(({ user, session, since }, i) => {
      const row = this.members.children[i] ?? el("li", {}, el("b"), el("span", { class: "soft" }));
      say(row.firstChild, `${user || "anonymous"}${session === this.app.own ? " (this page)" : ""}`);
      say(row.lastChild, `since ${clock(since)}`);
      return row;
    }));
  }

  tick(now) {
    if (now - this.askedAt > PRESENCE_MS && this.app.link.state === "connected") this.askPresence();
    this.none.hidden = this.feed.children.length > 0;
    const known = mergedTopics(this.app.topics).find(({ topic }) => topic === this.topic);
    const facts = known && [`${perSecond(known.in)} in`, `${perSecond(known.out)} out`, plural(known.subscribers, "subscriber"),
      known.history ? `keeps the last ${count(known.history)}` : "keeps no history", known.offset === null ? "" : `newest offset ${count(known.offset)}`];
    say(this.facts, [...(facts ?? []), this.count ? `${number(this.count)} received here` : ""].filter(Boolean).join(" · "));
    this.drawNumbers(now);
  }

  drawNumbers(now) {
    const names = [...this.readings.fields.keys()];
    this.chart.element.hidden = !names.length;
    if (!names.length) return;
    setOptions(this.fields, names.map((name) => [name, name]));
    if (!this.field) this.fields.value = this.field = this.readings.main;
    const points = this.readings.fields.get(this.field);
    const from = Math.max(now - WINDOW_MS, Math.min(now - 60_000, points[0][0]));
    this.chart.update({ from, to: now, gap: GAP_MS, series: [{ name: this.field, points: points.filter(([time]) => time >= from), now: this.readings.write(this.field) }] });
  }
}
