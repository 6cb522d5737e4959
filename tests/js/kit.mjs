// A world for the client to live in: a clock that a test moves, and a server that says what the test wants it to say.

import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import { PING, PONG, connect, heartbeat, parseHeartbeat } from "../../protocol/js/notifyd.js";

globalThis.crypto ??= webcrypto;  // which Node has from 19 on; the clock's random numbers are all the same

const turn = () => new Promise((done) => realSetImmediate(done));
const realSetImmediate = setImmediate;

/** Virtual time, in seconds; it stands still unless `advance` moves it. */
export class Clock {
  #now = 1000;
  #timers = new Map();
  #lastTimer = 0;
  #real = {};
  unix = 1_790_000_000;
  random = 0.5;

  install() {
    const performance = Object.getOwnPropertyDescriptor(globalThis, "performance");
    this.#real = { setTimeout, clearTimeout, performance, random: Math.random, unix: Date.now };
    const began = this.#now;
    globalThis.setTimeout = (act, ms = 0) => {
      assert.ok(ms < 2 ** 31, `a timer of ${ms} ms would fire at once`);
      this.#timers.set(++this.#lastTimer, { act, at: this.#now + Math.max(ms, 0) / 1000 });
      return this.#lastTimer;
    };
    globalThis.clearTimeout = (timer) => this.#timers.delete(timer);
    const value = { now: () => this.#now * 1000 };
    Object.defineProperty(globalThis, "performance", { value, configurable: true, writable: true, enumerable: true });
    Date.now = () => (this.unix + this.#now - began) * 1000;
    Math.random = () => this.random;
  }

  uninstall() {
    Object.assign(globalThis, { setTimeout: this.#real.setTimeout, clearTimeout: this.#real.clearTimeout });
    Object.defineProperty(globalThis, "performance", this.#real.performance);
    Date.now = this.#real.unix;
    Math.random = this.#real.random;
  }

  get now() {
    return this.#now;
  }

  get timers() {
    return this.#timers.size;
  }

  /** Lets time pass, and everything that falls due meanwhile happen. */
  async advance(seconds) {
    const end = this.#now + seconds;
    await turn();
    for (;;) {
      const [first] = [...this.#timers].sort(([one, a], [other, b]) => a.at - b.at || one - other);
      if (!first || first[1].at > end + 1e-9) break;
      this.#timers.delete(first[0]);
      this.#now = Math.max(this.#now, first[1].at);
      first[1].act();
      await turn();
    }
    this.#now = end;
  }

  /** Lets time pass as for a page that sleeps: nothing runs, and then everything is late. */
  async sleep(seconds) {
    this.#now += seconds;
    await this.advance(0);
  }
}

/** The server's end of one connection. */
export class FakeSocket {
  sent = [];      // messages that the client sent
  beats = [];     // its heartbeats
  closedWith = null;

  constructor(server, url, protocols) {
    Object.assign(this, { server, url, protocols });
  }

  // What the client calls.

  send(data) {
    assert.equal(this.closedWith, null, "nothing is sent on a closed socket");
    if (typeof data !== "string") return this.#beat(data);
    const message = JSON.parse(data);
    this.sent.push(message);
    queueMicrotask(() => this.closedWith ?? this.server.hear(this, message));
  }

  close(code) {
    assert.ok(code === 1000 || code >= 3000, `a browser does not let a page close with ${code}`);
    this.closedWith ??= code;
    queueMicrotask(() => {  // what a real one still says, and the package ws throws where nobody listens
      this.onerror({});
      this.onmessage?.({ data: '{"op":"late"}' });
      this.onclose?.({ code, reason: "late" });
    });
  }

  #beat(data) {
    const beat = parseHeartbeat(data);
    this.beats.push(beat);
    if (beat.type === PING && this.server.answersPings) {
      queueMicrotask(() => this.receive(heartbeat(PONG, beat.timestamp)));
    }
  }

  // What a test does.

  receive(data) {
    this.onmessage?.({ data });
  }

  say(message) {
    this.receive(JSON.stringify(message));
  }

  end(code = 1006, reason = "") {
    const onclose = this.onclose;
    this.onmessage = this.onclose = null;
    this.closedWith ??= code;
    onclose?.({ code, reason });
  }

  /** The messages of one kind that the client sent. */
  of(op) {
    return this.sent.filter((message) => message.op === op);
  }
}

/** Accepts and answers as a server does; a test replaces what it wants to be otherwise in `answers`. */
export class FakeServer {
  sockets = [];
  accepts = true;
  answersPings = true;
  topics = {};  // what `connected` says of restored topics
  resumed = false;
  expires = undefined;
  offset = 0;
  answers = {
    connect: () => {
      const restored = Object.keys(this.topics).length ? { topics: this.topics } : {};
      return { op: "connected", session: "s1", resumed: this.resumed, user: "ada", node: "n1", heartbeat: 30, expires: this.expires, ...restored };
    },
    subscribe: ({ topic, since }) => ({ op: "subscribed", topic, epoch: "e", offset: this.offset, ...(since && since !== "latest" && { recovered: true }) }),
    unsubscribe: ({ topic }) => ({ op: "unsubscribed", topic }),
    publish: ({ topic }) => ({ op: "published", topic, epoch: "e", offset: ++this.offset }),
    history: ({ topic }) => ({ op: "history", topic, epoch: "e", messages: [], more: false }),
    presence: ({ topic }) => ({ op: "presence", topic, members: [{ user: "ada", session: "s1", since: 1 }] }),
    refresh: () => ({ op: "refreshed", expires: this.expires }),
  };

  constructor() {
    const server = this;
    this.WebSocket = class extends FakeSocket {
      constructor(url, protocols) {
        super(server, url, protocols);
        server.sockets.push(this);
        queueMicrotask(() => (server.accepts ? this.onopen?.() : this.end()));
      }
    };
  }

  get socket() {
    return this.sockets.at(-1);
  }

  hear(socket, message) {
    const answer = this.answers[message.op]?.(message, socket);
    if (answer) socket.say({ id: message.id, ...answer });
  }

  refuse(op, error) {
    this.answers[op] = () => ({ op: "error", code: 400, reason: "bad_request", message: "refused", ...error });
  }
}

/** Runs `test({ clock, server, client, … })` in a world of its own; at its end nothing may be left of the client. */
export function world(test) {
  return async () => {
    const clock = new Clock(), server = new FakeServer(), clients = [];
    clock.install();
    const open = ({ url = "ws://host", ...more } = {}) => {
      const client = connect(url, { WebSocket: server.WebSocket, ...more });
      clients.push(client);
      return client;
    };
    const opened = async (more) => {
      const client = open(more);
      await clock.advance(0);
      assert.equal(client.state, "connected");
      return client;
    };
    try {
      await test({ clock, server, open, opened });
      for (const client of clients) client.close();
      await clock.advance(0);
      assert.equal(clock.timers, 0, "a closed client leaves no timer behind");
    } finally {
      clock.uninstall();
    }
  };
}

export const message = (offset, more = {}) => ({ op: "message", topic: "a:b", data: offset, epoch: "e", offset, time: 1, ...more });

export const gap = (from, to, reason, more = {}) => ({ op: "gap", topic: "a:b", from, to, reason, epoch: "e", ...more });

/** Collects what an iterator yields, without waiting for its end. */
export function collect(subscription) {
  const events = [], collected = { events, error: undefined, done: false };
  collected.over = (async () => {
    for await (const event of subscription) events.push(event.op === "gap" ? event : event.data);
    collected.done = true;
  })().catch((error) => (collected.error = error));
  return collected;
}

/** Collects a client's events of one type. */
export function listen(emitter, type) {
  const values = [];
  emitter.on(type, (value) => values.push(value));
  return values;
}

/** A promise's outcome so far: { value }, { error } or {}. */
export function watch(promise) {
  const outcome = {};
  promise.then((value) => (outcome.value = value), (error) => (outcome.error = error));
  return outcome;
}
