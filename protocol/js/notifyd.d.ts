/** Where a client stands; spec/states.md of notifyd has the steps between them. */
export type State = "disconnected" | "connecting" | "connected" | "backing off" | "unavailable";

/** A place in a topic's history. */
export interface Position {
  epoch: string;
  offset: number;
}

/** What a subscription begins with: what comes from now on, all that is kept, or what follows a position. */
export type Since = "latest" | "earliest" | Position;

export interface Message<Data = any> {
  op: "message";
  topic: string;
  data: Data;
  /** When the broker accepted it: milliseconds of Unix time. */
  time: number;
  /** The user who published it; missing where a backend did. */
  sender?: string;
  /** Both are there where the topic keeps history. */
  epoch?: string;
  offset?: number;
  /** W3C trace context of the publish, where the topic's policy passes it on. */
  trace?: string;
}

/**
 * The offsets `from` to `to` of `epoch` will not come; both are 0 where nothing could be named.
 *
 * `reason` is the server's word ("slow", "expired", "epoch"), or the client's: "expired" (kept no more when the
 * connection was back), "epoch" (the history began anew), "skipped" (nobody announced it), "slow" (the subscription
 * ended before its consumer had caught up), "no_history" (the topic keeps none, and the connection was away).
 */
export interface Gap {
  op: "gap";
  topic: string;
  from: number;
  to: number;
  epoch?: string;
  reason: string;
}

export interface Presence {
  op: "joined" | "left";
  topic: string;
  user: string;
  session: string;
}

/**
 * Every error of this client but those of the language, of `AbortSignal` and of the user's own functions.
 *
 * | code | reason | |
 * |---|---|---|
 * | 400 to 504 | the server's word, such as "forbidden" | it refused a request |
 * | 409 | "conflict" | this client has a subscription of the topic already |
 * | 413 | "too_large" | a request larger than the server takes |
 * | 4000, 4001, 4003, 4100 | "protocol_error", "unauthorized", "forbidden", "replaced" | the client is over: the server will not have it |
 * | 1000 | "closed" | the client was closed |
 * | null | "answer_lost" | a publish that may have been accepted, and can no longer be repeated safely |
 * | null | the server's word | the server ended a subscription |
 * | null | "no_websocket" | there is no `WebSocket` here, and none was passed |
 */
export class NotifydError extends Error {
  readonly code: number | null;
  readonly reason: string;
  /** Seconds to wait before asking again, where the server said so. */
  readonly retryAfter?: number;
}

/** Anything with the constructor and the methods of a browser's WebSocket, such as that of the npm package `ws`. */
export type WebSocketClass = new (url: string, protocols: string[]) => any;

/** All times are in seconds. */
export interface Options {
  /** A JWT; or a function that fetches one: called when there is none yet, before it expires, and when it is refused. */
  token?: string | (() => string | Promise<string>);
  /** A session to resume: `client.session` of an earlier client. Two clients cannot have one session. */
  session?: string;
  /** The wish for the time between heartbeats, 30. */
  heartbeat?: number;
  /** The least time without any sign of life, after a heartbeat, for which a server is lost: 10. */
  floor?: number;
  /** Needed where there is no global one: Node before 22. */
  WebSocket?: WebSocketClass;
}

export interface SubscribeOptions {
  /** "latest" unless given. */
  since?: Since;
  /** How many messages wait for an iterator at most, 1000; at least 1. */
  queue?: number;
}

export interface AskOptions {
  /** Gives the request up. Without it, a request waits for a connection as long as it takes. */
  signal?: AbortSignal;
}

export interface Published {
  topic: string;
  /** Both are there where the topic keeps history. */
  epoch?: string;
  offset?: number;
  /** Only clients of one node could be reached: its broker is away. */
  scope?: "node";
}

export interface History<Data = any> {
  /** Missing where the topic keeps no history. */
  epoch?: string;
  messages: Omit<Message<Data>, "op">[];
  /** Kept messages after the last one were left out. */
  more: boolean;
}

