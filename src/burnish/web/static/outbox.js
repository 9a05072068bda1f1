// The outbox: an answer goes into it before it is sent, and leaves when the studio has confirmed it.
//
// Each answer has an id made here and a key of its own in localStorage, so that two tabs never write
// over each other's. After a reload, a lost network, a restarted server or a new sign-in the outbox
// is sent again; the server knows the id, so an answer that had arrived stays one.

import { forget, keysBeginning, read, write } from "./storage.js";

const RETRY_MS = 2000;

// `sent` is called when all have arrived; `refused` with an answer the studio will never take.
export function makeOutbox({ prefix, url, csrf, signIn, say, sent, refused }) {
  const unkept = new Map(); // What storage would not take; gone with the page.
  let sending = false;
  let hadSome = false;
  let retry = 0;

  function waiting() {
    const kept = keysBeginning(prefix).map((key) => read(key, null)).filter(Boolean);
    const known = new Set(kept.map((item) => item.client_id));
    const all = [...kept, ...[...unkept.values()].filter((item) => !known.has(item.client_id))];
    return all.sort((a, b) => a.written_at - b.written_at);
  }

  function put(item) {
    const entry = { ...item, client_id: crypto.randomUUID(), written_at: Date.now() };
    if (!write(prefix + entry.client_id, entry)) unkept.set(entry.client_id, entry);
    flush();
  }

  function drop(item) {
    forget(prefix + item.client_id);
    unkept.delete(item.client_id);
  }

  async function post({ written_at: _, ...item }) {
    try {
      const body = JSON.stringify(item);
      const headers = { "Content-Type": "application/json", "X-CSRF-Token": csrf };
      return await fetch(url, { method: "POST", headers, body });
    } catch {
      return null;
    }
  }

  // Says why it has to wait, and tries again.
  async function wait(answer, count) {
    const kept = `${count === 1 ? "Your answer is" : `${count} answers are`} kept in this browser`;
    if (answer?.status === 401) {
      say(`You are signed out. ${kept}: sign in, and it is sent.`, { link: signIn, linkText: "Sign in" });
    } else if (answer?.status === 403) {
      say(`${await faultOf(answer)} ${kept}: load the page again, and it is sent.`, { link: "", linkText: "Load again" });
    } else {
      const fault = answer ? await faultOf(answer) : "the studio cannot be reached";
      const loss = unkept.size ? " Do not close this page: the browser's storage is full or off." : "";
      say(`Not sent yet: ${fault}. ${kept} and will be sent as soon as possible.${loss}`);
    }
    clearTimeout(retry);
    retry = setTimeout(flush, RETRY_MS);
  }

  async function flush() {
    if (sending) return;
    sending = true;
    try {
      const items = waiting();
      let left = items.length;
      hadSome ||= left > 0;
      for (const item of items) {
        const answer = await post(item);
        const mayPass = answer === null || answer.status >= 500 || [401, 403, 408, 429].includes(answer.status);
        if (mayPass) return await wait(answer, left);
        drop(item);
        left -= 1;
        if (!answer.ok) {
          hadSome = false;
          return refused(item, await faultOf(answer));
        }
      }
      if (hadSome) sent(); // This tab's, or another tab of the same person has sent them.
    } finally {
      sending = false;
    }
  }

  addEventListener("online", flush);
  return { put, flush, waiting };
}

export async function faultOf(answer) {
  const body = await answer.json().catch(() => ({ error: answer.statusText }));
  return body.error;
}
