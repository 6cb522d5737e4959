// The page of a notifyd node: follows topics over WebSocket and shows their messages. No library, nothing foreign.
// Whatever comes from the wire reaches the page as text (textContent), never as markup.

const MAGIC = 0x48454152, PING = 0, PONG = 1, HEADER_BYTES = 16;
const BEAT_S = 3;             // how often this page asks for a round trip while it is looked at
const LOST_FLOOR_S = 10;      // the least time without an answer after which the node is given up
const MAX_ROWS = 200;         // messages kept on the page
const MAX_FOLLOWED = 100;     // topics followed without being asked for
const VALUES = 60;            // readings in a sparkline
const FINAL = new Set([4000, 4001, 4003, 4100]);  // closed so, a client does not come back by itself

const at = (id) => document.getElementById(id);
const topics = new Map();     // name -> what this page knows of a topic
const waiting = new Map();    // request id -> what to do with its reply
const sentAt = new Map();     // a heartbeat's timestamp -> when it left
let socket = null, session = null, token = "", apiKey = "", nextId = 1, failures = 0, retry = 0;
let roundTrips = [], leaving = false, beatSent = 0, lastStamp = 0n, paused = false, arrived = [], rate = 0;

function node(tag, className = "", text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

// --- the connection ------------------------------------------------------------------------------------------------

function show(state, why = "") {
  document.body.dataset.state = state;
  at("state-word").textContent = state;
  at("notice").textContent = why;
  at("notice").hidden = !why;
  if (state !== "connected") at("round-trip").textContent = "–";
}

async function connect() {
  clearTimeout(retry);
  leaving = false;
  drop();
  show("connecting");
  let facts;
  try {
    facts = await (await fetch("page.json")).json();
  } catch {
    return backOff("The node does not answer.");
  }
  if (socket) return;
  if (!facts.websocket) return show("disconnected", "This node's WebSocket listener is off.");
  const mine = socket = new WebSocket(facts.websocket, ["notifyd.v1.json"]);
  mine.binaryType = "arraybuffer";
  mine.onopen = () => mine === socket && greet(facts.version);
  mine.onmessage = (event) => mine === socket && hear(event.data);
  mine.onclose = (event) => mine === socket && closed(event);
}

function greet(version) {
  const hello = { op: "connect", client: { name: "notifyd page", version } };
  if (token) hello.token = token;
  if (session) Object.assign(hello, { session, positions: positions() });
  request(hello, null, (error) => {
    if (error.code === 401) askAccess("This node wants a token.");
    else if (error.code !== 409) show("connecting", error.message);  // 409: connected by its handshake already
  });
}

function positions() {
  const known = [...topics].filter(([, topic]) => topic.position && topic.wanted);
  return Object.fromEntries(known.map(([name, topic]) => [name, topic.position]));
}

function drop() {
  showArrived();  // so that the positions are right when it is resumed
  const old = socket;
  socket = null;
  if (old) old.close();
  waiting.clear();
  sentAt.clear();
  roundTrips = [];
  beatSent = 0;
  for (const topic of topics.values()) topic.subscribed = false;
}

function closed({ code, reason }) {
  drop();
  if (leaving) return;
  if (!FINAL.has(code)) return backOff();
  show("disconnected", `The node closed the connection: ${reason || code}.`);
  if (code === 4001) askAccess("This node wants a token.");
}

function backOff(why = "") {
  failures += 1;
  const delay = Math.min(0.1 * 2 ** Math.min(failures - 1, 12) + Math.random() * 0.1, 30);
  const unavailable = failures >= 5;
  show(unavailable ? "unavailable" : "backing off", why || (unavailable ? "The node cannot be reached or refuses this page; still trying." : ""));
  retry = setTimeout(connect, delay * 1000);
}

function request(message, done, failed) {
  if (!socket || socket.readyState !== WebSocket.OPEN) return failed?.({ message: "not connected" });
  message.id = nextId++;
  waiting.set(message.id, { done, failed });
  socket.send(JSON.stringify(message));
}

function hear(data) {
  beatSent = 0;
  if (typeof data !== "string") return heartbeats(new DataView(data));
  const message = JSON.parse(data);
  const asked = waiting.get(message.id);
  waiting.delete(message.id);
  if (message.op === "error" && asked) asked.failed?.(message);
  else if (asked?.done) asked.done(message);
  pushes[message.op]?.(message);
}

const pushes = {
  connected(message) {
    failures = 0;
    session = message.session;
    at("node").textContent = at("node").title = message.node;
    at("user").textContent = at("user").title = message.user || "anonymous";
    show("connected");
    for (const name of Object.keys(message.topics ?? {})) {
      known(name).subscribed = true;
      if (!topics.get(name).wanted) follow(name, false);
    }
    for (const [name, topic] of topics) if (topic.wanted) subscribe(name);
    beat();
    listTopics();
  },
  message: arrive,
  gap(message) { arrive({ ...message, time: Date.now(), isGap: true }); },
  unsubscribed({ topic, reason }) {
    if (!topics.has(topic) || !reason) return;
    Object.assign(topics.get(topic), { subscribed: false, wanted: false, trouble: reason });
    draw(topic);
  },
  goaway({ after, within }) {
    show("backing off", "The node is going away; this page comes back in a moment.");
    leaving = true;
    clearTimeout(retry);
    retry = setTimeout(connect, (after + Math.random() * within) * 1000);
  },
};

// --- heartbeats: 16 bytes each way -----------------------------------------------------------------------------------

function beat() {
  if (document.body.dataset.state !== "connected" || socket?.readyState !== WebSocket.OPEN) return;
  const now = performance.now();
  if (beatSent && now - beatSent > Math.max(3 * meanRoundTrip(), LOST_FLOOR_S * 1000)) {
    drop();
    return backOff("The node does not answer heartbeats.");
  }
  const clock = BigInt(Math.floor(now));
  lastStamp = clock > lastStamp ? clock : lastStamp + 1n;
  sentAt.set(lastStamp, now);
  if (sentAt.size > 10) sentAt.delete(sentAt.keys().next().value);
  beatSent ||= now;
  socket.send(frame(PING, lastStamp));
}

const meanRoundTrip = () => roundTrips.reduce((sum, ms) => sum + ms, 0) / (roundTrips.length || 1);

function frame(type, timestamp) {
  const view = new DataView(new ArrayBuffer(HEADER_BYTES));
  view.setUint32(0, MAGIC);
  view.setUint8(4, type);
  view.setBigUint64(5, timestamp);
  return view.buffer;
}

function heartbeats(view) {
  for (let start = 0; start + HEADER_BYTES <= view.byteLength; start += HEADER_BYTES) {
    const type = view.getUint8(start + 4), timestamp = view.getBigUint64(start + 5);
    if (view.getUint32(start) !== MAGIC || type > PONG) return;
    if (type === PING) socket.send(frame(PONG, timestamp));
    else pong(timestamp);
  }
}

function pong(timestamp) {
  if (!sentAt.has(timestamp)) return;
  roundTrips = [...roundTrips.slice(-4), performance.now() - sentAt.get(timestamp)];
  sentAt.delete(timestamp);
  at("round-trip").textContent = `${meanRoundTrip().toFixed(meanRoundTrip() < 10 ? 1 : 0)} ms`;
  const dot = document.querySelector("#state i");
  dot.classList.remove("beat");
  requestAnimationFrame(() => dot.classList.add("beat"));
}

// --- topics ----------------------------------------------------------------------------------------------------------

function known(name) {
  if (!topics.has(name)) {
    topics.set(name, { wanted: false, subscribed: false, position: null, values: [], count: 0, subscribers: null, trouble: "" });
    addTopic(name);
  }
  return topics.get(name);
}

function follow(name, wanted) {
  const topic = known(name);
  topic.wanted = wanted;
  topic.trouble = "";
  if (wanted) subscribe(name);
  else if (topic.subscribed) request({ op: "unsubscribe", topic: name }, () => { topic.subscribed = false; });
  draw(name);
}

function subscribe(name) {
  const topic = topics.get(name);
  if (topic.subscribed || document.body.dataset.state !== "connected") return;
  topic.subscribed = true;
  const message = { op: "subscribe", topic: name };
  if (topic.position) message.since = topic.position;
  request(message, ({ epoch, offset, recovered }) => {
    if (epoch !== undefined && !(recovered && topic.position)) topic.position = { epoch, offset };
  }, (error) => {
    if (error.code === 409) return;
    Object.assign(topic, { subscribed: false, wanted: false, trouble: error.message });
    draw(name);
  });
}

async function listTopics() {
  const headers = apiKey ? { Authorization: `Bearer ${apiKey}` } : {};
  const answer = await fetch("v1/topics?limit=500", { headers }).catch(() => ({ ok: false }));
  if (!answer.ok) {
    at("no-topics").textContent = answer.status === 401
      ? "The list of topics needs an API key (Access…). Without one, type the topics to follow."
      : "The node does not list its topics now.";
    return;
  }
  const listed = (await answer.json()).topics.filter(({ topic }) => !topic.startsWith("$"));
  let followed = [...topics.values()].filter((topic) => topic.wanted).length;
  for (const { topic: name, subscribers } of listed) {
    const isNew = !topics.has(name);
    known(name).subscribers = subscribers;
    if (isNew && at("follow-new").checked && followed < MAX_FOLLOWED) {
      follow(name, true);
      followed += 1;
    }
    draw(name);
  }
}

function addTopic(name) {
  const row = node("li"), label = node("label"), box = node("input");
  box.type = "checkbox";
  box.onchange = () => follow(name, box.checked);
  const graph = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  graph.setAttribute("viewBox", "0 0 100 20");
  graph.setAttribute("preserveAspectRatio", "none");
  graph.setAttribute("aria-hidden", "true");
  const line = graph.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "polyline"));
  const value = node("span", "value"), facts = node("span", "facts");
  label.append(box, node("span", "name", name), value, facts, graph);
  row.append(label);
  row.dataset.topic = name;
  Object.assign(topics.get(name), { row, box, value, facts, line });
  const after = [...at("topics").children].find((other) => other.dataset.topic > name);
  at("topics").insertBefore(row, after ?? null);
  at("known").append(Object.assign(node("option"), { value: name }));
  at("no-topics").hidden = true;
}

