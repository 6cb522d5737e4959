// How a client keeps connected: states, waits, refusals, heartbeats, sleeps, goaway.

import assert from "node:assert/strict";
import { test } from "node:test";
import { PING, PONG, connect, heartbeat } from "../../protocol/js/notifyd.js";
import { collect, listen, watch, world } from "./kit.mjs";

const near = (value, expected) => assert.ok(Math.abs(value - expected) < 0.01, `${value} is not near ${expected}`);

/** What a browser has and Node has not, for the length of a test. */
function asPage(test) {
  return async (world) => {
    const page = new EventTarget();
    Object.assign(globalThis, {
      addEventListener: page.addEventListener.bind(page),
      removeEventListener: page.removeEventListener.bind(page),
      document: { hidden: false },
    });
    try {
      await test({ ...world, happen: (type) => page.dispatchEvent(new Event(type)) });
    } finally {
      for (const name of ["addEventListener", "removeEventListener", "document"]) delete globalThis[name];
    }
  };
}

// --- connecting -------------------------------------------------------------------------------------------------------

test("connects, and tells what the server said", world(async ({ clock, server, open }) => {
  const client = open({ token: "secret", heartbeat: 15 }), states = listen(client, "state");
  assert.equal(client.state, "connecting");
  await clock.advance(0);
  assert.deepEqual(states, ["connected"]);
  assert.equal(server.socket.url, "ws://host/ws");
  assert.deepEqual(server.socket.protocols, ["notifyd.v1.json"]);
  const [{ token, heartbeat, id, session, client: program }] = server.socket.of("connect");
  assert.deepEqual([token, heartbeat, id, session, program.name], ["secret", 15, 1, undefined, "notifyd.js"]);
  assert.deepEqual([client.session, client.welcome.user, client.welcome.node], ["s1", "ada", "n1"]);
}));

test("reads URLs as a page writes them", world(async ({ clock, server, open }) => {
  for (const url of ["ws://h", "wss://h:1/", "http://h/x", "https://h/ws?a=b"]) open({ url });
  await clock.advance(0);
  assert.deepEqual(server.sockets.map(({ url }) => url), ["ws://h/ws", "wss://h:1/ws", "ws://h/x", "wss://h/ws?a=b"]);
  globalThis.location = { toString: () => "https://app.example/page" };
  try {
    open({ url: "/live" });
    await clock.advance(0);
    assert.equal(server.socket.url, "wss://app.example/live");
  } finally {
    delete globalThis.location;
  }
  assert.throws(() => open({ url: "nowhere" }), /Invalid URL/);
}));

test("says what to do where there is no WebSocket", () => {
  const own = Object.getOwnPropertyDescriptor(globalThis, "WebSocket");
  delete globalThis.WebSocket;
  try {
    assert.throws(() => connect("ws://host"), { name: "NotifydError", reason: "no_websocket", message: /package ws/ });
  } finally {
    if (own) Object.defineProperty(globalThis, "WebSocket", own);
  }
});

test("backs off, is unavailable after five failures in a row, and goes on all the same", world(async ({ clock, server, open }) => {
  server.accepts = false;
  const client = open(), states = listen(client, "state");
  await clock.advance(0);
  assert.deepEqual(states, ["backing off"]);
  assert.equal(client.problem, "the connection broke");
  await clock.advance(10);
  assert.deepEqual(states.filter((state) => state !== "connecting"), [...Array(4).fill("backing off"), ...Array(3).fill("unavailable")]);
  server.accepts = true;
  await clock.advance(31);
  assert.equal(client.state, "connected");
  assert.equal(client.problem, null);
}));

test("gives an attempt ten seconds, the token's included", world(async ({ clock, server, open }) => {
  server.answers.connect = () => null;
  const silent = open(), waiting = open({ token: () => new Promise(() => {}) });
  await clock.advance(9.9);
  assert.equal(silent.state, "connecting");
  await clock.advance(0.2);
  for (const client of [silent, waiting]) assert.deepEqual([client.state, client.problem], ["backing off", "no answer"]);
  assert.equal(server.sockets.length, 1, "there is nothing to send without a token");
  assert.equal(server.sockets[0].closedWith, 1000);
}));

test("a token that comes too late for its attempt is for the next one", world(async ({ clock, server, open }) => {
  const given = [];
  const client = open({ token: () => new Promise((done) => given.push(done)) });
  await clock.advance(10.01);
  given[0]("slow");
  await clock.advance(0);
  assert.deepEqual([client.state, server.sockets.length], ["backing off", 0]);
  await clock.advance(1);
  assert.deepEqual(server.sockets.map((socket) => socket.of("connect")[0].token), ["slow"]);
  assert.equal(given.length, 1);
}));

