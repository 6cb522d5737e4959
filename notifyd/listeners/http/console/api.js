// The HTTP API of the node that served this page. The key lives in this module's memory, and nowhere else.

let key = "";

export const theKey = () => key;
export function setKey(text) {
  key = text;
}

// Asks, and returns the answer's JSON, null where it has none. Raises Error; its `status` is 0 where nobody answered.
export async function ask(method, path) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const answer = await fetch(path, { method, headers }).catch(() => null);
  const json = await answer?.json().catch(() => null) ?? null;
  if (answer?.ok) return json;
  const message = json?.error?.message ?? (answer ? `the node answered ${answer.status}` : "the node does not answer");
  throw Object.assign(new Error(message), { status: answer?.status ?? 0 });
}
