// Everything at once: a server whose network fails at random. Whatever happens, each accepted message reaches the
// consumer once and in order, or a gap names it; and each publish is accepted once.

import assert from "node:assert/strict";
import { test } from "node:test";
import { watch, world } from "./kit.mjs";

const KEPT = 30, PUBLISHED = 200;

/** A small generator with a seed, so that a failure can be replayed (mulberry32). */
function dice(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A node with one topic and its history; sockets die, answers are late or lost, sessions and epochs end. */
class Node {
  log = [];  // every message ever accepted, in order: { epoch, offset, data }
  keys = new Map();
  session = null;
  epoch = 1;
  begins = 0;  // the index in the log where the epoch began

  constructor(server, clock, random) {
    Object.assign(this, { server, clock, random });
    server.hear = (socket, message) => this.later(socket, () => this.answer(socket, message));
  }

  get newest() {
    return this.log.length - this.begins;
  }

  later(socket, act) {
    // One path, one order: what is said later is never overtaken.
    socket.free = Math.max(socket.free ?? 0, this.clock.now) + this.random() * 0.05;
    setTimeout(() => socket.closedWith ?? act(), (socket.free - this.clock.now) * 1000);
  }

  kept(since) {
    const all = this.log.slice(this.begins), first = Math.max(0, all.length - KEPT);
    const isSame = since?.epoch === String(this.epoch) && since.offset <= all.length;
    const recovered = isSame && since.offset >= first;
    return { recovered, missed: recovered ? all.slice(since.offset) : [], isSame };
  }

  replay(socket, since) {
    const { recovered, missed } = this.kept(since);
    socket.subscribed = true;
    return () => missed.forEach((entry) => this.push(socket, entry)) ?? recovered;
  }

  push(socket, { epoch, offset, data }) {
    socket.say({ op: "message", topic: "a:b", epoch, offset, data, time: 1 });
  }

  answer(socket, { op, id, session, positions = {}, since, data, key }) {
    const state = { epoch: String(this.epoch), offset: this.newest };
    if (op === "connect") {
      const resumed = session === this.session && this.random() < 0.7, from = positions["a:b"];
      const topics = resumed && this.hadTopic && from ? { topics: { "a:b": { ...state, recovered: this.kept(from).recovered } } } : {};
      this.session = resumed ? session : `s${this.random()}`;
      socket.say({ op: "connected", id, session: this.session, resumed, user: "", node: "n", heartbeat: 30, ...topics });
      if (topics.topics) this.replay(socket, from)();
    } else if (op === "subscribe") {
      const push = this.replay(socket, since);
      this.hadTopic = true;
      socket.say({ op: "subscribed", id, topic: "a:b", ...state, ...(since !== "latest" && { recovered: this.kept(since).recovered }) });
      push();
    } else if (op === "unsubscribe") {
      socket.subscribed = false;
      socket.say({ op: "unsubscribed", id, topic: "a:b" });
    } else if (op === "publish") this.publish(socket, id, data, key);
  }

  publish(socket, id, data, key) {
    if (this.random() < 0.1) return socket.say({ op: "error", id, code: 503, reason: "unavailable", message: "", retry_after: 0.1 });
    if (!this.keys.has(key)) this.accept(data, key);
    if (this.random() < 0.9) socket.say({ op: "published", id, topic: "a:b", ...this.keys.get(key) });
    else socket.end();
  }

  accept(data, key) {
    const entry = { epoch: String(this.epoch), offset: this.newest + 1, data };
    this.log.push(entry);
    this.keys.set(key, { epoch: entry.epoch, offset: entry.offset });
    const { socket } = this.server;
    if (socket?.subscribed && socket.closedWith === null) this.push(socket, entry);
  }

  misbehave() {
    const { socket } = this.server, chance = this.random();
    if (chance < 0.3 && socket?.closedWith === null) socket.end(1006);
    else if (chance < 0.35) [this.epoch, this.begins, this.session] = [this.epoch + 1, this.log.length, null];
    else if (chance < 0.5) this.server.accepts = !this.server.accepts;
  }
}

/** Fails where the events are not the log from `begin` on, with nothing missing that no gap tells of. */
function check(log, events) {
  let at = 0, told = false;
  for (const event of events) {
    if (event.op === "gap") {
      told = true;
      continue;
    }
    const index = log.findIndex(({ epoch, offset }) => epoch === event.epoch && offset === event.offset);
    assert.ok(index >= at, `${event.epoch}:${event.offset} came again, or late`);
    assert.ok(index === at || told, `${index - at} messages before ${event.epoch}:${event.offset} are missing, and nothing tells it`);
    at = index + 1;
    told = false;
  }
  assert.ok(at === log.length || told, `the last ${log.length - at} messages are missing`);
}

for (let seed = 1; seed <= 16; seed += 1) {
  test(`a storm, seed ${seed}`, world(async ({ clock, server, open }) => {
    const random = dice(seed), node = new Node(server, clock, random), client = open();
    const subscription = client.subscribe("a:b", { queue: 3 + Math.floor(random() * 40) }), events = [];
    (async () => {
      for await (const event of subscription) {
        events.push(event);
        if (random() < 0.1) await new Promise((done) => setTimeout(done, random() * 500));
      }
    })();
    await new Promise((done) => subscription.on("begin", done) && clock.advance(5));
    const published = [];
    for (let step = 0; step < PUBLISHED; step += 1) {
      published.push(watch(client.publish("a:b", step)));
      await clock.advance(random() * 0.1);
      if (random() < 0.2) node.misbehave();
    }
    server.accepts = true;
    await clock.advance(120);
    assert.ok(published.every(({ value, error }) => value || error?.reason === "answer_lost"));
    assert.equal(published.filter(({ error }) => error).length, 0);
    assert.equal(node.log.length, PUBLISHED);
    assert.equal(new Set(node.log.map(({ data }) => data)).size, PUBLISHED);
    check(node.log, events);
    assert.ok(server.sockets.length > 3, "there was a storm");
  }));
}