test("waits as long as a refusal says", world(async ({ clock, server, open }) => {
  server.refuse("connect", { code: 503, reason: "unavailable", retry_after: 7 });
  const client = open();
  await clock.advance(6.9);
  assert.deepEqual([client.state, client.problem, server.sockets.length], ["backing off", "refused", 1]);
  await clock.advance(0.2);
  assert.equal(server.sockets.length, 2);
}));

test("a wish to wait that is none does no harm", world(async ({ clock, server, open }) => {
  for (const wish of [-1, "soon", null, 1e300]) {
    server.refuse("connect", { code: 503, retry_after: wish });
    const client = open(), before = server.sockets.length;
    await clock.advance(3601);
    assert.ok(server.sockets.length > before + 1, String(wish));
    client.close();
  }
}));

test("a WebSocket that cannot be made is a failed attempt", world(async ({ clock, open }) => {
  class Forbidden {
    constructor() {
      throw new Error("mixed content");
    }
  }
  const client = open({ WebSocket: Forbidden });
  await clock.advance(0);
  assert.deepEqual([client.state, client.problem], ["backing off", "mixed content"]);
}));

// --- the end ----------------------------------------------------------------------------------------------------------

for (const [code, reason] of [[4000, "protocol_error"], [4001, "unauthorized"], [4003, "forbidden"], [4100, "replaced"]]) {
  test(`${code} is final, and everything is told`, world(async ({ clock, server, opened }) => {
    const client = await opened({ token: "fixed" }), errors = listen(client, "error"), states = listen(client, "state");
    const messages = collect(client.subscribe("a:b"));
    server.answers.publish = () => null;
    const published = watch(client.publish("a:b", 1));
    await clock.advance(0);
    server.socket.end(code, "said the server");
    await clock.advance(100);
    assert.equal(server.sockets.length, 1);
    const expected = { name: "NotifydError", code, reason, message: "said the server" };
    for (const error of [published.error, messages.error, errors[0], watch(client.publish("a:b", 2)).error ?? published.error]) {
      assert.deepEqual({ name: error.name, code: error.code, reason: error.reason, message: error.message }, expected);
    }
    assert.deepEqual([errors.length, states], [1, ["disconnected"]]);
    await assert.rejects(client.history("a:b"), expected);
    await assert.rejects(client.subscribe("a:b").next(), expected);
  }));
}

for (const [code, closes] of [[400, 4000], [401, 4001], [403, 4003]]) {
  test(`a connect refused with ${code} is as final as ${closes}`, world(async ({ clock, server, open }) => {
    server.refuse("connect", { code });
    const client = open(), errors = listen(client, "error");
    await clock.advance(1);
    assert.deepEqual([client.state, errors[0].code], ["disconnected", closes]);
  }));
}

for (const code of [1000, 1001, 1006, 1011, 1012, 4008, 4009, 4029]) {
  test(`comes back after ${code}`, world(async ({ clock, server, opened }) => {
    const client = await opened();
    server.socket.end(code, "gone");
    await clock.advance(0);
    assert.deepEqual([client.state, client.problem, client.welcome], ["backing off", "gone", null]);
    await clock.advance(0.2);
    assert.equal(client.state, "connected");
    assert.equal(server.socket.of("connect")[0].session, "s1");
  }));
}

test("an end that nobody listens for is written to the console", world(async ({ clock, server, opened }) => {
  await opened();
  const said = [], error = console.error;
  console.error = (what) => said.push(what);
  server.socket.end(4003);
  await clock.advance(0);
  console.error = error;
  assert.equal(said[0].code, 4003);
}));

test("closed by its user, every promise settles and every loop ends", world(async ({ clock, server, open, opened }) => {
  const client = await opened(), unborn = open();
  const messages = collect(client.subscribe("a:b")), early = collect(unborn.subscribe("a:b"));
  for (const op of ["publish", "history", "presence", "refresh"]) server.answers[op] = () => null;
  const asked = [client.publish("a:b", 1), client.history("a:b"), client.presence("a:b"), client.refresh("t"), unborn.presence("a:b")].map(watch);
  await clock.advance(0);
  const errors = listen(client, "error"), states = listen(client, "state");
  client.close();
  client.close();
  unborn.close();
  await clock.advance(0);
  for (const { error } of asked) assert.deepEqual([error.code, error.reason], [1000, "closed"]);
  assert.ok(messages.done && early.done);
  assert.deepEqual([states, errors, server.sockets[0].closedWith], [["disconnected"], [], 1000]);
  await assert.rejects(client.publish("a:b", 1), { reason: "closed" });
  assert.deepEqual(await client.subscribe("a:b").next(), { value: undefined, done: true });
  await clock.advance(100);
  assert.equal(server.sockets.length, 2);
}));