function draw(name) {
  const topic = topics.get(name);
  topic.box.checked = topic.wanted;
  topic.row.className = topic.wanted ? "" : "off";
  const facts = [topic.trouble, topic.count && `${topic.count} received`,
    topic.subscribers !== null && `${topic.subscribers} subscriber${topic.subscribers === 1 ? "" : "s"}`];
  topic.facts.textContent = facts.filter(Boolean).join(" · ");
  const values = topic.values;
  if (values.length < 2) return;
  const low = Math.min(...values), span = Math.max(...values) - low;
  const x = (i) => (100 * i / (values.length - 1)).toFixed(1);
  const y = (value) => (span ? 18.5 - 17 * (value - low) / span : 10).toFixed(1);
  topic.line.setAttribute("points", values.map((value, i) => `${x(i)},${y(value)}`).join(" "));
  topic.row.classList.add("graph");
}

// --- messages --------------------------------------------------------------------------------------------------------

function arrive(message) {
  arrived.push(message);
  // No animation frames come in a tab that is not looked at, and messages must not pile up there.
  if (arrived.length >= 1000) showArrived();
  else if (arrived.length === 1) setTimeout(showArrived, 40);
}

function showArrived() {
  if (!arrived.length) return;
  const batch = arrived;
  arrived = [];
  const drawn = new Set();
  for (const message of batch) {
    rate += 1;
    take(message);
    drawn.add(message.topic);
  }
  for (const name of drawn) draw(name);
  if (paused) return;
  const rows = batch.slice(-MAX_ROWS).reverse().map(row);
  at("feed").prepend(...rows);
  while (at("feed").children.length > MAX_ROWS) at("feed").lastChild.remove();
  at("no-messages").hidden = true;
}

