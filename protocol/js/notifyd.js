// The client for browsers and Node: see README.md. Times are in seconds.

const CLIENT = { name: "notifyd.js", version: "0.1.0" };
const FINAL = { 4000: "protocol_error", 4001: "unauthorized", 4003: "forbidden", 4100: "replaced" };
const REFUSED = { 400: 4000, 401: 4001, 403: 4003 };  // by `connect`, as close codes
const PATIENCE = 10, SHORT_PATIENCE = 3;
const LATE = 2;          // so late a timer tells of a sleep
const GREETING = 4000;   // bytes of 4096
const REPEATABLE = 240;  // the server knows a key for 300 s
const IN_FLIGHT = 100;   // requests; a server allows a burst of 200
export const PING = 0, PONG = 1;
const MAGIC = 0x48454152;

const now = () => performance.now() / 1000;
const bounded = (wish) => Math.min(Math.max(+wish || 0, 0), 3600);
const sizeOf = (value) => new Blob([JSON.stringify(value)]).size;
const makeKey = () => globalThis.crypto?.randomUUID?.() ?? `${Math.random()}${Math.random()}`;
const answerLost = () => new NotifydError({ reason: "answer_lost" });
const positionOf = ({ epoch, offset }) => (epoch === undefined ? null : { epoch, offset });

export class NotifydError extends Error {
  constructor({ code = null, reason, message = reason, retry_after: retryAfter }) {
    super(message);
    Object.assign(this, { name: "NotifydError", code, reason, retryAfter });
  }
}

export const delay = (attempt, random = Math.random()) => Math.min(0.1 * 2 ** attempt + 0.1 * random, 30);

export function heartbeat(type, timestamp) {
  const view = new DataView(new ArrayBuffer(16));
  view.setUint32(0, MAGIC);
  view.setUint8(4, type);
  view.setBigUint64(5, timestamp);
  return view.buffer;
}

export function parseHeartbeat(buffer) {
  const view = new DataView(buffer), type = view.getUint8(4), reserved = view.getUint32(12) << 8;
  if (view.byteLength > 16 || view.getUint32(0) !== MAGIC || type > PONG || reserved) throw new Error("no heartbeat");
  return { type, timestamp: view.getBigUint64(5) };
}

export class Liveness {
  #pinged;
  #waiting = Infinity;
  #stamp = null;
  #trips = [];

  constructor(interval, floor, now) {
    Object.assign(this, { interval, floor });
    this.#pinged = now;
  }

  get roundTrip() {
    return this.#trips.reduce((sum, trip) => sum + trip, 0) / this.#trips.length || 0;
  }

  get pingDue() {
    return this.#pinged + this.interval;
  }

  get lostAt() {
    return this.#waiting + Math.max(3 * this.roundTrip, this.floor);
  }

  heard() {
    this.#waiting = Infinity;
  }