export interface Member {
  user: string;
  session: string;
  /** When it subscribed: milliseconds of Unix time. */
  since: number;
}

/** What the server said when it accepted the connection. */
export interface Welcome {
  user: string;
  node: string;
  session: string;
  resumed: boolean;
  heartbeat: number;
  /** When the token expires: seconds of Unix time. */
  expires?: number;
}

export interface GoAway {
  reason: string;
  after: number;
  within: number;
}

/**
 * One topic's messages, over any number of connections: in order, none twice, none missing without a gap.
 *
 * Either iterate or listen. An iterator yields messages and gaps; leaving its loop closes the subscription, without an error. It throws
 * where the server refused or ended the subscription. One that is slower than the messages holds `queue` of them; what
 * comes meanwhile is let go, and the server is asked for it again.
 */
export interface Subscription<Data = any> extends AsyncIterableIterator<Message<Data> | Gap> {
  readonly topic: string;
  /** That of the newest message or gap: where a later client may go on; null before the first, and without history. */
  readonly position: Position | null;
  /** Each returns a function that takes the listener away. A "message" listener takes what comes, instead of an iterator. */
  on(type: "message", listener: (message: Message<Data>) => void): () => void;
  on(type: "gap", listener: (gap: Gap) => void): () => void;
  /** Who came and went, where the topic's policy says so. */
  on(type: "joined" | "left", listener: (presence: Presence) => void): () => void;
  /** The server has the subscription: the first time, and again after each reconnect. */
  on(type: "begin", listener: (reply: { epoch?: string; offset?: number; recovered?: boolean; scope?: "node" }) => void): () => void;
  /** It is over: closed (no error), refused, or ended by the server. */
  on(type: "end", listener: (error?: NotifydError) => void): () => void;
  close(): void;
}

/** A client that keeps itself connected until it is closed, or the server will not have it. */
export interface Client {
  readonly state: State;
  /** Why the last connection or attempt ended, for people; null while connected. */
  readonly problem: string | null;
  readonly session: string | undefined;
  /** null while there is no connection. */
  readonly welcome: Welcome | null;
  /** The mean of the last five heartbeats; 0 before the first. */
  readonly roundTrip: number;
  /** Each returns a function that takes the listener away. */
  on(type: "state", listener: (state: State) => void): () => void;
  /** What no promise and no loop tells. Where nobody listens, it is written to the console. */
  on(type: "error", listener: (error: Error) => void): () => void;
  /** The server is leaving: the client reconnects by itself. */
  on(type: "goaway", listener: (goaway: GoAway) => void): () => void;
  /**
   * Resolves when the message is accepted. It is sent again, with its key, over reconnects and refusals that pass, for
   * four minutes at most, and accepted once; the server knows a key for five. Without `key` one is made.
   */
  publish(topic: string, data: unknown, options?: AskOptions & { key?: string }): Promise<Published>;
  /** A topic can be subscribed once at a time. `listener` is short for `.on("message", listener)`. */
  subscribe<Data = any>(
    topic: string,
    options?: SubscribeOptions,
    listener?: (message: Message<Data>) => void,
  ): Subscription<Data>;
  /** Kept messages after `since` ("earliest" unless given), oldest first; 100 unless `limit` says otherwise, at most 1000. */
  history<Data = any>(topic: string, options?: AskOptions & { since?: Since; limit?: number }): Promise<History<Data>>;
  presence(topic: string, options?: AskOptions): Promise<Member[]>;
  /** Replaces the token, now and for the next connections. A token function makes this needless. */
  refresh(token: string, options?: AskOptions): Promise<void>;
  /** Ends every promise with an error, and every loop. */
  close(): void;
}

/**
 * Begins to keep a connection to the server at `url`: `ws://`, `wss://`, or the URL of a page for the same host. The path
 * is `/ws` where there is none.
 *
 * Throws where there is no WebSocket, and for a URL that is none.
 */
export function connect(url: string | URL, options?: Options): Client;