function take(message) {
  const topic = known(message.topic);
  if (message.isGap) return;
  topic.count += 1;
  if (message.epoch !== undefined) topic.position = { epoch: message.epoch, offset: message.offset };
  const reading = numberIn(message.data);
  if (reading === null) return;
  topic.values = [...topic.values.slice(1 - VALUES), reading];
  const unit = typeof message.data.unit === "string" ? ` ${message.data.unit}` : "";
  topic.value.textContent = new Intl.NumberFormat("en", { maximumSignificantDigits: 5 }).format(reading) + unit;
}

function numberIn(data) {
  if (typeof data === "number") return data;
  if (data === null || typeof data !== "object") return null;
  if (typeof data.value === "number") return data.value;
  return Object.values(data).find((value) => typeof value === "number") ?? null;
}

function row(message) {
  const element = node("li", message.isGap ? "gap" : "");
  const text = message.isGap ? `${message.from}–${message.to} were not delivered (${message.reason})`
    : typeof message.data === "string" ? message.data : JSON.stringify(message.data);
  const time = new Date(message.time);
  const clock = node("time", "time", `${time.toLocaleTimeString("en-GB")}.${String(time.getMilliseconds()).padStart(3, "0")}`);
  clock.dateTime = time.toISOString();
  element.append(clock, node("span", "topic", message.topic), node("span", "data", text.slice(0, 4000)),
    node("span", "sender", message.sender ?? ""));
  element.hidden = !matches(element);
  return element;
}

