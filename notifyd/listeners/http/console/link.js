// The page's connection to its node. Several parts of the page may follow one topic: it is subscribed once.

const MAGIC = 0x48454152, PING = 0, PONG = 1, HEADER_BYTES = 16;
const BEAT_S = 3, LOST_FLOOR_S = 10, FINAL = new Set([4000, 4001, 4003, 4100]);

export class Link {
  // `onState(state, why)`, `onConnected({node, user, session})`, `onBeat(round trip in ms)`, `onDenied(why)`: a token is wanted.
  constructor(on) {
    Object.assign(this, { on, topics: new Map(), waiting: new Map(), sentAt: new Map(), socket: null, token: "", nextId: 1,
      failures: 0, retry: 0, trips: [], beatSent: 0, stamp: 0n, state: "disconnected", session: null });
    setInterval(() => this.beat(), BEAT_S * 1000);
    addEventListener("online", () => this.state !== "connected" && this.open());
  }

  setState(state, why = "") {
    this.state = state;
    this.on.onState(state, why);
  }

  use(token) {
    this.token = token;
    this.session = null;
    this.failures = 0;
    return this.open();
  }

  async open() {
    clearTimeout(this.retry);
    this.leaving = false;
    this.drop();
    this.setState("connecting");
    let facts;
    try {
      facts = await (await fetch("page.json")).json();
    } catch {
      return this.backOff();
    }
    if (this.socket) return;
    if (!facts.websocket) return this.setState("disconnected", "This node's WebSocket listener is off.");
    const mine = this.socket = new WebSocket(facts.websocket, ["notifyd.v1.json"]);
    mine.binaryType = "arraybuffer";
    mine.onopen = () => mine === this.socket && this.greet(facts.version);
    mine.onmessage = (event) => mine === this.socket && this.hear(event.data);
    mine.onclose = (event) => mine === this.socket && this.closed(event);
  }

  greet(version) {
    const hello = { op: "connect", client: { name: "notifyd console", version } };
    if (this.token) hello.token = this.token;
    this.ask(hello).catch((error) => error.code === 401 && this.on.onDenied(error.message));
  }

  drop() {
    const old = this.socket;
    this.socket = null;
    if (old) old.close();
    for (const { reject } of this.waiting.values()) reject({ message: "not connected", code: 0 });
    this.waiting.clear();
    this.sentAt.clear();
    this.beatSent = 0;
  }

  closed({ code, reason }) {
    this.drop();
    if (this.leaving) return;
    if (!FINAL.has(code)) return this.backOff();
    this.setState("disconnected", `The node closed the connection: ${reason || code}.`);
    if (code === 4001) this.on.onDenied("");
  }

  backOff() {
    this.failures += 1;
    const delay = Math.min(0.1 * 2 ** Math.min(this.failures - 1, 12) + Math.random() * 0.1, 30);
    this.setState(this.failures >= 5 ? "unavailable" : "backing off");
    this.retry = setTimeout(() => this.open(), delay * 1000);
  }

  ask(message) {
    return new Promise((resolve, reject) => {
      if (this.socket?.readyState !== WebSocket.OPEN) return reject({ message: "not connected", code: 0 });
      message.id = this.nextId++;
      this.waiting.set(message.id, { resolve, reject });
      this.socket.send(JSON.stringify(message));
    });
  }

  publish(topic, data, key) {
    return this.ask({ op: "publish", topic, data, ...(key ? { key } : {}) });
  }

  presence(topic) {
    return this.ask({ op: "presence", topic }).then(({ members }) => members);
  }

  history(topic, since, limit) {
    return this.ask({ op: "history", topic, since, limit }).then(({ messages }) => messages);
  }

  // Follows a topic until the returned function is called, over every reconnection.
  // `watcher`: {message, gap?, refused?, standing?: the newest position, when it is subscribed}
  follow(topic, watcher) {
    const known = this.topics.get(topic) ?? { watchers: new Set(), standing: null };
    this.topics.set(topic, known);
    known.watchers.add(watcher);
    if (known.watchers.size === 1) this.subscribe(topic);
    else if (known.standing) watcher.standing?.(known.standing);
    return () => this.leave(topic, watcher);
  }

  leave(topic, watcher) {
    const known = this.topics.get(topic);
    if (!known?.watchers.delete(watcher) || known.watchers.size) return;
    this.topics.delete(topic);
    this.ask({ op: "unsubscribe", topic }).catch(() => {});
  }

  subscribe(topic) {
    if (this.state !== "connected") return;
    const known = this.topics.get(topic);
    this.ask({ op: "subscribe", topic }).then(({ epoch, offset }) => {
      known.standing = { epoch, offset };
      for (const watcher of known.watchers) watcher.standing?.(known.standing);
    }, (error) => {
      if (error.code && error.code !== 409) for (const watcher of known.watchers) watcher.refused?.(error);
    });
  }

  hear(data) {
    this.beatSent = 0;
    if (typeof data !== "string") return this.heartbeats(new DataView(data));
    const message = JSON.parse(data);
    const asked = this.waiting.get(message.id);
    this.waiting.delete(message.id);
    if (asked) (message.op === "error" ? asked.reject : asked.resolve)(message);
    if (message.op === "connected") this.connected(message);
    else if (message.op === "goaway") this.goAway(message);
    else if (!message.id) for (const watcher of this.topics.get(message.topic)?.watchers ?? []) watcher[message.op]?.(message);
  }

  connected(message) {
    this.failures = 0;
    this.session = message.session;
    this.setState("connected");
    this.on.onConnected(message);
    for (const topic of this.topics.keys()) this.subscribe(topic);
    this.beat();
  }

  goAway({ after, within }) {
    this.setState("backing off", "The node is going away; this page comes back in a moment.");
    this.leaving = true;
    clearTimeout(this.retry);
    this.retry = setTimeout(() => this.open(), (after + Math.random() * within) * 1000);
  }

  beat() {
    if (this.state !== "connected") return;
    const now = performance.now();
    if (this.beatSent && now - this.beatSent > LOST_FLOOR_S * 1000) {
      this.drop();
      return this.backOff();
    }
    const clock = BigInt(Math.floor(now));
    this.stamp = clock > this.stamp ? clock : this.stamp + 1n;
    this.sentAt.set(this.stamp, now);
    this.beatSent ||= now;
    this.socket.send(frame(PING, this.stamp));
  }

  heartbeats(view) {
    for (let start = 0; start + HEADER_BYTES <= view.byteLength; start += HEADER_BYTES) {
      const type = view.getUint8(start + 4), timestamp = view.getBigUint64(start + 5);
      if (view.getUint32(start) !== MAGIC || type > PONG) return;
      if (type === PING) this.socket.send(frame(PONG, timestamp));
      else if (this.sentAt.has(timestamp)) {
        this.trips = [...this.trips.slice(-4), performance.now() - this.sentAt.get(timestamp)];
        this.sentAt.delete(timestamp);
        this.on.onBeat(this.trips.reduce((total, ms) => total + ms) / this.trips.length);
      }
    }
  }
}

function frame(type, timestamp) {
  const view = new DataView(new ArrayBuffer(HEADER_BYTES));
  view.setUint32(0, MAGIC);
  view.setUint8(4, type);
  view.setBigUint64(5, timestamp);
  return view.buffer;
}