test("what a listener throws is its own", world(async ({ clock, server, opened }) => {
  const client = await opened(), thrown = [], { queueMicrotask } = globalThis;
  globalThis.queueMicrotask = (act) => queueMicrotask(() => {
    try {
      act();
    } catch ({ message }) {
      thrown.push(message);
    }
  });
  const off = client.on("state", () => {
    throw new Error("a listener's own");
  });
  const states = listen(client, "state");
  server.socket.end();
  await clock.advance(0);
  off();
  globalThis.queueMicrotask = queueMicrotask;
  assert.deepEqual([states, thrown, client.state], [["backing off"], ["a listener's own"], "backing off"]);
}));

test("a listener that was taken away hears no more", world(async ({ clock, server, opened }) => {
  const client = await opened(), states = [], off = client.on("state", (state) => states.push(state));
  server.socket.end();
  off();
  await clock.advance(1);
  assert.deepEqual(states, []);
}));

// --- heartbeats -------------------------------------------------------------------------------------------------------

test("sends a PING each heartbeat that the server agreed to, and answers the server's", world(async ({ clock, server, opened }) => {
  server.answers.connect = () => ({ op: "connected", session: "s", resumed: false, user: "", node: "n", heartbeat: 20 });
  const client = await opened();
  await clock.advance(19.9);
  assert.equal(server.socket.beats.length, 0);
  await clock.advance(40.2);
  assert.deepEqual(server.socket.beats.map(({ type }) => type), [PING, PING, PING]);
  near(Number(server.socket.beats[1].timestamp - server.socket.beats[0].timestamp), 20_000);
  server.socket.receive(heartbeat(PONG, 123n));
  server.socket.receive(heartbeat(PING, 2n ** 64n - 1n));
  assert.deepEqual(server.socket.beats.at(-1), { type: PONG, timestamp: 2n ** 64n - 1n });
  assert.equal(client.state, "connected");
}));

test("gives a server up that says nothing for ten seconds after a PING", world(async ({ clock, server, opened }) => {
  const client = await opened();
  server.answersPings = false;
  await clock.advance(39.9);
  assert.equal(client.state, "connected");
  await clock.advance(0.2);
  assert.deepEqual([client.state, client.problem, server.sockets[0].closedWith], ["backing off", "nothing was heard", 1000]);
}));

test("any message is a sign of life", world(async ({ clock, server, opened }) => {
  const client = await opened();
  server.answersPings = false;
  for (let beat = 0; beat < 10; beat += 1) {
    await clock.advance(30);
    server.socket.say({ op: "news of a later version" });
  }
  assert.equal(client.state, "connected");
}));

test("a slow path has three times its round trip", world(async ({ clock, server, opened }) => {
  const client = await opened();
  server.answersPings = false;
  for (let beat = 0; beat < 5; beat += 1) {
    await clock.advance(beat ? 24 : 30);
    const [{ timestamp }] = server.socket.beats.slice(-1);
    await clock.advance(6);
    server.socket.receive(heartbeat(PONG, timestamp));
  }
  near(client.roundTrip, 6);
  await clock.advance(24 + 17.9);
  assert.equal(client.state, "connected");
  await clock.advance(0.2);
  assert.equal(client.state, "backing off");
}));

// --- sleeps and networks ----------------------------------------------------------------------------------------------

test("a server that answers after a sleep is kept, one that does not is given up soon", world(async ({ clock, server, opened }) => {
  const client = await opened();
  await clock.sleep(3600);
  assert.equal(client.state, "connected");
  assert.equal(server.socket.beats.length, 1);
  server.answersPings = false;
  await clock.sleep(3600);
  await clock.advance(2.9);
  assert.equal(client.state, "connected", "silence during the sleep proves nothing");
  await clock.advance(0.2);
  assert.equal(client.state, "backing off");
}));

test("a PING that was on its way when the page fell asleep proves nothing", world(async ({ clock, server, opened }) => {
  const client = await opened();
  server.answersPings = false;
  await clock.advance(31);
  server.answersPings = true;
  await clock.sleep(3600);
  assert.deepEqual([client.state, server.socket.beats.length], ["connected", 2]);
  await clock.advance(4);
  assert.equal(client.state, "connected");
}));