  ping(now) {
    this.#waiting = Math.min(this.#waiting, now);
    this.#pinged = now;
    return (this.#stamp = BigInt(Math.floor(now * 1000)));
  }

  pong(timestamp, now) {
    this.heard();
    if (timestamp !== this.#stamp) return;
    this.#stamp = null;
    this.#trips = [...this.#trips.slice(-4), now - this.#pinged];
  }
}

class Emitter {
  #listeners = {};

  on(type, listener) {
    const listeners = (this.#listeners[type] ??= new Set());
    listeners.add(listener);
    return () => listeners.delete(listener);
  }

  /** In microtasks: what a listener does or throws harms nobody else. */
  _emit(type, value) {
    const listeners = this.#listeners[type] ?? [];
    for (const listener of listeners) queueMicrotask(() => listeners.has(listener) && listener(value));
    return listeners.size;
  }
}

class Subscription extends Emitter {
  position = null;  // of the last message or gap
  _active = false;  // what comes is meant for it
  #client;
  #options;
  #begun = false;
  #queue = [];
  #behind = false;  // what comes is let go, and asked for later
  #listened = false;
  #wakers = [];
  #end = null;

  constructor(client, topic, options) {
    super();
    this.topic = topic;
    this.#client = client;
    this.#options = { since: options?.since ?? "latest", queue: options?.queue || 1000 };
  }

  on(type, listener) {
    const off = super.on(type, listener);
    if (type === "message") {
      this.#listened = true;
      for (const event of this.#queue.splice(0)) this._emit(event.op, event);
      if (this.#behind) this.#client._again(this);
    }
    return off;
  }

  close() {
    this.#client._leave(this);
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  async next() {
    for (;;) {
      if (this.#queue.length) return { value: this.#queue.shift(), done: false };
      if (this.#end?.error) throw this.#end.error;
      if (this.#end) return { value: undefined, done: true };
      if (this.#behind) this.#client._again(this);
      await new Promise((wake) => this.#wakers.push(wake));
    }
  }

  async return(value) {
    this.close();
    return { value, done: true };
  }

  get _since() {
    const { since } = this.#options, { position } = this;
    if (!this.#begun) return since;
    return since === "earliest" && position?.offset === 0 ? since : position ?? "latest";
  }

  _begin(asked, reply) {
    const top = positionOf(reply), resumes = this.#begun;
    if (this.#end) return;
    this.#begun = this._active = true;
    this.#behind = false;
    if (asked.epoch) {
      this.position ??= asked;
      if (!reply.recovered) this.#jump(top, top ? "expired" : "no_history");
    } else if (asked === "earliest" && top) this.position = { epoch: top.epoch, offset: 0 };
    else if (reply.recovered !== undefined) this.position = null;
    else if (resumes) this.#jump(top, "no_history");
    else this.position = top;
    this._emit("begin", reply);
  }

  _push(event) {
    if (event.op === "joined" || event.op === "left") this._emit(event.op, event);
    else if (event.op !== "message" && event.op !== "gap") return;
    else if (this.#behind || this.#queue.length >= this.#options.queue) this.#behind = true;
    else this.#take(event);
  }

  _end(cause) {
    const error = cause?.reason === "closed" ? undefined : cause;
    if (this.#end) return;
    if (this.#behind) this.#jump(this.position, "slow");
    this._active = false;
    this.#end = { error };
    this._emit("end", error);
    if (error && this.#listened) this.#client._report(error);
    this.#wake();
  }

  #take(event) {
    const last = this.position, end = positionOf({ offset: event.to, ...event });
    if (last && end) {
      const isSame = last.epoch === end.epoch;
      if (isSame && last.offset >= end.offset) return;
      if (event.op === "gap") return this.#jump(end, event.reason);
      if (!isSame || last.offset + 1 < end.offset) this.#jump({ ...end, offset: end.offset - 1 }, "skipped");
    }
    this.position = end ?? last;
    this.#add(event);
  }

  /** Goes on after `end`. */
  #jump(end, reason) {
    const last = this.position, isSame = last?.epoch === end?.epoch, from = isSame ? last?.offset + 1 : 1;
    const named = last && end && from <= end.offset && { from, to: end.offset, epoch: end.epoch };
    this.position = end;
    this.#add({ op: "gap", topic: this.topic, from: 0, to: 0, reason: isSame || !last || !end ? reason : "epoch", ...named });
  }

  #add(event) {
    if (this.#listened) this._emit(event.op, event);
    else this.#queue.push(event);
    this.#wake();
  }

  #wake() {
    for (const wake of this.#wakers.splice(0)) wake();
  }
}

class Client extends Emitter {
  state = "disconnected";
  problem = null;
  welcome = null;
  #options;
  #dial;
  #token;
  #fetch;
  #socket = null;
  #attempts = 0;
  #liveness = null;
  #timers = {};
  #waits = 0;
  #failures = 0;
  #renewed = false;
  #moveAt = 0;
  #requests = new Map();
  #lastId = 1;
  #room = IN_FLIGHT;
  #subscriptions = new Map();
  #held = new Map();  // by topic, the subscription that the server has
  #asking = new Set();
  #error = null;

  constructor(url, options = {}) {
    super();
    const address = new URL(url, globalThis.location), { token, session, heartbeat = 30, floor = 10, WebSocket = globalThis.WebSocket } = options;
    if (!WebSocket) throw new NotifydError({ reason: "no_websocket", message: "pass a { WebSocket }, as of the package ws" });
    address.protocol = address.protocol.replace("http", "ws");
    if (address.pathname === "/") address.pathname = "/ws";
    this.#options = { heartbeat, floor };
    this.#dial = () => new WebSocket(address.href, ["notifyd.v1.json"]);
    this.session = session;
    if (typeof token === "function") this.#fetch = async () => token();
    else this.#token = token;
    this.#watch("addEventListener");
    this.#open();
  }

  get roundTrip() {
    return this.#liveness?.roundTrip ?? 0;
  }

  publish(topic, data, { key, signal } = {}) {
    return this.#ask({ op: "publish", topic, data, key: key ?? makeKey() }, signal, REPEATABLE);
  }

  subscribe(topic, options, onMessage) {
    const subscription = new Subscription(this, topic, options);
    if (onMessage) subscription.on("message", onMessage);
    const isTaken = this.#subscriptions.has(topic);
    const error = this.#error ?? (isTaken && new NotifydError({ code: 409, reason: "conflict" }));
    if (error) queueMicrotask(() => subscription._end(error));
    else this.#subscriptions.set(topic, subscription);
    this.#sync(topic);
    return subscription;
  }

  history(topic, { since, limit, signal } = {}) {
    return this.#ask({ op: "history", topic, since, limit }, signal);
  }

  async presence(topic, { signal } = {}) {
    return (await this.#ask({ op: "presence", topic }, signal)).members;
  }

  async refresh(token, { signal } = {}) {
    const { expires } = await this.#ask({ op: "refresh", token }, signal);
    this.#token = token;
    this.#planRefresh(expires);
  }

  close() {
    this.#finish(new NotifydError({ code: 1000, reason: "closed" }));
  }

  async #open() {
    const attempt = ++this.#attempts;
    this.#moveAt = 0;
    this.#enter("connecting");
    this.#after("open", PATIENCE, () => this.#lose("no answer"));
    try {
      this.#token ??= await this.#fetch?.();
      if (attempt !== this.#attempts) return;
      const socket = (this.#socket = this.#dial());
      socket.binaryType = "arraybuffer";
      socket.onopen = () => this.#greet();
      socket.onmessage = ({ data }) => this.#receive(data);
      socket.onclose = ({ code, reason }) => this.#lose(reason || "the connection broke", code);
      socket.onerror = () => {};
    } catch (error) {
      if (attempt === this.#attempts) this.#lose(String(error?.message ?? error));
    }
  }

  #greet() {
    const { heartbeat, floor } = this.#options, { session } = this, token = this.#token, named = [];
    const greeting = { op: "connect", id: 1, token, session, client: CLIENT, heartbeat };
    let left = GREETING - sizeOf(greeting);
    this.#liveness = new Liveness(heartbeat, floor, now());
    for (const [topic, subscription] of this.#subscriptions) {
      const { position } = subscription;
      subscription._named = position && (left -= sizeOf([topic, position])) > 0;
      if (subscription._named) named.push([topic, position]);
    }
    this.#socket.send(JSON.stringify({ ...greeting, positions: Object.fromEntries(named) }));
  }

  #begin(reply) {
    const kept = [...this.#requests];
    this.#requests.clear();  // subscriptions come first
    Object.assign(this, { session: reply.session, welcome: reply, problem: null });
    this.#waits = this.#failures = this.#renewed = 0;
    this.#liveness.interval = Math.max(reply.heartbeat, 0.1);
    this.#after("open");
    this.#beat();
    this.#planRefresh(reply.expires);
    this.#enter("connected");
    for (const [topic, restored] of Object.entries(reply.topics ?? {})) {
      const subscription = this.#subscriptions.get(topic), since = subscription?._since;
      const goesOn = since === "latest" || (reply.resumed && subscription?._named);
      this.#held.set(topic, goesOn && subscription);
      if (goesOn) subscription._begin(since, restored);
    }
    for (const topic of [...this.#held.keys(), ...this.#subscriptions.keys()]) this.#sync(topic);
    for (const [id, asked] of kept) this.#requests.set(id, asked);
    this.#pump();
  }

  #lose(problem, code, retryAfter) {
    if (this.state !== "connected") this.#failures += 1;
    this.#drop(code === 1009 || code === 4013);
    this.problem = problem;
    this.#renewed = code === 4001 && this.#fetch && !this.#renewed;
    if (this.#renewed) this.#token = undefined;
    else if (FINAL[code]) return this.#finish(new NotifydError({ code, reason: FINAL[code], message: problem }));
    const wait = Math.max(delay(this.#waits++), bounded(retryAfter));
    this.#enter(this.#failures < 5 ? "backing off" : "unavailable");
    this.#after("open", this.#moveAt ? this.#moveAt - now() : wait, () => this.#open());
  }

  #drop(wasTooLarge) {
    this.#attempts += 1;
    for (const name in this.#timers) this.#after(name);
    if (this.#socket) {
      this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.close(1000);
    }
    this.#socket = this.welcome = null;
    this.#held.clear();
    this.#asking.clear();
    const largest = wasTooLarge && Math.max(...[...this.#requests.values()].map(({ sent, text }) => sent && text.length));
    for (const [id, asked] of this.#requests) {
      const isLargest = asked.text.length === largest;  // it would end the next one
      asked.sent = false;
      if (asked.until > now() && !isLargest) continue;
      this.#requests.delete(id);
      if (asked.repeatable) asked.fail(isLargest ? new NotifydError({ code: 413, reason: "too_large" }) : answerLost());
    }
    for (const subscription of this.#subscriptions.values()) subscription._active = false;
  }

  #finish(error) {
    if (this.#error) return;
    this.#drop();
    this.#error = error;
    this.#watch("removeEventListener");
    this.#enter("disconnected");
    for (const { fail } of this.#requests.values()) fail(error);
    for (const subscription of this.#subscriptions.values()) subscription._end(error);
    if (error.reason !== "closed") this._report(error);
  }

  #enter(state) {
    this.state = state;
    this._emit("state", state);
  }

  _report(error) {
    if (!this._emit("error", error)) console.error(error);
  }

  #after(name, seconds, act) {
    clearTimeout(this.#timers[name]);
    delete this.#timers[name];
    if (act) this.#timers[name] = setTimeout(act, Math.min(seconds * 1000, 2 ** 31 - 1));
  }

  #ask(message, signal, repeatable = Infinity) {
    let stop;
    return new Promise((done, fail) => {
      if (this.#error) throw this.#error;
      signal?.throwIfAborted();
      const id = this.#request(message, done, fail, repeatable);
      stop = () => {
        this.#requests.delete(id);
        fail(signal.reason);
        this.#pump();
      };
      signal?.addEventListener("abort", stop);
    }).finally(() => signal?.removeEventListener("abort", stop));
  }

  #request(message, done, fail, repeatable) {
    const id = ++this.#lastId;
    this.#requests.set(id, { text: JSON.stringify({ id, ...message }), done, fail, repeatable, until: repeatable && Infinity });
    this.#pump();
    return id;
  }

  #pump() {
    let room = this.state === "connected" && this.#room;
    for (const asked of this.#requests.values()) {
      if (!room--) return;
      if (asked.sent) continue;
      asked.sent = true;
      asked.until = Math.min(asked.until, now() + asked.repeatable);
      this.#socket.send(asked.text);
    }
  }

  #answer(reply) {
    const { id, code, retry_after: wait } = reply, asked = this.#requests.get(id);
    if (!asked) return;
    this.#room = code === 429 ? 1 : Math.min(this.#room + 1, IN_FLIGHT);
    const passes = wait >= 0 && (code === 429 || code === 503);
    if (passes && !(asked.until < now() + wait)) {
      return this.#after(id, bounded(wait), () => {
        this.#after(id);
        asked.sent = false;
        this.#pump();
      });
    }
    this.#requests.delete(id);
    if (code) asked.fail(passes ? answerLost() : new NotifydError(reply));
    else asked.done(reply);
    this.#pump();
  }

  /** Brings what the server has nearer to what is wanted. */
  #sync(topic) {
    const wanted = this.#subscriptions.get(topic);
    if (this.state !== "connected" || this.#asking.has(topic) || this.#held.get(topic) === wanted) return;
    const settle = (act) => (reply) => {
      this.#asking.delete(topic);
      act(reply);
      this.#sync(topic);
    };
    const left = settle(() => this.#held.delete(topic)), since = wanted?._since;
    const begun = settle((reply) => {
      this.#held.set(topic, wanted);
      wanted._begin(since, reply);
    });
    this.#asking.add(topic);
    if (this.#held.has(topic)) this.#request({ op: "unsubscribe", topic }, left, left);
    else this.#request({ op: "subscribe", topic, since }, begun, settle((error) => this._leave(wanted, error)));
  }

  _again(subscription) {
    subscription._active = false;
    this.#held.set(subscription.topic, null);
    this.#sync(subscription.topic);
  }

  _leave(subscription, error) {
    const { topic } = subscription;
    subscription._end(error);
    if (this.#subscriptions.get(topic) !== subscription) return;
    this.#subscriptions.delete(topic);
    this.#sync(topic);
  }

  #receive(data) {
    const liveness = this.#liveness;
    liveness.heard();
    liveness.floor = this.#options.floor;
    try {
      if (typeof data === "string") return this.#dispatch(JSON.parse(data));
      const { type, timestamp } = parseHeartbeat(data);
      if (type === PING) this.#socket.send(heartbeat(PONG, timestamp));
      else liveness.pong(timestamp, now());
    } catch ({ message }) {
      this.#socket.close(4000);
      this.#lose(`protocol error: ${message}`);
    }
  }

  #dispatch(message) {
    const { op, topic } = message, subscription = this.#subscriptions.get(topic);
    if (typeof op !== "string") throw new Error("no message");
    if (op === "connected") this.#begin(message);
    else if (op === "error" && this.state !== "connected") this.#lose(message.message, REFUSED[message.code], message.retry_after);
    else if (message.id) this.#answer(message);
    else if (op === "goaway") this.#planMove(message);
    else if (op === "error") this._report(new NotifydError(message));
    else if (!subscription?._active) return;
    else if (op === "unsubscribed") {
      this.#held.delete(topic);
      this._leave(subscription, new NotifydError({ reason: message.reason, message: `the server ended ${topic}` }));
    } else subscription._push(message);
  }

  #planMove(goaway) {
    const wait = bounded(goaway.after) + bounded(goaway.within) * Math.random();
    this.#moveAt = now() + wait;
    this.#after("move", wait, () => this.#lose("the server is leaving"));
    this._emit("goaway", goaway);
  }

  #planRefresh(expires) {
    const left = expires - Date.now() / 1000;
    const renew = () => this.#fetch().then((token) => this.refresh(token)).catch((error) => {
      if (this.#error) return;
      this._report(error);
      this.#planRefresh(expires);
    });
    if (this.#fetch && left > 0) this.#after("refresh", Math.max(0.8 * left, 1), renew);
  }

  /** In doubt, asks: that nothing came in a sleep proves nothing. */
  #beat(isInDoubt) {
    const liveness = this.#liveness, { floor } = this.#options, asks = isInDoubt && liveness.floor === floor;
    if (asks) {
      liveness.heard();
      liveness.floor = Math.min(SHORT_PATIENCE, floor / 2);
    }
    if (now() >= liveness.lostAt) return this.#lose("nothing was heard", 4008);
    if (asks || now() >= liveness.pingDue) this.#socket.send(heartbeat(PING, liveness.ping(now())));
    const due = Math.min(liveness.pingDue, liveness.lostAt);
    this.#after("beat", due - now(), () => this.#beat(now() > due + LATE));
  }

  #wake = ({ type }) => {
    if (type === "visibilitychange" && document.hidden) return;
    if (this.state === "connected") this.#beat(true);
    else if (type !== "offline" && this.state !== "connecting" && !this.#moveAt) this.#open();
  };

  #watch(method) {
    for (const type of ["online", "offline", "visibilitychange"]) globalThis[method]?.(type, this.#wake);
  }
}

export const connect = (url, options) => new Client(url, options);
