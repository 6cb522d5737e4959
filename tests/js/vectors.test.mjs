// Runs those of spec/vectors that a client on notifyd.v1.json can meet.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Liveness, PING, PONG, delay, heartbeat, parseHeartbeat } from "../../protocol/js/notifyd.js";
import { world } from "./kit.mjs";

const vectors = (name) => JSON.parse(readFileSync(new URL(`../../spec/vectors/${name}.json`, import.meta.url), "utf8"));
const FRAMES = vectors("frames"), MESSAGES = vectors("messages"), LIVENESS = vectors("liveness"), BACKOFF = vectors("backoff");
const TYPES = { PING, PONG };

const bufferOf = (hex) => new Uint8Array(Buffer.from(hex, "hex")).buffer;
const hexOf = (buffer) => Buffer.from(buffer).toString("hex");
const near = (value, expected) => assert.ok(Math.abs(value - expected) < 1e-6, `${value} is not ${expected}`);

// A server sends a client of notifyd.v1.json heartbeats of 16 bytes, and nothing else that is binary.
for (const { name, hex, frames, binary_message: outcome } of FRAMES.cases) {
  const isHeartbeat = outcome === "whole" && frames.length === 1 && frames[0].type in TYPES;
  test(`a binary message: ${name}`, () => {
    if (!isHeartbeat) return assert.throws(() => parseHeartbeat(bufferOf(hex)));
    const [{ type, timestamp_ms: timestamp }] = frames;
    assert.deepEqual(parseHeartbeat(bufferOf(hex)), { type: TYPES[type], timestamp: BigInt(timestamp) });
    assert.equal(hexOf(heartbeat(TYPES[type], BigInt(timestamp))), hex);
  });
}

test("there are heartbeats among the frames", () => {
  assert.ok(FRAMES.cases.filter(({ frames }) => frames.length === 1 && frames[0].type in TYPES).length > 3);
});

for (const { name, from, json } of MESSAGES.valid) {
  if (from !== "server") continue;
  test(`a server's message leaves the connection alone: ${name}`, world(async ({ clock, server, opened }) => {
    const client = await opened();
    client.on("error", () => {});
    server.socket.receive(json);
    await clock.advance(0);
    assert.equal(client.state, "connected");
    assert.equal(server.socket.closedWith, null);
  }));
}

for (const { name, json, answer } of MESSAGES.invalid) {
  if (json === undefined || answer.close !== 4000) continue;
  test(`what is no message ends the connection with 4000: ${name}`, world(async ({ clock, server, opened }) => {
    const client = await opened();
    server.socket.receive(json);
    await clock.advance(0);
    assert.equal(server.socket.closedWith, 4000);
    assert.equal(client.state, "backing off");
    assert.match(client.problem, /protocol/);
  }));
}

for (const { name, watching, interval_s: interval, floor_s: floor, opened_at_s: opened, at_opening: first, events } of LIVENESS.timelines) {
  if (watching !== "server") continue;
  test(`liveness: ${name}`, () => {
    const liveness = new Liveness(interval, floor, opened);
    const expect = ({ ping_due_s: due, lost_s: lost }) => {
      near(liveness.pingDue, due);
      if (lost === null) assert.equal(liveness.lostAt, Infinity);
      else near(liveness.lostAt, lost);
    };
    expect(first);
    for (const event of events) {
      if (event.event === "ping") assert.equal(liveness.ping(event.at_s), BigInt(event.timestamp_ms));
      else if (event.event === "heard") liveness.heard();
      else if (event.event === "pong") liveness.pong(BigInt(event.timestamp_ms), event.at_s);
      else if (event.event === "interval") liveness.interval = event.interval_s;
      else assert.fail(event.event);
      expect(event.then);
    }
  });
}

test("backoff: bounds", () => {
  for (const { attempt, least_s: least, most_s: most } of BACKOFF.bounds) {
    for (const random of [0, 0.5, 1 - 2 ** -53]) {
      const wait = delay(attempt, random);
      assert.ok(least - 1e-6 <= wait && wait <= most + 1e-6, `${attempt}: ${wait}`);
    }
  }
});

test("backoff: exact", () => {
  for (const { attempt, random, delay_s: wait } of BACKOFF.exact) near(delay(attempt, random), wait);
});

test("backoff: the walk of a whole client", world(async ({ clock, server, open }) => {
  const bounds = new Map(BACKOFF.bounds.map((bound) => [bound.attempt, bound]));
  server.accepts = false;
  const client = open();
  await clock.advance(0);
  const retry = async ({ least_s: least, most_s: most }) => {
    const attempts = server.sockets.length, wait = (least + most) / 2;  // as the clock's random number has it
    await clock.advance(wait - 0.001);
    assert.equal(server.sockets.length, attempts, "not before its time");
    await clock.advance(0.001);
    assert.equal(server.sockets.length, attempts + 1);
  };
  for (const [index, step] of BACKOFF.walk.entries()) {
    if (step.event === "connected") assert.equal(client.state, "connected");
    else if (client.state === "connected") {
      server.socket.end();
      await clock.advance(0);
    }
    if (step.event === "failure") assert.equal(client.state === "unavailable", step.unavailable);
    const next = BACKOFF.walk[index + 1];
    server.accepts = next?.event === "connected";
    if (step.event === "failure") await retry(bounds.get(step.wait_of_attempt));
  }
}));
