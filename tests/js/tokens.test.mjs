// Tokens: given, fetched, refreshed before they expire, and fetched once more when they are refused.

import assert from "node:assert/strict";
import { test } from "node:test";
import { listen, world } from "./kit.mjs";

/** An async function that gives "t1", "t2", …, and remembers when it was called. */
function tokens(clock, act = () => {}) {
  const fetch = async () => {
    fetch.calls.push(clock.now);
    await act(fetch.calls.length);
    return `t${fetch.calls.length}`;
  };
  fetch.calls = [];
  return fetch;
}

test("a token that expires is refreshed on the live connection, again and again", world(async ({ clock, server, opened }) => {
  const token = tokens(clock), began = clock.now;
  server.expires = clock.unix + 100;
  server.answers.refresh = () => ({ op: "refreshed", expires: clock.unix + clock.now - began + 100 });
  const client = await opened({ token });
  await clock.advance(79);
  assert.equal(token.calls.length, 1);
  await clock.advance(2);
  assert.deepEqual(server.socket.of("refresh").map((message) => message.token), ["t2"]);
  await clock.advance(80);
  assert.deepEqual([token.calls.length, server.sockets.length, client.state], [3, 1, "connected"]);
  server.socket.end();
  await clock.advance(1);
  assert.equal(server.socket.of("connect")[0].token, "t3");
}));

test("a refresh that fails is reported, and tried again while the token lives", world(async ({ clock, server, opened }) => {
  const token = tokens(clock, (call) => {
    if (call === 2) throw new Error("the token server is away");
  });
  server.expires = clock.unix + 100;
  const client = await opened({ token }), errors = listen(client, "error");
  server.refuse("refresh", { code: 401, reason: "unauthorized" });
  await clock.advance(99.5);
  assert.deepEqual(errors.slice(0, 2).map(({ message }) => message), ["the token server is away", "refused"]);
  assert.ok(token.calls.length > 3 && token.calls.length < 10, String(token.calls.length));
  await clock.advance(1000);
  assert.ok(token.calls.length < 10, "not for ever");
}));

test("a refresh that is under way when the client is closed is nobody's error", world(async ({ clock, server, opened }) => {
  const said = [], { error } = console;
  console.error = (what) => said.push(what);
  server.expires = clock.unix + 100;
  server.answers.refresh = () => null;
  const client = await opened({ token: tokens(clock) });
  await clock.advance(90);
  client.close();
  await clock.advance(1000);
  console.error = error;
  assert.deepEqual([said, server.sockets[0].of("refresh").length], [[], 1]);
}));

for (const expires of [1e12, -5, undefined]) {
  test(`an expiry of ${expires} s keeps nobody busy`, world(async ({ clock, server, opened }) => {
    const token = tokens(clock);
    server.expires = expires && clock.unix + expires;
    await opened({ token });
    await clock.advance(100);
    assert.equal(token.calls.length, 1);
  }));
}

test("a refused token is fetched anew once, then it is final", world(async ({ clock, server, open }) => {
  const token = tokens(clock);
  server.refuse("connect", { code: 401, reason: "unauthorized", message: "bad token" });
  const client = open({ token }), errors = listen(client, "error");
  await clock.advance(100);
  assert.deepEqual(server.sockets.map((socket) => socket.of("connect")[0].token), ["t1", "t2"]);
  assert.deepEqual([client.state, errors[0].code, errors[0].message], ["disconnected", 4001, "bad token"]);
}));

test("a token that was fetched anew may expire too, where the network was away meanwhile", world(async ({ clock, server, opened }) => {
  const token = tokens(clock), client = await opened({ token });
  server.accepts = false;
  server.socket.end(4001, "expired");
  await clock.advance(600);
  assert.equal(token.calls.length, 2);
  const answer = server.answers.connect;
  server.answers.connect = (message) => (message.token === "t2" ? { op: "error", code: 401, reason: "unauthorized", message: "expired" } : answer());
  server.accepts = true;
  await clock.advance(60);
  assert.deepEqual([client.state, server.socket.of("connect")[0].token], ["connected", "t3"]);
}));

test("a token that expired is fetched anew, each time", world(async ({ clock, server, opened }) => {
  const token = tokens(clock), client = await opened({ token });
  for (const wanted of ["t2", "t3", "t4"]) {
    server.socket.end(4001, "expired");
    await clock.advance(1);
    assert.deepEqual([client.state, server.socket.of("connect")[0].token], ["connected", wanted]);
  }
}));

test("one token serves every connection while it is not refused", world(async ({ clock, server, opened }) => {
  const token = tokens(clock);
  await opened({ token });
  for (let end = 0; end < 3; end += 1) {
    server.socket.end();
    await clock.advance(1);
  }
  assert.deepEqual([token.calls.length, server.sockets.length], [1, 4]);
}));

for (const [kind, fail] of [["rejects", async () => Promise.reject(new Error("no"))], ["rejects with a word", () => Promise.reject("no")], ["throws", () => {
  throw new Error("no");
}]]) {
  test(`a token function that ${kind} is a failed attempt`, world(async ({ clock, server, open }) => {
    let broken = true;
    const client = open({ token: () => (broken ? fail() : "plain") });
    await clock.advance(20);
    assert.deepEqual([client.state, client.problem, server.sockets.length], ["unavailable", "no", 0]);
    broken = false;
    await clock.advance(31);
    assert.deepEqual([client.state, server.socket.of("connect")[0].token], ["connected", "plain"]);
  }));
}

test("a token function that says nothing at all is a failed attempt", world(async ({ clock, server, open }) => {
  const client = open({ token: () => Promise.reject() });
  await clock.advance(20);
  assert.deepEqual([client.state, server.sockets.length], ["unavailable", 0]);
}));

test("a user may hand over a token himself", world(async ({ clock, server, opened }) => {
  const client = await opened({ token: "old" });
  await client.refresh("new");
  server.socket.end();
  await clock.advance(1);
  assert.equal(server.socket.of("connect")[0].token, "new");
  server.refuse("refresh", { code: 403, reason: "forbidden" });
  await assert.rejects(client.refresh("another user's"), { code: 403 });
  server.socket.end();
  await clock.advance(1);
  assert.equal(server.socket.of("connect")[0].token, "new");
}));