test("a sleep in the middle of a doubt ends it", world(async ({ clock, server, opened }) => {
  const client = await opened();
  server.answersPings = false;
  await clock.sleep(3600);
  await clock.sleep(60);
  assert.equal(client.state, "backing off", "or timers that are always late would hide a dead server");
}));

test("after a doubt the old patience holds", world(async ({ clock, server, opened }) => {
  const client = await opened();
  await clock.sleep(60);
  server.answersPings = false;
  await clock.advance(39.9);
  assert.equal(client.state, "connected");
  await clock.advance(0.2);
  assert.equal(client.state, "backing off");
}));

for (const type of ["visibilitychange", "online", "offline"]) {
  test(`${type}: the connection is checked at once`, world(asPage(async ({ clock, server, opened, happen }) => {
    const client = await opened();
    happen(type);
    happen(type);
    await clock.advance(0);
    assert.equal(server.socket.beats.length, 1);
    await clock.advance(4);
    assert.equal(client.state, "connected");
    server.answersPings = false;
    happen(type);
    await clock.advance(2);
    happen(type);
    assert.equal(client.state, "connected");
    await clock.advance(1.1);
    assert.equal(client.state, "backing off", "asking again does not put it off");
  })));
}

test("an attempt that is under way is enough", world(asPage(async ({ clock, server, open, happen }) => {
  server.answers.connect = () => null;
  open();
  await clock.advance(0);
  happen("online");
  await clock.advance(0);
  assert.equal(server.sockets.length, 1);
})));

test("a binary message that is no heartbeat ends the connection with 4000", world(async ({ clock, server, opened }) => {
  for (const size of [0, 3, 15, 16, 32]) {
    const client = await opened();
    server.socket.receive(new ArrayBuffer(size));
    assert.deepEqual([client.state, server.socket.closedWith], ["backing off", 4000]);
    client.close();
  }
}));

test("a page that is hidden checks nothing", world(asPage(async ({ clock, server, opened, happen }) => {
  await opened();
  document.hidden = true;
  happen("visibilitychange");
  await clock.advance(0);
  assert.equal(server.socket.beats.length, 0);
})));

test("a network that is back, or a page that is looked at, is tried at once", world(asPage(async ({ clock, server, open, happen }) => {
  server.accepts = false;
  const client = open();
  await clock.advance(200);
  for (const type of ["online", "visibilitychange"]) {
    const { length } = server.sockets;
    assert.equal(client.state, "unavailable");
    happen(type);
    happen(type);
    await clock.advance(0);
    assert.equal(server.sockets.length, length + 1);
  }
  const { length } = server.sockets;
  happen("offline");
  await clock.advance(0);
  assert.equal(server.sockets.length, length);
  server.accepts = true;
  happen("online");
  await clock.advance(0);
  assert.equal(client.state, "connected");
  client.close();
  happen("online");
  await clock.advance(100);
  assert.equal(client.state, "disconnected");
})));

// --- goaway -----------------------------------------------------------------------------------------------------------

test("goaway: leaves at a moment in the window, and comes back at once", world(async ({ clock, server, opened }) => {
  const client = await opened(), told = listen(client, "goaway"), states = listen(client, "state");
  clock.random = 0.75;
  server.socket.say({ op: "goaway", reason: "shutdown", after: 2, within: 4 });
  await clock.advance(4.9);
  assert.deepEqual([told, server.sockets.length], [[{ op: "goaway", reason: "shutdown", after: 2, within: 4 }], 1]);
  await clock.advance(0.2);
  assert.deepEqual([server.sockets.length, server.sockets[0].closedWith], [2, 1000]);
  assert.deepEqual(states, ["backing off", "connecting", "connected"]);
}));

test("goaway: closed before its moment, it keeps to its moment", world(asPage(async ({ clock, server, opened, happen }) => {
  await opened();
  server.socket.say({ op: "goaway", reason: "shutdown", after: 0, within: 10 });
  await clock.advance(1);
  server.socket.end(1012);
  happen("online");
  await clock.advance(3.9);
  assert.equal(server.sockets.length, 1);
  await clock.advance(0.2);
  assert.equal(server.sockets.length, 2);
  server.accepts = false;
  server.socket.end();
  await clock.advance(0.2);
  assert.equal(server.sockets.length, 3, "the next waits are as always");
})));
