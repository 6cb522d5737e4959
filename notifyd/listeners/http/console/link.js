// The page's connection to its node: one client, whose subscriptions its parts share.

import { connect } from "../notifyd.js";

const BEAT_S = 3;
const RETRY_MS = 3000;

// A page that came by TLS may open nothing without: there the proxy has the WebSocket listener beside the page.
export const whereTo = (websocket, page) => (page.startsWith("https:") && websocket.startsWith("ws:") ? new URL("ws", page) : websocket);

export class Link {
  // `onState(state, why)`, `onConnected({node, user, session})`, `onDenied(why)`: a key or a token is wanted.
  constructor(on) {
    Object.assign(this, { on, topics: new Map(), client: null, state: "disconnected" });
  }

  // Connects, with another token than before too; everything that is followed goes on.
  open(token) {
    this.client?.close();
    this.client = null;
    this.enter("connecting");
    this.dial(token, this.attempt = {});
  }

  async dial(token, attempt) {
    const facts = await fetch("page.json").then((answer) => answer.json()).catch(() => ({}));
    if (attempt !== this.attempt) return;
    if (!facts.websocket) {
      setTimeout(() => this.dial(token, attempt), RETRY_MS);
      return this.enter("disconnected", "The node does not answer, or its WebSocket listener is off.");
    }
    const client = this.client = connect(whereTo(facts.websocket, location.href), { token: token || undefined, heartbeat: BEAT_S });
    client.on("state", (state) => this.client === client && this.enter(state, client.problem));
    client.on("error", (error) => this.client === client && this.end(error));
    for (const [topic, known] of this.topics) this.join(topic, known);
  }

  enter(state, why) {
    this.state = state;
    this.on.onState(state, why ?? "");
    if (state === "connected" && this.client.welcome) this.on.onConnected(this.client.welcome);
  }

  // A refused subscription is told to who wanted it; here it is about the end of the client.
  end({ code, message }) {
    if (this.client.state !== "disconnected") return;
    this.on.onState("disconnected", message);
    if (code === 4001) this.on.onDenied(message);
  }

  // What is kept up to a position.
  async history(topic, { epoch, offset }, limit) {
    const since = { epoch, offset: Math.max(0, offset - limit) };
    const { messages } = await this.client.history(topic, { since, limit }).catch(() => ({ messages: [] }));
    return messages.filter((message) => message.epoch === epoch && message.offset <= offset);  // the others come live
  }

  // Follows a topic until the returned function is called, whatever becomes of the connection.
  // `watcher`: {message, gap?, joined?, left?, refused?, begin?: gets {epoch?, offset?}, where it begins or goes on}
  follow(topic, watcher) {
    const known = this.topics.get(topic) ?? { watchers: new Set() };
    this.topics.set(topic, known);
    known.watchers.add(watcher);
    if (!known.subscription) this.join(topic, known);
    return () => {
      if (!known.watchers.delete(watcher) || known.watchers.size) return;
      this.topics.delete(topic);
      known.subscription?.close();
    };
  }

  join(topic, known) {
    if (!this.client) return;
    const subscription = known.subscription = this.client.subscribe(topic);
    const tell = (name) => (event) => known.watchers.forEach((watcher) => watcher[name]?.(event));
    for (const name of ["begin", "message", "gap", "joined", "left"]) subscription.on(name, tell(name));
    subscription.on("end", (error) => error?.code < 1000 && tell("refused")(error));
  }
}