const matches = (element) => element.textContent.toLowerCase().includes(at("filter").value.toLowerCase());

function publish(event) {
  event.preventDefault();
  const topic = at("publish-topic").value.trim(), text = at("publish-data").value;
  let data = text;
  try { data = JSON.parse(text); } catch { /* then it is text */ }
  if (!topics.has(topic) && !topic.startsWith("$")) follow(topic, true);
  request({ op: "publish", topic, data }, (reply) => said(`Published${reply.offset ? ` at offset ${reply.offset}` : ""}.`),
    (error) => said(`Not published: ${error.message}`, "bad"));
}

const said = (text, className = "") => Object.assign(at("published"), { textContent: text, className });

// --- access, and the controls ----------------------------------------------------------------------------------------

function askAccess(why) {
  at("access-why").textContent = why;
  if (!at("access").open) at("access").showModal();
}

at("keys").onclick = () => askAccess("A token says who you are; an API key lets this page list the topics.");
at("access-cancel").onclick = () => at("access").close();
at("access-form").onsubmit = () => {
  if (at("token").value.trim() !== token) session = null;
  token = at("token").value.trim();
  apiKey = at("api-key").value.trim();
  for (const topic of topics.values()) topic.wanted ||= Boolean(topic.trouble);
  failures = 0;
  connect();
};
at("publish-form").onsubmit = publish;
at("follow-form").onsubmit = (event) => {
  event.preventDefault();
  follow(at("follow").value.trim(), true);
  event.target.reset();
};
at("pause").onclick = () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", String(paused));
  at("pause").textContent = paused ? "Go on" : "Pause";
};
at("clear").onclick = () => {
  at("feed").replaceChildren();
  at("no-messages").hidden = false;
};
at("filter").oninput = () => [...at("feed").children].forEach((element) => { element.hidden = !matches(element); });
addEventListener("online", () => document.body.dataset.state !== "connected" && connect());
addEventListener("focus", () => document.body.dataset.state === "connected" && listTopics());

setInterval(beat, BEAT_S * 1000);
setInterval(() => !document.hidden && document.body.dataset.state === "connected" && listTopics(), 3000);
setInterval(() => { at("rate").textContent = `${rate}/s`; rate = 0; }, 1000);
connect();
