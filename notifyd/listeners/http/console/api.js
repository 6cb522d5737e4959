// The HTTP API of the node that served this page. The key lives in this module's memory, and nowhere else.

let key = "";

export const hasKey = () => key !== "";
export const theKey = () => key;
export function setKey(text) {
  key = text;
}

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Asks and returns the answer's JSON (null where it has none). Raises Refused; its status is 0 where nobody answered.
export async function ask(method, path) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  let answer;
  try {
    answer = await fetch(path, { method, headers, credentials: "omit" });
  } catch {
    throw new Refused(0, "the node does not answer");
  }
  const text = await answer.text();
  const json = text && answer.headers.get("content-type")?.startsWith("application/json") ? JSON.parse(text) : null;
  if (!answer.ok) throw new Refused(answer.status, json?.error?.message ?? `the node answered ${answer.status}`);
  return json;
}
